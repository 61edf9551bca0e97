"""What a host tells of its own accord. One sender, so events leave in the order in which they happened.

An event may be lost on the way; its number shows the gap, and whoever waits for something also asks.
"""

import asyncio
from collections import deque
from typing import Final

import msgspec
import structlog

from agent.wire import subjects
from agent.wire.bus import Bus
from agent.wire.errors import WireError
from agent.wire.specs import EventEnvelope, encode

QUEUE_MAX: Final = 4096
"""Events waiting for the bus. Beyond it the oldest are dropped, which their numbers show."""

log = structlog.get_logger()


class Events:
    """The host's voice. `boot` names this run of the agent."""

    def __init__(self, bus: Bus, host_id: str, boot: str) -> None:
        self._bus = bus
        self._host_id = host_id
        self._queue: deque[tuple[str, bytes]] = deque(maxlen=QUEUE_MAX)
        self._filled = asyncio.Event()
        self._sequence = 0
        self.boot = boot

    def publish(self, noun: str, body: msgspec.Struct) -> None:
        """Say it as soon as the bus takes it. Never blocks, never fails."""
        self._sequence += 1
        envelope = EventEnvelope(boot=self.boot, sequence=self._sequence, body=msgspec.Raw(encode(body)))
        self._queue.append((subjects.host_event(self._host_id, noun), encode(envelope)))
        self._filled.set()

    async def run(self) -> None:
        """Send what is queued, until cancelled."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._queue:
                subject, data = self._queue.popleft()
                try:
                    await self._bus.publish(subject, data)
                except WireError as error:  # Too large to be sent: its number will be missed, and the object asked for.
                    log.error("an event cannot be sent", subject=subject, why=str(error))
