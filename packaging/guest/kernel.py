"""The guest's kernel: which modules it needs and in which order they load.

Debian's cloud kernel has virtio, SCSI and CD-ROM file systems as modules, and no AHCI, DRM or sound at all.
"""

from dataclasses import dataclass
from pathlib import Path

from tools import run

# Loaded by the initramfs, always: without them there is no root disk and no network card.
BOOT_MODULES = ("virtio_pci", "virtio_blk", "virtio_net")

# Loaded by the initramfs only when the machine has a virtio SCSI controller.
SCSI_MODULES = ("virtio_scsi", "sd_mod")

# In the root file system, loaded when the device or the file system shows up.
LATER_MODULES = (
    "virtio_rng",
    "virtio_balloon",
    "virtio_console",  # the port of the guest agent
    "sr_mod",  # config drive as a CD-ROM
    "isofs",
    "vfat",
    "nls_ascii",
    "nls_cp437",
    "button",  # ACPI power button, and the input device that reports it
    "evdev",
    "8021q",  # VLANs of trunk ports
)


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """An unpacked kernel package."""

    tree: Path
    version: str

    @property
    def image(self) -> Path:
        """The bzImage."""
        return self.tree / "boot" / f"vmlinuz-{self.version}"

    @property
    def modules_folder(self) -> Path:
        """The folder that the paths given by load_order are relative to."""
        return self.tree / "lib" / "modules" / self.version


def open_kernel(tree: Path) -> Kernel:
    """Index the modules of a freshly unpacked kernel package."""
    version = next((tree / "lib" / "modules").iterdir()).name
    run("depmod", "-b", tree, version)
    return Kernel(tree=tree, version=version)


def load_order(kernel: Kernel, names: tuple[str, ...]) -> list[str]:
    """Files of these modules and of all they depend on, each after what it needs, without repetition."""
    path_of: dict[str, str] = {}
    needs: dict[str, list[str]] = {}
    for line in (kernel.modules_folder / "modules.dep").read_text().splitlines():
        path, _, dependencies = line.partition(":")
        path_of[_name(path)] = path
        # modules.dep lists the nearest dependency first and includes the indirect ones.
        needs[path] = dependencies.split()[::-1]
    built_in = {_name(path) for path in (kernel.modules_folder / "modules.builtin").read_text().split()}
    order: dict[str, None] = {}
    for name in names:
        if name not in built_in:
            order.update(dict.fromkeys([*needs[path_of[name]], path_of[name]]))
    return list(order)


def _name(path: str) -> str:
    return Path(path).name.removesuffix(".ko").replace("-", "_")
