"""Room on the disk of the database: when little is left nothing new is accepted, and deletes stay possible.

`shortage` is asked before a mutation is accepted (the API answers 503 with it). A file of a few MiB is allocated
in advance; the first commit that fails for want of room gives it up, and with it the deletes that make room can
be written. It is allocated again as soon as there is room.
"""

import os
import time
from pathlib import Path
from typing import Final

import structlog

log = structlog.get_logger()

FREE_BYTES_MIN: Final = 1 << 30
FREE_SHARE_MIN: Final = 0.05
"""The smaller of both counts: on a large disk 5 % would refuse work for years before it is full."""

RESERVE_BYTES: Final = 16 << 20
"""Enough for thousands of deletes."""

_LOOK_S: Final = 2.0
"""How long an answer of the file system is believed."""


class Reserve:
    """What is watched in one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file = directory / "reserve"
        self._looked = float("-inf")
        self._shortage = ""
        self._allocate()

    def shortage(self) -> str:
        """Why nothing new should be written; empty while there is room."""
        if time.monotonic() - self._looked > _LOOK_S:
            self._looked = time.monotonic()
            self._shortage = self._look()
        return self._shortage

    def release(self) -> None:
        """A commit failed: give the reserve up if that was for want of room."""
        self._looked = float("-inf")
        if self.shortage() and self._file.exists():
            log.error("the disk is full; giving up the reserve so that deletes can be written")
            self._file.unlink(missing_ok=True)

    def _look(self) -> str:
        disk = os.statvfs(self._directory)
        free, size = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
        if free >= min(FREE_BYTES_MIN, size * FREE_SHARE_MIN):
            if not self._file.exists():
                self._allocate()
            return ""
        return f"The controller's disk is nearly full ({free >> 20} MiB free); only deletes are accepted."

    def _allocate(self) -> None:
        if self._file.exists():
            return
        fd = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, RESERVE_BYTES)
        except OSError as error:
            log.warning("no reserve could be allocated", error=str(error))
        finally:
            os.close(fd)
