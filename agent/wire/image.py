"""Images in a host's cache. The bytes travel over the host channel, never over the bus."""

import msgspec

from agent.wire.specs import Absence, Call, Empty, ObjectSpec, ObjectStatus, Ref


class ImageSpec(ObjectSpec, frozen=True, kw_only=True):
    """An image that should be in the cache, verified: its bytes hash to `sha256` and inspect as `disk_format`.

    `sources` are HTTPS URLs on host channels, tried in order; `ticket` opens each of them once.
    """

    sha256: str
    size_bytes: int
    disk_format: str  # raw | qcow2
    sources: tuple[str, ...]
    ticket: str


class ImageStatus(ObjectStatus, frozen=True, kw_only=True):
    """An image in the cache as the host sees it."""

    size_bytes: int = 0
    virtual_bytes: int = 0


class ImageList(msgspec.Struct, frozen=True, kw_only=True):
    """What is in the cache."""

    images: tuple[ImageStatus, ...]


ENSURE = Call("image.ensure", ImageSpec, ImageStatus)
ABSENT = Call("image.absent", Absence, ImageStatus)
GET = Call("image.get", Ref, ImageStatus)
LIST = Call("image.list", Empty, ImageList)
