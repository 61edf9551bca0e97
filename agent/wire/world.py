"""What both ends take as constructor arguments, so that a whole cloud can run in one process under one seed.

Time passes by the event loop (`asyncio.sleep`, `loop.time`): the simulation brings a loop of its own. What a
loop cannot give is here: the calendar, randomness, and threads for blocking calls.
"""

import asyncio
import secrets
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Clock(Protocol):
    """The calendar. No decision compares the clocks of two machines."""

    def now(self) -> float:
        """Seconds since the epoch, UTC."""
        ...

    def boottime(self) -> float:
        """Seconds that never go backwards and also count suspend (CLOCK_BOOTTIME)."""
        ...


class Entropy(Protocol):
    """Where ids, secrets and jitter come from."""

    def uuid(self) -> str:
        """A random dashed UUID."""
        ...

    def hex(self, length: int) -> str:
        """That many random hex digits."""
        ...

    def secret(self, length_bytes: int) -> str:
        """A URL-safe secret of that many random bytes."""
        ...

    def uniform(self, low: float, high: float) -> float:
        """Jitter."""
        ...


class Threads(Protocol):
    """Runs blocking calls off the event loop."""

    async def run(self, fn: Callable[..., T], *args: Any, timeout_s: float) -> T:
        """`fn(*args)` in a thread; TimeoutError after `timeout_s` (the thread itself cannot be stopped)."""
        ...


class SystemClock:
    """This machine's clocks."""

    def now(self) -> float:
        """See Clock."""
        return time.time()

    def boottime(self) -> float:
        """See Clock."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)


class SystemEntropy:
    """The kernel's randomness."""

    def uuid(self) -> str:
        """See Entropy."""
        return str(uuid.uuid4())

    def hex(self, length: int) -> str:
        """See Entropy."""
        return secrets.token_hex((length + 1) // 2)[:length]

    def secret(self, length_bytes: int) -> str:
        """See Entropy."""
        return secrets.token_urlsafe(length_bytes)

    def uniform(self, low: float, high: float) -> float:
        """See Entropy."""
        return low + (high - low) * secrets.randbelow(1 << 30) / (1 << 30)


class PoolThreads:
    """A bounded pool. `workers` is the limit of concurrent blocking calls: more only queue."""

    def __init__(self, workers: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix=name)

    async def run(self, fn: Callable[..., T], *args: Any, timeout_s: float) -> T:
        """See Threads."""
        loop = asyncio.get_running_loop()
        return await asyncio.wait_for(loop.run_in_executor(self._pool, lambda: fn(*args)), timeout_s)

    def close(self) -> None:
        """Take no more work; running calls end by themselves."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class World:
    """Clock, entropy and threads of one process."""

    def __init__(self, clock: Clock, entropy: Entropy, threads: Threads) -> None:
        self.clock = clock
        self.entropy = entropy
        self.threads = threads


def system_world(workers: int, name: str) -> World:
    """The real one."""
    return World(SystemClock(), SystemEntropy(), PoolThreads(workers, name))
