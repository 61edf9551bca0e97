"""Images of servers that boot from volumes: no data of their own, but the names of snapshots, as Nova has them.

The property `block_device_mapping` is a list of devices, each with a snapshot that a volume is made of. A server that
is made of such an image has those devices, and no local disk. Anybody may write such a property into an image of their
own: what it names is looked up for whoever boots it.
"""

from typing import Final

import msgspec

from controller.compute.devices import BUSES, WantedDevice
from controller.compute.plugs import LETTERS, Plug
from controller.errors import Invalid

PROPERTY: Final = "block_device_mapping"


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """One entry. Unknown keys are others' business."""

    source_type: str = ""
    destination_type: str = ""
    snapshot_id: str | None = None
    volume_size: int | None = None
    boot_index: int | None = None
    device_name: str | None = None
    disk_bus: str | None = None
    delete_on_termination: bool = False


def written(found: list[tuple[Plug, str, int]]) -> dict[str, str]:
    """Properties of an image of these volumes: (the plug, its snapshot, its size)."""
    devices = [
        Device(
            source_type="snapshot",
            destination_type="volume",
            snapshot_id=snapshot_id,
            volume_size=size_gib,
            boot_index=0 if plug.boot_index == 0 else None,
            device_name=plug.device,
            disk_bus=plug.bus,
            delete_on_termination=plug.is_ended_with_server,
        )
        for plug, snapshot_id, size_gib in found
    ]
    root = next((plug.device for plug, _, _ in found if plug.boot_index == 0), "/dev/vda")
    return {PROPERTY: msgspec.json.encode(devices).decode(), "bdm_v2": "True", "root_device_name": root}


def read(text: str) -> tuple[WantedDevice, ...]:
    """The devices of a server that is made of such an image. Raises Invalid."""
    try:
        devices = msgspec.json.decode(text, type=list[Device])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"The image's {PROPERTY} is not one: {error}") from error
    if len(devices) > len(LETTERS):
        raise Invalid(f"The image names {len(devices)} devices; a server has at most {len(LETTERS)}.")
    return tuple(_wanted(device) for device in devices)


def _wanted(device: Device) -> WantedDevice:
    if (device.source_type, device.destination_type) != ("snapshot", "volume") or device.snapshot_id is None:
        raise Invalid(f"The image's {PROPERTY} names something that is no snapshot of a volume.")
    is_root = device.boot_index == 0
    return WantedDevice(
        source="snapshot",
        source_id=device.snapshot_id,
        size_gib=device.volume_size,
        is_root=is_root,
        device=None if is_root else device.device_name,
        bus=device.disk_bus if device.disk_bus in BUSES else None,
        is_ended_with_server=device.delete_on_termination,
    )
