"""Runs a test on virtual time: half an hour of heartbeats takes milliseconds, and nothing depends on the machine."""

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable
from typing import Any

from agent.wire.world import World
from tests.sim.loop import SimLoop


class LoopClock:
    """The calendar and CLOCK_BOOTTIME of a loop on virtual time."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop

    def now(self) -> float:
        return 1_700_000_000.0 + self._loop.time()

    def boottime(self) -> float:
        return 1000.0 + self._loop.time()


class SeededEntropy:
    """The same every time."""

    def __init__(self) -> None:
        self._random = random.Random(7)

    def uuid(self) -> str:
        return f"{self.hex(8)}-{self.hex(4)}-4{self.hex(3)}-8{self.hex(3)}-{self.hex(12)}"

    def hex(self, length: int) -> str:
        return f"{self._random.getrandbits(4 * length):0{length}x}"

    def secret(self, length_bytes: int) -> str:
        return self.hex(2 * length_bytes)

    def uniform(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)


class NoThreads:
    """Blocking calls run inline."""

    async def run(self, fn: Callable[..., Any], *args: Any, timeout_s: float) -> Any:
        return fn(*args)


def timeless(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run `async def test_…(world)` on a loop of its own."""

    @functools.wraps(test)
    def run() -> None:
        loop = SimLoop()
        try:
            asyncio.set_event_loop(loop)
            loop.run_until_complete(test(World(LoopClock(loop), SeededEntropy(), NoThreads())))
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    del run.__wrapped__  # type: ignore[attr-defined]  # Else pytest sees a coroutine function with an argument.
    return run
