"""Pulls samples from every host, at its own pace.

Theory of operation. Hosts are known by their heartbeats, whose subject proves who sent them: nobody has to tell the
collector of a fleet, and it goes on while no controller runs. Each host has a task of its own that asks, pages until
the measurement is whole, and sleeps. A host that does not answer is asked again with the next turn; one that is silent
for FORGET_S has left. A collector that starts has everything again after a heartbeat's time.

Pulling bounds the load by itself: what a host says is asked for, and at most POLLS_MAX hosts are asked at once.
"""

import asyncio
from typing import Final

import msgspec
import structlog

from agent.wire import subjects
from agent.wire.bus import Bus, Message, call
from agent.wire.errors import Silent, WireError
from agent.wire.host import HEARTBEAT
from agent.wire.samples import GET, DomainSample, SamplesRequest
from agent.wire.world import Entropy
from telemetry.pipeline import samples_of
from telemetry.store import Store

POLLS_MAX: Final = 64
"""Hosts asked at once. Higher: answers of 200 KiB pile up. Lower: one slow host holds up the others."""

PAGES_MAX: Final = 200
"""Of one measurement. A host has fewer guests than these pages hold; more is one that never ends."""

HOSTS_MAX: Final = 10_000
"""Tasks at once."""

FORGET_S: Final = 300.0
"""Silence after which a host has left."""

JITTER: Final = 0.1
"""Part of the period by which turns are spread, so that a fleet is not asked in step."""

log = structlog.get_logger()


class Collector:
    """Keeps a store fresh. `polls` counts turns by how they ended."""

    def __init__(self, bus: Bus, entropy: Entropy, store: Store, period_s: float) -> None:
        self._bus = bus
        self._entropy = entropy
        self._store = store
        self._period_s = period_s
        self._heard: dict[str, float] = {}
        self._slots = asyncio.Semaphore(POLLS_MAX)
        self._tasks: asyncio.TaskGroup | None = None
        self.is_up: dict[str, bool] = {}
        self.polls = {"ok": 0, "failed": 0}

    async def run(self) -> None:
        """Collect until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            await self._bus.subscribe(subjects.host_event("*", HEARTBEAT), self._on_heartbeat)
            await asyncio.Event().wait()

    async def _on_heartbeat(self, message: Message) -> None:
        host_id = subjects.host_of(message.subject)
        is_new = host_id not in self._heard
        if is_new and len(self._heard) >= HOSTS_MAX:
            return
        self._heard[host_id] = asyncio.get_running_loop().time()
        if is_new and self._tasks is not None:
            self._tasks.create_task(self._attend(host_id), name=f"host {host_id}")

    async def _attend(self, host_id: str) -> None:
        """Ask one host, turn by turn, for as long as it is there."""
        loop = asyncio.get_running_loop()
        while loop.time() - self._heard[host_id] <= FORGET_S:
            async with self._slots:
                await self._poll(host_id)
            await asyncio.sleep(self._period_s * (1.0 + self._entropy.uniform(-JITTER, JITTER)))
        del self._heard[host_id]
        self.is_up.pop(host_id, None)
        self._store.forget(host_id)
        log.info("host has left", host=host_id)

    async def _poll(self, host_id: str) -> None:
        was_up = self.is_up.get(host_id)
        try:
            domains = await self._pull(host_id)
        except (WireError, Silent, msgspec.DecodeError, UnicodeDecodeError) as error:
            self.is_up[host_id] = False
            self.polls["failed"] += 1
            if was_up is not False:
                log.warning("host cannot be metered", host=host_id, why=str(error))
            return
        self._store.put(host_id, samples_of(host_id, domains), asyncio.get_running_loop().time())
        self.is_up[host_id] = True
        self.polls["ok"] += 1
        if was_up is not True:
            log.info("host is metered", host=host_id, guests=len(domains))

    async def _pull(self, host_id: str) -> list[DomainSample]:
        """One whole measurement. Raises WireError, Silent."""
        found: list[DomainSample] = []
        after: str | None = None
        for _ in range(PAGES_MAX):
            page = await call(self._bus, host_id, GET, SamplesRequest(after=after))
            found += page.domains
            after = page.next
            if after is None:
                return found
        raise WireError(f"host {host_id} tells more than {PAGES_MAX} pages of samples")
