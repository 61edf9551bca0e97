"""The parties of a simulated cloud: controllers and agents as they really are, on a world that outlives them.

A party has one life after another. What survives a crash is the `Site` (a host's machine, network, images, ledger)
or the database; what dies is every task and every handle on the world. `start` begins a life, `crash` severs it,
`stop` ends it as SIGTERM does.
"""

import asyncio
import contextlib
import random
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import msgspec

from agent.effects import Drivers, Places
from agent.guarding import MemoryGuard
from agent.inventory import Identity
from agent.ledger import Ledger, Operation
from agent.node import Agent
from agent.nouns import Key, Noun
from agent.probe import FixedProbe
from agent.streams import Arrive
from agent.wire.domain import Passage
from agent.wire.errors import Conflict, Failed
from agent.wire.host import Door
from agent.wire.image import ImageSpec, Offer
from agent.wire.lifecycle import Generation, Power
from agent.wire.specs import ObjectSpec
from agent.wire.volume import IscsiSource
from agent.wire.world import World
from controller import composition
from controller.cloud import Cloud
from controller.composition import Surroundings
from controller.config import Settings
from controller.context import Context
from controller.errors import Unauthorized
from controller.founding import Founded
from controller.hosts import DEAF_S
from controller.http.app import App, build
from controller.image.stores import Writer
from controller.services import services
from controller.volume.fencing import Fence
from drivers.hypervisor.fake import FakeDomain, FakeHost, FakeHypervisor
from drivers.image.base import Fetch
from drivers.image.fake import FakeDisks, FakeImageCache, FakeImageHost
from drivers.network.fake import FakeDhcp, FakeFilter, FakeNetwork
from drivers.volume.fake import FakeStorage, FakeVolumes
from tests.sim import ground, instants
from tests.sim.fabric import Endpoint, in_life
from tests.sim.hands import Hands, Severable, SeverableDatabase, SimThreads
from tests.sim.host_operations import Disks
from tests.sim.instants import SimExporter, SimFabric
from tests.sim.life_operations import ImageStore
from tests.sim.loop import Life
from tests.virtual import SeededEntropy, VirtualClock

if TYPE_CHECKING:
    from tests.sim.simulation import Simulation

T = TypeVar("T")

TAG: Final = "beef"
EPOCH: Final = 1
FENCE: Final = Fence(b"k" * 32, TAG)
GUESTS: Final = "/fake/guests"


class Party:
    """Somebody who lives, crashes and comes back."""

    def __init__(self, simulation: "Simulation", name: str) -> None:
        self.simulation = simulation
        self.name = name
        self.lives = 0
        self.life = Life(name)
        self.life.sever()
        self.hands = Hands(self.life, simulation.trace, lambda: None)
        self.endpoint: Endpoint | None = None
        self.is_ready = False
        self.start_at = 0.0  # When it comes back, while it is dead.
        self.started_at = 0.0
        self.paused_at = 0.0
        self.resumed_at = 0.0
        self._main: asyncio.Task[None] | None = None
        self._waiting: dict[asyncio.Future[Any], None] = {}  # Outsiders who wait for something this life does.

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.life.alive

    def start(self) -> None:
        """A new life."""
        assert not self.alive, f"{self.name} lives already"
        self.lives += 1
        self.started_at = self.simulation.loop.time()
        self.life, self.is_ready = Life(self.name), False
        self.hands = Hands(self.life, self.simulation.trace, self._fall)
        self.endpoint = self.simulation.fabric.attach(self.hands)
        self.simulation.trace.note(self.name, f"starts life {self.lives}")
        world = World(
            VirtualClock(self.simulation.loop),
            SeededEntropy(self._seed("entropy")),
            SimThreads(self._chance("threads"), self.simulation.trouble),
        )
        in_life(self.life).run(self._begin, world)

    def _begin(self, world: World) -> None:
        self._main = asyncio.get_running_loop().create_task(self._run(world), name=self.name)
        self._main.add_done_callback(self._ended)

    def crash(self, back_in_s: float | None = None) -> None:
        """As kill -9. It comes back after that time, at once by default."""
        if self.alive:
            self.simulation.trace.note(self.name, "crashes")
            self._fall()
        if back_in_s is not None:
            self.start_at = self.simulation.loop.time() + back_in_s

    def _fall(self) -> None:
        """The life is over."""
        self.life.sever()
        self._lost()
        self.start_at = self.simulation.loop.time() + self.simulation.chance.choice((0.2, 0.2, 1.0, 5.0, 20.0))

    def _lost(self) -> None:
        self.is_ready = False
        if self.endpoint is not None:
            self.simulation.fabric.detach(self.endpoint)
        for waiting in list(self._waiting):
            if not waiting.done():
                waiting.set_result(None)
        self._waiting.clear()

    def pause(self) -> None:
        """It stands still, as a process that is stopped, or that swaps."""
        self.simulation.trace.note(self.name, "stands still")
        self.paused_at = self.simulation.loop.time()
        self.life.pause()

    def resume(self) -> None:
        """It goes on, if it is still the same."""
        if self.life.is_paused:
            self.simulation.trace.note(self.name, "goes on")
            now = self.simulation.loop.time()
            if now - self.paused_at > DEAF_S + 1.0:  # A shorter pause is nothing that it could notice.
                self.resumed_at = now
            self.life.resume(self.simulation.loop)
            if self.endpoint is not None:
                self.simulation.fabric.catch_up(self.endpoint)

    def calm(self) -> None:
        """Nothing more happens to it, and it comes back at once."""
        self.resume()
        self.start_at = 0.0
        self.hands.crash_at(0, is_after=False)
        if self.endpoint is not None:
            self.simulation.fabric.heal(self.endpoint)

    async def stop(self) -> None:
        """As SIGTERM: it ends by itself."""
        main, life = self._main, self.life
        if not self.alive or main is None:
            return
        self.simulation.trace.note(self.name, "is asked to stop")
        main.cancel()
        await asyncio.wait({main}, timeout=30.0)
        if self.life is life and life.alive:
            self._fall()

    async def perform(self, work: Callable[[], Awaitable[T]], timeout_s: float = 120.0) -> T | None:
        """Have this life do something; None if it was not there, or died before it was done."""
        if not self.is_ready:
            return None
        answer: asyncio.Future[Any] = self.simulation.loop.create_future()
        self._waiting[answer] = None

        async def in_this_life() -> None:
            try:
                result = await work()
            except Exception as error:
                if not answer.done():
                    answer.set_exception(error)
                return
            if not answer.done():
                answer.set_result(result)

        in_life(self.life).run(self.simulation.loop.create_task, in_this_life())
        try:
            async with asyncio.timeout(timeout_s):
                return cast("T | None", await answer)
        except TimeoutError:
            return None  # It stands still.
        finally:
            self._waiting.pop(answer, None)

    def _ended(self, main: "asyncio.Task[None]") -> None:
        """Nobody's life ends by itself."""
        if not main.cancelled() and (error := main.exception()) is not None:
            self.simulation.report(f"{self.name} ended", error)

    def _seed(self, what: str) -> str:
        return f"{self.simulation.seed}/{self.name}/{self.lives}/{what}"

    def _chance(self, what: str) -> random.Random:
        return random.Random(self._seed(what))

    async def _run(self, world: World) -> None:
        raise NotImplementedError


# Controllers.


class MemoryImages:
    """An image store without bytes: hosts of the simulation fetch nothing."""

    name = "memory"

    def writer(self, image_id: str) -> Writer:
        """See Store."""
        raise NotImplementedError("images of the simulation are rows")

    async def open(self, image_id: str, begin: int = 0) -> AsyncIterator[bytes]:
        """See Store."""
        yield b""

    async def remove(self, image_id: str) -> None:
        """See Store."""

    async def stored(self) -> dict[str, float]:
        """See Store."""
        return {}


class Identities:
    """Tokens are names of callers: what tokens really are is tested elsewhere."""

    def __init__(self, callers: dict[str, Context]) -> None:
        self._callers = callers

    async def authenticate(self, token: str, request_id: str, global_request_id: str) -> Context:
        """See Identities."""
        known = self._callers.get(token)
        if known is None:
            raise Unauthorized("The token is not valid.")
        return msgspec.structs.replace(known, request_id=request_id, global_request_id=global_request_id)


class _Absent:
    """Enrollment's parts: every host of the simulation has joined long ago, and certificates are not looked at."""

    fingerprint = ""

    def revoked(self) -> frozenset[str]:
        return frozenset()

    def revoke(self, nkeys: list[str], now: float) -> bool:
        return False

    def ensure_server(self, *_: Any) -> None:
        return None

    def sign_ticket(self, claims: bytes) -> bytes:
        return b"signed"

    def verify_ticket(self, signature: bytes, claims: bytes) -> bool:
        return signature == b"signed"

    @property
    def certificate(self) -> "_Absent":
        return self

    @property
    def address(self) -> str:
        return "127.0.0.1"

    def read_bytes(self) -> bytes:
        return b""


class ControllerParty(Party):
    """One controller. The database is shared and never dies."""

    def __init__(self, simulation: "Simulation", name: str, keys: Path) -> None:
        super().__init__(simulation, name)
        self._keys = keys
        self.cloud: Cloud = cast("Cloud", None)
        self.app: App = cast("App", None)

    async def _run(self, world: World) -> None:
        assert self.endpoint is not None
        bus, absent = self.endpoint, cast("Any", _Absent())
        given = Surroundings(
            settings=Settings(),
            world=world,
            db=SeverableDatabase(
                self.simulation.database,
                self.hands,
                self._chance("database"),
                self.simulation.trouble,
                self.simulation.dialect,
                self.simulation.fail,
            ),
            bus=bus,
            images=cast("Any", MemoryImages()),
            inspectors=absent,
            founded=Founded(name="default", tag=TAG, epoch=EPOCH),
            authority=absent,
            identity=absent,
            listen=absent,
            fernet=self._keys,
            owner_id=self.name,
            volume_key=FENCE.key,
        )
        cloud = composition.assemble(given)
        async with composition.running(cloud, bus):
            self.cloud = cloud
            self.app = build(cloud, services(), Identities(self.simulation.callers))
            self.is_ready = True
            await asyncio.get_running_loop().create_future()


# Hosts.

_VOLUME_READS: Final = ("pools", "find", "list", "find_snapshot", "list_snapshots")

_LEDGER_READS: Final = (
    "find",
    "entries",
    "rows",
    "specs",
    "find_operation",
    "open_operations",
    "digest",
    "is_new_boot",
)


class SimHost(FakeHost):
    """A host that tells when a guest is switched on, and counts what may have led to that."""

    def __init__(self, powered_on: Callable[[str], None], **more: Any) -> None:
        super().__init__(**more)
        self._powered_on = powered_on
        self.got_volumes: Callable[[FakeDomain], None] = lambda _: None
        self.boots: Counter[str] = Counter()
        self.falls: Counter[str] = Counter()  # How often a guest went off by itself.

    def power_failure(self) -> None:
        """See FakeHost."""
        self.falls.update(one.machine.spec.id for one in self.domains())
        super().power_failure()

    def _keep(self, domain: FakeDomain) -> None:
        super()._keep(domain)
        if domain.volumes and domain.power in instants.ON:
            self.got_volumes(domain)

    def _set_power(self, domain: FakeDomain, power: Power) -> None:
        before = self._domains.get(domain.machine.spec.id)
        super()._set_power(domain, power)
        was_on = before is not None and before.power in (Power.RUNNING, Power.PAUSED)
        if power is Power.RUNNING and not was_on:
            is_awoken = before is not None and before.power is Power.SUSPENDED
            self.boots[domain.machine.spec.id] += not is_awoken
        if power is Power.RUNNING and (not was_on or (before is not None and before.is_landed)):
            self._powered_on(domain.machine.spec.id)


class SimDisks(FakeDisks):
    """Disks that are never taken from under a domain."""

    def __init__(self, site: "Site", report: Callable[[str], None]) -> None:
        super().__init__(site.images)
        self._site, self._report = site, report

    def absent(self, disk_id: str) -> None:
        """See Disks."""
        for domain in self._site.host.domains():
            is_its_own_drive = disk_id.endswith("-config")
            if not is_its_own_drive and any(disk.disk_id == disk_id for disk in domain.machine.disks):
                self._report(f"disk {disk_id} is freed while its domain is {domain.power.value} on the host")
        super().absent(disk_id)


class SimLedger(Ledger):
    """A ledger that tells when it is asked for two things under one generation."""

    def __init__(self, site: "Site", incarnation: str, report: Callable[[str], None]) -> None:
        self._site, self._report = site, report
        super().__init__(site.ledger, incarnation)

    def put(self, noun: Noun, spec: ObjectSpec, raw: bytes, now: float) -> bool:
        """See Ledger."""
        if noun is Noun.DOMAIN:
            self._site.asked.add(spec.id)
        try:
            return super().put(noun, spec, raw, now)
        except Conflict as error:
            self._report(str(error))
            raise

    def begin(self, operation: Operation) -> Operation:
        """See Ledger."""
        self._site.asked.add(operation.domain_id)
        return super().begin(operation)

    def bury(self, key: Key, generation: Generation, now: float) -> bool:
        """See Ledger."""
        try:
            return super().bury(key, generation, now)
        except Conflict as error:
            self._report(str(error))
            raise


@dataclass
class Site:
    """One machine: what is there whether an agent runs or not."""

    host: SimHost
    images: FakeImageHost = field(default_factory=FakeImageHost)
    net: FakeNetwork = field(default_factory=lambda: FakeNetwork(physical_networks=("external",)))
    storage: FakeStorage = field(default_factory=lambda: FakeStorage(pools={"files": ground.POOL_GIB}))
    guard: MemoryGuard = field(default_factory=MemoryGuard)
    asked: set[str] = field(default_factory=set)  # Domains that somebody wanted since the machine was booted.
    ledger: sqlite3.Connection = field(default_factory=lambda: sqlite3.connect(":memory:", isolation_level=None))

    def running(self) -> list[str]:
        """The guests that are on. One that has landed and does not go on yet still is where it was."""
        on = (Power.RUNNING, Power.PAUSED)
        return [one.machine.spec.id for one in self.host.domains() if one.power in on and not one.is_landed]

    def calm(self) -> None:
        """Nothing fails any more that was going to."""
        for part in (self.host, self.images, self.net, self.storage):
            part._failures.clear()
        self.host.obeys_power_button = True
        self.host.loses_next_guest = False
        for domain in self.host.domains():
            self.host.hold_disks(domain.machine.spec.id, False)

    def uids(self) -> dict[str, int]:
        """The uids of guests, by domain."""
        return dict(self.ledger.execute("SELECT domain_id, uid FROM uid ORDER BY domain_id"))


class NoSource:
    """Images come from nowhere, at once, and go to the store."""

    def __init__(self, store: ImageStore, disks: Disks) -> None:
        self._store, self._disks = store, disks

    def fetch(self, spec: ImageSpec) -> Fetch:
        """See Source."""
        return lambda path: None

    def send(self, path: str, offer: Offer) -> None:
        """See Source."""
        self._store.take(offer)

    def bring(self, offer: Offer, size_bytes_max: int) -> Fetch:
        """See Source."""
        return self._disks.bring(offer)

    def passage(self, domain_id: str, way: Passage, uid: int) -> contextlib.AbstractAsyncContextManager[Arrive]:
        """See Source."""
        return self._disks.passage(domain_id, way)


class AgentParty(Party):
    """One host's agent, and the host."""

    def __init__(self, simulation: "Simulation", name: str, host_id: str, site: Site, probe: FixedProbe) -> None:
        super().__init__(simulation, name)
        self.host_id = host_id
        self.site = site
        self.probe = probe
        site.host.login = self.login
        site.host.got_volumes = lambda domain: instants.check_volumes(self, domain)
        self.agent: Agent | None = None
        self.boots = 1

    @property
    def address(self) -> str:
        """On the underlay."""
        return f"198.18.0.{10 + self.simulation.agents.index(self)}"

    def login(self, source: IscsiSource) -> object:
        """A guest of this host logs in to a volume, wherever that is. Raises Failed."""
        for agent in self.simulation.agents:
            if agent.address == source.host:
                return agent.site.storage.login(source)
        raise Failed(f"nobody answers at {source.host}")

    def lose_power(self, back_in_s: float) -> None:
        """The machine goes dark: guests, links and the agent are gone; disks and the ledger stay."""
        self.crash(back_in_s)
        self.simulation.trace.note(self.name, "loses power")
        self.boots += 1
        self.probe.now = msgspec.structs.replace(self.probe.now, boot_id=f"boot-{self.boots}")
        self.site.host.power_failure()
        self.site.net.power_failure()
        self.site.storage.power_failure()
        self.site.guard = MemoryGuard()
        self.site.asked.clear()

    def lose_ledger(self) -> None:
        """Its file is damaged: it is set aside, and a new one begins with the agent's next life."""
        self.crash(2.0)
        self.simulation.trace.note(self.name, "loses its ledger")
        self.site.ledger = sqlite3.connect(":memory:", isolation_level=None)

    def poke(self, act: Callable[[str], None], domain_id: str) -> None:
        """Something happens to a guest by itself; if the agent lives, it hears of it in its own life."""
        if self.alive:
            in_life(self.life).run(act, domain_id)
        else:
            act(domain_id)

    def _lost(self) -> None:
        super()._lost()
        self.site.host.disconnect_all()
        self.site.storage.disconnect_all()

    async def _run(self, world: World) -> None:
        assert self.endpoint is not None
        hands, site = self.hands, self.site

        def mine(target: Any, label: str, *reads: str) -> Any:
            return Severable(target, hands, label, reads)

        drivers = Drivers(
            hypervisor=mine(FakeHypervisor(site.host, TAG), "virt", "capabilities", "list", "find", "watch"),
            fabric=mine(SimFabric(self, site.net, TAG), "net", "capabilities", "observe", "namespace"),
            filter=mine(FakeFilter(site.net), "filter"),
            dhcp=mine(FakeDhcp(site.net), "dhcp"),
            images=mine(FakeImageCache(site.images), "cache", "find", "list"),
            disks=mine(SimDisks(site, self.simulation.fail), "disks", "find", "list"),
            volumes=mine(FakeVolumes(site.storage), "volumes", *_VOLUME_READS),
            exporter=mine(SimExporter(self, TAG, self.address), "exporter", "list", "watch"),
        )
        self.agent = Agent(
            world,
            self.endpoint,
            mine(SimLedger(site, world.entropy.uuid(), self.simulation.fail), "ledger", *_LEDGER_READS),
            drivers,
            Identity(
                host_id=self.host_id,
                cloud="default",
                tag=TAG,
                underlay_address=self.address,
            ),
            probe=self.probe,
            guard=site.guard,
            source=mine(
                NoSource(ImageStore(self.simulation), Disks(self.simulation)), "source", "fetch", "bring", "passage"
            ),
            places=Places(guests=GUESTS, uids=range(200000, 200200)),
        )
        door = Door(address=f"{self.address}:5443", id=f"{self.name}/{self.lives}", boottime_s=0.0)
        self.agent.door = lambda: door
        self.is_ready = True
        await self.agent.run()
