"""The serial console: connections to it, and its log, which is read from its end and kept from filling the host.

libvirtd opens the file as root and hands QEMU the descriptor, in a folder that only root may change: a QEMU that was
taken over can neither put a link there for libvirtd to follow nor read another guest's log. The file is never rotated,
since QEMU holds it open; instead its beginning is given back to the file system (a hole), and its end stays in place.
"""

import ctypes
import os
import socket
import stat
from pathlib import Path
from typing import Final

from agent.wire.errors import Failed

KEPT_BYTES: Final = 1024 * 1024
"""What stays of a log. `openstack console log show` asks for 100 KiB."""

SLACK_BYTES: Final = 4 * 1024 * 1024
"""How much a log may occupy before its beginning is given back; so trimming is rare."""

CONNECT_S: Final = 5.0
"""QEMU's backlog takes a connection at once, or QEMU is gone."""

_PUNCH_HOLE_KEEP_SIZE: Final = 0x03
_SECTOR: Final = 512

_libc = ctypes.CDLL(None, use_errno=True)


def tail(path: Path, bytes_max: int) -> str:
    """The end of the log; empty where there is none yet. Bytes that are no UTF-8 become U+FFFD."""
    file = _opened(path, os.O_RDONLY)
    if file is None:
        return ""
    try:
        size = os.fstat(file).st_size
        kept = min(size, bytes_max, KEPT_BYTES)
        return os.pread(file, kept, size - kept).lstrip(b"\x00").decode("utf-8", "replace")
    finally:
        os.close(file)


def trim(path: Path) -> None:
    """Give back all but the end, if it occupies too much. On file systems without holes, nothing happens."""
    file = _opened(path, os.O_WRONLY)
    if file is None:
        return
    try:
        status = os.fstat(file)
        if status.st_blocks * _SECTOR > SLACK_BYTES + KEPT_BYTES:
            length = ctypes.c_long(status.st_size - KEPT_BYTES)
            _libc.fallocate(file, _PUNCH_HOLE_KEEP_SIZE, ctypes.c_long(0), length)
    finally:
        os.close(file)


def connect(path: Path, domain_id: str) -> socket.socket:
    """A connection to the socket where QEMU serves a guest's serial port. Raises Failed."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(CONNECT_S)
        sock.connect(str(path))
    except OSError as error:
        sock.close()
        raise Failed(f"domain {domain_id} is off; it has no serial port") from error
    sock.setblocking(False)
    return sock


def _opened(path: Path, flags: int) -> int | None:
    """A regular file, or None; neither a link nor a pipe, should there be one after all."""
    try:
        file = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(file).st_mode):
        return file
    os.close(file)
    return None
