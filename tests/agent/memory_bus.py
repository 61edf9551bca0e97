"""A bus in memory for one agent: requests reach it at once, events are kept."""

import asyncio
import contextvars
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from agent.wire.bus import Handler, Message
from agent.wire.errors import Silent
from agent.wire.specs import MESSAGE_BYTES_MAX, EventEnvelope, decode
from tests.sim.loop import LIFE, Severed

E = TypeVar("E", bound=msgspec.Struct)


Row = tuple[str, Handler, contextvars.Context]
"""A handler runs as the party that subscribed: when that one is dead, there is no answer."""


class Hearing:
    def __init__(self, bus: "MemoryBus", row: Row) -> None:
        self.bus, self.row = bus, row

    async def close(self) -> None:
        self.bus.rows.remove(self.row)


class MemoryBus:
    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.events: list[tuple[str, EventEnvelope]] = []
        self.gaps: list[Callable[[], None]] = []
        self.carried = 0

    async def request(self, subject: str, data: bytes, headers: Mapping[str, str], timeout_s: float) -> bytes:
        assert len(data) <= MESSAGE_BYTES_MAX, f"{subject}: {len(data)} bytes are more than one message"
        self.carried += 1
        for pattern, handler, context in self.rows:
            life = context.get(LIFE)
            if _matches(pattern, subject) and (life is None or life.alive):
                message = Message(subject, data, headers)
                answer = asyncio.get_running_loop().create_task(handler(message), context=context.copy())
                done, _ = await asyncio.wait({answer}, timeout=timeout_s)
                if done and not isinstance(answer.exception(), Severed):
                    return answer.result() or b""
        await asyncio.sleep(timeout_s)
        raise Silent(subject)

    async def publish(self, subject: str, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.events.append((subject.rpartition(".")[2], decode(data, EventEnvelope)))

    async def subscribe(self, subject: str, handler: Handler, queue: str = "") -> Hearing:
        row = (subject, handler, contextvars.copy_context())
        self.rows.append(row)
        return Hearing(self, row)

    def on_gap(self, callback: Callable[[], None]) -> None:
        self.gaps.append(callback)

    def bodies(self, noun: str, kind: type[E]) -> list[E]:
        return [decode(envelope.body, kind) for name, envelope in self.events if name == noun]


def _matches(pattern: str, subject: str) -> bool:
    want, have = pattern.split("."), subject.split(".")
    return len(want) == len(have) and all(a in ("*", b) for a, b in zip(want, have, strict=True))


_: Any = MemoryBus
