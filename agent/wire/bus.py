"""The bus as the rest of the tree sees it: a protocol of three verbs, and typed calls on top of it.

`NatsBus` (in this file, the only one that imports nats) owns the connection's life. The simulation has a bus
of its own that drops, delays, repeats and reorders. Nothing above may assume more than either gives:
a request ends in a reply or in `Silent`, and silence says nothing about whether it was done.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar

import msgspec

from agent.wire import subjects
from agent.wire.errors import Fault, FaultCode, Invalid, WireError, raised
from agent.wire.specs import Call, Reply, decode, encode

Q = TypeVar("Q", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)

REQUEST_ID_HEADER = "Hostler-Request-Id"
TRACEPARENT_HEADER = "traceparent"


class Message(msgspec.Struct, frozen=True):
    """What arrived. The subject is the only proof of who sent it."""

    subject: str
    data: bytes
    headers: Mapping[str, str] = {}


Handler = Callable[[Message], Awaitable[bytes | None]]
"""Answers a message; None means no reply is due (events)."""


class Subscription(Protocol):
    """A standing subscription."""

    async def close(self) -> None:
        """Hear no more."""
        ...


class Bus(Protocol):
    """Request/reply and events between controllers and hosts."""

    async def request(self, subject: str, data: bytes, headers: Mapping[str, str], timeout_s: float) -> bytes:
        """One answer, or `Silent` when none came in time or nobody listens."""
        ...

    async def publish(self, subject: str, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Send and forget. Lost silently if the bus is away."""
        ...

    async def subscribe(self, subject: str, handler: Handler, queue: str = "") -> Subscription:
        """Hear a subject (wildcards allowed). Handlers of one subscription run concurrently, bounded."""
        ...

    def on_gap(self, callback: Callable[[], None]) -> None:
        """Call back after every reconnect or slow-consumer drop: messages may have been lost, so sync."""
        ...


async def call(bus: Bus, host_id: str, row: Call[Q, R], request: Q, headers: Mapping[str, str] | None = None) -> R:
    """One typed call to one host. Raises a `WireError` that the host answered, or `Silent`."""
    data = await bus.request(subjects.host(host_id, row.name), encode(request), headers or {}, row.timeout_s)
    return _opened(data, row.reply)


async def ask(bus: Bus, host_id: str, row: Call[Q, R], request: Q, headers: Mapping[str, str] | None = None) -> R:
    """One typed call from a host to any controller."""
    data = await bus.request(subjects.controller(host_id, row.name), encode(request), headers or {}, row.timeout_s)
    return _opened(data, row.reply)


def _opened(data: bytes, kind: type[R]) -> R:
    reply = decode(data, Reply)
    if reply.fault is not None:
        raise raised(reply.fault)
    assert not isinstance(reply.ok, msgspec.UnsetType), "a reply holds a result or a fault"
    return decode(reply.ok, kind)


def answering(row: Call[Q, R], handle: Callable[[Q, Message], Awaitable[R]]) -> Handler:
    """A handler for one row: decodes, calls, and wraps the result or the failure into a `Reply`.

    Failures outside the family become FAILED with the exception's class only: the far end gets no tracebacks.
    """

    async def handler(message: Message) -> bytes:
        try:
            request: Any = decode(message.data, row.request)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return encode(Reply(fault=Invalid(f"{row.name}: {error}").fault()))
        try:
            result = await handle(request, message)
        except WireError as error:
            return encode(Reply(fault=error.fault()))
        except Exception as error:  # The border of the process: everything must become an answer.
            return encode(Reply(fault=Fault(code=FaultCode.FAILED, message=f"{row.name}: {type(error).__name__}")))
        return encode(Reply(ok=msgspec.Raw(encode(result))))

    return handler
