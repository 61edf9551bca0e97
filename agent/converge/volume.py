"""Volumes and snapshots on this host: made once, then only ever grown, and never made anew.

What is copied must not be written meanwhile, unless the pool copies in an instant. So during a copy the volume's
exports are taken away, and its guests wait: QEMU holds their requests and logs in again when the targets are back.
Whoever changes a volume or its exports holds the volume's lock, so nobody exports it behind a copy's back.
"""

import contextlib
from collections.abc import AsyncIterator
from typing import Final

from agent.converge import export
from agent.effects import IMAGE, VOLUME, Effects
from agent.nouns import Key, Noun
from agent.tracks import Waiting
from agent.turn import Turn
from agent.wire.errors import Failed, Invalid, WireError
from agent.wire.image import ImageSpec
from agent.wire.lifecycle import Progress
from agent.wire.volume import ExportSpec, SnapshotSpec, SnapshotStatus, SourceKind, VolumeSpec, VolumeStatus
from drivers.volume.base import Origin, StoredVolume

GIB: Final = 1 << 30

COPY_BYTES_S: Final = 5 << 20
"""How fast a copy is at least. Less: a slow disk fails. More: one that hangs is noticed late."""


async def ensure(fx: Effects, turn: Turn) -> VolumeStatus:
    """There, as large as asked, and as large for whoever it is exported to."""
    spec = turn.spec(VolumeSpec)
    async with fx.volume(spec.id):
        volume = await fx.run(VOLUME, turn.key, fx.drivers.volumes.find, spec.id)
        if volume is None and turn.entry.settled is not None:
            raise Failed(f"{turn.key} was on this host and is gone; it held somebody's data and is not made anew")
        if volume is None or not turn.entry.is_settled:
            volume = await _made(fx, turn, spec) if volume is None else await _grown(fx, turn, spec, volume)
            fx.ledger.settle(turn.key, turn.entry.generation)
    return VolumeStatus(
        id=spec.id,
        generation=spec.generation,
        progress=Progress.READY,
        size_gib=volume.size_bytes // GIB,
        allocated_bytes=volume.allocated_bytes,
    )


async def absent(fx: Effects, turn: Turn) -> None:
    """Gone, after its exports and after what is being made of it."""
    for one in fx.unfinished(Noun.EXPORT, ExportSpec).values():
        if one.volume_id == turn.key.id:
            raise _still(turn.key, Key(Noun.EXPORT, one.id))
    for user in _copying(fx, SourceKind.VOLUME, turn.key.id):
        raise _still(turn.key, user)
    async with fx.volume(turn.key.id):
        turn.check()
        await fx.run(VOLUME, turn.key, fx.drivers.volumes.absent, turn.key.id)


async def ensure_snapshot(fx: Effects, turn: Turn) -> SnapshotStatus:
    """What the volume holds, kept."""
    spec = turn.spec(SnapshotSpec)
    volumes = fx.drivers.volumes
    snapshot = await fx.run(VOLUME, turn.key, volumes.find_snapshot, spec.id)
    if snapshot is None and turn.entry.settled is not None:
        raise Failed(f"{turn.key} was on this host and is gone; the volume holds something else by now")
    if snapshot is None:
        async with fx.volume(spec.volume_id):
            turn.check()
            volume = await _source(fx, turn, spec.volume_id)
            async with _at_rest(fx, turn, volume):
                snapshot = await fx.run(
                    VOLUME, turn.key, volumes.ensure_snapshot, spec.id, spec.volume_id, extra_s=_copy_s(volume)
                )
    fx.ledger.settle(turn.key, turn.entry.generation)
    return SnapshotStatus(
        id=spec.id,
        generation=spec.generation,
        progress=Progress.READY,
        size_gib=snapshot.size_bytes // GIB,
        allocated_bytes=snapshot.allocated_bytes,
    )


async def absent_snapshot(fx: Effects, turn: Turn) -> None:
    """Gone, after what is being made of it."""
    for user in _copying(fx, SourceKind.SNAPSHOT, turn.key.id):
        raise _still(turn.key, user)
    await fx.run(VOLUME, turn.key, fx.drivers.volumes.absent_snapshot, turn.key.id)


async def _made(fx: Effects, turn: Turn, spec: VolumeSpec) -> StoredVolume:
    size_bytes = spec.size_gib * GIB
    make = fx.drivers.volumes.ensure
    source = spec.source
    if source.kind is SourceKind.NONE:
        return await fx.run(VOLUME, turn.key, make, spec.id, spec.pool, size_bytes, None)
    if source.kind is SourceKind.VOLUME:
        if source.id == spec.id:
            raise Invalid(f"{turn.key} cannot be made of itself")
        await _source(fx, turn, source.id)
        async with fx.volume(source.id):
            turn.check()
            volume = await _source(fx, turn, source.id)
            origin = Origin(kind=source.kind, id=source.id, size_bytes=volume.size_bytes)
            async with _at_rest(fx, turn, volume):
                return await fx.run(
                    VOLUME, turn.key, make, spec.id, spec.pool, size_bytes, origin, extra_s=_copy_s(volume)
                )
    origin = await (_image if source.kind is SourceKind.IMAGE else _snapshot)(fx, turn, source.id)
    extra_s = origin.size_bytes / COPY_BYTES_S
    return await fx.run(VOLUME, turn.key, make, spec.id, spec.pool, size_bytes, origin, extra_s=extra_s)


async def _grown(fx: Effects, turn: Turn, spec: VolumeSpec, volume: StoredVolume) -> StoredVolume:
    """Larger if asked, and exported as large before it is told as ready."""
    grow = fx.drivers.volumes.ensure
    grown = await fx.run(VOLUME, turn.key, grow, spec.id, spec.pool, spec.size_gib * GIB, None)
    for one in _exports(fx, spec.id):
        await export.apply(fx, turn.key, one, grown)
        if grown.size_bytes != volume.size_bytes:
            fx.redo(Key(Noun.EXPORT, one.id))
    return grown


@contextlib.asynccontextmanager
async def _at_rest(fx: Effects, turn: Turn, volume: StoredVolume) -> AsyncIterator[None]:
    """Nobody writes to the volume, or its pool does not mind. The volume's lock is held."""
    pools = {pool.name: pool for pool in await fx.run(VOLUME, turn.key, fx.drivers.volumes.pools)}
    pool = pools.get(volume.pool)
    if pool is not None and pool.is_instant:
        yield
        return
    exported = {one.id for one in await fx.run(VOLUME, turn.key, fx.drivers.exporter.list)}
    # Also one that is on its way out: as long as it is there somebody may write through it.
    specs = fx.unfinished(Noun.EXPORT, ExportSpec).values()
    mine = sorted(spec.id for spec in specs if spec.volume_id == volume.id and spec.id in exported)
    try:
        for name in mine:
            await fx.run(VOLUME, turn.key, fx.drivers.exporter.absent, name)
        yield
    except Exception:  # Not when the agent ends: the next one exports everything anyway.
        await _export_again(fx, turn, volume)
        raise
    await _export_again(fx, turn, volume)


async def _export_again(fx: Effects, turn: Turn, volume: StoredVolume) -> None:
    """What should be exported of it. One that fails has its own worker, which is told to look again anyway."""
    for spec in _exports(fx, volume.id):
        with contextlib.suppress(WireError):
            await export.apply(fx, turn.key, spec, volume)
        fx.redo(Key(Noun.EXPORT, spec.id))


def _exports(fx: Effects, volume_id: str) -> list[ExportSpec]:
    present = fx.present(Noun.EXPORT, ExportSpec).values()
    return [spec for spec in present if spec.volume_id == volume_id]


async def _source(fx: Effects, turn: Turn, volume_id: str) -> StoredVolume:
    fx.need(Key(Noun.VOLUME, volume_id), VolumeSpec)
    volume = await fx.run(VOLUME, turn.key, fx.drivers.volumes.find, volume_id)
    if volume is None:
        raise Failed(f"volume {volume_id} is gone from this host")
    return volume


async def _snapshot(fx: Effects, turn: Turn, snapshot_id: str) -> Origin:
    fx.need(Key(Noun.SNAPSHOT, snapshot_id), SnapshotSpec)
    snapshot = await fx.run(VOLUME, turn.key, fx.drivers.volumes.find_snapshot, snapshot_id)
    if snapshot is None:
        raise Failed(f"snapshot {snapshot_id} is gone from this host")
    return Origin(kind=SourceKind.SNAPSHOT, id=snapshot_id, size_bytes=snapshot.size_bytes)


async def _image(fx: Effects, turn: Turn, image_id: str) -> Origin:
    image = fx.need(Key(Noun.IMAGE, image_id), ImageSpec)
    cached = await fx.run(IMAGE, turn.key, fx.drivers.images.find, image.sha256)
    if cached is None:
        raise Failed(f"image {image_id} is not in the cache of this host any more")
    return Origin(
        kind=SourceKind.IMAGE,
        id=image_id,
        size_bytes=cached.virtual_bytes,
        path=cached.path,
        format=cached.disk_format,
    )


def _copy_s(volume: StoredVolume) -> float:
    return volume.size_bytes / COPY_BYTES_S


def _copying(fx: Effects, kind: SourceKind, source_id: str) -> list[Key]:
    """What is still being made of a volume, snapshot or image."""
    users = [
        entry.key
        for entry in fx.ledger.rows(Noun.VOLUME)
        if isinstance(entry.spec, VolumeSpec)
        and not entry.absent
        and entry.settled is None
        and (entry.spec.source.kind, entry.spec.source.id) == (kind, source_id)
    ]
    if kind is SourceKind.VOLUME:
        users += [
            entry.key
            for entry in fx.ledger.rows(Noun.SNAPSHOT)
            if isinstance(entry.spec, SnapshotSpec)
            and not entry.absent
            and entry.settled is None
            and entry.spec.volume_id == source_id
        ]
    return users


def image_users(fx: Effects, image_id: str) -> list[Key]:
    """Volumes that are still being made of an image."""
    return _copying(fx, SourceKind.IMAGE, image_id)


def _still(key: Key, user: Key) -> Waiting:
    return Waiting(user, f"{key} is still used by {user}", is_coming=False)
