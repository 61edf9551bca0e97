#!/usr/bin/env python3
"""Builds Hostler's two tiny cloud images out of Debian packages: no root, no loop device, no installer.

    python packaging/guest/build.py --out DIR [--cache DIR]

hostler-tiny        a Linux that boots in seconds even without KVM: DHCP, metadata, SSH, user-data
hostler-tiny-agent  the same with qemu-guest-agent, for quiesced snapshots and addresses seen from inside

Each image is DIR/<name>.qcow2 with DIR/<name>.json, which says what an image service needs to know and which
inputs it was built from. An image whose inputs have not changed is left alone, so running this twice is cheap.
Inputs are the packages' versions, every file of this folder but its documentation, and the image's own table row.

The machine that builds needs Debian 12 on x86-64 and the packages of debian-packages.txt.
"""

import argparse
import fcntl
import hashlib
import json
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import UUID

from debs import KERNEL_META, fetch, fetch_kernel, unpack
from disk import MIB, ROOT_LABEL, Boot, write_disk
from initrd import write_initrd
from kernel import Kernel, open_kernel
from root import AGENT, BASE, Programs, make_root
from tools import HERE, BuildError, debian_packages, require_tools

DEBIAN_PACKAGES = debian_packages()

# Quiet and without what only real hardware or untrusted code in one kernel needs: each option was measured
# to shorten the boot under emulation, or (tsc, timer) to keep it from failing on a slow host.
COMMAND_LINE = (
    f"root=LABEL={ROOT_LABEL} console=tty0 console=ttyS0,115200 quiet loglevel=3 panic=5 nokaslr mitigations=off "
    "cryptomgr.notests no_timer_check tsc=reliable audit=0 8250.nr_uarts=1"
)

PROPERTIES = {
    "os_type": "linux",
    "os_distro": "debian",
    "os_version": "12",
    "os_admin_user": "cloud",
    "hw_firmware_type": "bios",
    "hw_disk_bus": "virtio",
    "hw_vif_model": "virtio",
    # Debian's cloud kernel has no AHCI driver: a SATA CD-ROM would be invisible.
    "hw_cdrom_bus": "scsi",
    "hw_scsi_model": "virtio-scsi",
    "hw_rng_model": "virtio",
}


@dataclass(frozen=True, kw_only=True)
class Image:
    """One row of the table of images."""

    name: str
    description: str
    programs: Programs
    properties: dict[str, str]
    size_mib: int = 128
    min_ram_mib: int = 128
    min_disk_gib: int = 1


IMAGES = (
    Image(name="hostler-tiny", description="Tiny Linux, SSH in seconds", programs=BASE, properties=PROPERTIES),
    Image(
        name="hostler-tiny-agent",
        description="Tiny Linux with the QEMU guest agent",
        programs=AGENT,
        properties={**PROPERTIES, "hw_qemu_guest_agent": "yes", "os_require_quiesce": "no"},
    ),
)


def build_all(out: Path, cache: Path, only: str | None = None) -> None:
    """Bring every image in `out` up to date. BuildError says what to do when that cannot be done."""
    if platform.machine() != "x86_64":
        raise BuildError("these images are for x86-64 and are built on it")
    require_tools()
    out.mkdir(parents=True, exist_ok=True)
    with _alone(out):
        # One question to apt for all images: each costs more than checking that an image is current.
        names = {name: None for image in IMAGES for name in image.programs.packages}
        debs = fetch([KERNEL_META, *names], cache)
        kernel_deb = fetch_kernel(debs[KERNEL_META], cache)
        for image in IMAGES:
            if only in (None, image.name):
                _build_if_changed(image, [kernel_deb, *(debs[name] for name in image.programs.packages)], out)


def _build_if_changed(image: Image, debs: list[Path], out: Path) -> None:
    inputs = _inputs_sha256(image, debs)
    if _is_current(image, inputs, out):
        print(f"{image.name}: unchanged")
        return
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f".{image.name}-", dir=out) as folder:
        work = Path(folder)
        disk, kernel = _build(image, debs, UUID(inputs[:32]), work)
        size_mib = disk.stat().st_size / MIB
        document = work / "image.json"
        document.write_text(json.dumps(_describe(image, inputs, kernel, disk), indent=2) + "\n")
        # The description last: it vouches for a disk that is already in place.
        disk.replace(out / f"{image.name}.qcow2")
        document.replace(out / f"{image.name}.json")
    taken = time.monotonic() - started
    print(f"{image.name}: built, {size_mib:.1f} MiB, kernel {kernel.version}, {taken:.1f} s")


def _build(image: Image, debs: list[Path], uuid: UUID, work: Path) -> tuple[Path, Kernel]:
    kernel_deb, *program_debs = debs
    kernel = open_kernel(unpack([kernel_deb], work / "kernel"))
    unpacked = unpack(program_debs, work / "packages")
    initrd = work / "initrd"
    write_initrd(initrd, kernel, unpacked / "bin/busybox", work)
    root = work / "root"
    make_root(image.programs, unpacked, kernel, root)
    disk = work / "disk.qcow2"
    boot = Boot(kernel=kernel.image, initrd=initrd, command_line=COMMAND_LINE)
    write_disk(disk, boot, root, size_mib=image.size_mib, uuid=uuid, work=work)
    return disk, kernel


def _describe(image: Image, inputs: str, kernel: Kernel, disk: Path) -> dict[str, object]:
    return {
        "name": image.name,
        "description": image.description,
        "disk_format": "qcow2",
        "container_format": "bare",
        "sha256": _sha256(disk),
        "size": disk.stat().st_size,
        "virtual_size": image.size_mib * MIB,
        "min_ram_mib": image.min_ram_mib,
        "min_disk_gib": image.min_disk_gib,
        "default_user": "cloud",
        "kernel": kernel.version,
        "properties": image.properties,
        "inputs_sha256": inputs,
    }


def _is_current(image: Image, inputs: str, out: Path) -> bool:
    """Whether the image in place was built from these inputs and is whole."""
    try:
        described = json.loads((out / f"{image.name}.json").read_text())
        whole: bool = _sha256(out / f"{image.name}.qcow2") == described["sha256"]
        return whole and described["inputs_sha256"] == inputs
    except (OSError, ValueError, KeyError, TypeError):
        return False  # absent, half written by hand, or of an older form: build it


def _inputs_sha256(image: Image, debs: list[Path]) -> str:
    digest = hashlib.sha256(json.dumps([asdict(image), *(deb.name for deb in debs)]).encode())
    for path in _sources():
        executable = bool(path.stat().st_mode & 0o100)
        digest.update(f"\0{path.relative_to(HERE)}\0{executable}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _sources() -> Iterator[Path]:
    for path in sorted(HERE.rglob("*")):
        if path.is_file() and path.suffix != ".md" and "__pycache__" not in path.parts:
            yield path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Two builds into one folder take turns; the second then finds nothing to do."""
    with (out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the images")
    parser.add_argument("--cache", type=Path, help="folder of downloaded Debian packages (default: OUT/debs)")
    parser.add_argument("--only", choices=[image.name for image in IMAGES], help="build this image alone")
    given = parser.parse_args()
    try:
        out = given.out.resolve()
        build_all(out, (given.cache or out / "debs").resolve(), given.only)
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
