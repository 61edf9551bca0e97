"""Removing a server, from whatever state it is in.

    step      does
    settle    waits until the server's other sagas rest (they were asked to stop); raises the generation
    domain    the domain is absent
    unplug    the ports are off the host
    disk      the root disk is absent
    volumes   nobody reaches its volumes by it any more; they are free, or go with it
    finish    ports, claim and row in one transaction

Only forward: a delete that was accepted is never taken back. A host that is silent keeps it waiting; past the
deadline the row turns to ERROR and says why, and the deletion goes on when the host returns or is removed.
The domain is absent before anything is freed that it may still write.
"""

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec

from controller.compute import domains, ending, group_store, migration_store, plugs, resize_store, store
from controller.compute.model import Event
from controller.compute.plugs import Plug
from controller.compute.sagas import capturing, faults, moving
from controller.db.tx import Tx
from controller.network import ports, wiring
from controller.saga.log import settled
from controller.saga.model import Cause, Commit, Run, Saga, State, Step, Transient
from controller.schedule import claim
from controller.volume import attachments

if TYPE_CHECKING:
    from controller.cloud import Cloud


class DeleteParams(msgspec.Struct, frozen=True, kw_only=True):
    """Everything else is in the server's row."""

    server_id: str
    request_id: str


class Seized(msgspec.Struct, frozen=True, kw_only=True):
    """The output of `settle`: nobody else works on the server, and this is where it is."""

    generation: int
    host_id: str | None
    host_name: str | None
    port_ids: tuple[str, ...]
    has_rescue_disk: bool = False


async def settle(run: Run[DeleteParams]) -> Commit:
    """Wait for the others, then take the server."""
    return Commit(_seize, (run.params.server_id, run.saga_id))


def _seize(tx: Tx, server_id: str, saga_id: str) -> dict[str, object]:
    if not settled(tx, server_id, saga_id):
        raise Transient("another operation on this server has not come to rest yet")
    server = store.find(tx, server_id)
    assert server is not None, "rows of servers outlive their sagas"
    return {
        "generation": store.bump(tx, server_id),
        "host_id": server.host_id,
        "host_name": server.host_name,
        "port_ids": [nic.port_id for nic in store.nics(tx, server_id)],
        "has_rescue_disk": server.rescue_image_id is not None,
    }


async def remove_domain(run: Run[DeleteParams]) -> None:
    """The domain is gone."""
    seized = _seized(run)
    if seized.host_id is not None:
        await domains.remove(run.deps, run.params.server_id, seized.host_id, seized.generation, run.deadline)


async def unplug(run: Run[DeleteParams]) -> None:
    """Its ports are off the host."""
    seized = _seized(run)
    host_id = seized.host_id
    if host_id is not None:
        going = [wiring.unplug(run.deps, host_id, port_id, run.deadline) for port_id in seized.port_ids]
        # No TaskGroup: one port's silence must stay what it is, and not become a group of exceptions.
        for end in await asyncio.gather(*going, return_exceptions=True):
            if end is not None:
                raise end


async def remove_disk(run: Run[DeleteParams]) -> None:
    """Its disk is gone, and one that it was rescued from."""
    seized = _seized(run)
    if seized.host_id is not None:
        where = (seized.host_id, seized.generation, run.deadline)
        await domains.remove_disk(run.deps, run.params.server_id, *where)
        if seized.has_rescue_disk:
            await domains.remove_rescue_disk(run.deps, run.params.server_id, *where)


async def release_volumes(run: Run[DeleteParams]) -> None:
    """Nobody reaches its volumes by it; then they are free, and those that end with the server end."""
    cloud, server_id = run.deps, run.params.server_id
    going: list[Plug] = await cloud.db.read(plugs.of_server, server_id)
    if not going:
        return
    ends = [attachments.remove_export(cloud, plug.attachment_id, run.deadline) for plug in going]
    for end in await asyncio.gather(*ends, return_exceptions=True):
        if end is not None:
            raise end
    uuid = cloud.world.entropy.uuid
    drawn = {plug.attachment_id: (uuid(), uuid()) for plug in going}
    for saga_id in await cloud.db.write(_release_volumes, run.params, drawn, cloud.world.clock.now()):
        cloud.sagas.kick(saga_id)


def _release_volumes(tx: Tx, params: DeleteParams, drawn: dict[str, tuple[str, str]], now: float) -> list[str]:
    return [
        saga_id
        for plug in plugs.of_server(tx, params.server_id)
        if plug.attachment_id in drawn
        for saga_id in ending.release(tx, plug, params.request_id, drawn[plug.attachment_id], now)
    ]


async def finish(run: Run[DeleteParams]) -> Commit:
    """What the database holds of it."""
    return Commit(_bury, (run.params, _seized(run), run.deps.world.entropy.uuid(), run.deps.world.clock.now()))


def _bury(tx: Tx, params: DeleteParams, seized: Seized, leave_id: str, now: float) -> None:
    server_id = params.server_id
    _leave_other_size(tx, params, seized.generation, leave_id, now)
    for nic in store.nics(tx, server_id):
        ports.release_for_server(tx, port_id=nic.port_id, created=nic.is_ours, server_id=server_id, now=now)
    store.drop_nics(tx, server_id)
    store.drop_guest(tx, server_id)
    _let_go(tx, server_id, now)
    store.report(tx, server_id, Event.DELETED, now, deleted_at=now, terminated_at=now)
    store.end_action(tx, server_id, params.request_id, now, is_error=False)


def _leave_other_size(tx: Tx, params: DeleteParams, generation: int, leave_id: str, now: float) -> None:
    """What stayed on another host until a word about its size came."""
    server, resize = store.find(tx, params.server_id), resize_store.find(tx, params.server_id)
    if server is not None and resize is not None:
        moving.leave_other_size(tx, server, resize, generation, leave_id, params.request_id, now)


def _let_go(tx: Tx, server_id: str, now: float) -> None:
    """Claims, also of a size that it had; its place in a group; what it was kept as on the shelf."""
    claim.release(tx, server_id)
    resize = resize_store.find(tx, server_id)
    if resize is not None:
        claim.release(tx, resize.id)
        migration_store.change(tx, resize.id, now, status="confirmed")
        resize_store.drop(tx, server_id)
    group_store.leave(tx, server_id)
    server = store.find(tx, server_id)
    if server is not None and server.shelved_image_id is not None:
        capturing.drop_image(tx, server.shelved_image_id, now)


def overdue(tx: Tx, params: DeleteParams, cause: Cause, now: float) -> None:
    """It takes too long: the user is told why. The deletion goes on."""
    late = msgspec.structs.replace(cause, message=f"The deletion cannot finish yet: {cause.message}")
    store.report(tx, params.server_id, Event.DELETE_OVERDUE, now, **faults.columns(late, now))
    store.end_action(tx, params.server_id, params.request_id, now, is_error=True)


def _seized(run: Run[DeleteParams]) -> Seized:
    seized = msgspec.convert(run.outputs["settle"], Seized)
    if seized.host_name is not None:
        run.notes["host"] = seized.host_name
    return seized


def rested(cloud: "Cloud", state: State) -> None:
    """Its addresses are no longer members of its groups, and its networks may be needed no more: hosts learn it now."""
    cloud.tasks.kick("network_sync")
    capturing.rested(cloud, state)


DELETE: Final = Saga(
    "server-delete",
    1,
    DeleteParams,
    steps=(
        Step("settle", settle),
        Step("domain", remove_domain, deferred=True),
        Step("unplug", unplug, deferred=True),
        Step("disk", remove_disk, deferred=True),
        Step("volumes", release_volumes, deferred=True),
        Step("finish", finish),
    ),
    deadline_s=600.0,
    forward_only=True,
    overdue=overdue,
    rested=rested,
)
