"""The initramfs: one static busybox, a few kernel modules and `initramfs/init`, written as a cpio archive.

Written here rather than by cpio(1): device nodes and root's ownership need no privileges when they are only
bytes in an archive, and the same inputs give the same bytes.
"""

import gzip
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kernel import BOOT_MODULES, SCSI_MODULES, Kernel, load_order
from tools import HERE, run

# The kernel opens it as init's standard streams before init can mount /dev.
CONSOLE_MAJOR, CONSOLE_MINOR = 5, 1


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A member of the archive; root owns everything."""

    name: str
    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


def write_initrd(out: Path, kernel: Kernel, busybox: Path, work: Path) -> None:
    """Pack the initramfs and compress it. gzip: the fastest of the formats that every Python can write."""
    out.write_bytes(gzip.compress(b"".join(_archive(_entries(kernel, busybox, work))), 9, mtime=0))


def _entries(kernel: Kernel, busybox: Path, work: Path) -> Iterator[Entry]:
    for folder in ("bin", "dev", "proc", "sys", "modules", "root"):
        yield Entry(name=folder, mode=stat.S_IFDIR | 0o755)
    yield Entry(name="dev/console", mode=stat.S_IFCHR | 0o600, device=(CONSOLE_MAJOR, CONSOLE_MINOR))
    yield _program("bin/busybox", busybox)
    yield _program("init", HERE / "initramfs" / "init")
    boot = load_order(kernel, BOOT_MODULES)
    scsi = [path for path in load_order(kernel, SCSI_MODULES) if path not in boot]
    for path in [*boot, *scsi]:
        yield _file(f"modules/{Path(path).name}", _stripped(kernel.modules_folder / path, work))
    # init loads the modules listed in these files, in this order.
    yield _list("modules/boot", boot)
    yield _list("modules/scsi", scsi)


def _file(name: str, source: Path) -> Entry:
    return Entry(name=name, mode=stat.S_IFREG | 0o644, content=source.read_bytes())


def _program(name: str, source: Path) -> Entry:
    return Entry(name=name, mode=stat.S_IFREG | 0o755, content=source.read_bytes())


def _list(name: str, modules: list[str]) -> Entry:
    text = "".join(f"{Path(path).name}\n" for path in modules)
    return Entry(name=name, mode=stat.S_IFREG | 0o644, content=text.encode())


def _stripped(module: Path, work: Path) -> Path:
    copy = work / module.name
    shutil.copy(module, copy)
    run("strip", "--strip-debug", copy)
    return copy


def _archive(entries: Iterator[Entry]) -> Iterator[bytes]:
    """The "new ASCII" cpio format (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    inode = 0
    for inode, entry in enumerate(entries, start=1):
        yield _member(entry, inode)
    yield _member(Entry(name="TRAILER!!!", mode=0), inode + 1)


def _member(entry: Entry, inode: int) -> bytes:
    name = entry.name.encode() + b"\0"
    uid = gid = mtime = dev_major = dev_minor = check = 0
    fields = [inode, entry.mode, uid, gid, 1, mtime, len(entry.content), dev_major, dev_minor]
    fields += [*entry.device, len(name), check]
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name) + _padded(entry.content)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
