"""Calls that block (libvirt, netlink, nft, qemu-img), off the event loop, with time limits and a breaker a driver.

A thread cannot be stopped. A call whose time is up may still do its work later, so it keeps its object: until it
has come back, the next call for the same object is refused with Busy. Otherwise a hung `start` could bring up a
guest that was removed meanwhile. A call that still waited for a thread is simply never made.

When a driver's calls time out one after the other, its breaker opens: for a while calls fail at once instead of
taking the remaining threads with them.
"""

import asyncio
import threading
from collections.abc import Callable, Hashable
from typing import Any, Final, Generic, TypeVar

from agent.wire.errors import Busy, Failed
from agent.wire.world import Threads

T = TypeVar("T")

TIMEOUTS_MAX: Final = 3
"""Time-outs in a row that open a breaker. More: a hung daemon takes more threads. Fewer: one slow call stops all."""

OPEN_S: Final = 15.0
"""How long a breaker stays open before one call may try again."""


class Breaker:
    """Counts one driver's time-outs in a row."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.timeouts = 0
        self.open_until = 0.0

    def check(self, now: float) -> None:
        """Raises Busy while it is open."""
        if self.timeouts >= TIMEOUTS_MAX and now < self.open_until:
            raise Busy(f"{self.name} does not answer; the next try is in {self.open_until - now:.0f} s")

    def failed(self, now: float) -> None:
        """A call's time was up."""
        self.timeouts += 1
        self.open_until = now + OPEN_S

    def succeeded(self) -> None:
        """A call came back, whatever it said."""
        self.timeouts = 0


class Blocking:
    """Runs blocking calls. One per agent; used by the event loop's thread only."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._lingering: dict[Hashable, _Call[Any]] = {}
        self.breakers: dict[str, Breaker] = {}

    async def run(self, driver: str, owner: Hashable, fn: Callable[..., T], *args: Any, timeout_s: float) -> T:
        """`fn(*args)` in a thread, for the object `owner`. Raises what `fn` raises, Failed when time is up, Busy."""
        loop = asyncio.get_running_loop()
        breaker = self.breakers.setdefault(driver, Breaker(driver))
        breaker.check(loop.time())
        self._refuse_lingering(driver, owner)
        call = _Call(fn)
        try:
            result = await self._threads.run(call, *args, timeout_s=timeout_s)
        except TimeoutError as error:
            if call.abandon():
                self._lingering[owner] = call
            elif call.has_started:  # It came back by itself, with a TimeoutError of its own.
                breaker.succeeded()
                raise Failed(f"{driver}: {error or 'a time-out'}") from error
            breaker.failed(loop.time())
            raise Failed(f"{driver} did not answer within {timeout_s:.0f} s") from error
        except Exception:
            breaker.succeeded()
            raise
        breaker.succeeded()
        return result

    def _refuse_lingering(self, driver: str, owner: Hashable) -> None:
        earlier = self._lingering.get(owner)
        if earlier is None:
            return
        if not earlier.has_ended:
            raise Busy(f"an earlier call to {driver} for {owner} has not come back")
        del self._lingering[owner]


class _Call(Generic[T]):
    """A call that knows how far it is, for the loop and for its thread."""

    def __init__(self, fn: Callable[..., T]) -> None:
        self._fn = fn
        self._lock = threading.Lock()
        self._is_abandoned = False
        self.has_started = False
        self.has_ended = False

    def __call__(self, *args: Any) -> T:
        with self._lock:
            if self._is_abandoned:
                raise Failed("given up before it began")
            self.has_started = True
        try:
            return self._fn(*args)
        finally:
            self.has_ended = True

    def abandon(self) -> bool:
        """Give it up; True if it is still at work."""
        with self._lock:
            self._is_abandoned = True
            return self.has_started and not self.has_ended
