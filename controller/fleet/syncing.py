"""Which hosts must be brought in line, and a bound on how many at a time.

After a reconnect storm every host is suspect at once; each is synced as soon as its turn comes. A host is in the
queue once, however often it is asked for; asked for again while it is being synced, it is synced once more after.
What fails is tried again after a pause.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from agent.wire.world import Entropy

SYNCS_MAX: Final = 64
"""Hosts synced at once. Higher: a storm starves the requests of users. Lower: a fleet is in doubt for longer."""

RETRY_MIN_S: Final = 2.0
RETRY_MAX_S: Final = 8.0
"""Pause after a sync that failed, drawn between the two so that a fleet does not come back in step."""

log = structlog.get_logger()


class SyncQueue:
    """Runs `sync(host_id)` for every host that was asked for."""

    def __init__(self, sync: Callable[[str], Awaitable[None]], entropy: Entropy, limit: int = SYNCS_MAX) -> None:
        self._sync = sync
        self._entropy = entropy
        self._limit = limit
        self._waiting: dict[str, None] = {}  # In order.
        self._running: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def want(self, host_id: str) -> None:
        """Sync this host soon."""
        if host_id in self._running:
            self._again.add(host_id)
        else:
            self._waiting[host_id] = None
            self._fill()

    def has(self, host_id: str) -> bool:
        """Whether this host waits, is being synced, or is to be tried again."""
        return host_id in self._waiting or host_id in self._running or host_id in self._timers

    def close(self) -> None:
        """Start no more, and drop what runs."""
        self._waiting.clear()
        self._again.clear()
        for timer in self._timers.values():
            timer.cancel()
        for task in self._running.values():
            task.cancel()

    @property
    def is_idle(self) -> bool:
        """Nothing waits, runs, or is to be tried again."""
        return not (self._waiting or self._running or self._timers)

    def _fill(self) -> None:
        while self._waiting and len(self._running) < self._limit:
            host_id = next(iter(self._waiting))
            del self._waiting[host_id]
            if (timer := self._timers.pop(host_id, None)) is not None:
                timer.cancel()
            self._running[host_id] = asyncio.create_task(self._run(host_id))

    async def _run(self, host_id: str) -> None:
        try:
            await self._sync(host_id)
        except Exception as error:  # Whatever it was, this host is still in doubt.
            log.warning("host sync failed", host=host_id, error=str(error) or type(error).__name__)
            pause_s = self._entropy.uniform(RETRY_MIN_S, RETRY_MAX_S)
            self._timers[host_id] = asyncio.get_running_loop().call_later(pause_s, self._retry, host_id)
        del self._running[host_id]
        if host_id in self._again:
            self._again.discard(host_id)
            self.want(host_id)
        self._fill()

    def _retry(self, host_id: str) -> None:
        self._timers.pop(host_id, None)
        self.want(host_id)
