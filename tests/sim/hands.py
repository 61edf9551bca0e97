"""What a party can do to the world, and the points at which it may die.

Every effect of a party (a message, a write, a driver's call) passes its `Hands`. A crash is planned as "before or
after the n-th effect from now", so it comes also where no time passes; a dead party's effects are refused.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import sqlalchemy as sa

from controller.db.sqlite import SqliteDatabase
from controller.db.tables.saga import saga
from controller.db.tx import DatabaseDown, Tx
from controller.saga import record
from controller.saga.record import Hold
from tests.sim.loop import Life, Severed
from tests.sim.trace import Trace

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class Trouble:
    """How often what parties stand on fails them: chances of one call."""

    database: float = 0.0  # A write fails, with or without having happened.
    threads: float = 0.0  # A blocking call takes longer than its time, with or without having happened.


class Hands:
    """One life's effects. `die` is called when a planned crash has come."""

    def __init__(self, life: Life, trace: Trace, die: Callable[[], None]) -> None:
        self.life = life
        self._trace = trace
        self._die = die
        self._left = 0
        self._is_after = False

    def crash_at(self, effects: int, *, is_after: bool) -> None:
        """Die at the n-th effect from now (from 1), before it or right after it."""
        self._left, self._is_after = effects, is_after

    def do(self, what: str, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """One effect."""
        self.begin(what)
        result = fn(*args, **kwargs)
        self.end()
        return result

    def begin(self, what: str) -> None:
        """An effect is about to happen. Raises Severed if it must not."""
        self.life.require()
        self._trace.note(self.life.name, what)
        if self._left and not self._is_after and self._counted():
            self._end_life("before")

    def end(self) -> None:
        """It happened; whoever did it may not live to know."""
        if self._left and self._is_after and self._counted():
            self._end_life("after")
        self.life.require()

    def _counted(self) -> bool:
        self._left -= 1
        return self._left == 0

    def _end_life(self, when: str) -> None:
        self._trace.note(self.life.name, f"dies {when} that")
        self._die()
        raise Severed(self.life.name)


class Severable:
    """A party's handle on something that outlives it. `reads` are methods without effect."""

    def __init__(self, target: Any, hands: Hands, label: str, reads: tuple[str, ...] = ()) -> None:
        self._target, self._hands, self._label, self._reads = target, hands, label, reads

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        if not callable(value):
            return value
        if name in self._reads:
            self.__dict__[name] = value
            return value
        hands, what = self._hands, f"{self._label}.{name}"

        def effect(*args: Any, **kwargs: Any) -> Any:
            return hands.do(f"{what} {_named(args)}", value, *args, **kwargs)

        self.__dict__[name] = effect
        return effect


def _named(args: tuple[Any, ...]) -> str:
    """Which object a call is about, for people who read the trace."""
    if not args:
        return ""
    first = args[0]
    first = getattr(first, "spec", first)
    if isinstance(first, str):
        return first[:40]
    key = getattr(first, "key", None)
    if key is not None:
        return str(key)
    return str(getattr(first, "id", ""))[:40]


_OWNER = sa.select(saga.c.owner, saga.c.adopt_generation).where(saga.c.id == sa.bindparam("id"))

SLOW_WRITES: Final = 0.15
"""How often a write has to wait its turn. Nobody else does anything while a transaction runs, so only the order of
transactions is at stake."""


class SeverableDatabase:
    """A controller's handle on the database. `dialect` says whether others drive sagas of it, too."""

    def __init__(
        self,
        database: SqliteDatabase,
        hands: Hands,
        chance: random.Random,
        trouble: Trouble,
        dialect: str,
        report: Callable[[str], None],
    ) -> None:
        self.dialect = dialect
        self._database, self._hands, self._chance, self._trouble = database, hands, chance, trouble
        self._report = report

    async def read(self, fn: Callable[Concatenate[Tx, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """See Database."""
        self._hands.life.require()
        return await self._database.read(fn, *args, **kwargs)

    async def write(self, fn: Callable[Concatenate[Tx, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """See Database."""
        if self._chance.random() < SLOW_WRITES:
            await asyncio.sleep(self._chance.uniform(0.0, 0.05))
        self._hands.begin(f"write {getattr(fn, '__name__', fn)}")
        is_down = self._chance.random() < self._trouble.database
        if is_down and self._chance.random() < 0.5:
            raise DatabaseDown("The database is away: nothing has happened.")
        try:
            write: Any = self._owned if fn is record.write else fn
            result: T = await self._database.write(write, *args, **kwargs)
        finally:
            self._hands.end()
        if is_down:
            raise DatabaseDown("The database is away: it has happened nevertheless.")
        return result

    def _owned(self, tx: Tx, saga_id: str, hold: Hold, **kwargs: Any) -> record.Written:
        """A saga's write; it must have been its owner's."""
        owner = tx.execute(_OWNER, {"id": saga_id}).one()
        result = record.write(tx, saga_id, hold, **kwargs)
        if tuple(owner) != (hold.owner, hold.generation):
            self._report(f"saga {saga_id} of {tuple(owner)} was written by {(hold.owner, hold.generation)}")
        return result

    async def read_aside(
        self, timeout_s: float, fn: Callable[Concatenate[Tx, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """See Database."""
        return await self.read(fn, *args, **kwargs)

    def shortage(self) -> str:
        """See Database."""
        return ""

    async def close(self) -> None:
        """The database outlives its controllers."""


class Hangs(TimeoutError):
    """A call has not come back in time, because the simulation wanted it so."""


class SimThreads:
    """Blocking calls that take some time, as threads do: mostly none, sometimes a little, seldom too much."""

    def __init__(self, chance: random.Random, trouble: Trouble) -> None:
        self._chance, self._trouble = chance, trouble

    async def run(self, fn: Callable[..., T], *args: Any, timeout_s: float) -> T:
        """See Threads."""
        if self._trouble.threads and self._chance.random() < self._trouble.threads:
            await self._hang(fn, args, timeout_s)
        if self._chance.random() < 0.2:
            await asyncio.sleep(self._chance.uniform(0.0, 0.3))
        else:
            await asyncio.sleep(0)
        result = fn(*args)
        if self._chance.random() < 0.1:
            await asyncio.sleep(self._chance.uniform(0.0, 0.1))
        return result

    async def _hang(self, fn: Callable[..., Any], args: tuple[Any, ...], timeout_s: float) -> None:
        """The caller's time is up. The call may have done its work before, does it later, or never."""
        end = self._chance.random()
        if end < 0.4:
            with contextlib.suppress(Exception):
                fn(*args)
        await asyncio.sleep(timeout_s)
        if 0.4 <= end < 0.7:
            loop = asyncio.get_running_loop()
            loop.call_later(self._chance.uniform(0.0, 30.0), _quietly, fn, args)
        raise Hangs("the call hangs")


def _quietly(fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
    with contextlib.suppress(Exception):
        fn(*args)
