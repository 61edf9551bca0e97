"""A fleet's controller side for tests: database in memory, a real NATS server, the channel on loopback."""

import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

from agent.join import IdentityFiles
from agent.wire.bus import NatsBus
from agent.wire.world import PoolThreads, SystemClock, SystemEntropy, World
from controller.channel import Channel, Listener
from controller.errors import Invalid
from controller.fleet.enrollment import Enrollment
from controller.founding import Founded
from controller.hosts import Hosts
from tests.bus_server import BusServer, bus_server, free_port
from tests.databases import memory_database


class SkewedClock(SystemClock):
    """A clock that a test can set forward."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def now(self) -> float:
        return super().now() + self.ahead_s

    def boottime(self) -> float:
        return super().boottime() + self.ahead_s


class Fleet:
    """What the tests drive."""

    def __init__(self, server: BusServer, bus: NatsBus, world: World, clock: SkewedClock) -> None:
        self.server = server
        self.world = world
        self.clock = clock
        self.db = memory_database()
        self.hosts = Hosts(bus, world)
        self.enrollment = Enrollment(
            self.db,
            world,
            self.hosts,
            founded=Founded(name="default", tag="beef", epoch=1),
            authority=server.authority,
            identity=server.identity,
            listen=server.listen,
        )
        self.images: dict[str, list[bytes]] = {}
        self.channel = Channel(f"127.0.0.1:{free_port()}", world, server.authority)
        self.listener = Listener(self.channel, server.authority, self.enrollment, self._open, self._take)

    @property
    def address(self) -> str:
        return self.channel.address

    async def _open(self, image_id: str, begin: int) -> AsyncIterator[bytes]:
        if image_id not in self.images:
            raise FileNotFoundError(image_id)
        for chunk in self.images[image_id]:
            yield chunk[begin:]
            begin = max(0, begin - len(chunk))

    async def _take(self, image_id: str, chunks: AsyncIterator[bytes], size: int | None) -> None:
        self.images[image_id] = [chunk async for chunk in chunks]
        if sum(len(chunk) for chunk in self.images[image_id]) != size:
            raise Invalid("Not all of it came.")


@contextlib.asynccontextmanager
async def running_fleet(folder: Path) -> AsyncIterator[Fleet]:
    clock = SkewedClock()
    threads = PoolThreads(2, "fleet-test")
    world = World(clock, SystemEntropy(), threads)
    async with bus_server(folder) as server:
        bus = await server.bus("controller")
        fleet = Fleet(server, bus, world, clock)
        try:
            await fleet.hosts.start()
            await fleet.listener.start(time.time())
            yield fleet
        finally:
            await fleet.listener.close()
            await fleet.hosts.close()
            await bus.close()
            await fleet.db.close()
            threads.close()


async def host_bus(fleet: Fleet, folder: Path) -> NatsBus:
    """The bus as the host that has joined into `folder`."""
    files = IdentityFiles(folder)
    joined = files.find()
    assert joined is not None
    bus = NatsBus(joined.nats_urls, joined.host_id, files.bus_credentials(), fleet.world.entropy)
    await bus.start()
    assert await bus.connected(10)
    return bus
