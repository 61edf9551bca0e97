"""The bootable disk: a BIOS partition table, a FAT partition with syslinux and the kernel, an ext4 root.

    sector 0      syslinux's MBR code and the table
    1 MiB         p1, FAT16: ldlinux.sys, vmlinuz, initrd
    after it      p2, ext4: the root file system, to the end of the disk

No loop device and no mount, so no root: mtools writes into the FAT image, mke2fs fills the ext4 image from a
folder, and debugfs then gives the files to the users that own them inside the guest.

BIOS and not UEFI: the firmware of the latter alone takes longer under emulation than this guest's whole boot.
"""

import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from tools import run

SECTOR = 512
MIB = 1024 * 1024
FIRST_SECTOR = 2048  # partitions begin on 1 MiB
FAT_SPARE_MIB = 1  # FAT tables, clusters half used, ldlinux.sys
FAT_LABEL = "HOSTLERBOOT"
ROOT_LABEL = "hostler-root"  # initramfs/init looks for it
MBR_CODE = Path("/usr/lib/syslinux/mbr/mbr.bin")

# The disk signature of the partition table. No meaning; fixed so that equal inputs give equal disks.
DISK_SIGNATURE = 0x0057_1E12

FAT16_LBA, LINUX = 0x0E, 0x83
CLOUD_ID = 1000  # uid and gid of `cloud` in rootfs/etc/passwd

# The capability CAP_NET_RAW, permitted and effective, as the kernel stores it (struct vfs_cap_data, revision 2).
# busybox has it in place of a setuid bit: ping and arping work for everybody, and nothing else is privileged.
NET_RAW = (0x0200_0001, 1 << 13, 0, 0, 0)
NET_RAW_PROGRAM = "/usr/bin/busybox"

# Every time stamp inside the image: not the day of the build, so that equal inputs give equal disks.
EPOCH = 1_700_000_000


@dataclass(frozen=True, kw_only=True)
class Boot:
    """What the boot partition holds."""

    kernel: Path
    initrd: Path
    command_line: str


def write_disk(out: Path, boot: Boot, root: Path, *, size_mib: int, uuid: UUID, work: Path) -> None:
    """Write a zlib-compressed qcow2 of `size_mib` MiB; `uuid` becomes the identity of its file systems."""
    fat = _boot_partition(boot, uuid, work)
    root_start = FIRST_SECTOR + fat.stat().st_size // SECTOR
    root_sectors = size_mib * MIB // SECTOR - root_start
    ext4 = _root_partition(root, root_sectors * SECTOR // 1024, uuid, work)
    raw = work / "disk.raw"
    with raw.open("wb") as disk:
        disk.truncate(size_mib * MIB)
        disk.write(_boot_record(fat.stat().st_size // SECTOR, root_start, root_sectors))
        for image, start in ((fat, FIRST_SECTOR), (ext4, root_start)):
            disk.seek(start * SECTOR)
            disk.write(image.read_bytes())
    # zlib packs this content better than zstd does.
    options = "compression_type=zlib"
    run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, raw, out)


def _boot_record(fat_sectors: int, root_start: int, root_sectors: int) -> bytes:
    code = MBR_CODE.read_bytes().ljust(440, b"\0")
    table = _table_entry(True, FAT16_LBA, FIRST_SECTOR, fat_sectors)
    table += _table_entry(False, LINUX, root_start, root_sectors) + bytes(32)
    return code + DISK_SIGNATURE.to_bytes(4, "little") + b"\0\0" + table + b"\x55\xaa"


def _table_entry(active: bool, kind: int, start: int, sectors: int) -> bytes:
    beyond_chs = b"\xfe\xff\xff"  # "use the LBA fields"
    return (
        bytes([0x80 if active else 0])
        + beyond_chs
        + bytes([kind])
        + beyond_chs
        + start.to_bytes(4, "little")
        + sectors.to_bytes(4, "little")
    )


def _boot_partition(boot: Boot, uuid: UUID, work: Path) -> Path:
    config = work / "syslinux.cfg"
    config.write_text(
        "DEFAULT linux\nPROMPT 0\nTIMEOUT 0\nLABEL linux\n"
        f"  KERNEL vmlinuz\n  INITRD initrd\n  APPEND {boot.command_line}\n"
    )
    files = {"vmlinuz": boot.kernel, "initrd": boot.initrd, "syslinux.cfg": config}
    content = sum(path.stat().st_size for path in files.values())
    image = work / "boot.fat"
    with image.open("wb") as fat:
        fat.truncate((content // MIB + 1 + FAT_SPARE_MIB) * MIB)
    serial = uuid.hex[:8]
    # 4 KiB clusters: few enough of them for FAT16, big enough for a quick load by the BIOS.
    layout = ("-F", "16", "-s", "8", "-h", str(FIRST_SECTOR))
    run("mkfs.vfat", "--invariant", *layout, "-i", serial, "-n", FAT_LABEL, image)
    for name, path in files.items():
        os.utime(path, (EPOCH, EPOCH))
        # -m keeps the time stamp; the check would refuse a partition without its disk's geometry.
        run("mcopy", "-m", "-i", image, path, f"::{name}", env={"MTOOLS_SKIP_CHECK": "1", "TZ": "UTC"})
    run("syslinux", "--install", image, env={"SOURCE_DATE_EPOCH": str(EPOCH), "TZ": "UTC"})
    return image


def _root_partition(root: Path, size_kib: int, uuid: UUID, work: Path) -> Path:
    for path in [root, *root.rglob("*")]:
        os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)
    image = work / "root.ext4"
    image.unlink(missing_ok=True)
    options = (
        # The "small" profile that 128 MiB would get has 1 KiB blocks, which grow badly to a large disk.
        *("-t", "ext4", "-T", "default", "-b", "4096", "-m", "0", "-J", "size=4"),
        # The seed of checksums follows the UUID, so that a guest may change its UUID.
        *("-O", "^metadata_csum_seed", "-L", ROOT_LABEL, "-U", str(uuid)),
        *("-E", f"root_owner=0:0,lazy_itable_init=1,hash_seed={uuid}"),
    )
    at_epoch = {"E2FSPROGS_FAKE_TIME": str(EPOCH)}
    run("mke2fs", "-q", *options, "-d", root, image, f"{size_kib}k", env=at_epoch)
    capability = work / "net-raw.capability"
    capability.write_bytes(struct.pack("<5I", *NET_RAW))
    privilege = f"ea_set -f {capability} {NET_RAW_PROGRAM} security.capability"
    script = work / "owners.debugfs"
    script.write_text("".join(f"{line}\n" for line in [*_ownership(root), privilege]))
    run("debugfs", "-w", "-f", script, image, env=at_epoch)
    return image


def _ownership(root: Path) -> list[str]:
    """debugfs commands: root owns everything but `cloud`'s home, whoever ran the build."""
    lines = []
    for path in sorted(root.rglob("*")):
        inside = "/" + str(path.relative_to(root))
        owner = CLOUD_ID if inside.startswith("/home/cloud") else 0
        lines += [f'sif "{inside}" {field} {owner}' for field in ("uid", "gid")]
        lines += [f'sif "{inside}" {field} @{EPOCH}' for field in ("ctime", "atime")]
        assert not stat.S_ISBLK(path.lstat().st_mode), "the image has no device nodes: the kernel makes them"
    return lines
