"""The bus as the rest of the tree sees it: a protocol of three verbs, and typed calls on top of it.

`NatsBus` (in this file, the only one that imports nats) owns the connection's life. The simulation has a bus
of its own that drops, delays, repeats and reorders. Nothing above may assume more than either gives:
a request ends in a reply or in `Silent`, and silence says nothing about whether it was done.

Life of a connection. The client library's own reconnecting is switched off: it gives up after sixty tries, keeps the
credentials that it was made with, and most errors of the server end it for good. So there is one way instead of two:
a connection that is lost, for whatever reason, is dropped, and after a pause (full jitter, growing to 30 s, for ever)
a new client is made with credentials read anew, every subscription is made again, and `on_gap` tells that messages
may have been missed. Requests under way at a loss end in `Silent` at once. A peer that says nothing is found by pings.
"""

import asyncio
import base64
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import msgspec
import nats.errors
import nkeys
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription

from agent.wire import parts, subjects
from agent.wire.errors import Failed, Fault, FaultCode, Invalid, Silent, Unheard, WireError, raised
from agent.wire.specs import MESSAGE_BYTES_MAX, Call, Empty, Reply, decode, encode
from agent.wire.world import Entropy

Q = TypeVar("Q", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)

REQUEST_ID_HEADER = "Hostler-Request-Id"
TRACEPARENT_HEADER = "traceparent"

log = structlog.get_logger()


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
    """One typed call to one host, in parts where one message is too small for it (see `wire.parts`).

    Raises a `WireError` that the host answered, or `Silent`.
    """
    subject, data, headers = subjects.host(host_id, row.name), encode(request), headers or {}
    if len(data) > MESSAGE_BYTES_MAX:
        *pieces, last = parts.split(data)
        for piece in pieces:
            marked = {**headers, parts.HEADER: piece.label}
            _opened(await bus.request(subject, piece.data, marked, row.timeout_s), Empty)
        data, headers = last.data, {**headers, parts.HEADER: last.label}
    return _opened(await bus.request(subject, data, headers, row.timeout_s), row.reply)


async def ask(bus: Bus, host_id: str, row: Call[Q, R], request: Q, headers: Mapping[str, str] | None = None) -> R:
    """One typed call from a host to any controller."""
    data = await bus.request(subjects.controller(host_id, row.name), encode(request), headers or {}, row.timeout_s)
    return _opened(data, row.reply)


def _opened(data: bytes, kind: type[R]) -> R:
    reply = decode(data, Reply)
    if reply.fault is not None:
        raise raised(reply.fault)
    if isinstance(reply.ok, msgspec.UnsetType):
        raise Failed("the answer holds neither a result nor a fault")
    return decode(reply.ok, kind)


def assembling(collector: parts.Collector, handler: Handler) -> Handler:
    """A handler that gets whole requests, however they came."""

    async def whole(message: Message) -> bytes | None:
        label = message.headers.get(parts.HEADER)
        if label is None:
            return await handler(message)
        try:
            data = collector.take(message.subject, parts.Part(label, message.data))
        except WireError as error:
            return encode(Reply(fault=error.fault()))
        if data is None:
            return encode(Reply(ok=msgspec.Raw(encode(Empty()))))
        return await handler(Message(message.subject, data, message.headers))

    return whole


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


PAUSE_MIN_S: Final = 0.5
PAUSE_MAX_S: Final = 30.0
"""Before a new connection is tried. A fleet that lost its server must not come back in one moment."""

STEADY_S: Final = 10.0
"""A connection that lasted this long was a good one: the next pause is short again."""

PING_S: Final = 5
PINGS_MAX: Final = 2
"""Unanswered pings that end a connection. Fewer: a busy server is taken for dead."""

CONNECT_S: Final = 10.0
"""For one whole try, from the socket to the last subscription."""

LOOK_S: Final = 1.0
"""How often a connection's state is looked at, because the client's closing can hang on a socket that hangs."""

HANDLERS_MAX: Final = 64
"""Messages of one subscription in work at once; more wait. Higher: a storm holds the loop and the memory for longer."""

BACKLOG_MAX: Final = 4096
BACKLOG_BYTES_MAX: Final = 32 << 20
"""What waits for a handler of one subscription; more is dropped, which is a gap."""


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """Who we are on the bus, and whom we trust to be it."""

    jwt: str
    seed: bytes
    tls: Any = None  # ssl.SSLContext; None where the listener is loopback without TLS.


def file_credentials(jwt: Path, seed: Path, ca: Path) -> Callable[[], Credentials]:
    """Credentials in files, read anew for every connection."""

    def read() -> Credentials:
        tls = ssl.create_default_context(cafile=str(ca))
        tls.minimum_version = ssl.TLSVersion.TLSv1_3
        return Credentials(jwt=jwt.read_text().strip(), seed=seed.read_bytes().strip(), tls=tls)

    return read


class _Standing:
    """A subscription that outlives connections."""

    def __init__(self, bus: "NatsBus", subject: str, handler: Handler, queue: str) -> None:
        self.subject = subject
        self.handler = handler
        self.queue = queue
        self.client: Client | None = None  # The one that it was made on last.
        self.on_client: NatsSubscription | None = None
        self.slots = asyncio.Semaphore(HANDLERS_MAX)
        self._bus = bus

    async def close(self) -> None:
        """See Subscription."""
        await self._bus.drop(self)


class NatsBus:
    """The real bus. Make it, `start` it, and use it at once: what is asked before it is connected waits its time-out.

    `identity` is the name in the private inbox, as in the permissions of the JWT (a host's id, or `controller`).
    """

    def __init__(
        self, urls: Sequence[str], identity: str, credentials: Callable[[], Credentials], entropy: Entropy
    ) -> None:
        self._urls = list(urls)
        self._identity = identity
        self._credentials = credentials
        self._entropy = entropy
        self._inbox = f"{subjects.inbox(identity)}.{entropy.hex(16)}"
        self._requests = 0
        self._replies: dict[str, asyncio.Future[Msg]] = {}
        self._standing: list[_Standing] = []
        self._on_gap: list[Callable[[], None]] = []
        self._client: Client | None = None
        self._ready = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._handling: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin to connect, and keep connected until `close`."""
        assert self._keeper is None, "a bus is started once"
        self._keeper = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """Let go of the connection; handlers that run are dropped."""
        tasks = [*self._handling, *([self._keeper] if self._keeper else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        client, self._client = self._client, None
        self._ready.clear()
        self._fail_requests()
        if client is not None:
            await _discard(client)

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now."""
        return self._ready.is_set()

    async def connected(self, timeout_s: float) -> bool:
        """Wait for a connection; False if none came in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._ready.wait()
        return self.is_connected

    async def request(self, subject: str, data: bytes, headers: Mapping[str, str], timeout_s: float) -> bytes:
        """See Bus. Raises Invalid for a message that is too large to be sent."""
        _bound(subject, data)
        self._requests += 1
        inbox = f"{self._inbox}.{self._requests}"
        answer = self._replies[inbox] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout_s):
                await self._ready.wait()
                if self._client is None:
                    raise Silent(f"{subject}: the bus is closed")
                await self._client.publish(subject, data, reply=inbox, headers=dict(headers) or None)
                message: Msg = await answer
        except (TimeoutError, OSError, nats.errors.Error) as error:
            raise Silent(f"{subject}: {str(error) or 'no answer in time'}") from error
        finally:
            del self._replies[inbox]
        if not message.data and (message.headers or {}).get("Status") == "503":
            raise Unheard(f"{subject}: nobody listens")
        return bytes(message.data)

    async def publish(self, subject: str, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        """See Bus."""
        _bound(subject, data)
        if self._client is not None:
            with contextlib.suppress(OSError, nats.errors.Error):
                await self._client.publish(subject, data, headers=dict(headers or {}) or None)

    async def subscribe(self, subject: str, handler: Handler, queue: str = "") -> Subscription:
        """See Bus. When this returns the server knows of it, if there is a connection."""
        standing = _Standing(self, subject, handler, queue)
        self._standing.append(standing)
        if self._client is not None:
            with contextlib.suppress(OSError, TimeoutError, nats.errors.Error):  # The next connection makes it again.
                await self._attach(self._client, standing)
                await _known(self._client)
        return standing

    def on_gap(self, callback: Callable[[], None]) -> None:
        """See Bus."""
        self._on_gap.append(callback)

    async def drop(self, standing: _Standing) -> None:
        """End a subscription."""
        if standing in self._standing:
            self._standing.remove(standing)
        if standing.on_client is not None and standing.client is self._client:
            with contextlib.suppress(OSError, nats.errors.Error):
                await standing.on_client.unsubscribe()

    # The connection's life.

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        tries, had_one = 0, False
        while True:
            lost = asyncio.Event()
            client = await self._try(lost)
            if client is not None:
                since = loop.time()
                self._client = client
                self._ready.set()
                log.info("bus is connected", identity=self._identity, again=had_one)
                if had_one:
                    self._gap()
                had_one = True
                await _loss(client, lost)
                log.warning("bus connection is lost", identity=self._identity, error=str(client.last_error))
                self._ready.clear()
                self._client = None
                self._fail_requests()
                await _discard(client)
                tries = 0 if loop.time() - since > STEADY_S else tries
            tries += 1
            ceiling_s = min(PAUSE_MAX_S, PAUSE_MIN_S * 2.0 ** min(tries, 8))
            await asyncio.sleep(self._entropy.uniform(PAUSE_MIN_S, ceiling_s))

    async def _try(self, lost: asyncio.Event) -> Client | None:
        """A client that is connected and has every subscription, or None."""
        client = Client()
        try:
            async with asyncio.timeout(CONNECT_S):
                await client.connect(**self._options(lost))
                await client.subscribe(f"{self._inbox}.*", cb=self._reply)
                await self._attach_all(client)
        except asyncio.CancelledError:
            await _discard(client)
            raise
        except Exception as error:  # The library raises many kinds, reading credentials others: all mean "not yet".
            log.warning("bus cannot be reached", identity=self._identity, error=str(error) or type(error).__name__)
            await _discard(client)
            return None
        return client

    def _options(self, lost: asyncio.Event) -> dict[str, Any]:
        credentials = self._credentials()
        pair = nkeys.from_seed(bytearray(credentials.seed))

        async def closed() -> None:
            lost.set()

        return {
            "servers": self._urls,
            "name": self._identity,
            "tls": credentials.tls,
            "user_jwt_cb": credentials.jwt.encode,
            "signature_cb": lambda nonce: base64.b64encode(pair.sign(nonce.encode())),
            "inbox_prefix": subjects.inbox(self._identity),
            "allow_reconnect": False,
            "max_reconnect_attempts": 1,  # Of the first connection, through all addresses; then it is our turn.
            "reconnect_time_wait": 0.1,
            "connect_timeout": 5,
            "ping_interval": PING_S,
            "max_outstanding_pings": PINGS_MAX,
            "closed_cb": closed,
            "error_cb": self._complain,
        }

    async def _attach_all(self, client: Client) -> None:
        """Every subscription, also one that is made meanwhile. No await after the last look."""
        while missing := [standing for standing in self._standing if standing.client is not client]:
            for standing in missing:
                await self._attach(client, standing)
            await _known(client)

    async def _attach(self, client: Client, standing: _Standing) -> None:
        async def deliver(message: Msg) -> None:
            await standing.slots.acquire()
            task = asyncio.create_task(self._handle(standing, message))
            self._handling.add(task)
            task.add_done_callback(self._handling.discard)

        standing.client = client
        standing.on_client = await client.subscribe(
            standing.subject,
            queue=standing.queue,
            cb=deliver,
            pending_msgs_limit=BACKLOG_MAX,
            pending_bytes_limit=BACKLOG_BYTES_MAX,
        )

    async def _complain(self, error: Exception) -> None:
        if isinstance(error, OSError):
            return  # The end of the connection, or of a try: the keeper says so.
        log.warning("bus error", identity=self._identity, error=str(error) or type(error).__name__)
        if isinstance(error, nats.errors.SlowConsumerError):
            self._gap()

    def _gap(self) -> None:
        for callback in self._on_gap:
            callback()

    def _fail_requests(self) -> None:
        for answer in self._replies.values():
            if not answer.done():
                answer.set_exception(nats.errors.ConnectionClosedError())
                answer.exception()  # Seen: whoever waits may have just given up.

    # What arrives.

    async def _reply(self, message: Msg) -> None:
        answer = self._replies.get(message.subject)
        if answer is not None and not answer.done():
            answer.set_result(message)

    async def _handle(self, standing: _Standing, message: Msg) -> None:
        try:
            if message.reply and not subjects.may_answer(message.subject, message.reply):
                log.warning("asked to answer to a foreign subject", subject=message.subject, reply=message.reply)
                return
            arrived = Message(message.subject, message.data, message.headers or {})
            answer = await standing.handler(arrived)
            if answer is not None and message.reply:
                await self.publish(message.reply, _within_bound(message.subject, answer))
        except Exception:
            log.exception("a handler of the bus failed", subject=message.subject)
        finally:
            standing.slots.release()


async def _known(client: Client) -> None:
    """Return when the server has read all that was sent. The library writes a PING past what waits in its queue, so
    only the second round trip proves it.
    """
    await client.flush()
    await client.flush()


async def _loss(client: Client, lost: asyncio.Event) -> None:
    """Return when the connection has ended, also if the client does not manage to say so."""
    while client.is_connected:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await lost.wait()
                return


async def _discard(client: Client) -> None:
    """Close what may be half open or hang."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(LOOK_S):
            await client.close()


def _bound(subject: str, data: bytes) -> None:
    if len(data) > MESSAGE_BYTES_MAX:
        raise Invalid(f"{subject}: a message of {len(data)} bytes is larger than {MESSAGE_BYTES_MAX}")


def _within_bound(subject: str, answer: bytes) -> bytes:
    if len(answer) <= MESSAGE_BYTES_MAX:
        return answer
    return encode(Reply(fault=Failed(f"{subject}: the answer has {len(answer)} bytes, more than one message").fault()))
