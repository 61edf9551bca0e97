"""What users do with snapshots: take, change, delete."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from controller.context import Context
from controller.db.tx import Tx
from controller.errors import Invalid, NotFound
from controller.saga.log import request_cancel, settled, start
from controller.volume import usage
from controller.volume.model import Event, InvalidSnapshot, InvalidVolume, Snapshot, SnapshotStatus
from controller.volume.sagas.snapshot_create import CREATE, SnapshotParams
from controller.volume.sagas.snapshot_delete import DELETE
from controller.volume.store import snapshots, types, volumes
from controller.volume.volumes import META_MAX, is_copied

if TYPE_CHECKING:
    from controller.cloud import Cloud


class NewSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A request for a snapshot. `is_forced`: also of a volume in use."""

    volume_id: str
    name: str | None = None
    description: str | None = None
    meta: dict[str, str] = {}
    is_forced: bool = False


async def create(cloud: "Cloud", ctx: Context, new: NewSnapshot) -> Snapshot:
    """Accept a snapshot. Raises NotFound, InvalidVolume, OverQuota."""
    uuid = cloud.world.entropy.uuid
    ids = (uuid(), uuid(), uuid())
    made: Snapshot = await cloud.db.write(make, ctx, new, ids, cloud.world.clock.now())
    cloud.sagas.kick(ids[1])
    return made


def make(tx: Tx, ctx: Context, new: NewSnapshot, ids: tuple[str, str, str], now: float) -> Snapshot:
    """Its row and its saga: part of somebody's transaction, who kicks the saga. `ids`: its, the saga's, a message's."""
    snapshot_id, saga_id, message_id = ids
    volume = volumes.get(tx, ctx, new.volume_id)
    event = Event.SNAPSHOT_ATTACHED if new.is_forced else Event.SNAPSHOT
    if volumes.take(tx, volume.id, event, now) is None or volume.host_id is None:
        allowed = "available or in-use" if new.is_forced else "available"
        raise InvalidVolume(
            f"Volume {volume.id} status must be {allowed}, but current status is: {volume.status}.",
            why={"status": volume.status},
        )
    kind = None if volume.type_id is None else types.find(tx, volume.type_id)
    cost = {"snapshots": 1, "gigabytes": volume.size_gib}
    usage.charge(tx, volume.project_id, None if kind is None else kind.name, cost)
    row = Snapshot(
        id=snapshot_id,
        project_id=volume.project_id,
        user_id=ctx.user_id,
        volume_id=volume.id,
        name=new.name,
        description=new.description,
        status=SnapshotStatus.CREATING.value,
        size_gib=volume.size_gib,
        type_id=volume.type_id,
        meta=new.meta,
        host_id=volume.host_id,
        pool=volume.pool,
        generation=1,
        is_deleting=False,
        created_at=now,
        updated_at=now,
    )
    snapshots.insert(tx, row)
    _start(tx, ctx, CREATE, row, (saga_id, message_id, now))
    return row


def _start(tx: Tx, ctx: Context, saga: Any, row: Snapshot, drawn: tuple[str, str, float]) -> None:
    saga_id, message_id, now = drawn
    params = SnapshotParams(
        snapshot_id=row.id, project_id=row.project_id, request_id=ctx.request_id, message_id=message_id
    )
    start(
        tx,
        saga,
        saga_id=saga_id,
        params=params,
        target=row.id,
        project_id=row.project_id,
        request_id=ctx.request_id,
        now=now,
    )


async def delete(cloud: "Cloud", ctx: Context, snapshot_id: str, *, force: bool = False) -> None:
    """Accept a deletion. Raises NotFound, InvalidSnapshot."""
    drawn = (cloud.world.entropy.uuid(), cloud.world.entropy.uuid(), cloud.world.clock.now())
    for saga_id in await cloud.db.write(_delete, ctx, snapshot_id, force, drawn):
        cloud.sagas.kick(saga_id)


def _delete(tx: Tx, ctx: Context, snapshot_id: str, force: bool, drawn: tuple[str, str, float]) -> list[str]:
    row = snapshots.get(tx, ctx, snapshot_id)
    # A volume may be taking its snapshots with it.
    is_going = row.is_deleting and not (settled(tx, row.id) and settled(tx, row.volume_id))
    if is_going and (force or row.status == SnapshotStatus.ERROR_DELETING):
        return []
    free = [SnapshotStatus.AVAILABLE.value, SnapshotStatus.ERROR.value, SnapshotStatus.ERROR_DELETING.value]
    if force:
        free = [status.value for status in SnapshotStatus]
    if is_copied(tx, row.id) or not snapshots.move(tx, row.id, free, SnapshotStatus.DELETING.value, drawn[2]):
        raise InvalidSnapshot("Snapshot status must be available or error, and it must not be being copied.")
    snapshots.change(tx, row.id, {"is_deleting": True})
    cancelled = request_cancel(tx, row.id, drawn[2])
    _start(tx, ctx, DELETE, row, drawn)
    return [*cancelled, drawn[0]]


def update(tx: Tx, ctx: Context, snapshot_id: str, values: Mapping[str, Any], now: float) -> Snapshot:
    """Name and description. Raises NotFound."""
    snapshots.get(tx, ctx, snapshot_id)
    if values:
        snapshots.change(tx, snapshot_id, {**values, "updated_at": now})
    return snapshots.get(tx, ctx, snapshot_id)


def set_meta(tx: Tx, ctx: Context, snapshot_id: str, meta: Mapping[str, str], replaces: bool, now: float) -> Snapshot:
    """Metadata, added to what there is or instead of it. Raises NotFound, Invalid."""
    row = snapshots.get(tx, ctx, snapshot_id)
    after = dict(meta) if replaces else {**row.meta, **meta}
    if len(after) > META_MAX:
        raise Invalid(f"Invalid metadata: a snapshot has at most {META_MAX} keys.")
    return update(tx, ctx, snapshot_id, {"meta": after}, now)


def drop_meta(tx: Tx, ctx: Context, snapshot_id: str, key: str, now: float) -> None:
    """Raises NotFound."""
    row = snapshots.get(tx, ctx, snapshot_id)
    if key not in row.meta:
        raise NotFound(f"Snapshot {snapshot_id} has no metadata with key {key}.")
    update(tx, ctx, snapshot_id, {"meta": {name: text for name, text in row.meta.items() if name != key}}, now)


def reset_status(tx: Tx, ctx: Context, snapshot_id: str, status: str, now: float) -> None:
    """An operator's word. Raises NotFound; InvalidSnapshot while a saga works on it, for that knows better."""
    row = snapshots.get(tx, ctx, snapshot_id)
    if not settled(tx, row.id):
        raise InvalidSnapshot("It is being worked on; its status follows by itself.")
    snapshots.change(tx, snapshot_id, {"status": status, "updated_at": now})
