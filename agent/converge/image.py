"""An image in this host's cache: fetched once, verified before anything uses it."""

from agent import streams
from agent.converge import volume
from agent.effects import IMAGE, Effects
from agent.nouns import Key, Noun
from agent.tracks import Waiting
from agent.turn import Turn
from agent.wire.disk import DiskSpec
from agent.wire.image import ImageSpec, ImageStatus
from agent.wire.lifecycle import Progress


async def ensure(fx: Effects, turn: Turn) -> ImageStatus:
    """In the cache; fetched if it is not there yet."""
    spec = turn.spec(ImageSpec)
    cache = fx.drivers.images
    image = await fx.run(IMAGE, turn.key, cache.find, spec.sha256)
    if image is None:
        fetch = fx.source.fetch(spec)
        async with fx.fetching:
            turn.check()
            extra_s = streams.duration_s(spec.size_bytes) * max(1, len(spec.offers) + len(spec.sources))
            arguments = (spec.sha256, spec.size_bytes, spec.disk_format, fetch)
            image = await fx.run(IMAGE, turn.key, cache.fetch, *arguments, extra_s=extra_s)
    return ImageStatus(
        id=spec.id,
        generation=spec.generation,
        progress=Progress.READY,
        size_bytes=image.size_bytes,
        virtual_bytes=image.virtual_bytes,
    )


async def absent(fx: Effects, turn: Turn) -> None:
    """Out of the cache, unless another image has the same bytes; never from under a disk."""
    spec = turn.entry.spec
    if not isinstance(spec, ImageSpec):
        return
    for user in users(fx, turn.key.id):
        raise Waiting(user, f"{turn.key} is still used by {user}", is_coming=False)
    others = fx.present(Noun.IMAGE, ImageSpec).values()
    if not any(other.sha256 == spec.sha256 for other in others):
        await fx.run(IMAGE, turn.key, fx.drivers.images.absent, spec.sha256)


def users(fx: Effects, image_id: str) -> list[Key]:
    """What on this host is made of an image, or being made."""
    disks = fx.unfinished(Noun.DISK, DiskSpec).values()
    return [
        *(Key(Noun.DISK, disk.id) for disk in disks if disk.image_id == image_id),
        *volume.image_users(fx, image_id),
    ]
