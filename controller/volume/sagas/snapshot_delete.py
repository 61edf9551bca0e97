"""Removing a snapshot. Only forward, as the deletion of a volume is.

step       does
settle     waits until its other sagas rest (they were asked to stop); raises the generation
snapshot   the snapshot is absent, and its row gone
"""

from typing import Final

import msgspec

from controller.db.tx import Tx
from controller.saga.log import settled
from controller.saga.model import Cause, Commit, Run, Saga, Step, Transient
from controller.volume import making, messages
from controller.volume.messages import About
from controller.volume.model import SnapshotStatus
from controller.volume.sagas.snapshot_create import SnapshotParams
from controller.volume.store import snapshots


async def settle(run: Run[SnapshotParams]) -> Commit:
    """Wait for the others, then take the snapshot."""
    return Commit(_seize, (run.params.snapshot_id, run.saga_id))


def _seize(tx: Tx, snapshot_id: str, saga_id: str) -> dict[str, object]:
    if not settled(tx, snapshot_id, saga_id):
        raise Transient("another operation on this snapshot has not come to rest yet")
    row = snapshots.find(tx, snapshot_id)
    assert row is not None, "only its deletion drops a snapshot's row"
    return {"host_id": row.host_id, "generation": snapshots.bump(tx, snapshot_id)}


async def remove(run: Run[SnapshotParams]) -> Commit:
    """The snapshot is gone."""
    seized = run.outputs["settle"]
    if seized["host_id"] is not None:
        snapshot_id, generation = run.params.snapshot_id, seized["generation"]
        await making.remove_snapshot(run.deps, snapshot_id, seized["host_id"], generation, run.deadline)
    return Commit(snapshots.drop, (run.params.snapshot_id,))


def overdue(tx: Tx, params: SnapshotParams, cause: Cause, now: float) -> None:
    """It takes too long: the user is told why. The deletion goes on."""
    before = (SnapshotStatus.DELETING.value, SnapshotStatus.ERROR_DELETING.value)
    snapshots.move(tx, params.snapshot_id, before, SnapshotStatus.ERROR_DELETING.value, now)
    late = msgspec.structs.replace(cause, message=f"The deletion cannot finish yet: {cause.message}")
    whose = (params.project_id, params.request_id, messages.SNAPSHOT, params.snapshot_id)
    messages.tell(tx, params.message_id, About.SNAPSHOT_DELETE, whose, late, now)


DELETE: Final = Saga(
    "snapshot-delete",
    1,
    SnapshotParams,
    steps=(Step("settle", settle), Step("snapshot", remove)),
    deadline_s=600.0,
    forward_only=True,
    overdue=overdue,
)
