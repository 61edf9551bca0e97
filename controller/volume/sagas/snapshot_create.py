"""Taking a snapshot, where its volume lies.

step       do                                                       undo
room       the pool can take one more                               (the row is the claim)
snapshot   the snapshot is on the host; the row is AVAILABLE        absent
"""

from typing import Final

import msgspec

from agent.wire import volume as calls
from controller import patience
from controller.config import VolumeLimits
from controller.db.tx import Tx
from controller.saga.model import Cause, Commit, Run, Saga, Step
from controller.volume import making, messages, pools, specs
from controller.volume.messages import About
from controller.volume.model import Snapshot, SnapshotStatus
from controller.volume.pools import Free
from controller.volume.store import snapshots


class SnapshotParams(msgspec.Struct, frozen=True, kw_only=True):
    """Everything else is in the snapshot's row."""

    snapshot_id: str
    project_id: str
    request_id: str
    message_id: str


async def find_room(run: Run[SnapshotParams]) -> Commit:
    """The pool can take it."""
    cloud = run.deps
    return Commit(_find_room, (run.params.snapshot_id, pools.free_now(cloud), cloud.settings.volume))


def _find_room(tx: Tx, snapshot_id: str, free: Free, limits: VolumeLimits) -> None:
    row = making.wanted_snapshot(tx, snapshot_id)
    assert row.host_id is not None, "a snapshot is where its volume is"
    assert row.pool is not None
    pools.check(tx, (row.host_id, row.pool), 0, free, limits)  # The row is counted already.


async def make(run: Run[SnapshotParams]) -> Commit:
    """The snapshot is there."""
    row: Snapshot = await run.deps.db.read(making.wanted_snapshot, run.params.snapshot_id)
    assert row.host_id is not None, "checked before"
    spec = specs.snapshot_spec(row, run.deps.epoch)
    await patience.ensure(run, row.host_id, calls.SNAPSHOT_ENSURE, calls.SNAPSHOT_GET, spec)
    return Commit(_made, (run.params.snapshot_id, run.deps.world.clock.now()))


def _made(tx: Tx, snapshot_id: str, now: float) -> None:
    before = (SnapshotStatus.CREATING.value, SnapshotStatus.ERROR.value)
    snapshots.move(tx, snapshot_id, before, SnapshotStatus.AVAILABLE.value, now)


async def unmake(run: Run[SnapshotParams]) -> None:
    """The snapshot is gone."""
    row: Snapshot | None = await run.deps.db.read(snapshots.find, run.params.snapshot_id)
    if row is not None and row.host_id is not None:
        generation = await run.deps.db.write(snapshots.bump, row.id)
        await making.remove_snapshot(run.deps, row.id, row.host_id, generation, run.deadline)


def undone(tx: Tx, params: SnapshotParams, cause: Cause, now: float) -> None:
    """It is nowhere, and claims nothing; the row tells the user."""
    overdue(tx, params, cause, now)
    snapshots.change(tx, params.snapshot_id, {"host_id": None, "pool": None})


def overdue(tx: Tx, params: SnapshotParams, cause: Cause, now: float) -> None:
    """The user reads why."""
    if snapshots.find(tx, params.snapshot_id) is None:
        return
    before = (SnapshotStatus.CREATING.value, SnapshotStatus.ERROR.value)
    snapshots.move(tx, params.snapshot_id, before, SnapshotStatus.ERROR.value, now)
    whose = (params.project_id, params.request_id, messages.SNAPSHOT, params.snapshot_id)
    messages.tell(tx, params.message_id, About.SNAPSHOT_CREATE, whose, cause, now)


CREATE: Final = Saga(
    "snapshot-create",
    1,
    SnapshotParams,
    steps=(Step("room", find_room), Step("snapshot", make, unmake)),
    deadline_s=600.0,
    undone=undone,
    overdue=overdue,
)
