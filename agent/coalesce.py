"""One run for many: what takes the whole state at once need not run once for each of those who changed it."""

import asyncio
from collections.abc import Awaitable, Callable


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
            if self._covered < mine:
                covering, self._failure = self._asked, None
                try:
                    await self._work()
                except Exception as failure:
                    self._failure = failure
                self._covered = covering
            if self._failure is not None:
                raise self._failure
