"""From `imageRef` and `block_device_mapping_v2` to the root disk and the volumes of a new server.

A root disk is local and made of an image, or it is a volume: a given one, or one made of an image or a snapshot.
The older `block_device_mapping` is not offered: clients have written the newer form for years.
"""

from typing import Any, Final

from controller.compute import texts
from controller.compute.api import bodies
from controller.compute.devices import BUSES, WantedDevice
from controller.errors import Invalid

DEVICES_MAX: Final = 25
"""Beside the root disk: one letter tells them apart."""

_INVALID: Final = "Block Device Mapping is Invalid: "
_ORDER: Final = f"{_INVALID}Boot sequence for the instance and image/block device mapping combination is not valid."


def wanted(row: Any, *, may_share: bool) -> tuple[str | None, tuple[WantedDevice, ...]]:
    """(the image of a local root disk, or None; the volumes). Raises Invalid."""
    if row.block_device_mapping:
        raise Invalid("block_device_mapping is not offered: use block_device_mapping_v2.")
    rows = [device for device in row.block_device_mapping_v2 if not device.no_device]
    if len(rows) > DEVICES_MAX:
        raise Invalid(f"{_INVALID}a server has at most {DEVICES_MAX} of them.")
    image_id = texts.uuid(row.image_ref.rpartition("/")[2], "imageRef") if row.image_ref else None
    roots = [device for device in rows if _boot_index(device) == 0]
    if len(roots) > 1:
        raise Invalid(_ORDER)
    local = [device for device in rows if _is_local(device)]
    volumes = tuple(_volume(device, may_share) for device in rows if not _is_local(device))
    local_image = _local_root(local, image_id)
    if roots and not _is_local(roots[0]):
        root = next(device for device in volumes if device.is_root)
        if image_id is not None and (root.source != "image" or root.source_id != image_id):
            raise Invalid(_ORDER)
        return None, volumes
    if local_image is None and image_id is None:
        raise Invalid("Invalid imageRef provided." if not rows else _ORDER)
    return local_image or image_id, volumes


def _local_root(local: list[bodies.BlockDevice], image_id: str | None) -> str | None:
    """The image of the one local disk that there may be: the root, made of an image."""
    for device in local:
        if device.source_type != "image":
            raise Invalid(f"{_INVALID}local disks without an image (ephemeral, swap) are not supported yet.")
        if _boot_index(device) != 0 or device.volume_size is not None:
            raise Invalid(f"{_INVALID}the only local disk is the root disk, as large as the flavor says.")
        named = texts.uuid(device.uuid or device.image_id or "", "uuid")
        if image_id is not None and named != image_id:
            raise Invalid(f"{_INVALID}the boot device has another image than imageRef.")
        return named
    return None


def _is_local(device: bodies.BlockDevice) -> bool:
    if device.destination_type is not None:
        return device.destination_type == "local"
    return device.source_type in ("image", "blank", None)


def _boot_index(device: bodies.BlockDevice) -> int | None:
    """None: it is not booted from."""
    if device.boot_index is None or device.boot_index == "":
        return None
    found = texts.number(device.boot_index, "boot_index", -1)
    return None if found < 0 else found


def _volume(device: bodies.BlockDevice, may_share: bool) -> WantedDevice:
    source = device.source_type
    if source is None:
        raise Invalid(f"{_INVALID}a device has a source_type.")
    ids = {"volume": device.volume_id, "snapshot": device.snapshot_id, "image": device.image_id, "blank": None}
    named = device.uuid or ids[source]
    if source != "blank" and not named:
        raise Invalid(f"{_INVALID}a device of an {source} names its uuid.")
    size = None if device.volume_size in (None, "") else texts.number(device.volume_size or 0, "volume_size", 1)
    if source in ("image", "blank") and size is None:
        raise Invalid(f"{_INVALID}Images and blank devices with destination_type 'volume' need a non-zero volume_size.")
    if device.disk_bus is not None and device.disk_bus not in BUSES:
        raise Invalid(f"{_INVALID}disk_bus is one of {', '.join(BUSES)}.")
    tag = getattr(device, "tag", None)
    ends = device.delete_on_termination
    return WantedDevice(
        source=source,
        source_id=texts.uuid(named, "uuid") if named and source != "blank" else None,
        size_gib=None if source == "volume" else size,
        is_root=_boot_index(device) == 0,
        device=device.device_name,
        bus=device.disk_bus,
        tag=None if tag is None else texts.tag(tag),
        type_name=getattr(device, "volume_type", None),
        is_ended_with_server=ends is not None and texts.boolean(ends, "delete_on_termination"),
        may_share=may_share,
    )
