"""The three generic tests of sagas: fail at every step, do everything twice, crash everywhere; then the invariants.

A `Case` describes one kind of saga: the rows that it starts from, the far side (hosts) as production-quality fakes,
and what must be true when it rests. `tests.sagas.cases` lists them; a registered saga without a case fails a test.

A crash is a severed world. Every effect of the controller (its database, its calls to the far side) passes an
`Effects`; from the moment it is severed none gets through and none returns. Nothing is cancelled and no `finally`
runs: the tasks are left waiting. Then an engine with the same name starts over the same rows and hosts.
"""

import asyncio
import dataclasses
import inspect
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec

from agent.wire.world import World
from controller.db.sqlite import SqliteDatabase
from controller.db.tx import Tx
from controller.errors import Unavailable
from controller.saga.engine import Engine, Pace
from controller.saga.log import request_cancel, start, trace
from controller.saga.model import Commit, Do, Json, Run, Saga, State, Step, Transient
from controller.saga.registry import Registry
from tests.databases import memory_database, raw_connection
from tests.virtual import EPOCH, run_virtual

SAGA_ID = "5a6a0000-0000-4000-8000-000000000001"


class Effects:
    """Counts what a party does to the outside, twice each (before and after), and severs it at one of these points."""

    def __init__(self, crash_at: int | None = None) -> None:
        self.passed = 0
        self.is_severed = False
        self.crashed = asyncio.Event()
        self._crash_at = crash_at

    async def around(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """One effect."""
        await self._point()
        try:
            return await call()
        finally:
            await self._point()  # Done, or failed; but nobody will learn of it if this is the end.

    async def _point(self) -> None:
        self.passed += 1
        if self.passed == self._crash_at:
            self.sever()
        if self.is_severed:
            await asyncio.get_running_loop().create_future()

    def sever(self) -> None:
        """The crash."""
        self.is_severed = True
        self.crashed.set()

    def through(self, inner: Any) -> Any:
        """`inner` as the party sees it: its coroutine methods are effects; the rest passes as it is."""
        return _Through(inner, self)


class _Through:
    def __init__(self, inner: Any, effects: Effects) -> None:
        self._inner, self._effects = inner, effects

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not inspect.iscoroutinefunction(found):
            return found
        return lambda *args, **kwargs: self._effects.around(lambda: found(*args, **kwargs))


@dataclass(frozen=True)
class Case:
    """How one kind of saga is put to the test. `deps` gets far side, severable database, world and effects; wrap the
    far side's clients in `effects.through(…)`. `check` raises AssertionError; it sees the rows and the far side."""

    saga: Saga[Any]
    params: msgspec.Struct
    target: str
    furnish: Callable[[Tx], None]
    far: Callable[[World], Any]
    deps: Callable[[Any, Any, World, Effects], Any]
    check: Callable[[Any, Tx, State], None]

    @property
    def names(self) -> tuple[str, ...]:
        """The expanded steps."""
        return self.saga.expanded(self.params)


@dataclass
class Twist:
    """What is made different in a run: steps whose `do` fails, and whether everything is done twice."""

    fail: str = ""  # An expanded step: its `do` fails …
    late: bool = False  # … after its effect (a time-out whose work was done), instead of before.
    transient: bool = False  # … with silence, once, and then works.
    once: bool = False  # … once, and then works.
    twice: bool = False
    crash_at: int | None = None
    cancel_at: str = ""  # Asked for while this step runs.
    cancel_after_crash: bool = False  # Asked for while no controller lives.
    failed: dict[str, int] = field(default_factory=dict)  # Steps that have; how many points were passed by then.

    def __str__(self) -> str:
        parts = [f"{key}={value}" for key, value in dataclasses.asdict(self).items() if value and key != "failed"]
        return " ".join(parts) or "plain"


class Stage:
    """One case's database, furnished once and put back before every run."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self._now: Callable[[], float] = lambda: EPOCH
        self.db = memory_database(lambda: self._now())
        self.db.build(case.furnish)
        self._furnished = sqlite3.connect(":memory:")
        raw_connection(self.db).backup(self._furnished)

    def play(self, twist: Twist, seed: int = 0) -> tuple[State, int]:
        """One run until the saga rests, then the invariants. Its state, and how many points a crash may choose."""
        _restore(self._furnished, self.db)
        return run_virtual(lambda world: self._play(twist, world), seed)

    async def _play(self, twist: Twist, world: World) -> tuple[State, int]:
        case, self._now = self.case, world.clock.now
        far, effects = case.far(world), Effects(twist.crash_at)
        registry = Registry(twisted(case.saga, twist, self.db, effects))
        await self.db.write(
            start, case.saga, saga_id=SAGA_ID, params=case.params, target=case.target, request_id="req-1", now=EPOCH
        )
        engine = self._engine(registry, far, effects, world)
        dropped = asyncio.create_task(engine.run())
        engine.kick(SAGA_ID)
        state = await self._rest(engine, effects)
        if state is None:
            if twist.cancel_after_crash:
                await self.db.write(request_cancel, case.target, EPOCH)
            engine = self._engine(registry, far, Effects(), world)
            async with engine:
                state = await engine.rest(SAGA_ID, 100_000)
        told = await self.db.read(trace, target=case.target)
        try:
            await self.db.read(lambda tx: case.check(far, tx, state))
        except AssertionError as error:
            story = "\n".join(f"  {line.event:12} {line.step} {line.error}" for line in told)
            raise AssertionError(f"{case.saga.name} with {twist}, now {state}: {error}\n{story}") from error
        del dropped  # Until here: a task that nobody holds may be collected, which would run its `finally`.
        return state, effects.passed

    def _engine(self, registry: Registry, far: Any, effects: Effects, world: World) -> Engine:
        db = effects.through(self.db)
        deps = self.case.deps(far, db, world, effects)
        return Engine(db, world, registry, deps, owner_id="controller", pace=Pace())

    async def _rest(self, engine: Engine, effects: Effects) -> State | None:
        """The state in which it rests, or None: the party has crashed."""
        rests = asyncio.create_task(_watch(self.db))
        crashes = asyncio.create_task(effects.crashed.wait())
        await asyncio.wait({rests, crashes}, return_when=asyncio.FIRST_COMPLETED)
        crashes.cancel()
        if not rests.done():
            rests.cancel()
            return None
        return rests.result()

    def close(self) -> None:
        """Let the memory go."""
        self._furnished.close()
        run_virtual(lambda _world: self.db.close())


async def _watch(db: SqliteDatabase) -> State:
    from controller.saga.record import ACTIVE, state_of

    while (state := await db.read(state_of, SAGA_ID)) is None or state.value in ACTIVE:
        await asyncio.sleep(0.05)
    return state


def twisted(saga: Saga[Any], twist: Twist, db: SqliteDatabase, effects: Effects) -> Saga[Any]:
    """The saga with its functions wrapped."""
    return dataclasses.replace(saga, steps=tuple(_twisted_step(step, twist, db, effects) for step in saga.steps))


def _twisted_step(step: Step[Any], twist: Twist, db: SqliteDatabase, effects: Effects) -> Step[Any]:
    async def do(run: Run[Any]) -> Json | Commit | None:
        name = step.name if step.each is None else f"{step.name}[{run.index}]"
        if name == twist.cancel_at:
            await db.write(request_cancel, _target(db), EPOCH)
        fails = name == twist.fail and not ((twist.transient or twist.once) and name in twist.failed)
        if fails and not twist.late:
            _fail(name, twist, effects)
        result = await _repeatedly(step.do, run, twist)
        if fails:
            _fail(name, twist, effects)
        return result

    async def undo(run: Run[Any]) -> Json | Commit | None:
        assert step.undo is not None
        return await _repeatedly(step.undo, run, twist)

    return dataclasses.replace(step, do=do, undo=None if step.undo is None else undo)


def _target(db: SqliteDatabase) -> str:
    return cast("str", raw_connection(db).execute("SELECT target FROM saga").fetchone()[0])


async def _repeatedly(effect: Do, run: Run[Any], twist: Twist) -> Json | Commit | None:
    """A Commit is atomic with its event, so only what comes before it can happen twice."""
    if twist.twice:
        await effect(run)
    return await effect(run)


def _fail(name: str, twist: Twist, effects: Effects) -> None:
    twist.failed.setdefault(name, effects.passed)
    raise Transient("silence") if twist.transient else Unavailable("It failed on purpose.")


def _restore(source: sqlite3.Connection, db: SqliteDatabase) -> None:
    source.backup(raw_connection(db))


# The generic tests, as functions over a case.


def errors_at_every_step(stage: Stage) -> None:
    """Refused before its effect, and failed after it: the failed step is undone too. (Forward-only: tried again.)"""
    forward_only = stage.case.saga.forward_only
    for name in stage.case.names:
        for late in (False, True):
            state, _ = stage.play(Twist(fail=name, late=late, once=forward_only))
            expected = State.DONE if forward_only else State.UNDONE
            assert state == expected, f"{stage.case.saga.name} failing at {name} came to {state}"


def silence_at_every_step(stage: Stage) -> None:
    """Once, before or after the effect; then it works: the saga is done."""
    for name in stage.case.names:
        for late in (False, True):
            state, _ = stage.play(Twist(fail=name, late=late, transient=True))
            assert state == State.DONE, f"{stage.case.saga.name} with silence at {name} came to {state}"


def everything_twice(stage: Stage) -> None:
    """Every step twice; and every step and undo twice, failing at each step."""
    state, _ = stage.play(Twist(twice=True))
    assert state == State.DONE
    for twist in _failures(stage.case):
        stage.play(dataclasses.replace(twist, twice=True, failed={}))


def crashes_everywhere(stage: Stage) -> None:
    """Before and after every effect: of the run that succeeds, and of every way back (or on) from a failure."""
    for twist in (Twist(), *_failures(stage.case)):
        _, points = stage.play(twist)
        for point in range(max([1, *twist.failed.values()]), points + 1):
            stage.play(dataclasses.replace(twist, crash_at=point, failed={}))


def cancels_everywhere(stage: Stage) -> None:
    """Asked to stop during every step, and after a crash at every point of the run that would succeed."""
    for name in stage.case.names:
        state, _ = stage.play(Twist(cancel_at=name))
        is_last = name == stage.case.names[-1]
        wanted = State.DONE if is_last or stage.case.saga.forward_only else State.UNDONE
        assert state == wanted, f"{stage.case.saga.name} cancelled during {name} came to {state}"
    _, points = stage.play(Twist())
    for point in range(1, points + 1):
        stage.play(Twist(crash_at=point, cancel_after_crash=True))


def _failures(case: Case) -> Iterator[Twist]:
    for name in case.names:
        for late in (False, True):
            yield Twist(fail=name, late=late, transient=case.saga.forward_only)


GENERIC = (errors_at_every_step, silence_at_every_step, everything_twice, crashes_everywhere, cancels_everywhere)
