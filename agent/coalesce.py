"""One run for many: what takes the whole state at once need not run once for each of those who changed it.

And several at once: what does not need one another need not wait for one another.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


async def together(one: Awaitable[A], other: Awaitable[B]) -> tuple[A, B]:
    """Both at once. Ends when both have ended, also when one of them fails: then nothing is still at work behind."""
    first, second = await asyncio.gather(one, other, return_exceptions=True)
    if isinstance(first, BaseException):
        raise first
    if isinstance(second, BaseException):
        raise second
    return first, second


class Coalesced:
    """Runs `work` so that each caller is covered by a run that began after it called; runs never overlap."""

    def __init__(self, work: Callable[[], Awaitable[None]]) -> None:
        self._work = work
        self._lock = asyncio.Lock()
        self._asked = 0
        self._covered = 0
        self._failure: Exception | None = None

    async def __call__(self) -> None:
        """Returns when a run that saw the caller's change has ended. Raises what that run raised."""
        self._asked += 1
        mine = self._asked
        async with self._lock:
            await asyncio.sleep(0)  # What arrived together is covered together.
            if self._covered < mine:
                covering, self._failure = self._asked, None
                try:
                    await self._work()
                except Exception as failure:
                    self._failure = failure
                self._covered = covering
            if self._failure is not None:
                raise self._failure
