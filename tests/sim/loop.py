"""An event loop on virtual time, and lives that can be severed: what makes one process a whole, repeatable cloud.

Theory of operation. Nothing in the simulation waits for real: when no callback is ready, the clock jumps to the
next timer. Same seed, same order, same trace.

Every party (a controller, an agent) runs in tasks whose context carries its `Life`. *A crash is a severed life*:
from that instant no callback of the party runs again, so no `finally`, `except` or context manager can repair
what kill -9 would have left; and every handle on the world (bus, database, ledger, driver) that the party holds
asks `life.require()` first and refuses. Dead tasks are kept until the loop closes, because a collected coroutine
would run its `finally` blocks.

A life can also be *paused*, as a stopped process or one that swaps is: what was due meanwhile happens all at once
when it goes on, with clocks that have run ahead. (Its timers may have passed; its leases, too.)
"""

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any


class Severed(BaseException):
    """An effect of a party that is dead. Not an Exception: nothing may handle it."""


class Life:
    """One run of one party, from start to crash."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.is_paused = False
        self._due: list[tuple[_Guarded, tuple[Any, ...], contextvars.Context]] = []

    def sever(self) -> None:
        """Crash: nothing of this life happens any more."""
        self.alive = False
        self._due.clear()

    def pause(self) -> None:
        """Nothing of this life happens until it is resumed."""
        self.is_paused = True

    def resume(self, loop: asyncio.AbstractEventLoop) -> None:
        """Go on with what was due meanwhile, in its order."""
        self.is_paused = False
        due, self._due = self._due, []
        for guarded, args, context in due:
            loop.call_soon(guarded.catch_up, args, context=context)

    def postpone(self, guarded: "_Guarded", args: tuple[Any, ...]) -> None:
        """Keep what is due until the life goes on."""
        self._due.append((guarded, args, guarded.context or contextvars.copy_context()))

    def require(self) -> None:
        """Refuse an effect of a dead party."""
        if not self.alive:
            raise Severed(self.name)


SWEEP = 1000
"""Tasks held between two looks for those that have ended."""

LIFE: contextvars.ContextVar[Life | None] = contextvars.ContextVar("life", default=None)


class Stalled(Exception):
    """Nothing is ready and nothing is scheduled: the simulation would wait for ever."""


class _NoSelector:
    """Waiting for I/O is letting virtual time pass."""

    def __init__(self, loop: "SimLoop") -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise Stalled("nothing ready, nothing scheduled")
        self._loop.advance(timeout)
        return []


class SimLoop(asyncio.BaseEventLoop):
    """Virtual time; callbacks of severed lives are dropped unseen."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._selector = _NoSelector(self)
        self._tasks: list[asyncio.Task[Any]] = []
        self._sweep_at = SWEEP
        self.set_task_factory(self._keep)

    def time(self) -> float:
        """Virtual seconds since the start."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        # The clock's resolution would otherwise leave a timer a hair in the future for ever.
        self._now += max(seconds, 1e-9) if seconds else 0.0

    def call_soon(  # type: ignore[override]  # typeshed's variadic callables
        self, callback: Callable[..., Any], *args: Any, context: Any = None
    ) -> asyncio.Handle:
        """Run `callback` next, unless its life is over by then."""
        guarded = _guarded(callback, context)
        handle = super().call_soon(guarded or callback, *args, context=context)
        if guarded is not None:
            guarded.handle = handle
        return handle

    def call_at(  # type: ignore[override]  # typeshed's variadic callables
        self, when: float, callback: Callable[..., Any], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        """Run `callback` then, unless its life is over."""
        guarded = _guarded(callback, context)
        handle = super().call_at(when, guarded or callback, *args, context=context)
        if guarded is not None:
            guarded.handle = handle
        return handle

    def left(self) -> list[asyncio.Task[Any]]:
        """Every task that has not ended, of the living and of the dead."""
        return [task for task in self._tasks if not task.done()]

    def _keep(self, loop: asyncio.AbstractEventLoop, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **kwargs)
        self._tasks.append(task)
        if len(self._tasks) > self._sweep_at:
            self._tasks = self.left()
            self._sweep_at = 2 * len(self._tasks) + SWEEP
        return task

    def _asyncgen_finalizer_hook(self, agen: Any) -> None:
        """Generators of the dead are not closed either."""

    def _process_events(self, event_list: list[Any]) -> None:
        assert not event_list

    def _write_to_self(self) -> None:
        raise AssertionError("a thread spoke to the simulation")


class _Guarded:
    """A callback of some life."""

    __slots__ = ("callback", "context", "handle", "life")

    def __init__(self, callback: Callable[..., Any], context: contextvars.Context | None, life: Life) -> None:
        self.callback, self.context, self.life = callback, context, life
        self.handle: asyncio.Handle | None = None

    def __call__(self, *args: Any) -> Any:
        life = self.life
        if life.alive and not life.is_paused:
            return self.callback(*args)
        if life.alive:
            life.postpone(self, args)
        return None

    def catch_up(self, args: tuple[Any, ...]) -> None:
        """Its life goes on, and nobody has cancelled it since it was due."""
        if self.handle is None or not self.handle.cancelled():
            self.callback(*args)


def _guarded(callback: Callable[..., Any], context: contextvars.Context | None) -> _Guarded | None:
    life = context.get(LIFE) if context is not None else LIFE.get()
    return None if life is None else _Guarded(callback, context, life)
