"""What hosts are told of volumes, snapshots and exports: pure functions of rows.

Every change of such a row raises its generation, so whoever sends a generation sends the same bytes.
"""

import msgspec

from agent.wire.domain import DomainDisk
from agent.wire.lifecycle import Generation
from agent.wire.specs import Absence
from agent.wire.volume import ExportSpec, IscsiSource, SnapshotSpec, SourceKind, VolumeSource, VolumeSpec
from controller.volume.fencing import Fence
from controller.volume.model import Attachment, Snapshot, Source, Volume


class Link(msgspec.Struct, frozen=True):
    """An attachment, with what a domain must know of its volume."""

    attachment: Attachment
    size_gib: int
    is_shared: bool


def volume_spec(row: Volume, epoch: int) -> VolumeSpec:
    """The volume that should be, at the generation of its row."""
    assert row.pool is not None, "only volumes that have a place are told of"
    return VolumeSpec(
        id=row.id,
        generation=Generation(epoch, row.generation),
        labels={"project_id": row.project_id},
        size_gib=row.promised_gib,
        pool=row.pool,
        source=_source(row),
    )


def _source(row: Volume) -> VolumeSource:
    """In a host's cache an image is known by its content."""
    if row.source == Source.NONE or row.source_id is None:
        return VolumeSource()
    name = row.source_hash if row.source == Source.IMAGE else row.source_id
    assert name is not None, "the content of an image was noted with it"
    return VolumeSource(kind=SourceKind(row.source), id=name)


def snapshot_spec(row: Snapshot, epoch: int) -> SnapshotSpec:
    """The snapshot that should be."""
    assert row.pool is not None, "only snapshots that have a place are told of"
    return SnapshotSpec(
        id=row.id,
        generation=Generation(epoch, row.generation),
        labels={"project_id": row.project_id},
        volume_id=row.volume_id,
        pool=row.pool,
    )


def export_spec(row: Attachment, fence: Fence, epoch: int) -> ExportSpec:
    """The export that should be."""
    return ExportSpec(
        id=row.id,
        generation=Generation(epoch, row.generation),
        volume_id=row.volume_id,
        initiators=tuple(row.initiators),
        chap=fence.chap(row.id, row.secret_generation),
        is_read_only=row.mode == "ro",
    )


def absence(object_id: str, epoch: int, generation: int) -> Absence:
    """That it should be gone."""
    return Absence(id=object_id, generation=Generation(epoch, generation))


def domain_disk(link: Link, device: str, bus: str | None, boot_index: int | None, who: tuple[Fence, str]) -> DomainDisk:
    """The volume as a disk of a domain on a host; `who` is (the fence, the host's id). The export has answered."""
    row, (fence, host_id) = link.attachment, who
    assert row.portal_host is not None, "a disk is plugged after its export has answered"
    assert row.portal_port is not None
    assert row.iqn is not None
    assert row.lun is not None
    return DomainDisk(
        disk_id=row.id,
        boot_index=boot_index,
        device=device.removeprefix("/dev/"),
        bus=bus or "",
        iscsi=IscsiSource(
            volume_id=row.volume_id,
            host=row.portal_host,
            port=row.portal_port,
            iqn=row.iqn,
            lun=row.lun,
            initiator=fence.initiator(host_id),
            chap=fence.chap(row.id, row.secret_generation),
            size_gib=link.size_gib,
            is_shared=link.is_shared,
            is_read_only=row.mode == "ro",
        ),
    )
