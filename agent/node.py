"""One agent, composed: ledger, drivers, bus and workers. No process, no file, no thread is made here.

`__main__` builds it for a real host; tests, benchmarks and the simulation build it with fakes. `run` lives until it
is cancelled, and cancelling it repairs nothing and touches no guest: the next run begins from the ledger and the
host, as it would after kill -9.

A start is the same path as any command, with an empty inbox: read the ledger, look at the host, plan, act, and tell
what the host is. Commands are heard as soon as the plan is on its way.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Final, TypeVar

import structlog

from agent import handlers
from agent.converge import capture, domain
from agent.converge.table import TABLE
from agent.doctor import Doctor
from agent.effects import AMNESTY_S, HYPERVISOR, IMAGE, NETWORK, VOLUME, Drivers, Effects, Places
from agent.events import Events
from agent.guarding import Guard
from agent.handlers.objects import Desk
from agent.heartbeat import Heart
from agent.inventory import Identity, Inventories
from agent.lease import Lease
from agent.ledger import Ledger
from agent.nouns import Key, Noun
from agent.patrol import Patrol
from agent.probe import Probe
from agent.reconciler import Observation, Reconciler, plan
from agent.sampler import Sampler
from agent.streams import Source
from agent.wire import subjects
from agent.wire.bus import Bus, Handler, Message, assembling
from agent.wire.domain import DomainStatus
from agent.wire.errors import Fault, FaultCode, Invalid, WireError
from agent.wire.host import STARTED, Door
from agent.wire.lifecycle import Power, Progress
from agent.wire.parts import Collector
from agent.wire.port import PortSpec
from agent.wire.specs import Reply, encode
from agent.wire.world import World

START_S: Final = 30.0
"""How long the start waits for its plan before it says that it is ready. What takes longer goes on behind."""

LOOK_AGAIN_S: Final = 2.0
"""Between two tries to see the host at start, while a driver does not answer."""

T = TypeVar("T")
log = structlog.get_logger()


class Agent:
    """What one host does."""

    def __init__(
        self,
        world: World,
        bus: Bus,
        ledger: Ledger,
        drivers: Drivers,
        identity: Identity,
        *,
        probe: Probe,
        guard: Guard,
        source: Source,
        places: Places | None = None,
    ) -> None:
        self.identity = identity
        self.door: Callable[[], Door | None] = lambda: None  # Of the host's channel, if it has one; set before `run`.
        self.ledger = ledger
        self.effects = Effects(world, ledger, drivers, guard=guard, source=source, places=places or Places())
        self.events = Events(bus, identity.host_id, world.entropy.uuid())
        self.reconciler = Reconciler(self.effects, TABLE, self.events)
        self.sampler = Sampler(self.effects)
        self.is_ready = asyncio.Event()
        self._bus = bus
        self._probe = probe

    async def run(self) -> None:
        """Until cancelled. Raises only what is a bug: a host that cannot be seen is silent until it can."""
        async with asyncio.TaskGroup() as tasks:
            self.reconciler.begin(tasks)
            tasks.create_task(self.events.run(), name="events")
            inventories = await self._inventories()
            heart = Heart(self.effects, self.events, inventories)
            self._bus.on_gap(heart.beat_now)
            lease = self._lease()
            planned = await self._plan()
            await self._listen(inventories)
            for key in planned:
                self.reconciler.kick(key)
            tasks.create_task(heart.run(), name="heartbeat")
            tasks.create_task(lease.run(), name="lease")
            await self._settle(planned)
            self.events.publish(STARTED, inventories.inventory())
            log.info("ready", host=self.identity.host_id, objects=len(planned))
            tasks.create_task(Patrol(self.effects, self.reconciler, self.note_power).run(), name="patrol")
            self.is_ready.set()

    def _lease(self) -> Lease:
        """Before the plan, which notes the boot."""
        fx, is_new_boot = self.effects, self.ledger.is_new_boot(self._probe.facts().boot_id)
        lease = Lease(fx, self._bus, self.identity.host_id, self.reconciler.redo, is_new_boot=is_new_boot)
        fx.has_gateway, fx.grant_gateway = lease.holds, lease.grant
        return lease

    def note_power(self, domain_id: str, power: Power) -> None:
        """A domain's power changed, whoever did it: told, remembered, and news for a worker that waits for it."""
        key = Key(Noun.DOMAIN, domain_id)
        entry, track = self.ledger.find(key), self.effects.tracks.get(key)
        if entry is None or entry.absent or track is None:
            return
        track.changes += 1
        track.woken.set()
        if isinstance(track.seen, DomainStatus) and track.seen.power is not power:
            track.seen = domain.with_power(track.seen, power)
            self.reconciler.publish(key)

    def note_exports_gone(self) -> None:
        """The target daemon died: guests wait for their disks. What is still there is left as it is."""
        log.warning("the target daemon died; what it exported is exported again")
        for key in sorted(key for key in self.effects.tracks if key.noun is Noun.EXPORT):
            self.reconciler.redo(key)

    async def _inventories(self) -> Inventories:
        fx, drivers = self.effects, self.effects.drivers
        hypervisor = await self._until_answered(HYPERVISOR, drivers.hypervisor.capabilities)
        fx.slow = hypervisor.slow_factor
        await self._until_answered(NETWORK, drivers.fabric.prepare)
        network = await self._until_answered(NETWORK, drivers.fabric.capabilities)
        fx.pools = await self._until_answered(VOLUME, drivers.volumes.pools)
        return Inventories(self.identity, fx, self._probe, hypervisor, network, self.door)

    async def _plan(self) -> tuple[Key, ...]:
        """Look at the host, and say what has to be done."""
        fx = self.effects
        self._note_boot()
        fx.drivers.hypervisor.watch(_power_listener(self.note_power))
        fx.drivers.exporter.watch(_gone_listener(self.note_exports_gone))
        observation = await self._observe()
        planned = plan(self.ledger.entries(), observation)
        fx.strangers = frozenset(planned.strangers)
        if planned.strangers:
            log.warning("there are objects on this host that its ledger does not know", count=len(planned.strangers))
            fx.amnesty_until = fx.world.clock.boottime() + AMNESTY_S
        fx.wired = {e.key.id: e.spec for e in self.ledger.rows(Noun.PORT) if isinstance(e.spec, PortSpec)}
        fx.publish_documents()
        return planned.act

    def _note_boot(self) -> None:
        """After a boot of the machine, acts that were under way have ended, badly."""
        boot_id = self._probe.facts().boot_id
        if self.ledger.is_new_boot(boot_id):
            fault = Fault(code=FaultCode.FAILED, message="the host was booted meanwhile")
            for entry in self.ledger.rows(Noun.DOMAIN):
                for operation in self.ledger.open_operations(entry.key.id):
                    status = DomainStatus(
                        id=entry.key.id, generation=entry.generation, progress=Progress.FAILED, fault=fault
                    )
                    self.ledger.end(operation.id, encode(status))
        self.ledger.note_boot(boot_id)

    async def _observe(self) -> Observation:
        drivers = self.effects.drivers
        domains = await self._until_answered(HYPERVISOR, drivers.hypervisor.list)
        links = await self._until_answered(NETWORK, drivers.fabric.observe)
        disks = await self._until_answered(IMAGE, drivers.disks.list)
        present = {Key(Noun.DOMAIN, one.id) for one in domains}
        present |= {Key(Noun(link.noun), link.id) for link in links}
        present |= {_disk_key(disk_id) for disk_id in disks if not domain.is_config_disk(disk_id)}
        volumes, exporter = drivers.volumes, drivers.exporter
        present |= {Key(Noun.VOLUME, name) for name in await self._until_answered(VOLUME, volumes.list)}
        present |= {Key(Noun.SNAPSHOT, name) for name in await self._until_answered(VOLUME, volumes.list_snapshots)}
        present |= {Key(Noun.EXPORT, one.id) for one in await self._until_answered(VOLUME, exporter.list)}
        return Observation(present=frozenset(present))

    async def _until_answered(self, driver: str, look: Callable[[], T]) -> T:
        """A host that cannot be seen is not served blindly: try until it answers."""
        while True:
            try:
                return await self.effects.run(driver, f"start of {driver}", look)
            except WireError as error:
                log.error("a driver does not answer; trying again", driver=driver, why=str(error))
            except Exception:  # A driver's bug must not end the agent over and over.
                log.exception("a driver fails; trying again", driver=driver)
            await asyncio.sleep(LOOK_AGAIN_S)

    async def _listen(self, inventories: Inventories) -> None:
        desk = Desk(self.effects, self.reconciler)
        doctor = Doctor(self.effects, self._probe, inventories)
        routes = handlers.table(desk, inventories, doctor, self.sampler)
        answer = assembling(Collector(), _dispatch(routes))
        for noun in sorted({name.partition(".")[0] for name in routes}):
            await self._bus.subscribe(subjects.host(self.identity.host_id, f"{noun}.*"), answer)

    async def _settle(self, planned: tuple[Key, ...]) -> None:
        """Wait until everything was tried once, but not for ever."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_S * self.effects.slow):
                for key in planned:
                    track = self.effects.tracks.get(key)
                    if track is not None:
                        await track.rested.wait()


def _dispatch(routes: dict[str, Handler]) -> Handler:
    """One handler for the calls of a noun, by the last two words of the subject."""

    async def handler(message: Message) -> bytes | None:
        name = ".".join(message.subject.rsplit(".", 2)[-2:])
        route = routes.get(name)
        if route is None:
            return encode(Reply(fault=Invalid(f"this host does not know the call {name}").fault()))
        return await route(message)

    return handler


def _power_listener(note: Callable[[str, Power], None]) -> Callable[[str, Power], None]:
    """Carries events to the loop: drivers tell them from any thread, fakes from the loop's own, inside a call."""
    loop, home = asyncio.get_running_loop(), threading.get_ident()

    def listener(domain_id: str, power: Power) -> None:
        if threading.get_ident() == home:
            loop.call_soon(note, domain_id, power)
            return
        with contextlib.suppress(RuntimeError):  # The loop has ended; so has everybody who would listen.
            loop.call_soon_threadsafe(note, domain_id, power)

    return listener


def _gone_listener(note: Callable[[], None]) -> Callable[[], None]:
    """As `_power_listener`."""
    loop, home = asyncio.get_running_loop(), threading.get_ident()

    def listener() -> None:
        if threading.get_ident() == home:
            loop.call_soon(note)
            return
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(note)

    return listener


def _disk_key(disk_id: str) -> Key:
    """What a disk is of this host: a guest's, or the copy of one on its way to the image store."""
    captured = capture.capture_of(disk_id)
    return Key(Noun.DISK, disk_id) if captured is None else Key(Noun.CAPTURE, captured)
