"""What a host is, and how much of it is free. Cheap enough to be asked with every heartbeat."""

import os
import shutil
import socket
from pathlib import Path
from typing import Protocol

import msgspec


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """A host at one moment."""

    hostname: str
    boot_id: str  # Another one after each boot of the machine.
    disk_gib: int  # Where guests' disks lie.
    disk_free_gib: int
    memory_free_mib: int
    load_1: float


class Probe(Protocol):
    """Looks."""

    def facts(self) -> Facts:
        """The host now."""
        ...


class SystemProbe:
    """This machine, and the file system of the agent's state folder."""

    def __init__(self, folder: Path, hostname: str = "") -> None:
        self._folder = folder
        self._hostname = hostname or socket.gethostname()

    def facts(self) -> Facts:
        """See Probe."""
        disk = shutil.disk_usage(self._folder)
        return Facts(
            hostname=self._hostname,
            boot_id=Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            disk_gib=disk.total >> 30,
            disk_free_gib=disk.free >> 30,
            memory_free_mib=_memory_available_kib() >> 10,
            load_1=os.getloadavg()[0],
        )


class FixedProbe:
    """A host that never changes, unless somebody sets `now`: for hosts without hardware."""

    def __init__(self, hostname: str, boot_id: str = "boot-1", disk_gib: int = 1000) -> None:
        self.now = Facts(
            hostname=hostname,
            boot_id=boot_id,
            disk_gib=disk_gib,
            disk_free_gib=disk_gib,
            memory_free_mib=1 << 18,
            load_1=0.0,
        )

    def facts(self) -> Facts:
        """See Probe."""
        return self.now


def _memory_available_kib() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1])
    return 0


_: tuple[type[Probe], ...] = (SystemProbe, FixedProbe)
