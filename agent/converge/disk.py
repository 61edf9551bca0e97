"""A guest's disk on this host: made once, then only ever grown, and never made anew."""

from typing import Final

from agent.effects import IMAGE, Effects
from agent.nouns import Key, Noun
from agent.streams import duration_s
from agent.tracks import Waiting
from agent.turn import Turn
from agent.wire.disk import DiskSpec, DiskStatus
from agent.wire.domain import DomainSpec
from agent.wire.errors import Failed
from agent.wire.image import ImageSpec
from agent.wire.lifecycle import Progress
from drivers.image.base import CachedImage, LocalDisk

GIB: Final = 1 << 30

BROUGHT_OVERHEAD_BYTES: Final = 64 << 20
"""What a disk's file may be larger than the disk: tables, of a fraction of a percent."""


async def ensure(fx: Effects, turn: Turn) -> DiskStatus:
    """There, owned by its guest's uid, as large as asked."""
    spec = turn.spec(DiskSpec)
    disks = fx.drivers.disks
    disk = await fx.run(IMAGE, turn.key, disks.find, spec.id)
    if disk is None and (spec.is_kept or turn.entry.settled is not None):
        raise Failed(f"{turn.key} was on this host and is gone; it held a guest's data and is not made anew")
    if disk is None or not turn.entry.is_settled:
        disk = await _made(fx, turn, spec, disk)
        fx.ledger.settle(turn.key, turn.entry.generation)
    return DiskStatus(
        id=spec.id,
        generation=spec.generation,
        progress=Progress.READY,
        allocated_bytes=disk.allocated_bytes,
        size_bytes=disk.size_bytes,
    )


async def absent(fx: Effects, turn: Turn) -> None:
    """Gone, after every domain that has it."""
    for domain in fx.unfinished(Noun.DOMAIN, DomainSpec).values():
        if any(disk.disk_id == turn.key.id for disk in domain.disks):
            user = Key(Noun.DOMAIN, domain.id)
            raise Waiting(user, f"{turn.key} is still used by {user}", is_coming=False)
    await fx.run(IMAGE, turn.key, fx.drivers.disks.absent, turn.key.id)
    if isinstance(turn.entry.spec, DiskSpec):
        fx.release_uid(turn.entry.spec.domain_id, turn.key)


async def _made(fx: Effects, turn: Turn, spec: DiskSpec, disk: LocalDisk | None) -> LocalDisk:
    uid = fx.ledger.uid(spec.domain_id, fx.places.uids)
    size_bytes = spec.size_gib * GIB
    image, fetch, extra_s = None, None, 0.0
    if disk is None:
        image = await _image(fx, turn, spec)
        if spec.source is not None:
            fetch = fx.source.bring(spec.source, size_bytes + BROUGHT_OVERHEAD_BYTES)
        if spec.source is not None or spec.is_whole:
            extra_s = duration_s(size_bytes)
    what = (spec.id, image, size_bytes, uid, fetch, spec.is_whole)
    return await fx.run(IMAGE, turn.key, fx.drivers.disks.ensure, *what, extra_s=extra_s)


async def _image(fx: Effects, turn: Turn, spec: DiskSpec) -> CachedImage | None:
    """What the disk begins as."""
    if spec.image_id is None:
        return None
    image = fx.need(Key(Noun.IMAGE, spec.image_id), ImageSpec)
    cached = await fx.run(IMAGE, turn.key, fx.drivers.images.find, image.sha256)
    if cached is None:
        raise Failed(f"image {image.id} is not in the cache of this host any more")
    return cached
