"""The volumes that a new server is made with: given ones, and ones that are made for it.

Everything stands or falls with the transaction that makes the server: a volume's row, its quota and its saga, and the
reservation of each. The server's saga waits for the volumes that are being made.
"""

from typing import Final, Literal

import msgspec

from controller.compute import plugs
from controller.compute.model import Server
from controller.compute.plugs import Plug
from controller.config import VolumeLimits
from controller.context import Context
from controller.db.tx import Tx
from controller.errors import Invalid, NotFound
from controller.image import images
from controller.volume import attachments, volumes
from controller.volume.attachments import Wanted
from controller.volume.model import Source, Volume
from controller.volume.volumes import Ids as VolumeIds
from controller.volume.volumes import NewVolume

ROOT_DEVICE: Final = "/dev/vda"

BUSES: Final = ("virtio", "scsi")

IDS: Final = 6
"""Of one device, drawn before: a volume's, its saga's and message's, an attachment's, and two for its deletion."""

_INVALID: Final = "Block Device Mapping is Invalid: "


class WantedDevice(msgspec.Struct, frozen=True, kw_only=True):
    """One volume of a server to be. `source` volume: that very one; else one is made for the server."""

    source: Literal["image", "snapshot", "volume", "blank"]
    source_id: str | None = None
    size_gib: int | None = None
    is_root: bool = False
    device: str | None = None
    bus: str | None = None
    tag: str | None = None
    type_name: str | None = None
    is_ended_with_server: bool = False
    may_share: bool = True


class Given(msgspec.Struct, frozen=True):
    """What a server's volumes come to: sagas to kick, and for each volume the ids of its deletion."""

    saga_ids: tuple[str, ...] = ()
    ends: tuple[tuple[str, str], ...] = ()


class Root(msgspec.Struct, frozen=True):
    """What a volume to boot from says of the machine that it needs."""

    properties: dict[str, str]
    min_ram: int


def root_of(tx: Tx, ctx: Context, wanted: WantedDevice) -> Root:
    """Look it up. Raises Invalid for what cannot be booted."""
    if wanted.source == "blank" or wanted.source_id is None:
        raise Invalid(f"{_INVALID}a blank device is not bootable.")
    if wanted.source == "image":
        image = images.bootable(tx, ctx, wanted.source_id)
        return Root(dict(image.properties), image.min_ram)
    volume = _volume_behind(tx, ctx, wanted)
    if not volume.is_bootable:
        raise Invalid(f"Block Device {wanted.source_id} is not bootable.")
    ram = volume.image_meta.get("min_ram", "0")
    return Root(volume.image_meta, int(ram) if ram.isdecimal() else 0)


def _volume_behind(tx: Tx, ctx: Context, wanted: WantedDevice) -> Volume:
    """The volume itself, or the one that the snapshot was taken of."""
    assert wanted.source_id is not None, "asked before"
    try:
        if wanted.source == "snapshot":
            return volumes.behind_snapshot(tx, ctx, wanted.source_id)
        return attachments.get_volume(tx, ctx, wanted.source_id)
    except NotFound as error:
        raise Invalid(f"{_INVALID}failed to get {wanted.source} {wanted.source_id}.") from error


def give(
    tx: Tx,
    ctx: Context,
    server: Server,
    wanted: tuple[WantedDevice, ...],
    ids: tuple[tuple[str, ...], ...],
    limits: VolumeLimits,
) -> Given:
    """Make and reserve a server's volumes. Raises Invalid, OverQuota."""
    taken = [ROOT_DEVICE]
    sagas: list[str] = []
    ends: list[tuple[str, tuple[str, str]]] = []
    for one, own in zip(wanted, ids, strict=False):
        volume_id, saga_id, message_id, attachment_id, end_saga, end_message = own
        volume, is_new = _volume(tx, ctx, server, one, VolumeIds(volume_id, saga_id, message_id), limits)
        if is_new:
            sagas.append(saga_id)
        device = ROOT_DEVICE if one.is_root else plugs.next_device(taken, one.device)
        taken.append(device)
        _reserve(tx, server, volume, one, (attachment_id, device, is_new))
        ends.append((device, (end_saga, end_message)))
    return Given(tuple(sagas), tuple(end for _, end in sorted(ends)))


def _volume(
    tx: Tx, ctx: Context, server: Server, wanted: WantedDevice, ids: VolumeIds, limits: VolumeLimits
) -> tuple[Volume, bool]:
    """(the volume, whether it is just being made)."""
    if wanted.source == "volume":
        found = _volume_behind(tx, ctx, wanted)
        if found.project_id != server.project_id:
            raise Invalid(f"{_INVALID}failed to get volume {wanted.source_id}.")
        if found.is_multiattach and not wanted.may_share:
            raise Invalid("Multiattach volumes are only supported starting with compute API version 2.60.")
        return found, False
    new = NewVolume(
        name="",
        description="",
        size_gib=wanted.size_gib,
        type_name=wanted.type_name,
        source=Source.NONE if wanted.source == "blank" else Source(wanted.source),
        source_id=wanted.source_id,
    )
    try:
        return volumes.make(tx, ctx, new, ids, limits, server.created_at), True
    except NotFound as error:
        raise Invalid(f"{_INVALID}failed to get {wanted.source} {wanted.source_id}: {error.message}") from error


def _reserve(tx: Tx, server: Server, volume: Volume, one: WantedDevice, how: tuple[str, str, bool]) -> None:
    attachment_id, device, is_new = how
    if plugs.find(tx, server.id, volume.id) is not None:
        raise Invalid(f"{_INVALID}volume {volume.id} was specified twice.")
    wanted = Wanted(
        id=attachment_id,
        volume_id=volume.id,
        server_id=server.id,
        is_ours=True,
        device=device,
        is_made_for=is_new,
    )
    attachments.reserve(tx, volume, wanted, server.created_at)
    plug = Plug(
        attachment_id=attachment_id,
        server_id=server.id,
        volume_id=volume.id,
        device=device,
        bus=one.bus,
        boot_index=0 if one.is_root else None,
        tag=one.tag,
        is_ended_with_server=one.is_ended_with_server,
        is_plugged=False,
    )
    plugs.insert(tx, plug)
