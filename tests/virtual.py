"""A world without waiting: the simulation's loop, whose time jumps to the next timer, seeded randomness, no thread.

    async def scenario(world: World) -> None: …
    run_virtual(scenario, seed=1)

Two runs of the same scenario with the same seed take the same turns.
"""

import asyncio
import contextlib
import random
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from agent.wire.world import World
from tests.sim.loop import SimLoop, Stalled

T = TypeVar("T")

EPOCH = 1_800_000_000.0


class VirtualClock:
    """The loop's time as a calendar."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def now(self) -> float:
        return EPOCH + self._loop.time()

    def boottime(self) -> float:
        return self._loop.time()


class SeededEntropy:
    """The same sequence for the same seed."""

    def __init__(self, seed: int | str) -> None:
        self._random = random.Random(seed)

    def uuid(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def hex(self, length: int) -> str:
        return f"{self._random.getrandbits(4 * length):0{length}x}"

    def secret(self, length_bytes: int) -> str:
        return self.hex(2 * length_bytes)

    def uniform(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)


class InlineThreads:
    """Blocking calls run at once, on the loop."""

    async def run(self, fn: Callable[..., T], *args: Any, timeout_s: float) -> T:
        await asyncio.sleep(0)
        return fn(*args)


def virtual_world(loop: asyncio.AbstractEventLoop, seed: int | str) -> World:
    """Clock, randomness and threads of a scenario."""
    return World(VirtualClock(loop), SeededEntropy(seed), InlineThreads())


def run_virtual(scenario: Callable[[World], Awaitable[T]], seed: int | str = 0) -> T:
    """Run a scenario to its end on a loop of its own."""
    loop = SimLoop()
    try:
        asyncio.set_event_loop(loop)
        result: T = loop.run_until_complete(_await(scenario, virtual_world(loop, seed)))
        return result
    finally:
        _clear(loop)
        asyncio.set_event_loop(None)
        loop.close()


async def _await(scenario: Callable[[World], Awaitable[T]], world: World) -> T:
    return await scenario(world)


def _clear(loop: SimLoop) -> None:
    """End what the scenario left (dropped parties wait for ever); what they say then is of no interest."""
    loop.set_exception_handler(lambda _loop, _context: None)
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        with contextlib.suppress(Stalled):
            loop.run_until_complete(asyncio.wait(left, timeout=1))
