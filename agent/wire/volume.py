"""Volumes on a storage host, their snapshots, and their exports over iSCSI: one export for each attachment.

Who sends what. To the storage host: `volume.ensure`, `snapshot.ensure`, `export.ensure`. To the host of the server:
a `DomainSpec` one of whose disks says `iscsi=IscsiSource(...)`, made of the export's status and of the secret that
was sent with it. A volume goes after its exports, an export after the domain has let go of the disk.

Fencing is by attachment: each has a target of its own, with its own CHAP account and its own list of initiators.
Nothing is reachable without both. Taking an export away ends its session at once, whatever the guest does.
"""

import enum
from typing import Final

import msgspec

from agent.wire.specs import Absence, Call, ObjectSpec, ObjectStatus, Ref

IQN_PREFIX: Final = "iqn.2026-01.internal.hostler"
"""`internal` is the top-level domain that is nobody's and never will be."""

LUN: Final = 1
"""The volume behind every target; LUN 0 is the target's controller."""


def target_iqn(tag: str, attachment_id: str) -> str:
    """The name of an attachment's target. `tag` is the cloud's."""
    return f"{IQN_PREFIX}:{tag}.attachment.{attachment_id}"


def initiator_iqn(tag: str, host_id: str) -> str:
    """The name by which the guests of one host log in. `tag` is the cloud's."""
    return f"{IQN_PREFIX}:{tag}.host.{host_id}"


class Chap(msgspec.Struct, frozen=True, kw_only=True):
    """Who may log in to one target. The secret is in no log and no representation, only in the message itself."""

    user: str  # At most 64 characters of [A-Za-z0-9-].
    secret: str  # 16 to 64 characters of [0-9a-zA-Z].

    def __repr__(self) -> str:
        return f"Chap(user={self.user!r}, secret=…)"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        return [("user", self.user), ("secret", "…")]


class IscsiSource(msgspec.Struct, frozen=True, kw_only=True):
    """A disk of a domain that is a volume on a storage host. QEMU itself logs in; the host has no device of it."""

    volume_id: str  # Shown to the guest as the disk's serial.
    host: str  # The portal, as ExportStatus said, and the rest of it.
    port: int
    iqn: str
    lun: int
    initiator: str  # One of ExportSpec.initiators.
    chap: Chap
    size_gib: int  # When it grows under a running guest, the guest is told.
    is_shared: bool = False  # Other servers have it too (multi-attach): no locks, no cache on the host.
    is_read_only: bool = False


class SourceKind(enum.StrEnum):
    """What a new volume begins as."""

    NONE = "none"  # Zeroes.
    IMAGE = "image"  # It must be in this host's cache (`image.ensure`).
    SNAPSHOT = "snapshot"  # It must be on this host.
    VOLUME = "volume"  # It must be on this host; it may be in use: the copy is as after a power cut.


class VolumeSource(msgspec.Struct, frozen=True, kw_only=True):
    """What a new volume begins as; `id` is the image's, snapshot's or volume's."""

    kind: SourceKind = SourceKind.NONE
    id: str = ""


class VolumeSpec(ObjectSpec, frozen=True, kw_only=True):
    """A volume in one of this host's pools.

    Made once: an existing volume is kept, whatever the generation, because it holds somebody's data; only a larger size
    is applied, also while it is exported (then send the domain its new size). A volume that was here and is gone is
    `Failed`, never made anew. Nothing of an earlier volume can be read from a new one.
    """

    size_gib: int  # Not smaller than the source, else `Unfit`.
    pool: str = "files"
    source: VolumeSource = VolumeSource()


class VolumeStatus(ObjectStatus, frozen=True, kw_only=True):
    """A volume as the host sees it."""

    size_gib: int = 0
    allocated_bytes: int = 0


class SnapshotSpec(ObjectSpec, frozen=True, kw_only=True):
    """What a volume held at one instant. Made once, as soon as it is asked for; it never changes.

    It stands alone: volume and snapshot may go in either order. Of a volume in use it is what a power cut would have
    left.
    """

    volume_id: str
    pool: str = "files"  # The volume's.


class SnapshotStatus(ObjectStatus, frozen=True, kw_only=True):
    """A snapshot as the host sees it."""

    size_gib: int = 0
    allocated_bytes: int = 0


class ExportSpec(ObjectSpec, frozen=True, kw_only=True):
    """A volume made reachable for one attachment. `id` is the attachment's id.

    A new generation may carry a new secret and other initiators; whoever is logged in and is not allowed any more is
    thrown out. Two initiators are there while a server migrates.
    """

    volume_id: str
    initiators: tuple[str, ...]  # `initiator_iqn` of the hosts that may log in. Empty: nobody.
    chap: Chap
    is_read_only: bool = False


class ExportStatus(ObjectStatus, frozen=True, kw_only=True):
    """Where the volume is reachable for this attachment. The portal is the storage host's underlay address."""

    volume_id: str = ""
    size_gib: int = 0
    host: str = ""
    port: int = 0
    iqn: str = ""
    lun: int = LUN


class PoolStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A pool of volumes on a host, as told in heartbeats and in the host's inventory."""

    name: str
    driver: str  # file | lvm
    total_gib: int
    free_gib: int  # What new bytes may still take.
    provisioned_gib: int  # The sizes of all volumes and snapshots together; may be more than `total_gib`.
    is_thin: bool  # Volumes take what was written, not what was promised.
    is_instant: bool  # Snapshots and clones take no time and, at first, no space.


ENSURE = Call("volume.ensure", VolumeSpec, VolumeStatus)
ABSENT = Call("volume.absent", Absence, VolumeStatus)
GET = Call("volume.get", Ref, VolumeStatus)

SNAPSHOT_ENSURE = Call("snapshot.ensure", SnapshotSpec, SnapshotStatus)
SNAPSHOT_ABSENT = Call("snapshot.absent", Absence, SnapshotStatus)
SNAPSHOT_GET = Call("snapshot.get", Ref, SnapshotStatus)

EXPORT_ENSURE = Call("export.ensure", ExportSpec, ExportStatus)
EXPORT_ABSENT = Call("export.absent", Absence, ExportStatus)
EXPORT_GET = Call("export.get", Ref, ExportStatus)
