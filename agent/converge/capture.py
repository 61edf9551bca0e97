"""A capture of a disk: copied once, under a running guest or beside one that is off, then brought to the image store.

The copy is a file of this host until it was delivered. A crash leaves a copy without a name, which is begun anew, or a
whole one, which only has to be delivered; delivering twice is refused by who has it already, and whoever asked knows.
"""

from typing import Final

from agent import streams
from agent.effects import HYPERVISOR, IMAGE, Effects
from agent.nouns import Key, Noun
from agent.turn import Turn
from agent.wire.capture import CaptureSpec, CaptureStatus
from agent.wire.disk import DiskSpec
from agent.wire.errors import Failed, NotFound
from agent.wire.lifecycle import Progress
from drivers.image.base import LocalDisk

SUFFIX: Final = "-capture"


async def ensure(fx: Effects, turn: Turn) -> CaptureStatus:
    """Made, and delivered; then the host keeps nothing of it."""
    spec = turn.spec(CaptureSpec)
    size_bytes = 0
    if not turn.entry.is_settled:
        copy = await fx.run(IMAGE, turn.key, fx.drivers.disks.find, copy_id(spec.id)) or await _made(fx, turn, spec)
        turn.check()
        size_bytes = copy.allocated_bytes
        extra_s = streams.duration_s(size_bytes)
        await fx.run(IMAGE, turn.key, fx.source.send, copy.path, spec.offer, extra_s=extra_s)
        fx.ledger.settle(turn.key, turn.entry.generation)
    await fx.run(IMAGE, turn.key, fx.drivers.disks.absent, copy_id(spec.id))
    return CaptureStatus(id=spec.id, generation=turn.entry.generation, progress=Progress.READY, size_bytes=size_bytes)


async def absent(fx: Effects, turn: Turn) -> None:
    """The host keeps nothing of it."""
    await fx.run(IMAGE, turn.key, fx.drivers.disks.absent, copy_id(turn.key.id))


def copy_id(capture_id: str) -> str:
    """The id of a capture's copy among this host's disks."""
    return f"{capture_id}{SUFFIX}"


def capture_of(disk_id: str) -> str | None:
    """The capture that a disk is the copy of; None if it is a guest's."""
    return disk_id.removesuffix(SUFFIX) if disk_id.endswith(SUFFIX) else None


async def _made(fx: Effects, turn: Turn, spec: CaptureSpec) -> LocalDisk:
    """As the disk is at the end of this."""
    disks, copy = fx.drivers.disks, copy_id(spec.id)
    fx.need(Key(Noun.DISK, spec.disk_id), DiskSpec)
    disk = await fx.run(IMAGE, turn.key, disks.find, spec.disk_id)
    if disk is None:
        raise Failed(f"disk {spec.disk_id} is gone from this host")
    uid = fx.ledger.uid(spec.domain_id, fx.places.uids)
    extra_s = streams.duration_s(disk.size_bytes)
    target = await fx.run(IMAGE, turn.key, disks.begin_copy, copy, spec.disk_id, uid)
    if not await _is_copied_live(fx, turn, spec, (disk.path, target), extra_s):
        await fx.run(IMAGE, turn.key, disks.fill_copy, copy, spec.disk_id, uid, extra_s=extra_s)
    return await fx.run(IMAGE, turn.key, disks.end_copy, copy)


async def _is_copied_live(fx: Effects, turn: Turn, spec: CaptureSpec, paths: tuple[str, str], extra_s: float) -> bool:
    """Whether the guest was on, and its hypervisor has made the copy."""
    copy_disk = fx.drivers.hypervisor.copy_disk
    try:
        return await fx.run(HYPERVISOR, turn.key, copy_disk, spec.domain_id, *paths, extra_s=extra_s)
    except NotFound:
        return False  # Its domain was never defined here, or is gone already.
