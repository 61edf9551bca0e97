"""A host for tests: fakes that outlive the agent, virtual time, and agents that can be killed between two effects."""

import asyncio
import contextlib
import contextvars
import random
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

import msgspec

from agent.effects import Drivers, Places
from agent.guarding import MemoryGuard
from agent.inventory import Identity
from agent.ledger import Ledger
from agent.node import Agent
from agent.probe import FixedProbe
from agent.streams import Arrive
from agent.wire import bus as wire
from agent.wire import disk, domain, group, image, network, port
from agent.wire.domain import Desired, DomainDisk, DomainNic, DomainSpec, GuestData
from agent.wire.errors import WireError
from agent.wire.group import AddressesSpec, GroupSpec, RuleSpec
from agent.wire.image import ImageSpec, Offer
from agent.wire.lifecycle import Generation, Power, Progress
from agent.wire.network import DhcpPort, NetworkSpec, SubnetSpec
from agent.wire.port import FixedIp, PortSpec
from agent.wire.specs import Absence, Call, ObjectStatus, Ref
from agent.wire.world import World
from drivers.hypervisor.fake import FakeHost, FakeHypervisor
from drivers.image.base import Fetch
from drivers.image.fake import FakeDisks, FakeImageCache, FakeImageHost
from drivers.network import names
from drivers.network.fake import FakeDhcp, FakeFabric, FakeFilter, FakeNetwork
from drivers.volume.fake import FakeExporter, FakeStorage, FakeVolumes
from tests.agent.memory_bus import MemoryBus
from tests.sim.loop import LIFE, Life, Severed, SimLoop

T = TypeVar("T")
TAG = "beef"
SERVER = "11111111-1111-4111-8111-111111111111"
PORT = "22222222-2222-4222-8222-222222222222"
NET = "33333333-3333-4333-8333-333333333333"
GROUP = "44444444-4444-4444-8444-444444444444"
IMAGE = "55555555-5555-4555-8555-555555555555"
DISK = f"{SERVER}-root"
SHA = "ab" * 32


class LoopClock:
    def now(self) -> float:
        return 1_700_000_000.0 + asyncio.get_running_loop().time()

    def boottime(self) -> float:
        return asyncio.get_running_loop().time()


class SeededEntropy:
    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def uuid(self) -> str:
        digits = f"{self._random.getrandbits(128):032x}"
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"

    def hex(self, length: int) -> str:
        return f"{self._random.getrandbits(4 * length):0{length}x}"

    def secret(self, length_bytes: int) -> str:
        return self.hex(length_bytes)

    def uniform(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)


class InlineThreads:
    async def run(self, fn: Callable[..., T], *args: Any, timeout_s: float) -> T:
        await asyncio.sleep(0.001)
        return fn(*args)


class Effects:
    """Counts effects of one life, and ends it before or after the n-th."""

    def __init__(self, life: Life, die_at: int | None, is_after: bool) -> None:
        self.life, self.die_at, self.is_after, self.count = life, die_at, is_after, 0

    def around(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.life.require()
        self.count += 1
        if self.count == self.die_at:
            if self.is_after:
                fn(*args, **kwargs)
            self.life.sever()
            raise Severed
        return fn(*args, **kwargs)


class Severable:
    """A party's handle on something that outlives it."""

    def __init__(self, target: Any, effects: Effects, reads: tuple[str, ...] = ()) -> None:
        self._target, self._effects, self._reads = target, effects, reads

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        if not callable(value) or name in self._reads:
            self._effects.life.require()
            return value
        return lambda *args, **kwargs: self._effects.around(value, *args, **kwargs)


class NoSource:
    @contextlib.asynccontextmanager
    async def passage(self, domain_id: str, way: domain.Passage, uid: int) -> AsyncIterator[Arrive]:
        async def arrive(flows: tuple[port.TcpFlow, ...]) -> None:
            return

        yield arrive

    def fetch(self, spec: ImageSpec) -> Fetch:
        return lambda path: None

    def send(self, path: str, offer: Offer) -> None:
        pass

    def bring(self, offer: Offer, size_bytes_max: int) -> Fetch:
        return lambda path: None


_LEDGER_READS = ("find", "entries", "rows", "specs", "find_operation", "open_operations", "digest", "is_new_boot")


_VOLUME_READS = ("pools", "find", "list", "find_snapshot", "list_snapshots")


class Rig:
    """One host and its agents, one after the other."""

    def __init__(self, seed: int = 1) -> None:
        self.host = FakeHost()
        self.images = FakeImageHost()
        self.net = FakeNetwork(physical_networks=("external",))
        self.storage = FakeStorage()
        self.guard = MemoryGuard()
        self.probe = FixedProbe("host1")
        self.database = sqlite3.connect(":memory:", isolation_level=None)
        self.entropy = SeededEntropy(seed)
        self.bus = MemoryBus()
        self.agents = 0
        self.agent: Agent | None = None

    def start(self, die_at: int | None = None, *, is_after: bool = False) -> Effects:
        """Run an agent; the one before must be dead or stopped."""
        self.agents += 1
        self.agent = None
        life = Life(f"agent-{self.agents}")
        _LIVES.append(life)
        self.effects = effects = Effects(life, die_at, is_after)
        self.bus = MemoryBus()
        self.host.disconnect_all()
        self.storage.disconnect_all()
        context = contextvars.copy_context()
        context.run(LIFE.set, life)
        loop = asyncio.get_running_loop()
        self.task = context.run(loop.create_task, self._run(effects))
        self.life = life
        return effects

    async def kill(self) -> None:
        """As kill -9."""
        self.life.sever()

    async def ready(self) -> None:
        async with asyncio.timeout(100):
            while self.agent is None or not self.agent.is_ready.is_set():
                await asyncio.sleep(0.01)

    async def _run(self, effects: Effects) -> None:
        def mine(target: Any, reads: tuple[str, ...] = ()) -> Any:
            return Severable(target, effects, reads)

        world = World(LoopClock(), self.entropy, InlineThreads())
        ledger = mine(Ledger(self.database, self.entropy.uuid()), _LEDGER_READS)
        drivers = Drivers(
            hypervisor=mine(FakeHypervisor(self.host, TAG), ("capabilities", "list", "find", "watch")),
            fabric=mine(FakeFabric(self.net, TAG), ("capabilities", "observe", "namespace")),
            filter=mine(FakeFilter(self.net)),
            dhcp=mine(FakeDhcp(self.net)),
            images=mine(FakeImageCache(self.images), ("find",)),
            disks=mine(FakeDisks(self.images), ("find", "list")),
            volumes=mine(FakeVolumes(self.storage), _VOLUME_READS),
            exporter=mine(FakeExporter(self.storage, TAG, "198.18.0.11"), ("list", "watch")),
        )
        identity = Identity(host_id="h1", cloud="test", tag=TAG, underlay_address="198.18.0.11")
        self.agent = Agent(
            world,
            self.bus,
            ledger,
            drivers,
            identity,
            probe=self.probe,
            guard=self.guard,
            source=NoSource(),
            places=Places(guests="/fake/guests", uids=range(200000, 200010)),
        )
        await self.agent.run()

    async def call(self, row: Call[Any, Any], request: Any) -> Any:
        return await wire.call(self.bus, "h1", row, request)

    async def until(self, row: Call[Any, Any], request: Any, end: Progress = Progress.READY) -> Any:
        """As the controller does: send, then ask until it is so, and send again if the host is another one."""
        async with asyncio.timeout(600):
            while True:
                try:
                    status: ObjectStatus = await self.call(row, request)
                    if status.progress is end:
                        return status
                except (wire.Silent, WireError, TimeoutError):
                    pass
                await asyncio.sleep(1.0)

    async def get(self, row: Call[Ref, Any], id: str) -> Any:
        return await self.call(row, Ref(id=id))


_LIVES: list[Life] = []
_GRAVEYARD: list[asyncio.Task[Any]] = []
"""Tasks that died in the middle. Collecting them would run their `finally` blocks, in the middle of anything."""


def simulated(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run in virtual time. Afterwards the dead are let out, so that nothing is left pending."""
    loop = SimLoop()
    try:
        return loop.run_until_complete(main())
    finally:
        for life in _LIVES:
            life.alive = True
        _LIVES.clear()
        _let_out(loop)


def _let_out(loop: SimLoop) -> None:
    pending = asyncio.all_tasks(loop)
    for task in pending:
        task.cancel()
    if pending:
        loop.run_until_complete(asyncio.wait(pending, timeout=1000))
    for task in asyncio.all_tasks(loop):  # Their next step was dropped with their life.
        task._log_destroy_pending = False
        _GRAVEYARD.append(task)


def gen(n: int) -> Generation:
    return Generation(1, n)


def a_network(n: int = 1, **changes: Any) -> NetworkSpec:
    subnet = SubnetSpec(id="subnet-1", cidr="10.0.0.0/24", ip_version=4, gateway="10.0.0.1", dhcp=True)
    dhcp = DhcpPort(port_id="dhcp-1", mac="fa:16:3e:00:00:02", addresses=(("subnet-1", "10.0.0.2"),))
    spec = NetworkSpec(id=NET, generation=gen(n), segment=100, mtu=1450, subnets=(subnet,), dhcp=dhcp)
    return msgspec.structs.replace(spec, **changes)


def a_group(n: int = 1, **changes: Any) -> GroupSpec:
    rule = RuleSpec(id="rule-1", direction="ingress", ethertype="IPv4", remote_group=GROUP)
    return msgspec.structs.replace(GroupSpec(id=GROUP, generation=gen(n), rules=(rule,)), **changes)


def members(n: int = 1) -> AddressesSpec:
    return AddressesSpec(id=GROUP, generation=gen(n), addresses=("10.0.0.5",))


def a_port(n: int = 1, **changes: Any) -> PortSpec:
    spec = PortSpec(
        id=PORT,
        generation=gen(n),
        network_id=NET,
        domain_id=SERVER,
        mac="fa:16:3e:00:00:05",
        fixed_ips=(FixedIp(subnet_id="subnet-1", address="10.0.0.5"),),
        hostname="first",
        groups=(GROUP,),
    )
    return msgspec.structs.replace(spec, **changes)


def an_image(n: int = 1, **changes: Any) -> ImageSpec:
    spec = ImageSpec(
        id=IMAGE,
        generation=gen(n),
        sha256=SHA,
        size_bytes=1 << 20,
        disk_format="qcow2",
        sources=("https://198.18.0.1:5443/image/1",),
        ticket="t1",
    )
    return msgspec.structs.replace(spec, **changes)


def a_disk(n: int = 1, **changes: Any) -> disk.DiskSpec:
    spec = disk.DiskSpec(id=DISK, generation=gen(n), domain_id=SERVER, image_id=IMAGE, image_sha256=SHA, size_gib=1)
    return msgspec.structs.replace(spec, **changes)


def a_domain(n: int = 1, desired: Desired = Desired.RUNNING, **changes: Any) -> DomainSpec:
    spec = DomainSpec(
        id=SERVER,
        generation=gen(n),
        name="instance-00000001",
        desired=desired,
        vcpus=1,
        memory_mib=128,
        disks=(DomainDisk(disk_id=DISK, boot_index=1),),
        nics=(DomainNic(port_id=PORT, mac="fa:16:3e:00:00:05", mtu=1450),),
        guest=GuestData(meta_data='{"uuid": "1"}', network_data="{}"),
        config_drive=True,
    )
    return msgspec.structs.replace(spec, **changes)


WHOLE: tuple[tuple[Call[Any, Any], Any], ...] = (
    (network.ENSURE, a_network()),
    (group.ENSURE, a_group()),
    (group.ADDRESSES_ENSURE, members()),
    (image.ENSURE, an_image()),
    (disk.ENSURE, a_disk()),
    (port.ENSURE, a_port()),
    (domain.ENSURE, a_domain()),
)
"""Everything a server needs, in the order of a saga."""

GONE: tuple[tuple[Call[Any, Any], Absence], ...] = (
    (domain.ABSENT, Absence(id=SERVER, generation=gen(9))),
    (port.ABSENT, Absence(id=PORT, generation=gen(9))),
    (disk.ABSENT, Absence(id=DISK, generation=gen(9))),
    (image.ABSENT, Absence(id=IMAGE, generation=gen(9))),
    (group.ADDRESSES_ABSENT, Absence(id=GROUP, generation=gen(9))),
    (group.ABSENT, Absence(id=GROUP, generation=gen(9))),
    (network.ABSENT, Absence(id=NET, generation=gen(9))),
)
"""Its undoing."""


def assert_running(rig: Rig, boots: int = 1) -> None:
    found = rig.host.get(SERVER)
    assert (found.power, found.boots) == (Power.RUNNING, boots)
    assert found.machine.nics[0].device == names.tap(PORT)
    assert rig.net.taps.keys() == [PORT]
    assert {key: [port.id for port in row.ports] for key, row in rig.net.leases.items()} == {NET: [PORT]}
    assert rig.net.exposed == set()
    assert (NET, "10.0.0.5") in rig.guard.documents
    assert rig.guard.networks.keys() == {NET}


def assert_empty(rig: Rig) -> None:
    assert rig.host.domains() == []
    assert not (rig.net.taps.keys() or rig.net.networks.keys() or rig.net.routers.keys() or rig.net.leases)
    assert not (rig.images.images.keys() or rig.images.disks.keys())
    assert rig.guard.documents == {} and rig.guard.networks == {}
    assert rig.net.filter is None
    assert rig.agent.ledger._uids == {}
