"""The controller's end of the host channel: one TLS listener for what must not travel over the bus.

    GET  /ca            our authority's certificate; nothing is asked of the caller, who compares its hash
    POST /join          JoinRequest → JoinReply; the token inside is the permission
    POST /renew         RenewRequest → RenewReply, with the certificate that is to be renewed
    GET  /image/<id>    the bytes, with a ticket in the header `Hostler-Ticket`; from a byte on with `Range`
    PUT  /image/<id>    the bytes of an image that is queued, such as a snapshot's, with a ticket for that

TLS 1.3 with a certificate of our own authority. Whoever presents a certificate must hold one that this authority made
and that is valid in the database now; the first two paths need none, everything else does. One request a connection:
fetches are long and joins are rare, so nothing is won by keeping them. Everything is bounded: connections, the time
for a handshake and a request, sizes, and the time in which a reader must take the next piece of a stream.

`Channel` is what the rest of the controller knows: where an image is, or goes, and tickets for that, at our own
listener and at those of hosts (`agent.channel`). `Listener` serves ours.
"""

import asyncio
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple, Protocol

import h11
import msgspec
import structlog

from agent.wire.domain import ARRIVAL, CONTROL, DISKS, MEMORY, Landing, Passage
from agent.wire.host import Door, JoinRequest, Refusal, RefusedBecause, RenewRequest
from agent.wire.image import Offer
from agent.wire.ticket import CONTROLLER
from agent.wire.world import World
from controller.authority import Authority
from controller.errors import CloudError, Forbidden, Invalid, MethodNotAllowed, NotFound, TooLarge, Unavailable
from controller.fleet.enrollment import Enrollment
from controller.fleet.tickets import Signer, Tickets

TICKET_HEADER: Final = b"hostler-ticket"
IMAGE: Final = "image"
DISK: Final = "disk"
UPGRADE: Final = "hostler-stream"
UPLOAD: Final = "upload"
"""Kind of the tickets for PUT."""

CONNECTIONS_MAX: Final = 256
"""At once; more are closed at once. Higher: image streams crowd out the API. Lower: a fleet waits for its images."""

REQUEST_S: Final = 10.0
"""For the handshake, and again for the whole request."""

STALL_S: Final = 30.0
"""In which a reader must make room for the next piece of a stream."""

STREAM_S: Final = 15.0
"""Until a host has opened a stream."""

LINGER_S: Final = 5.0
"""For a sender that was refused to read why: what it still sends is thrown away for so long."""

HEADERS_MAX: Final = 16 * 1024
READ_BYTES: Final = 256 * 1024
BODY_MAX: Final = 64 * 1024

log = structlog.get_logger()

Opener = Callable[[str, int], AsyncIterator[bytes]]
"""(image id, first byte) → its bytes in chunks. Raises FileNotFoundError at the first if there are none."""

Taker = Callable[[str, AsyncIterator[bytes], int | None], Awaitable[None]]
"""(image id, bytes, how many if that was said): keeps them. Raises a CloudError."""

_RANGE: Final = re.compile(rb"bytes=(\d{1,18})-")


class Keys(Signer, Protocol):
    """The authority, as far as the channel needs it."""

    def client_context(self, now: float) -> ssl.SSLContext:
        """For connections to hosts."""
        ...


class Stream(NamedTuple):
    """Bytes both ways."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    first: bytes  # What came together with the answer.


class Channel:
    """Where hosts fetch from this controller, and their permissions to."""

    def __init__(self, address: str, world: World, keys: Keys) -> None:
        """`address` is what hosts connect to: an underlay address and a port."""
        self.address = address
        self.tickets = Tickets(world, keys)
        self._world = world
        self._keys = keys

    def image_url(self, image_id: str) -> str:
        """Where an image is fetched."""
        return f"https://{self.address}/image/{image_id}"

    def ticket(self, host_id: str, image_id: str) -> str:
        """A permission for one host to fetch one image once."""
        return self.tickets.issue(host_id, IMAGE, image_id)

    def offer(self, host_id: str, image_id: str) -> Offer:
        """The same as one thing, among others."""
        return Offer(url=self.image_url(image_id), name="", ticket=self.ticket(host_id, image_id))

    def neighbours_offer(self, host_id: str, neighbour_id: str, door: Door, sha256: str) -> Offer:
        """A permission for one host to fetch an image from another one that has it in its cache."""
        return self._offer_of(neighbour_id, door, IMAGE, sha256, host_id)

    def disk_offer(self, host_id: str, other_id: str, door: Door, disk_id: str) -> Offer:
        """A permission for one host to bring a disk from another one to itself."""
        return self._offer_of(other_id, door, DISK, disk_id, host_id)

    def passage(
        self,
        host_id: str,
        other_id: str,
        door: Door,
        server_id: str,
        landing: Landing,
        *,
        has_disks: bool,
        limit_s: float,
    ) -> Passage:
        """The way for a guest of one host to another one, whose door this is."""

        def offer(kind: str) -> Offer:
            return self._offer_of(other_id, door, kind, server_id, host_id)

        return Passage(
            landing=landing,
            control=offer(CONTROL),
            memory=offer(MEMORY),
            disks=offer(DISKS) if has_disks else None,
            arrival=offer(ARRIVAL),
            limit_s=limit_s,
        )

    def _offer_of(self, giver_id: str, door: Door, kind: str, object_id: str, taker_id: str) -> Offer:
        """What one host may have of another one, whose door this is."""
        return Offer(
            url=f"https://{door.address}/{kind}/{object_id}",
            name=host_name(giver_id),
            ticket=self.tickets.issue(taker_id, kind, object_id, door),
        )

    async def stream(self, host_id: str, door: Door, kind: str, object_id: str) -> Stream:
        """A stream of bytes both ways with something on a host. Raises Unavailable."""
        ticket = self.tickets.issue(CONTROLLER, kind, object_id, door)
        address, _, port = door.address.rpartition(":")
        try:
            async with asyncio.timeout(STREAM_S):
                reader, writer = await asyncio.open_connection(
                    address.strip("[]"),
                    int(port),
                    ssl=self._keys.client_context(self._world.clock.now()),
                    server_hostname=host_name(host_id),
                )
                try:
                    return await _upgraded(reader, writer, f"/{kind}/{object_id}", ticket)
                except BaseException:
                    writer.close()
                    raise
        except (OSError, TimeoutError, h11.RemoteProtocolError) as error:
            log.warning("a host's channel cannot be reached", host=host_id, why=str(error) or type(error).__name__)
            raise Unavailable("The host of this server cannot be reached.") from error

    def upload_offer(self, host_id: str, image_id: str) -> Offer:
        """Where one host may bring the bytes of one queued image, once."""
        return Offer(url=self.image_url(image_id), name="", ticket=self.tickets.issue(host_id, UPLOAD, image_id))


async def _upgraded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, ticket: str) -> Stream:
    """The stream behind a path, once the host has let us in."""
    http = h11.Connection(h11.CLIENT, HEADERS_MAX)
    headers = [("host", "host"), (TICKET_HEADER.decode(), ticket), ("connection", "upgrade"), ("upgrade", UPGRADE)]
    await _send(http, writer, h11.Request(method="GET", target=path, headers=headers))
    await _send(http, writer, h11.EndOfMessage())
    event = await _next(http, reader)
    if isinstance(event, h11.InformationalResponse) and event.status_code == 101:
        return Stream(reader, writer, bytes(http.trailing_data[0]))
    said = bytes((await _next(http, reader)).data) if isinstance(event, h11.Response) else b""
    raise ConnectionRefusedError(said.decode("utf-8", "replace"))


def host_name(host_id: str) -> str:
    """What a host's certificate calls it."""
    return f"{host_id}.host.internal"


class _Answer(msgspec.Struct, frozen=True):
    """What goes back: a body, or a stream of it."""

    status: int
    media: str
    body: bytes = b""
    stream: AsyncIterator[bytes] | None = None


class _Peer(msgspec.Struct, frozen=True):
    """Who presented a certificate."""

    host_id: str
    serial: str


class Listener:
    """Serves one controller's channel."""

    def __init__(
        self,
        channel: Channel,
        authority: Authority,
        enrollment: Enrollment,
        images: Opener,
        take: Taker | None = None,
    ) -> None:
        self._take = take
        self._channel = channel
        self._authority = authority
        self._enrollment = enrollment
        self._images = images
        self._server: asyncio.Server | None = None
        self._context: ssl.SSLContext | None = None
        self._open: dict[asyncio.Task[None], str] = {}  # Connection → host id, "" while unknown.
        enrollment.on_removed(self.drop)

    async def start(self, now: float) -> None:
        """Listen. Its certificate is made or renewed if need be."""
        host, _, port = self._channel.address.rpartition(":")
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._context.verify_mode = ssl.CERT_OPTIONAL
        self._context.load_verify_locations(cafile=str(self._authority.ca_path))
        self.renew(now)
        self._server = await asyncio.start_server(
            self._connected,
            host.strip("[]"),
            int(port),
            ssl=self._context,
            ssl_handshake_timeout=REQUEST_S,
            ssl_shutdown_timeout=1.0,
        )

    def renew(self, now: float) -> None:
        """Serve new connections with a certificate that lasts, and connect to hosts so: at the start, and daily."""
        assert self._context is not None, "the listener has started"
        self._authority.ensure_client(CONTROLLER, now)
        address = self._channel.address.rpartition(":")[0].strip("[]")
        self._context.load_cert_chain(*self._authority.ensure_server("channel", [address], now))

    async def close(self) -> None:
        """Listen no more, and end what is open."""
        if self._server is not None:
            self._server.close()
        open_now = list(self._open)
        for task in open_now:
            task.cancel()
        await asyncio.gather(*open_now, return_exceptions=True)

    def drop(self, host_id: str) -> None:
        """End everything that a host has open."""
        for task, holder in self._open.items():
            if holder == host_id:
                task.cancel()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "the server calls us in a task"
        if len(self._open) >= CONNECTIONS_MAX:
            writer.close()
            return
        self._open[task] = ""
        try:
            await self._serve(h11.Connection(h11.SERVER, HEADERS_MAX), reader, writer, task)
        except (OSError, TimeoutError, h11.RemoteProtocolError) as error:
            log.info("channel connection ended", host=self._open[task], error=str(error) or type(error).__name__)
        except asyncio.CancelledError:
            writer.transport.abort()  # The host was removed, or we stop: not one byte more.
        finally:
            del self._open[task]
            writer.close()

    async def _serve(
        self,
        http: h11.Connection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        task: "asyncio.Task[None]",
    ) -> None:
        try:
            async with asyncio.timeout(REQUEST_S):
                request = await _head(http, reader)
                body = b"" if request.method == b"PUT" else await _whole(http, reader)
            serial = _serial(writer)
            holder = await self._enrollment.holder(serial) if serial else None
            if serial and holder is None:
                raise Forbidden("This certificate is not valid any more.")
            self._open[task] = holder or ""
            peer = _Peer(holder, serial) if holder else None
            if request.method == b"PUT":
                answer = await self._upload(request, _chunks(http, reader), peer)
            else:
                answer = await self._answer(request, body, peer)
        except CloudError as error:
            answer = _failure(error)
        except TimeoutError:
            raise
        except Exception as error:  # The border of the process; h11's and the network's own end the connection.
            if isinstance(error, OSError | h11.RemoteProtocolError):
                raise
            log.exception("channel request failed")
            answer = _failure(CloudError("Something went wrong here; the controller's log says what."))
        await _write(http, writer, answer)
        if answer.status >= 400:
            await _linger(reader, writer)

    async def _answer(self, request: h11.Request, body: bytes, peer: _Peer | None) -> _Answer:
        method, path = request.method.decode(), request.target.decode("ascii", "replace")
        if path == "/ca":
            _only(method, "GET")
            return _Answer(200, "application/x-pem-file", self._authority.ca_pem.encode())
        if path == "/join":
            _only(method, "POST")
            return _json(await self._enrollment.join(_decoded(body, JoinRequest)))
        peer = _known(peer)
        if path == "/renew":
            _only(method, "POST")
            return _json(await self._enrollment.renew(peer.host_id, peer.serial, _decoded(body, RenewRequest)))
        image_id = _image_of(path)
        _only(method, "GET")
        return await self._image(peer, image_id, dict(request.headers))

    async def _image(self, peer: _Peer, image_id: str, headers: Mapping[bytes, bytes]) -> _Answer:
        self._channel.tickets.redeem(_ticket(headers), peer.host_id, IMAGE, image_id)
        begin = _begin(headers)
        chunks = self._images(image_id, begin)
        try:
            first = await anext(chunks, b"")
        except FileNotFoundError as error:
            raise NotFound(f"Image {image_id} has no bytes here.") from error
        log.info("image is fetched", host=peer.host_id, image=image_id, begin=begin)
        return _Answer(206 if begin else 200, "application/octet-stream", first, chunks)

    async def _upload(self, request: h11.Request, chunks: AsyncIterator[bytes], peer: _Peer | None) -> _Answer:
        peer, headers = _known(peer), dict(request.headers)
        image_id = _image_of(request.target.decode("ascii", "replace"))
        self._channel.tickets.redeem(_ticket(headers), peer.host_id, UPLOAD, image_id)
        if self._take is None:
            raise NotFound("Nothing is taken here.")
        length = headers.get(b"content-length")
        log.info("an image is sent", host=peer.host_id, image=image_id)
        await self._take(image_id, chunks, int(length) if length is not None else None)
        return _Answer(204, "application/json")


def _known(peer: _Peer | None) -> _Peer:
    if peer is None:
        raise Forbidden("This needs the certificate of an enrolled host.")
    return peer


def _image_of(path: str) -> str:
    kind, _, image_id = path.removeprefix("/").partition("/")
    if kind != IMAGE or not image_id:
        raise NotFound("There is nothing here.")
    return image_id


def _ticket(headers: Mapping[bytes, bytes]) -> str:
    return headers.get(TICKET_HEADER, b"").decode("ascii", "replace")


def _begin(headers: Mapping[bytes, bytes]) -> int:
    """The byte from which on an image is asked for."""
    asked = headers.get(b"range")
    found = None if asked is None else _RANGE.fullmatch(asked)
    if asked is not None and found is None:
        raise Invalid("Only `bytes=<first>-` is understood as a range.")
    return 0 if found is None else int(found.group(1))


async def _head(http: h11.Connection, reader: asyncio.StreamReader) -> h11.Request:
    """A request up to its body."""
    event = await _next(http, reader)
    if isinstance(event, h11.Request):
        return event
    raise ConnectionResetError("closed before it asked for anything")


async def _whole(http: h11.Connection, reader: asyncio.StreamReader) -> bytes:
    """The body of a small request. Raises TooLarge."""
    body = bytearray()
    async for data in _chunks(http, reader):
        body += data
        if len(body) > BODY_MAX:
            raise TooLarge(f"A body holds at most {BODY_MAX} bytes.")
    return bytes(body)


async def _chunks(http: h11.Connection, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The body of a request as it comes."""
    while True:
        event = await _next(http, reader)
        if isinstance(event, h11.EndOfMessage):
            return
        if not isinstance(event, h11.Data):
            raise ConnectionResetError("closed in the middle of a body")
        yield bytes(event.data)


async def _next(http: h11.Connection, reader: asyncio.StreamReader) -> Any:
    while (event := http.next_event()) is h11.NEED_DATA:
        # h11 bounds headers that are not complete; so they must not come complete whatever their size.
        size = READ_BYTES if http.their_state is h11.SEND_BODY else HEADERS_MAX
        http.receive_data(await reader.read(size))
    return event


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Let a sender that was refused read why: a connection closed over unread bytes is reset, and our answer lost."""
    try:
        async with asyncio.timeout(LINGER_S):
            while await reader.read(READ_BYTES):
                pass
    except TimeoutError:
        writer.transport.abort()


async def _write(http: h11.Connection, writer: asyncio.StreamWriter, answer: _Answer) -> None:
    headers = [("content-type", answer.media), ("connection", "close")]
    if answer.stream is None and answer.status != 204:
        headers.append(("content-length", str(len(answer.body))))
    await _send(http, writer, h11.Response(status_code=answer.status, headers=headers))
    if answer.body:
        await _send(http, writer, h11.Data(data=answer.body))
    if answer.stream is not None:
        try:
            async for chunk in answer.stream:
                await _send(http, writer, h11.Data(data=chunk))
        finally:
            if isinstance(answer.stream, AsyncGenerator):
                await answer.stream.aclose()  # Its file is closed now, not when the collector comes by.
    await _send(http, writer, h11.EndOfMessage())


async def _send(http: h11.Connection, writer: asyncio.StreamWriter, event: Any) -> None:
    for piece in http.send_with_data_passthrough(event) or ():
        writer.write(piece)
    async with asyncio.timeout(STALL_S):
        await writer.drain()


def _serial(writer: asyncio.StreamWriter) -> str:
    """The serial number of the certificate that was presented and verified, as the database has it; or nothing."""
    certificate: Mapping[str, Any] | None = writer.get_extra_info("peercert")
    return f"{int(certificate['serialNumber'], 16):x}" if certificate else ""


def _only(method: str, wanted: str) -> None:
    if method != wanted:
        raise MethodNotAllowed(f"Only {wanted} is understood here.")


def _decoded(body: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"This is not what is expected here: {error}") from error


def _json(value: msgspec.Struct) -> _Answer:
    return _Answer(200, "application/json", msgspec.json.encode(value))


def _failure(error: CloudError) -> _Answer:
    because = RefusedBecause(code=error.status, title=error.title, message=str(error))
    return _Answer(error.status, "application/json", msgspec.json.encode(Refusal(error=because)))
