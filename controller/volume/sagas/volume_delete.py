"""Removing a volume, and with `cascade` its snapshots.

    step          does
    settle        waits until the volume's other sagas rest (they were asked to stop); raises the generations
    snapshot[i]   a snapshot is absent, and its row gone
    volume        the volume is absent
    finish        the row is gone

Only forward. A host that is silent keeps it waiting; past the deadline the row turns to ERROR_DELETING and a message
says why, and the deletion goes on when the host returns or is removed. The request has checked that nothing is
attached: an export is gone before its volume is.
"""

from typing import Final

import msgspec

from controller.db.tx import Tx
from controller.saga.log import settled
from controller.saga.model import Cause, Commit, Run, Saga, Step, Transient
from controller.volume import making, messages
from controller.volume.messages import About
from controller.volume.model import Event
from controller.volume.store import attachments, snapshots, volumes


class DeleteParams(msgspec.Struct, frozen=True, kw_only=True):
    """Everything else is in the rows."""

    volume_id: str
    project_id: str
    request_id: str
    message_id: str
    snapshot_ids: tuple[str, ...] = ()


async def settle(run: Run[DeleteParams]) -> Commit:
    """Wait for the others, then take the volume."""
    return Commit(_seize, (run.params, run.saga_id))


def _seize(tx: Tx, params: DeleteParams, saga_id: str) -> dict[str, object]:
    for target in (params.volume_id, *params.snapshot_ids):
        if not settled(tx, target, saga_id):
            raise Transient("another operation on this volume has not come to rest yet")
    row = volumes.find(tx, params.volume_id)
    assert row is not None, "only its deletion drops a volume's row"
    return {"host_id": row.host_id, "host_name": row.host_name, "generation": volumes.bump(tx, params.volume_id)}


async def remove_snapshot(run: Run[DeleteParams]) -> Commit:
    """One snapshot is gone."""
    snapshot_id = run.params.snapshot_ids[run.index]
    row = await run.deps.db.read(snapshots.find, snapshot_id)
    if row is not None and row.host_id is not None:
        generation = await run.deps.db.write(snapshots.bump, snapshot_id)
        await making.remove_snapshot(run.deps, snapshot_id, row.host_id, generation, run.deadline)
    return Commit(snapshots.drop, (snapshot_id,))


async def remove(run: Run[DeleteParams]) -> None:
    """The volume is gone."""
    seized = run.outputs["settle"]
    if seized["host_id"] is not None:
        run.notes["host"] = seized["host_name"]
        await making.remove(run.deps, run.params.volume_id, seized["host_id"], seized["generation"], run.deadline)


async def finish(run: Run[DeleteParams]) -> Commit:
    """What the database holds of it."""
    return Commit(_bury, (run.params.volume_id,))


def _bury(tx: Tx, volume_id: str) -> None:
    for one in attachments.of_volume(tx, volume_id):
        attachments.drop(tx, one.id)
    volumes.drop(tx, volume_id)


def overdue(tx: Tx, params: DeleteParams, cause: Cause, now: float) -> None:
    """It takes too long: the user is told why. The deletion goes on."""
    volumes.report(tx, params.volume_id, Event.DELETING_FAILED, now)
    late = msgspec.structs.replace(cause, message=f"The deletion cannot finish yet: {cause.message}")
    whose = (params.project_id, params.request_id, messages.VOLUME, params.volume_id)
    messages.tell(tx, params.message_id, About.DELETE, whose, late, now)


def _snapshots(params: DeleteParams) -> int:
    return len(params.snapshot_ids)


DELETE: Final = Saga(
    "volume-delete",
    1,
    DeleteParams,
    steps=(
        Step("settle", settle),
        Step("snapshot", remove_snapshot, each=_snapshots),
        Step("volume", remove, deferred=True),
        Step("finish", finish),
    ),
    deadline_s=600.0,
    forward_only=True,
    overdue=overdue,
)
