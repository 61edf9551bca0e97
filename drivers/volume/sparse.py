"""Copies of raw files that take no more room than the original: shared blocks where the file system can, else its data.

A file that is copied block by block must not be written meanwhile; one whose blocks are shared may be, since the kernel
does it at one instant.
"""

import errno
import fcntl
import os
from pathlib import Path
from typing import Final

_FICLONE: Final = 0x40049409  # linux/fs.h
_CHUNK: Final = 8 << 20
_UNSUPPORTED: Final = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EXDEV, errno.ENOSYS)


def can_share(folder: Path) -> bool:
    """Whether files of this folder can share blocks. Tried, because no file system says so."""
    probe, twin = folder / ".probe", folder / ".probe-twin"
    try:
        probe.write_bytes(b"\0" * 4096)
        with probe.open("rb") as source, twin.open("wb") as target:
            return _shared(source.fileno(), target.fileno())
    finally:
        probe.unlink(missing_ok=True)
        twin.unlink(missing_ok=True)


def copy(source: Path, target: Path) -> None:
    """Make `target` hold what `source` holds; it exists already and is empty. Durable on return. Raises OSError."""
    with source.open("rb") as reader, target.open("r+b") as writer:
        begin, end = reader.fileno(), writer.fileno()
        if not _shared(begin, end):
            size = os.fstat(begin).st_size
            os.ftruncate(end, size)
            _copy_data(begin, end, size)
        os.fsync(end)


def _shared(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return False
        raise
    return True


def _copy_data(source: int, target: int, size: int) -> None:
    """What is written in the source; its holes stay holes."""
    at = 0
    while at < size:
        try:
            begin = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # Nothing but a hole up to the end.
                return
            raise
        at = os.lseek(source, begin, os.SEEK_HOLE)
        _copy_range(source, target, begin, at)


def _copy_range(source: int, target: int, begin: int, end: int) -> None:
    os.lseek(source, begin, os.SEEK_SET)
    os.lseek(target, begin, os.SEEK_SET)
    while begin < end:
        moved = os.sendfile(target, source, None, min(_CHUNK, end - begin))
        if moved == 0:
            raise OSError(errno.EIO, "the file became shorter while it was copied")
        begin += moved
