"""One whole cloud under one seed: build it, play operations and faults, let it come to rest, look at it.

    played = play(seed, Plan())
    assert not played.broken, played.story()

Phases. *Trouble*: operations come from the seed, several at a time, while parties crash, hosts lose power, messages
get lost. *Calm*: everybody is back and the weather is good; every saga has to come to rest and everything that rows
say has to be so on the hosts. *Empty*: everything that users have is deleted; nothing may be left anywhere.
"""

import asyncio
import contextlib
import gc
import inspect
import random
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from agent.probe import FixedProbe
from controller.db.tx import DatabaseDown
from tests.sim import ground, invariants
from tests.sim.fabric import CALM, Fabric, Weather
from tests.sim.hands import Hangs, Trouble
from tests.sim.loop import LIFE, SimLoop
from tests.sim.operations import Users
from tests.sim.parties import AgentParty, ControllerParty, Party, SimHost, Site
from tests.sim.trace import Trace
from tests.virtual import EPOCH

REST_S: Final = 3000.0
"""How long everything may take to come to rest in calm weather: the deadline of the longest saga, the grace after
it, and the slowest retry of an overdue one, with room."""

SETTLE_S: Final = 150.0
"""After that: every reconciler looks at everything at least once more."""

_KEYS: Final = Path(tempfile.gettempdir()) / "hostler-simulation-keys"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is played."""

    operations: int = 300
    faults: bool = True
    hosts: int | None = None  # None: the seed says.
    controllers: int | None = None
    amnesia: bool = False  # Hosts may lose their ledgers. What they are told after it takes long: not in every run.
    is_emptied: bool = True


class Played(msgspec.Struct, kw_only=True):
    """How it went."""

    seed: int
    plan: Plan
    broken: list[str]
    digest: str
    tail: str
    counts: dict[str, int]
    virtual_s: float

    def story(self) -> str:
        """For people."""
        said = "\n".join(self.broken[:10])
        return (
            f"seed {self.seed} (replay: make sim SEED={self.seed}):\n{said}\n--- the end of the trace ---\n{self.tail}"
        )


class Broken(Exception):
    """An invariant does not hold; there is no sense in going on."""


class Simulation:
    """One cloud."""

    def __init__(self, loop: SimLoop, seed: int, plan: Plan) -> None:
        self.loop, self.seed, self.plan = loop, seed, plan
        self.chance = random.Random(f"{seed}/simulation")
        self.trace = Trace(loop.time)
        self.broken: list[str] = []
        self.trouble = Trouble()
        self.is_calm = False
        hosts = plan.hosts or self.chance.choice((2, 2, 3))
        controllers = plan.controllers or (2 if self.chance.random() < 0.25 else 1)
        self.dialect = "sqlite" if controllers == 1 else "postgresql"
        self.database = ground.fresh_database(lambda: EPOCH + loop.time(), hosts)
        self.callers = ground.CALLERS
        self.fabric = Fabric(loop, random.Random(f"{seed}/fabric"), self.trace, self.report)
        self.controllers = [ControllerParty(self, f"c{n}", _KEYS) for n in range(1, controllers + 1)]
        self.agents: list[AgentParty] = []
        for n in range(1, hosts + 1):
            self.agents.append(self._host(n))
        hosts_by_name = {agent.name: agent.site.host for agent in self.agents}
        for agent in self.agents:
            agent.site.host.name, agent.site.host.neighbours = agent.name, dict(hosts_by_name)
        self.users = Users(self)

    def _host(self, n: int) -> AgentParty:
        site = Site(
            host=SimHost(
                self._powered_on(n),
                vcpus=ground.HOST_VCPUS,
                memory_mib=ground.HOST_MEMORY_MIB,
                obeys_power_button=True,
            )
        )
        probe = FixedProbe(f"host{n}", disk_gib=ground.HOST_DISK_GIB)
        return AgentParty(self, f"h{n}", ground.host_id(n), site, probe)

    @property
    def parties(self) -> list[Party]:
        """Everybody."""
        return [*self.controllers, *self.agents]

    def report(self, where: str, error: BaseException) -> None:
        """Something raised that nobody expected: a bug of whoever wrote it."""
        self.fail(f"{where}: {type(error).__name__}: {error}")

    def fail(self, what: str) -> None:
        """An invariant does not hold."""
        self.trace.note("****", what.splitlines()[0][:300])
        self.broken.append(f"at {self.loop.time():.3f} s: {what}")

    def check(self) -> None:
        """Go no further if something is broken."""
        if self.broken:
            raise Broken

    async def run(self) -> None:
        """All phases."""
        for party in self.parties:
            party.start()
        await self.until("the cloud is up", self._is_up, 60.0)
        if self.plan.faults:
            await self._trouble()
        else:
            await self.users.play(self.plan.operations)
        await self._calm("after trouble")
        if self.plan.is_emptied:
            await self.users.delete_everything()
            await self._calm("after everything was deleted")
            await invariants.check_emptiness(self)
            self.check()

    async def until(self, what: str, holds: Callable[[], Awaitable[bool]], timeout_s: float) -> None:
        """Wait for something that must come."""
        ends = self.loop.time() + timeout_s
        while not await holds():
            if self.loop.time() > ends:
                self.fail(f"this has not come within {timeout_s:.0f} s: {what}")
                await invariants.tell_restless(self)
            self.check()
            await asyncio.sleep(1.0)
            self.revive()

    def revive(self) -> None:
        """Whose time has come lives again."""
        for party in self.parties:
            if not party.alive and party.start_at <= self.loop.time():
                party.start()

    async def _is_up(self) -> bool:
        rows = await self.database.read(ground.usable_hosts)
        return rows == len(self.agents) and all(party.is_ready for party in self.parties)

    async def _trouble(self) -> None:
        self.fabric.weather = self.a_weather()
        self.trouble.database = self.chance.choice((0.0, 0.0, 0.01))
        self.trouble.threads = self.chance.choice((0.0, 0.002))
        reviving = self.loop.create_task(self._revive_for_ever())
        try:
            await self.users.play(self.plan.operations)
        finally:
            reviving.cancel()

    async def _revive_for_ever(self) -> None:
        while True:
            await asyncio.sleep(0.25)
            self.revive()

    def a_weather(self) -> Weather:
        """One of several climates, by the seed."""
        chance = self.chance
        if chance.random() < 0.3:
            return CALM
        return Weather(
            drop=chance.choice((0.0, 0.01, 0.05)),
            repeat=chance.choice((0.0, 0.02, 0.1)),
            linger=chance.choice((0.0, 0.05, 0.2)),
            linger_s=chance.choice((0.1, 0.5, 3.0)),
        )

    async def _calm(self, when: str) -> None:
        self.is_calm = True
        self.fabric.weather = CALM
        self.trouble.database = self.trouble.threads = 0.0
        for agent in self.agents:
            agent.site.calm()
        for party in self.parties:
            party.calm()
        self.revive()
        await self.until(f"every operation is answered {when}", self.users.are_quiet, 300.0)
        await self.until(f"everybody is back {when}", self._is_up, 120.0)
        await self.until(f"every saga rests {when}", lambda: invariants.rests(self), REST_S)
        await asyncio.sleep(SETTLE_S)
        self.check()
        await invariants.check_rest(self, when)
        self.check()

    def _powered_on(self, n: int) -> Callable[[str], None]:
        def noted(domain_id: str) -> None:
            self.trace.note(f"h{n}", f"guest {domain_id[:8]} is on")
            invariants.check_power_on(self, self.agents[n - 1], domain_id)

        return noted


def play(seed: int, plan: Plan, *, keep: bool = False, prepare: Callable[[Simulation], Any] | None = None) -> Played:
    """One run. Nothing of it is left behind."""
    loop = SimLoop()
    asyncio.set_event_loop(loop)
    with _quiet() as told:
        gc.freeze()
        gc.disable()  # A run makes much and drops little; what is left is collected once at its end.
        simulation = Simulation(loop, seed, plan)
        told.append(simulation)
        if keep:
            simulation.trace.keep()
        if prepare is not None:
            prepare(simulation)
        loop.set_exception_handler(_handler(simulation))
        try:
            with contextlib.suppress(Broken):
                loop.run_until_complete(simulation.run())
            return Played(
                seed=seed,
                plan=plan,
                broken=list(simulation.broken),
                digest=f"{simulation.trace.digest()} {invariants.digest(simulation)}",
                tail=simulation.trace.tail(),
                counts={
                    "lines": simulation.trace.count,
                    "messages": simulation.fabric.carried,
                    **simulation.users.counts,
                },
                virtual_s=loop.time(),
            )
        finally:
            _bury(loop)
            gc.enable()


def _handler(simulation: Simulation) -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]:
    def handle(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, Exception):
            simulation.report(f"asyncio: {context.get('message')}", error)

    return handle


@contextlib.contextmanager
def _quiet() -> Iterator[list[Simulation]]:
    """Log lines go into the trace of the run (the list's first), and a logged traceback is a failure."""
    told: list[Simulation] = []

    def into_trace(_: Any, level: str, event: MutableMapping[str, Any]) -> str:
        if told:
            _tell(told[0], level, event)
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(
        processors=[into_trace],
        wrapper_class=structlog.make_filtering_bound_logger(30),
        cache_logger_on_first_use=False,
    )
    try:
        yield told
    finally:
        structlog.configure(**before)


def _tell(simulation: Simulation, level: str, event: MutableMapping[str, Any]) -> None:
    exc_info = event.pop("exc_info", None)
    words = " ".join(f"{key}={value}" for key, value in event.items() if key != "event")
    life = LIFE.get()
    simulation.trace.note(
        "log" if life is None else life.name, f"log: {event.get('event')} {words}"[:300].replace("\n", " ")
    )
    if exc_info:
        error = exc_info if isinstance(exc_info, BaseException) else sys.exc_info()[1]
        if isinstance(error, Exception) and not isinstance(error, DatabaseDown | Hangs):
            simulation.report(f"logged: {event.get('event')} {words}", error)
    elif event.get("event") == "host is down" and life is not None:
        invariants.check_verdict(simulation, life.name, str(event["host"]))
    elif level == "error" and "detail" in event:
        simulation.fail(f"logged: {event.get('event')}: {event['detail']}")


def _bury(loop: SimLoop) -> None:
    """The dead are let go without a word: closing their coroutines runs what kill -9 did not, but on nothing."""
    loop.set_exception_handler(lambda _loop, _context: None)
    for task in loop.left():
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        coro: Any = task.get_coro()
        for _ in range(50):
            if inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED:
                break
            with contextlib.suppress(BaseException):
                coro.close()
    loop.close()
    asyncio.set_event_loop(None)
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        gc.collect()
    finally:
        sys.unraisablehook = hook
