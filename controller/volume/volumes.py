"""What users do with volumes: make, extend, change, delete.

Each request is one transaction: the row, the quota and the saga stand or fall together, and nothing is asked of a host
before it is durable. Ids and the time are drawn before it.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
import sqlalchemy as sa

from controller.config import VolumeLimits
from controller.context import Context
from controller.db.tables.volume import volume as table
from controller.db.tx import Tx
from controller.errors import Invalid, NotFound
from controller.image import images
from controller.image.model import Image
from controller.saga.log import request_cancel, settled, start
from controller.schedule.model import DEFAULT_ZONE
from controller.volume import types, usage
from controller.volume.model import Event, InvalidVolume, Snapshot, SnapshotStatus, Source, Status, Volume, VolumeType
from controller.volume.sagas.volume_create import CREATE, CreateParams
from controller.volume.sagas.volume_delete import DELETE, DeleteParams
from controller.volume.sagas.volume_extend import EXTEND, ExtendParams
from controller.volume.store import attachments, snapshots, volumes
from controller.volume.store import types as type_store

if TYPE_CHECKING:
    from controller.cloud import Cloud

GIB: Final = 1 << 30

SIZE_MAX: Final = 2**31 - 1
"""What the column holds; pools hold less."""

META_MAX: Final = 255
"""Keys of one volume's metadata."""


class NewVolume(msgspec.Struct, frozen=True, kw_only=True):
    """A request for a volume. `source_id` names an image, a snapshot or a volume. `size_gib` None: as its source."""

    name: str | None = None
    description: str | None = None
    size_gib: int | None = None
    type_name: str | None = None
    zone: str | None = None
    meta: dict[str, str] = {}
    source: Source = Source.NONE
    source_id: str | None = None
    wants_multiattach: bool = False


class Ids(msgspec.Struct, frozen=True):
    """Drawn before the transaction."""

    volume_id: str
    saga_id: str
    message_id: str


def draw(cloud: "Cloud") -> Ids:
    """Ids of one volume to be."""
    uuid = cloud.world.entropy.uuid
    return Ids(uuid(), uuid(), uuid())


# Making.


class _Origin(msgspec.Struct, frozen=True, kw_only=True):
    """What a volume begins as, looked up."""

    size_gib: int = 0
    is_bootable: bool = False
    image_meta: dict[str, str] = {}
    content: str | None = None
    type_id: str | None = None


async def create(cloud: "Cloud", ctx: Context, new: NewVolume) -> Volume:
    """Accept a volume. Raises Invalid, NotFound, OverQuota."""
    ids = draw(cloud)
    made: Volume = await cloud.db.write(make, ctx, new, ids, cloud.settings.volume, cloud.world.clock.now())
    cloud.sagas.kick(ids.saga_id)
    return made


def make(tx: Tx, ctx: Context, new: NewVolume, ids: Ids, limits: VolumeLimits, now: float) -> Volume:
    """The row, what it costs, and the saga. For who makes a volume as part of something larger, too."""
    check_zone(new.zone)
    origin = _origin(tx, ctx, new)
    kind = _type(tx, ctx, new, origin, limits)
    size_gib = new.size_gib if new.size_gib is not None else origin.size_gib
    _check_size(new, origin, size_gib)
    usage.check_size(tx, ctx.project, size_gib)
    usage.charge(tx, ctx.project, None if kind is None else kind.name, {"volumes": 1, "gigabytes": size_gib})
    row = Volume(
        id=ids.volume_id,
        project_id=ctx.project,
        user_id=ctx.user_id,
        name=new.name,
        description=new.description,
        status=Status.CREATING.value,
        size_gib=size_gib,
        promised_gib=size_gib,
        type_id=None if kind is None else kind.id,
        zone=new.zone or DEFAULT_ZONE,
        is_bootable=origin.is_bootable,
        is_readonly=None,
        is_multiattach=kind is not None and kind.is_multiattach,
        meta=new.meta,
        image_meta=origin.image_meta,
        source=new.source.value,
        source_id=new.source_id,
        source_hash=origin.content,
        host_id=None,
        host_name=None,
        pool=None,
        generation=1,
        is_deleting=False,
        created_at=now,
        updated_at=now,
    )
    volumes.insert(tx, row)
    params = CreateParams(
        volume_id=row.id, project_id=row.project_id, request_id=ctx.request_id, message_id=ids.message_id
    )
    _start(tx, ctx.request_id, CREATE, params, row, ids.saga_id, now)
    return row


def check_zone(zone: str | None) -> None:
    """There is one zone. Raises Invalid."""
    if zone not in (None, "", DEFAULT_ZONE):
        raise Invalid(f"Availability zone '{zone}' is invalid.")


def _origin(tx: Tx, ctx: Context, new: NewVolume) -> _Origin:
    if new.source is Source.NONE:
        return _Origin()
    assert new.source_id is not None, "a source has an id"
    if new.source is Source.IMAGE:
        return _from_image(_image(tx, ctx, new.source_id))
    if new.source is Source.SNAPSHOT:
        return _from_snapshot(tx, snapshots.get(tx, ctx, new.source_id))
    there = volumes.get(tx, ctx, new.source_id)
    if volumes.take(tx, there.id, Event.COPY, there.updated_at) is None or there.host_id is None:
        raise InvalidVolume(
            f"Source volume status must be available or in-use to be copied, but it is {there.status}.",
            why={"volume": there.id, "status": there.status},
        )
    return _Origin(
        size_gib=there.size_gib,
        is_bootable=there.is_bootable,
        image_meta=there.image_meta,
        type_id=there.type_id,
    )


def _image(tx: Tx, ctx: Context, image_id: str) -> Image:
    try:
        return images.bootable(tx, ctx, image_id)
    except Invalid as error:
        raise Invalid(f"Invalid input received: {error.message}") from error


def _from_image(image: Image) -> _Origin:
    size = max(image.virtual_size or 0, image.size or 0)
    return _Origin(
        size_gib=max(-(-size // GIB), image.min_disk, 1),
        is_bootable=True,
        image_meta={
            **image.properties,
            "image_id": image.id,
            "image_name": image.name or "",
            "checksum": image.md5 or "",
            "container_format": image.container_format or "",
            "disk_format": image.disk_format or "",
            "min_disk": str(image.min_disk),
            "min_ram": str(image.min_ram),
            "size": str(image.size or 0),
        },
        content=image.sha256,
    )


def _from_snapshot(tx: Tx, there: Snapshot) -> _Origin:
    if there.status != SnapshotStatus.AVAILABLE:
        raise Invalid(
            "Invalid snapshot: Originating snapshot status must be one of 'available' values, but it is "
            f"{there.status}."
        )
    parent = volumes.find(tx, there.volume_id)
    return _Origin(
        size_gib=there.size_gib,
        is_bootable=parent is not None and parent.is_bootable,
        image_meta={} if parent is None else parent.image_meta,
        type_id=there.type_id,
    )


def behind_snapshot(tx: Tx, ctx: Context, snapshot_id: str) -> Volume:
    """The volume that a snapshot was taken of. Raises NotFound."""
    there = snapshots.get(tx, ctx, snapshot_id)
    return volumes.get(tx, ctx, there.volume_id)


def _type(tx: Tx, ctx: Context, new: NewVolume, origin: _Origin, limits: VolumeLimits) -> VolumeType | None:
    if new.type_name:
        kind: VolumeType | None = types.named(tx, ctx, new.type_name)
    elif origin.type_id is not None:
        kind = type_store.find(tx, origin.type_id)
    else:
        kind = types.default(tx, ctx.project_id, limits)
    if new.wants_multiattach and not (kind is not None and kind.is_multiattach):
        raise Invalid("Invalid input received: multiattach parameter has been removed. It is a matter of the type.")
    return kind


def _check_size(new: NewVolume, origin: _Origin, size_gib: int) -> None:
    if size_gib < 1:
        raise Invalid("Invalid input received: Size of a volume is at least 1 GiB.")
    if size_gib > SIZE_MAX:
        raise Invalid(f"Invalid input received: Size of a volume is at most {SIZE_MAX} GiB.")
    if size_gib >= origin.size_gib:
        return
    if new.source is Source.IMAGE:
        raise Invalid(
            f"Invalid input received: Size of specified image {origin.size_gib}GB is larger than volume size "
            f"{size_gib}GB."
        )
    what = "snapshot" if new.source is Source.SNAPSHOT else "original volume"
    raise Invalid(
        f"Invalid input received: Volume size '{size_gib}'GB cannot be smaller than the {what} size "
        f"{origin.size_gib}GB. They must be >= {what} size."
    )


def _start(tx: Tx, request_id: str, saga: Any, params: Any, row: Volume, saga_id: str, now: float) -> None:
    start(
        tx,
        saga,
        saga_id=saga_id,
        params=params,
        target=row.id,
        project_id=row.project_id,
        request_id=request_id,
        now=now,
    )


# Deleting.

_MUST_BE: Final = (
    "Volume status must be available or error or error_restoring or error_extending or error_managing and must not "
    "be migrating, attached, belong to a group, have snapshots, awaiting a transfer, or be disassociated from "
    "snapshots after volume transfer."
)


async def delete(cloud: "Cloud", ctx: Context, volume_id: str, *, force: bool = False, cascade: bool = False) -> None:
    """Accept a deletion. Raises NotFound, InvalidVolume."""
    drawn = (cloud.world.entropy.uuid(), cloud.world.entropy.uuid(), cloud.world.clock.now())
    for saga_id in await cloud.db.write(_delete, ctx, volume_id, (force, cascade), drawn):
        cloud.sagas.kick(saga_id)


def _delete(tx: Tx, ctx: Context, volume_id: str, how: tuple[bool, bool], drawn: tuple[str, str, float]) -> list[str]:
    row = volumes.get(tx, ctx, volume_id)
    return end(tx, ctx.request_id, row, how, drawn)


def end(tx: Tx, request_id: str, row: Volume, how: tuple[bool, bool], drawn: tuple[str, str, float]) -> list[str]:
    """Begin the deletion of a volume; the sagas to kick. For who deletes a volume as part of something larger, too."""
    (force, cascade), (saga_id, message_id, now) = how, drawn
    if row.is_deleting and not settled(tx, row.id):
        if row.status == Status.ERROR_DELETING:
            return []
        raise InvalidVolume(_MUST_BE)
    taken = _take_snapshots(tx, row, cascade, now)
    if attachments.of_volume(tx, row.id) or is_copied(tx, row.id):
        raise InvalidVolume(_MUST_BE)
    event = Event.FORCE_DELETE if force else Event.DELETE
    if volumes.take(tx, row.id, event, now, is_deleting=True) is None:
        raise InvalidVolume(_MUST_BE, why={"status": row.status})
    cancelled = [one for target in (row.id, *taken) for one in request_cancel(tx, target, now)]
    params = DeleteParams(
        volume_id=row.id,
        project_id=row.project_id,
        request_id=request_id,
        message_id=message_id,
        snapshot_ids=taken,
    )
    _start(tx, request_id, DELETE, params, row, saga_id, now)
    return [*cancelled, saga_id]


def _take_snapshots(tx: Tx, row: Volume, cascade: bool, now: float) -> tuple[str, ...]:
    """With `cascade`, its snapshots go too; else there must be none. Raises InvalidVolume."""
    there = snapshots.of_volume(tx, row.id)
    if there and not cascade:
        raise InvalidVolume(_MUST_BE, why={"snapshots": [one.id for one in there]})
    free = (SnapshotStatus.AVAILABLE.value, SnapshotStatus.ERROR.value)
    for one in there:
        if is_copied(tx, one.id) or not snapshots.move(tx, one.id, free, SnapshotStatus.DELETING.value, now):
            raise InvalidVolume(_MUST_BE, why={"snapshots": [one.id]})
        snapshots.change(tx, one.id, {"is_deleting": True})
    return tuple(one.id for one in there)


def is_copied(tx: Tx, source_id: str) -> bool:
    """Whether a volume is just being made of this one, or of this snapshot."""
    copies = (table.c.source_id == source_id, table.c.status == Status.CREATING.value)
    return tx.execute(sa.select(table.c.id).where(*copies).limit(1)).first() is not None


# Extending.


async def extend(cloud: "Cloud", ctx: Context, volume_id: str, size_gib: int, *, attached: bool) -> None:
    """Accept a larger size. `attached`: also of a volume in use. Raises NotFound, InvalidVolume, Invalid, OverQuota."""
    drawn = (cloud.world.entropy.uuid(), cloud.world.entropy.uuid(), cloud.world.clock.now())
    cloud.sagas.kick(await cloud.db.write(_extend, ctx, volume_id, (size_gib, attached), drawn))


def _extend(tx: Tx, ctx: Context, volume_id: str, wanted: tuple[int, bool], drawn: tuple[str, str, float]) -> str:
    (size_gib, attached), (saga_id, message_id, now) = wanted, drawn
    row = volumes.get(tx, ctx, volume_id)
    if size_gib <= row.size_gib:
        raise Invalid(
            "Invalid input received: New size for extend must be greater than current size. "
            f"(current: {row.size_gib}, extended: {size_gib})."
        )
    event = Event.EXTEND_ATTACHED if attached else Event.EXTEND
    promise = {"promised_gib": size_gib, "generation": volumes.NEXT_GENERATION}
    before = _type_name(tx, row)
    usage.check_size(tx, row.project_id, size_gib)
    usage.charge(tx, row.project_id, before, {"gigabytes": size_gib - row.promised_gib})
    if volumes.take(tx, row.id, event, now, **promise) is None:
        allowed = "available or in-use" if attached else "available"
        raise InvalidVolume(
            f"Volume {row.id} status must be '{allowed}' to extend, currently {row.status}.",
            why={"status": row.status},
        )
    params = ExtendParams(
        volume_id=row.id,
        project_id=row.project_id,
        request_id=ctx.request_id,
        message_id=message_id,
        before_gib=row.size_gib,
        after_gib=size_gib,
    )
    _start(tx, ctx.request_id, EXTEND, params, row, saga_id, now)
    return saga_id


def _type_name(tx: Tx, row: Volume) -> str | None:
    kind = None if row.type_id is None else type_store.find(tx, row.type_id)
    return None if kind is None else kind.name


# Changing what no host must know.


def update(tx: Tx, ctx: Context, volume_id: str, values: Mapping[str, Any], now: float) -> Volume:
    """Name, description, metadata, zone of nobody. Raises NotFound."""
    volumes.get(tx, ctx, volume_id)
    if values:
        volumes.change(tx, volume_id, {**values, "updated_at": now})
    return volumes.get(tx, ctx, volume_id)


def set_meta(tx: Tx, ctx: Context, volume_id: str, meta: Mapping[str, str], replaces: bool, now: float) -> Volume:
    """Metadata, added to what there is or instead of it. Raises NotFound, Invalid."""
    row = _unbusy(tx, ctx, volume_id)
    after = dict(meta) if replaces else {**row.meta, **meta}
    if len(after) > META_MAX:
        raise Invalid(f"Invalid metadata: a volume has at most {META_MAX} keys.")
    return update(tx, ctx, volume_id, {"meta": after}, now)


def drop_meta(tx: Tx, ctx: Context, volume_id: str, key: str, now: float) -> None:
    """Raises NotFound."""
    row = _unbusy(tx, ctx, volume_id)
    if key not in row.meta:
        raise NotFound(f"Volume {volume_id} has no metadata with key {key}.")
    update(tx, ctx, volume_id, {"meta": {name: text for name, text in row.meta.items() if name != key}}, now)


def _unbusy(tx: Tx, ctx: Context, volume_id: str) -> Volume:
    row = volumes.get(tx, ctx, volume_id)
    if row.status == Status.MAINTENANCE or row.is_deleting:
        raise InvalidVolume(f"The metadata of a volume that is {row.status} cannot be changed.")
    return row


def set_image_meta(
    tx: Tx, ctx: Context, volume_id: str, changed: Mapping[str, str], dropped: Sequence[str], now: float
) -> dict[str, str]:
    """Change what is told of the image that the volume began as. Raises NotFound, also for a key that is not there."""
    row = volumes.get(tx, ctx, volume_id)
    for key in dropped:
        if key not in row.image_meta:
            raise NotFound(f"Volume {volume_id} has no metadata with key {key}.")
    after = {key: text for key, text in {**row.image_meta, **changed}.items() if key not in dropped}
    if len(after) > META_MAX:
        raise Invalid(f"Invalid metadata: a volume has at most {META_MAX} keys.")
    return update(tx, ctx, volume_id, {"image_meta": after}, now).image_meta


def set_bootable(tx: Tx, ctx: Context, volume_id: str, is_bootable: bool, now: float) -> None:
    """Raises NotFound."""
    update(tx, ctx, volume_id, {"is_bootable": is_bootable}, now)


def set_readonly(tx: Tx, ctx: Context, volume_id: str, is_readonly: bool, now: float) -> None:
    """Of a volume that nobody has. Raises NotFound, InvalidVolume."""
    row = volumes.get(tx, ctx, volume_id)
    if row.status != Status.AVAILABLE:
        raise InvalidVolume(
            f"Volume {volume_id} status must be available to update readonly flag, but current status is: {row.status}."
        )
    update(tx, ctx, volume_id, {"is_readonly": is_readonly}, now)


def reset_status(tx: Tx, ctx: Context, volume_id: str, status: str, now: float) -> None:
    """An operator's word. Raises NotFound; InvalidVolume while a saga works on it, for that knows better."""
    row = volumes.get(tx, ctx, volume_id)
    if not settled(tx, row.id):
        raise InvalidVolume(f"Volume {volume_id} is being worked on; its status follows by itself.")
    if status == Status.AVAILABLE and attachments.of_volume(tx, row.id):
        raise InvalidVolume(f"Volume {volume_id} is attached; detach it, and it is available.")
    update(tx, ctx, volume_id, {"status": status}, now)
