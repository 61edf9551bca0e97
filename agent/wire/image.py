"""Images in a host's cache. The bytes travel over the host channel, never over the bus."""

import msgspec

from agent.wire.specs import Absence, Call, Empty, ObjectSpec, ObjectStatus, Ref


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """A host channel that has the bytes, and a ticket that opens them there once."""

    url: str
    name: str  # Whom the far end's certificate must name; empty: the address in the URL.
    ticket: str


class ImageSpec(ObjectSpec, frozen=True, kw_only=True):
    """An image that should be in the cache, verified: its bytes hash to `sha256` and inspect as `disk_format`.

    `offers` are tried first, in order, each going on where the one before broke off; then `sources`: HTTPS URLs of the
    controller's channel, which `ticket` opens once.
    """

    sha256: str
    size_bytes: int
    disk_format: str  # raw | qcow2
    sources: tuple[str, ...]
    ticket: str
    offers: tuple[Offer, ...] = ()


class ImageStatus(ObjectStatus, frozen=True, kw_only=True):
    """An image in the cache as the host sees it."""

    size_bytes: int = 0
    virtual_bytes: int = 0


class ImageList(msgspec.Struct, frozen=True, kw_only=True):
    """What is in the cache."""

    images: tuple[ImageStatus, ...]
    used: tuple[str, ...] = ()  # Ids of those that something on this host is made of.


ENSURE = Call("image.ensure", ImageSpec, ImageStatus)
ABSENT = Call("image.absent", Absence, ImageStatus)
GET = Call("image.get", Ref, ImageStatus)
LIST = Call("image.list", Empty, ImageList)
