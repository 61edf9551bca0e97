"""Disks that live on the host itself: a server's root disk, an overlay of a cached image."""

from agent.wire.image import Offer
from agent.wire.specs import Absence, Call, ObjectSpec, ObjectStatus, Ref


class DiskSpec(ObjectSpec, frozen=True, kw_only=True):
    """A local disk. `id` is `<server id>-root` or the like; unique in the cloud.

    The image must be in the cache already (`image.ensure`), else `Failed`. Made once: an existing disk with this
    id is kept, whatever the generation, because it holds a guest's data; only a larger size is applied.
    """

    domain_id: str  # Whose uid may read and write it.
    image_id: str | None = None  # None: an empty disk.
    image_sha256: str | None = None
    size_gib: int
    source: Offer | None = None  # Of a disk that moves: the host where it is. Its guest is off while it is brought.
    is_whole: bool = False  # Made as a copy of its image, not upon it. Once made it is spoken of without an image.
    is_kept: bool = False  # It was made on this host before, and stayed: one that is gone is `Failed`, not made anew.


class DiskStatus(ObjectStatus, frozen=True, kw_only=True):
    """A local disk as the host sees it."""

    allocated_bytes: int = 0
    size_bytes: int = 0  # As the guest sees it; 0 from a host that does not say.


ENSURE = Call("disk.ensure", DiskSpec, DiskStatus)
ABSENT = Call("disk.absent", Absence, DiskStatus)
GET = Call("disk.get", Ref, DiskStatus)
