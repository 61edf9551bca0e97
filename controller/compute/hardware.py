"""From an image's properties to the virtual hardware of the server that boots it: one table.

What an image asks for is settled when the server is made and kept in its row for ever; what it leaves open
(machine type, CPU model) is resolved by its first host, and then kept as well. A property that demands what no
host of ours can give yet is refused: a guest that silently lacks its TPM or its secure boot is worse than none.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from agent.wire.domain import Hardware
from controller.errors import Invalid

_BUSES: Final = re.compile("virtio|scsi|sata|ide|usb")
_VIFS: Final = re.compile("virtio|e1000|e1000e|rtl8139")
_FIRMWARES: Final = re.compile("bios|uefi")
_MACHINES: Final = re.compile(r"(pc|q35|pc-(i440fx|q35)-\d{1,3}\.\d{1,3})")

PROPERTIES: Final[Mapping[str, tuple[str, re.Pattern[str]]]] = {
    "hw_disk_bus": ("disk_bus", _BUSES),
    "hw_vif_model": ("vif_model", _VIFS),
    "hw_machine_type": ("machine", _MACHINES),
    "hw_firmware_type": ("firmware", _FIRMWARES),
}
"""Image property → field of Hardware, and the values that hosts can give."""

REFUSED: Final[Mapping[str, re.Pattern[str]]] = {
    "os_secure_boot": re.compile("required"),
    "hw_tpm_version": re.compile(".*"),
    "hw_tpm_model": re.compile(".*"),
    "hw_mem_encryption": re.compile("true", re.IGNORECASE),
    "hw_pmu": re.compile("true", re.IGNORECASE),
}
"""Properties that, with such a value, ask for what is not offered."""

ARCHITECTURES: Final[Mapping[str, str]] = {
    "x86_64": "x86_64",
    "amd64": "x86_64",
    "aarch64": "aarch64",
    "arm64": "aarch64",
}
"""`hw_architecture` (and the older `architecture`) as images spell it → as hosts do."""


def hardware_of(properties: Mapping[str, Any]) -> Hardware:
    """What the image asks for, and our defaults for the rest. Raises Invalid."""
    for name, refused in REFUSED.items():
        if name in properties and refused.fullmatch(str(properties[name])):
            raise Invalid(f"The image property {name}={properties[name]} asks for what is not supported yet.")
    asked: dict[str, str] = {}
    for name, (field, allowed) in PROPERTIES.items():
        value = properties.get(name)
        if value in (None, ""):
            continue
        if not allowed.fullmatch(str(value)):
            raise Invalid(f"The image property {name} has the value '{value}', which no host can give.")
        asked[field] = str(value)
    return msgspec.convert(asked, Hardware)


def architecture_of(properties: Mapping[str, Any]) -> str | None:
    """The instruction set that the image needs, as hosts spell it; None when it does not say. Raises Invalid."""
    said = properties.get("hw_architecture") or properties.get("architecture")
    if not said:
        return None
    arch = ARCHITECTURES.get(str(said).lower())
    if arch is None:
        raise Invalid(f"Architecture name '{said}' is not recognised")
    return arch
