"""The nouns that a host holds, in the order in which one needs the other.

What is to be made goes through the table from top to bottom, what is to be removed from bottom to top: a domain is
gone before its disks and ports, a port before its network.
"""

import enum
from typing import Final, NamedTuple

import msgspec

from agent.wire.capture import CaptureSpec, CaptureStatus
from agent.wire.disk import DiskSpec, DiskStatus
from agent.wire.domain import DomainSpec, DomainStatus, Hardware
from agent.wire.forwarding import ForwardingSpec, ForwardingStatus
from agent.wire.group import AddressesSpec, GroupSpec, GroupStatus
from agent.wire.image import ImageSpec, ImageStatus, Offer
from agent.wire.network import NetworkSpec, NetworkStatus
from agent.wire.port import PortSpec, PortStatus
from agent.wire.router import RouterSpec, RouterStatus
from agent.wire.specs import ObjectSpec, ObjectStatus
from agent.wire.volume import ExportSpec, ExportStatus, SnapshotSpec, SnapshotStatus, VolumeSpec, VolumeStatus


class Noun(enum.StrEnum):
    """Kinds of host objects, as in subjects."""

    NETWORK = "network"
    FORWARDING = "forwarding"
    GROUP = "group"
    ADDRESSES = "addresses"
    IMAGE = "image"
    VOLUME = "volume"
    SNAPSHOT = "snapshot"
    EXPORT = "export"
    DISK = "disk"
    PORT = "port"
    ROUTER = "router"
    DOMAIN = "domain"
    CAPTURE = "capture"


class Key(NamedTuple):
    """One object of this host."""

    noun: Noun
    id: str

    def __str__(self) -> str:
        return f"{self.noun} {self.id}"


class Shape(NamedTuple):
    """What one noun looks like on the wire."""

    spec: type[ObjectSpec]
    status: type[ObjectStatus]


SHAPES: Final[dict[Noun, Shape]] = {
    Noun.NETWORK: Shape(NetworkSpec, NetworkStatus),
    Noun.FORWARDING: Shape(ForwardingSpec, ForwardingStatus),
    Noun.GROUP: Shape(GroupSpec, GroupStatus),
    Noun.ADDRESSES: Shape(AddressesSpec, GroupStatus),
    Noun.IMAGE: Shape(ImageSpec, ImageStatus),
    Noun.VOLUME: Shape(VolumeSpec, VolumeStatus),
    Noun.SNAPSHOT: Shape(SnapshotSpec, SnapshotStatus),
    Noun.EXPORT: Shape(ExportSpec, ExportStatus),
    Noun.DISK: Shape(DiskSpec, DiskStatus),
    Noun.PORT: Shape(PortSpec, PortStatus),
    Noun.ROUTER: Shape(RouterSpec, RouterStatus),
    Noun.DOMAIN: Shape(DomainSpec, DomainStatus),
    Noun.CAPTURE: Shape(CaptureSpec, CaptureStatus),
}

RANK: Final[dict[Noun, int]] = {noun: rank for rank, noun in enumerate(SHAPES)}
"""Order of making; removal is the other way round."""


def content(spec: ObjectSpec) -> ObjectSpec:
    """What must not differ under one generation.

    That is all but how to reach an image's bytes, or another host, which is new each time, and a domain's hardware:
    this host says what it resolved, and whoever sends the same intent once more knows it by then.
    """
    if isinstance(spec, ImageSpec):
        return msgspec.structs.replace(spec, sources=(), ticket="", offers=())
    if isinstance(spec, CaptureSpec):
        return msgspec.structs.replace(spec, offer=Offer(url="", name="", ticket=""))
    if isinstance(spec, DiskSpec):
        return msgspec.structs.replace(spec, source=None)
    if isinstance(spec, DomainSpec):
        return msgspec.structs.replace(spec, hardware=Hardware(), leaving=None)
    return spec
