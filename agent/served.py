"""What this host serves over its channel: images of its cache, its guests' screens and serial ports, and the way in.

A guest that comes from another host while it runs needs libvirtd here, and two sockets of its own QEMU. They are opened
only for a domain that this host makes room for, to the host that the controller has named in the ticket. The sockets
lie where that QEMU could put something else in their place, so whoever answers there must run as the guest's own uid.
"""

import asyncio
import contextlib
import socket
import struct
from pathlib import Path
from typing import Final

import msgspec
import structlog

from agent.channel import Opener
from agent.effects import HYPERVISOR, IMAGE, NETWORK, Effects
from agent.nouns import Key, Noun
from agent.passage import GO
from agent.wire.disk import DiskSpec
from agent.wire.domain import ARRIVAL, CONTROL, DISKS, MEMORY, Desired, DomainSpec, DomainStatus
from agent.wire.errors import Busy, NotFound, WireError
from agent.wire.lifecycle import Power
from agent.wire.port import TcpFlow

SCREEN: Final = "vnc"
SERIAL: Final = "serial"

ALONE_S: Final = 1.0
"""A guest that arrived goes on when the controller says so: other hosts know where it is then, and its first packets
are answered. After so long it goes on anyway, stretched where guests are slow. Longer: a controller that is away stops
guests. Shorter: what they send first is lost, and their connections wait."""

LOOK_S: Final = 0.05
SAID_MAX: Final = 4 << 20

LIBVIRT: Final = Path("/run/libvirt/libvirt-sock")

log = structlog.get_logger()


class Served:
    """See agent.channel.HostChannel for who calls this."""

    def __init__(self, fx: Effects) -> None:
        self._fx = fx
        self._serials: dict[str, socket.socket] = {}
        self._arriving: set[asyncio.Task[None]] = set()

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
        return {
            SCREEN: self._screen,
            SERIAL: self._serial,
            CONTROL: self._control,
            MEMORY: lambda domain_id: self._gate(domain_id, MEMORY),
            DISKS: lambda domain_id: self._gate(domain_id, DISKS),
            ARRIVAL: self._arrival,
        }

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

    async def _control(self, domain_id: str) -> socket.socket:
        self._coming(domain_id)
        return _connected(LIBVIRT)

    async def _gate(self, domain_id: str, name: str) -> socket.socket:
        landed = self._coming(domain_id)
        if landed.landing is None:
            raise Busy(f"domain {domain_id} has no place here yet")
        found = _connected(Path(landed.landing.gate, name))
        _, uid, _ = struct.unpack("3i", found.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid != landed.landing.uid:
            found.close()
            raise NotFound(f"not the guest's own QEMU answers for domain {domain_id}")
        return found

    async def _arrival(self, domain_id: str) -> socket.socket:
        """Whoever sends a byte through it says that the guest is nowhere else any more."""
        self._coming(domain_id)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        task = asyncio.create_task(self._await_arrival(domain_id, ours))
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)
        return theirs

    async def _await_arrival(self, domain_id: str, ours: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.closing(ours):
            try:
                said = await _until_end(ours)
                if not said.startswith(GO):
                    return
                self._coming(domain_id)
                await self._adopt(domain_id, said.removeprefix(GO))
                ends = loop.time() + self._fx.slow * ALONE_S
                while loop.time() < ends:
                    self._coming(domain_id)
                    await asyncio.sleep(LOOK_S)
                start = self._fx.drivers.hypervisor.start
                await self._fx.run(HYPERVISOR, f"arrival of {domain_id}", start, domain_id)
                log.info("a guest goes on here, and nobody has asked for it yet", domain=domain_id)
            except NotFound:
                return  # The controller has seen to it.
            except (OSError, WireError) as error:
                log.warning("a guest that arrived does not go on yet", domain=domain_id, why=str(error))

    async def _adopt(self, domain_id: str, said: bytes) -> None:
        """Its connections go on. Those of other guests' ports do not, whatever the other host says."""
        entry = self._fx.ledger.find(Key(Noun.DOMAIN, domain_id))
        spec = None if entry is None else entry.spec
        mine = {nic.port_id for nic in spec.nics} if isinstance(spec, DomainSpec) else set()
        try:
            flows = msgspec.json.decode(said, type=tuple[TcpFlow, ...])
            found = tuple(flow for flow in flows if flow.port_id in mine)
            await self._fx.run(NETWORK, f"arrival of {domain_id}", self._fx.drivers.filter.adopt, found)
        except (msgspec.DecodeError, ValueError, OSError, WireError) as error:
            log.warning("the connections of a guest that arrived are lost", domain=domain_id, why=str(error))

    def _coming(self, domain_id: str) -> DomainStatus:
        """How far the place of a domain is that comes here. Raises NotFound, Busy."""
        key = Key(Noun.DOMAIN, domain_id)
        entry, track = self._fx.ledger.find(key), self._fx.tracks.get(key)
        spec = None if entry is None or entry.absent else entry.spec
        if not isinstance(spec, DomainSpec) or spec.desired is not Desired.LANDING:
            raise NotFound(f"domain {domain_id} does not come to this host")
        if track is None or not isinstance(track.seen, DomainStatus):
            raise Busy(f"domain {domain_id} has no place here yet")
        return track.seen

    def _owner(self, domain_id: str) -> str:
        """For the log. Raises NotFound for what is no domain of this host."""
        if self._fx.ledger.find(Key(Noun.DOMAIN, domain_id)) is None:
            raise NotFound(f"domain {domain_id} is not known to this host")
        return f"console of {domain_id}"


async def _until_end(ours: socket.socket) -> bytes:
    """All that is said; at most so much."""
    loop, said = asyncio.get_running_loop(), b""
    while len(said) < SAID_MAX and (piece := await loop.sock_recv(ours, 1 << 16)):
        said += piece
    return said


def _connected(path: Path) -> socket.socket:
    found = socket.socket(socket.AF_UNIX)
    try:
        found.connect(str(path))
    except OSError as error:
        found.close()
        raise Busy(f"nobody answers at {path}: {error}") from error
    found.setblocking(False)
    return found
