"""A volume comes to a server that is on a host.

    step     do                                                     undo
    export   the volume can be reached by that host; the disk is    nobody reaches it by this attachment
             part of the domain's intent
    domain   the guest has the disk; the volume is IN-USE           the disk is no part of it, and the guest let go

Undone from the end: the guest lets go before the export goes. If the server is being deleted meanwhile, all this is
left to its deletion, which takes the domain first and the exports then.
"""

from typing import Any, Final

import msgspec

from agent.wire.domain import DomainStatus
from agent.wire.volume import ExportStatus
from controller.compute import carrying, domains, plugs, store
from controller.compute.plugs import Plug
from controller.db.tx import Tx
from controller.errors import CloudError, Conflict
from controller.saga.model import Cause, Commit, Run, Saga, Step, Transient
from controller.volume import attachments
from controller.volume.attachments import Told
from controller.volume.model import Attachment


class AttachParams(msgspec.Struct, frozen=True, kw_only=True):
    """Which volume, which server, and where it is: that does not change while this is under way."""

    server_id: str
    volume_id: str
    attachment_id: str
    request_id: str
    message_id: str
    host_id: str
    host_name: str


async def export(run: Run[AttachParams]) -> Commit:
    """The server's host reaches the volume."""
    params = run.params
    await run.deps.db.read(check_stays, params.server_id)
    host_id, host_name = await _host(run)
    initiators = (run.deps.fence.initiator(host_id),)
    status = await attachments.ensure_export(run, params.attachment_id, initiators, host_name)
    return Commit(_exported, (params, status))


async def _host(run: Run[AttachParams]) -> tuple[str, str]:
    """Where the server is: its host may have died meanwhile, and the server been evacuated."""
    server = await run.deps.db.read(store.find, run.params.server_id)
    assert server is not None, "rows of servers outlive their sagas"
    run.notes["host"] = server.host_name or run.params.host_name
    return server.host_id or run.params.host_id, run.notes["host"]


def check_stays(tx: Tx, server_id: str) -> None:
    """Raises Conflict for a server that is gone or going."""
    if is_going(tx, server_id):
        raise Conflict("The server is being deleted.")


def is_going(tx: Tx, server_id: str) -> bool:
    """Whether the server is gone, or its deletion was accepted."""
    server = store.find(tx, server_id)
    return server is None or server.is_deleting or server.deleted_at is not None


def _exported(tx: Tx, params: AttachParams, status: ExportStatus) -> None:
    check_stays(tx, params.server_id)
    attachments.answered(tx, params.attachment_id, status)
    plugs.set_plugged(tx, params.attachment_id, True)


async def plug(run: Run[AttachParams]) -> Commit:
    """The guest has the disk."""
    await _follow(run)
    status = await domains.push_patiently(run, run.params.server_id, run.params.host_id)
    return Commit(_plugged, (run.params, status, run.deps.world.clock.now()))


async def _follow(run: Run[AttachParams]) -> None:
    """The host where the server is now reaches the volume. Raises Transient while the server is on its way."""
    host_id, host_name = await _host(run)
    initiator = run.deps.fence.initiator(host_id)
    plug, row, is_busy = await run.deps.db.read(_seen, run.params)
    if plug is None or row is None or row.initiators == [initiator]:
        return
    if is_busy:
        raise Transient("the server is on its way to another host")
    await carrying.reach_one(run, plug, (initiator,), host_name)


def _seen(tx: Tx, params: AttachParams) -> tuple[Plug | None, Attachment | None, bool]:
    server = store.find(tx, params.server_id)
    is_busy = server is None or server.task_state is not None
    return plugs.find(tx, params.server_id, params.volume_id), attachments.find(tx, params.attachment_id), is_busy


def _plugged(tx: Tx, params: AttachParams, status: DomainStatus, now: float) -> None:
    store.pushed(tx, params.server_id, status.generation.n)
    attachments.attached(tx, params.attachment_id, now)
    store.end_action(tx, params.server_id, params.request_id, now, is_error=False)


async def unplug(run: Run[AttachParams]) -> None:
    """The guest has let go."""
    params = run.params
    if await run.deps.db.write(_unplug, params.server_id, params.attachment_id):
        await push_unless_going(run, params.server_id, params.host_id)


def _unplug(tx: Tx, server_id: str, attachment_id: str) -> bool:
    """Whether there is something to tell the host: the disk was part of the intent, now or before a crash."""
    if is_going(tx, server_id):
        return False
    plugs.set_plugged(tx, attachment_id, False)
    row = attachments.find(tx, attachment_id)
    return row is not None and row.generation > 0


async def push_unless_going(run: Run[Any], server_id: str, host_id: str) -> bool:
    """The host holds the newest intent; False: the server is being deleted, and its deletion sees to the rest."""
    try:
        await domains.push(run.deps, server_id, host_id, run.deadline)
    except CloudError:
        if await run.deps.db.read(is_going, server_id):
            return False
        raise
    return True


async def unexport(run: Run[AttachParams]) -> None:
    """Nobody reaches the volume by this attachment."""
    if not await run.deps.db.read(is_going, run.params.server_id):
        await attachments.remove_export(run.deps, run.params.attachment_id, run.deadline)


def undone(tx: Tx, params: AttachParams, cause: Cause, now: float) -> None:
    """The volume is free again, and the user reads why."""
    store.end_action(tx, params.server_id, params.request_id, now, is_error=True)
    if is_going(tx, params.server_id):
        return
    plugs.drop(tx, params.attachment_id)
    attachments.release(tx, params.attachment_id, now)
    attachments.tell(tx, params.volume_id, Told(params.request_id, params.message_id), cause, now)


def overdue(tx: Tx, params: AttachParams, cause: Cause, now: float) -> None:
    """A host is silent: the user is told now; the rest follows when it returns."""
    store.end_action(tx, params.server_id, params.request_id, now, is_error=True)
    attachments.failed(tx, params.attachment_id, Told(params.request_id, params.message_id), cause, now)


ATTACH: Final = Saga(
    "volume-attach",
    1,
    AttachParams,
    steps=(Step("export", export, unexport), Step("domain", plug, unplug)),
    deadline_s=300.0,
    undone=undone,
    overdue=overdue,
)
