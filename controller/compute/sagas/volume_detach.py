"""A volume goes from a server.

    step     does
    domain   the disk is no part of the domain's intent, and the guest lets go; what came of it is the step's output:
             `gone`   it did
             `kept`   it did not for too long, or cannot: the disk is part of the intent again
             `left`   the server is being deleted, and its deletion sees to the rest
    export   gone: nobody reaches the volume by this attachment; kept: the host is told again
    finish   gone: the volume is free; kept: it is in use as before

Only forward: a guest that does not let go is an outcome, no failure. A host that is silent keeps it waiting.
"""

from typing import Any, Final

from agent.wire.domain import DomainStatus
from controller.compute import domains, plugs, store
from controller.compute.sagas.volume_attach import AttachParams, is_going, push_unless_going
from controller.db.tx import Tx
from controller.errors import CloudError
from controller.saga.model import Cause, Commit, Run, Saga, Step
from controller.volume import attachments
from controller.volume.attachments import Told

GONE, KEPT, LEFT = "gone", "kept", "left"


async def unplug(run: Run[AttachParams]) -> Commit:
    """The guest lets go, or does not."""
    params = run.params
    run.notes["host"] = params.host_name
    if not await run.deps.db.write(_unplug, params):
        return Commit(_ended_as, (LEFT,))
    try:
        status = await domains.push_patiently(run, params.server_id, params.host_id)
    except CloudError as error:
        if await run.deps.db.read(is_going, params.server_id):
            return Commit(_ended_as, (LEFT,))
        return Commit(_keep, (params, error.message))
    return Commit(_let_go, (params, status))


def _unplug(tx: Tx, params: AttachParams) -> bool:
    if is_going(tx, params.server_id):
        return False
    plugs.set_plugged(tx, params.attachment_id, False)
    return True


def _ended_as(tx: Tx, end: str) -> dict[str, str]:
    return {"end": end}


def _let_go(tx: Tx, params: AttachParams, status: DomainStatus) -> dict[str, str]:
    store.pushed(tx, params.server_id, status.generation.n)
    return {"end": GONE}


def _keep(tx: Tx, params: AttachParams, why: str) -> dict[str, str]:
    plugs.set_plugged(tx, params.attachment_id, True)
    return {"end": KEPT, "why": why}


async def unexport(run: Run[AttachParams]) -> None:
    """Nobody reaches the volume by this attachment; or the host knows again that the guest has it."""
    params, output = run.params, run.outputs["domain"]
    if output["end"] == GONE:
        await attachments.remove_export(run.deps, params.attachment_id, run.deadline)
    elif output["end"] == KEPT:
        await push_unless_going(run, params.server_id, params.host_id)


async def finish(run: Run[AttachParams]) -> Commit:
    """What the database holds of it."""
    output = run.outputs["domain"]
    return Commit(_finish, (run.params, output["end"], output.get("why", ""), run.deps.world.clock.now()))


def _finish(tx: Tx, params: AttachParams, end: str, why: str, now: float) -> None:
    store.end_action(tx, params.server_id, params.request_id, now, is_error=end != GONE)
    if end == GONE:
        plugs.drop(tx, params.attachment_id)
        attachments.release(tx, params.attachment_id, now)
    elif end == KEPT:
        attachments.attached(tx, params.attachment_id, now)
        cause = Cause(message=f"The guest has not let go of the volume: {why}")
        attachments.tell(tx, params.volume_id, _told(params), cause, now)


def _told(params: AttachParams) -> Told:
    return Told(params.request_id, params.message_id)


def overdue(tx: Tx, params: AttachParams, cause: Cause, now: float) -> None:
    """A host is silent: the user is told now; the rest follows when it returns."""
    store.end_action(tx, params.server_id, params.request_id, now, is_error=True)
    attachments.failed(tx, params.attachment_id, _told(params), cause, now)


DETACH: Final[Saga[Any]] = Saga(
    "volume-detach",
    1,
    AttachParams,
    steps=(Step("domain", unplug), Step("export", unexport), Step("finish", finish)),
    deadline_s=300.0,
    forward_only=True,
    overdue=overdue,
)
