"""Reconcilers: what must stay true, as opposed to what a person waits for (sagas).

A reconciler takes no input, so it cannot be told something wrong and a lost message costs latency only: it looks
at what should be and what is, and narrows the difference. It runs when its timer says so and when it is kicked,
never twice at once; kicks that arrive while it runs are one more run. What it raises is logged and shown in its
status, and it runs again after a pause that grows with every failure in a row.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final

import msgspec
import structlog

from agent.wire.world import World

log = structlog.get_logger()

BACKOFF_FIRST_S: Final = 1.0
BACKOFF_MAX_S: Final = 60.0
"""A reconciler that fails is tried at least once a minute, so that it heals soon after what it needs has."""


@dataclass(frozen=True, slots=True)
class Task:
    """One reconciler. `run` returns what it did, for people: {"removed": 2}. `timeout_s` bounds one run."""

    name: str
    period_s: float
    run: Callable[[], Awaitable[Mapping[str, Any] | None]]
    timeout_s: float = 300.0


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """How a reconciler fares."""

    name: str
    runs: int = 0
    failures: int = 0  # In a row.
    is_running: bool = False
    began_at: float | None = None
    ended_at: float | None = None
    error: str = ""
    details: Mapping[str, Any] = {}


@dataclass(slots=True)
class _Seat:
    """A task and where it is."""

    task: Task
    status: Status
    kicked: asyncio.Event = field(default_factory=asyncio.Event)
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, **changes: Any) -> None:
        self.status = msgspec.structs.replace(self.status, **changes)


class Driver:
    """Runs reconcilers. `async with driver:`, or `await driver.run()` inside a task of the caller's."""

    def __init__(self, world: World, *tasks: Task) -> None:
        self._world = world
        self._seats: dict[str, _Seat] = {}
        self._runner: asyncio.Task[None] | None = None
        for task in tasks:
            self.add(task)

    def add(self, task: Task) -> None:
        """Before the start."""
        assert self._runner is None, "reconcilers are known before the driver starts"
        assert task.name not in self._seats, f"two reconcilers are named {task.name}"
        self._seats[task.name] = _Seat(task, Status(name=task.name))

    def kick(self, name: str) -> None:
        """Run it now, or once more if it runs. Cheap; may be called before the start. KeyError: no such task."""
        self._seats[name].kicked.set()

    def statuses(self) -> list[Status]:
        """All of them, in the order they were added."""
        return [seat.status for seat in self._seats.values()]

    async def quiet(self, name: str, timeout_s: float = 60.0) -> Status:
        """Wait until every kick so far has been answered by a whole run; its status. For tests and for people."""
        seat = self._seats[name]
        async with asyncio.timeout(timeout_s):
            while seat.kicked.is_set() or seat.status.is_running:
                seat.idle.clear()
                await seat.idle.wait()
        return seat.status

    async def __aenter__(self) -> "Driver":
        self._runner = asyncio.create_task(self.run(), name="reconcilers")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None, "entered"
        self._runner.cancel()
        await asyncio.gather(self._runner, return_exceptions=True)

    async def run(self) -> None:
        """Until cancelled. Everyone begins within its first period, spread so that they do not begin together."""
        async with asyncio.TaskGroup() as group:
            for seat in self._seats.values():
                group.create_task(self._attend(seat), name=f"task {seat.task.name}")

    async def _attend(self, seat: _Seat) -> None:
        delay_s = self._world.entropy.uniform(0, min(seat.task.period_s, 5.0))
        while True:
            await _kicked_or_after(seat.kicked, delay_s)
            seat.kicked.clear()
            await self._run_once(seat)
            seat.idle.set()
            delay_s = self._delay_s(seat)
            if seat.status.failures:
                await asyncio.sleep(delay_s)  # Kicks do not shorten the pause after a failure: they may cause it.
                delay_s = 0.0

    async def _run_once(self, seat: _Seat) -> None:
        seat.note(is_running=True, began_at=self._world.clock.now())
        error, details = "", seat.status.details
        try:
            async with asyncio.timeout(seat.task.timeout_s):
                details = await seat.task.run() or {}
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is None or current.cancelling():
                raise
            error = "what it waited for was cancelled"
            log.warning("a reconciler was cut short", task=seat.task.name)
        except Exception as failure:
            error = f"{type(failure).__name__}: {failure}"
            log.exception("a reconciler failed", task=seat.task.name)
        seat.note(
            runs=seat.status.runs + 1,
            failures=seat.status.failures + 1 if error else 0,
            is_running=False,
            ended_at=self._world.clock.now(),
            error=error,
            details=details,
        )

    def _delay_s(self, seat: _Seat) -> float:
        jitter = self._world.entropy.uniform(0.8, 1.2)
        if not seat.status.failures:
            return seat.task.period_s * jitter
        return min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(seat.status.failures - 1, 10)) * jitter


async def _kicked_or_after(kicked: asyncio.Event, delay_s: float) -> None:
    try:
        async with asyncio.timeout(delay_s):
            await kicked.wait()
    except TimeoutError:
        return
