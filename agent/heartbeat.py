"""The heartbeat: every ten seconds, and at once when the bus may have lost something."""

import asyncio
from typing import Final

import structlog

from agent.effects import Effects
from agent.events import Events
from agent.inventory import Inventories
from agent.wire.host import HEARTBEAT

PERIOD_S: Final = 10.0
"""Three missed ones and a host counts as down: longer, and that takes longer; shorter, and large fleets chatter."""

JITTER_S: Final = 1.0
"""So that a fleet that lost its controller at one moment does not come back at one moment."""

PURGE_EVERY: Final = 360
"""Beats between two purges of the ledger: an hour."""


log = structlog.get_logger()


class Heart:
    """Beats."""

    def __init__(self, fx: Effects, events: Events, inventories: Inventories) -> None:
        self._fx = fx
        self._events = events
        self._inventories = inventories
        self._now = asyncio.Event()

    def beat_now(self) -> None:
        """Do not wait for the next turn."""
        self._now.set()

    async def run(self) -> None:
        """Beat until cancelled."""
        beats = 0
        while True:
            self._now.clear()
            if beats % PURGE_EVERY == 0:
                self._fx.ledger.purge(self._fx.world.clock.now())
            try:
                self._events.publish(HEARTBEAT, self._inventories.heartbeat(self._events.boot))
            except OSError as error:  # Its own disk cannot be asked; then it is better to be taken for dead.
                log.error("the host cannot tell how it is", why=str(error))
            beats += 1
            await self._pause(PERIOD_S + self._fx.world.entropy.uniform(-JITTER_S, JITTER_S))

    async def _pause(self, pause_s: float) -> None:
        try:
            async with asyncio.timeout(pause_s):
                await self._now.wait()
        except TimeoutError:
            return
