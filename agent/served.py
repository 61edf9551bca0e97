"""What this host serves over its channel: images of its cache, and the screens and serial ports of its guests."""

import contextlib
import socket
from typing import Final

from agent.channel import Opener
from agent.effects import HYPERVISOR, IMAGE, Effects
from agent.nouns import Key, Noun
from agent.wire.disk import DiskSpec
from agent.wire.errors import Busy, NotFound
from agent.wire.lifecycle import Power

SCREEN: Final = "vnc"
SERIAL: Final = "serial"


class Served:
    """See agent.channel.HostChannel for who calls this."""

    def __init__(self, fx: Effects) -> None:
        self._fx = fx
        self._serials: dict[str, socket.socket] = {}

    async def image(self, sha256: str) -> str:
        """Where an image of the cache lies. Raises NotFound."""
        found = await self._fx.run(IMAGE, f"channel of image {sha256}", self._fx.drivers.images.find, sha256)
        if found is None:
            raise NotFound(f"image {sha256} is not in the cache of this host")
        return found.path

    async def disk(self, disk_id: str) -> str:
        """Where the disk of a guest lies that is off, and stays so while it moves. Raises NotFound, Busy."""
        entry = self._fx.ledger.find(Key(Noun.DISK, disk_id))
        spec = None if entry is None else entry.spec
        if entry is None or entry.absent or not isinstance(spec, DiskSpec):
            raise NotFound(f"disk {disk_id} is not known to this host")
        owner = f"channel of disk {disk_id}"
        domain = await self._fx.run(HYPERVISOR, owner, self._fx.drivers.hypervisor.find, spec.domain_id)
        if domain is not None and domain.power not in (Power.SHUTOFF, Power.CRASHED):
            raise Busy(f"the guest of disk {disk_id} is not off")
        found = await self._fx.run(IMAGE, owner, self._fx.drivers.disks.find, disk_id)
        if found is None:
            raise NotFound(f"disk {disk_id} is gone from this host")
        return found.path

    def tunnels(self) -> dict[str, Opener]:
        """The kinds of streams."""
        return {SCREEN: self._screen, SERIAL: self._serial}

    async def _screen(self, domain_id: str) -> socket.socket:
        hypervisor = self._fx.drivers.hypervisor
        return await self._fx.run(HYPERVISOR, self._owner(domain_id), hypervisor.open_screen, domain_id)

    async def _serial(self, domain_id: str) -> socket.socket:
        """The newest connection has the port: who lost theirs may ask again, a forgotten window holds nobody up."""
        hypervisor = self._fx.drivers.hypervisor
        opened = await self._fx.run(HYPERVISOR, self._owner(domain_id), hypervisor.open_serial, domain_id)
        for known, older in list(self._serials.items()):
            if known == domain_id or older.fileno() < 0:
                with contextlib.suppress(OSError):
                    older.shutdown(socket.SHUT_RDWR)
                del self._serials[known]
        self._serials[domain_id] = opened
        return opened

    def _owner(self, domain_id: str) -> str:
        """For the log. Raises NotFound for what is no domain of this host."""
        if self._fx.ledger.find(Key(Noun.DOMAIN, domain_id)) is None:
            raise NotFound(f"domain {domain_id} is not known to this host")
        return f"console of {domain_id}"
