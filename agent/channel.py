"""This host's end of the host channel: one TLS listener that serves what must not travel over the bus.

    GET /image/<sha256>      an image of the cache, from a byte on (`Range: bytes=<n>-`)
    GET /disk/<id>           a disk of a guest that is off, for the host to which it moves
    GET /<kind>/<id>         with `Upgrade: hostler-stream`: a stream of bytes both ways, such as a guest's screen

TLS 1.3, mutual: who connects shows a certificate of the cloud's authority, which names a host or a controller. That
opens nothing yet: every request needs a ticket (agent.wire.ticket), signed by the controller for this listener, that
peer and that object. One request a connection. Everything is bounded: connections, the time for a handshake and a
request, sizes, and the time in which a reader must take the next piece.

What a guest sends through a stream is copied and never read: this process is root, and parses nothing of theirs.
"""

import asyncio
import os
import re
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import IO, Any, Final

import h11
import structlog

from agent.join import IdentityFiles
from agent.wire.errors import Busy, Invalid, NotFound, WireError
from agent.wire.host import Door
from agent.wire.ticket import BadTicket, Doorkeeper
from agent.wire.world import World

IMAGE: Final = "image"
DISK: Final = "disk"
UPGRADE: Final = b"hostler-stream"
TICKET_HEADER: Final = b"hostler-ticket"

CONNECTIONS_MAX: Final = 128
"""At once; more are closed at once. Higher: streams crowd out what the agent is there for."""

IMAGES_MAX: Final = 4
"""Images served at once; more are told to ask somebody else. Higher: guests on this host wait for their disks."""

REQUEST_S: Final = 10.0
"""For the handshake, and again for the whole request."""

STALL_S: Final = 30.0
"""In which a reader must make room for the next piece of an image."""

RETRY_S: Final = 5.0
"""Until an address that is taken, or not there yet, is tried again."""

READ_S: Final = 60.0
"""One chunk from the disk. Longer than any healthy disk needs."""

RENEW_S: Final = 3600.0
"""Between two looks at our own certificate's file."""

HEAD_MAX: Final = 16 * 1024
CHUNK_BYTES: Final = 1 << 20
PIECE_BYTES: Final = 64 << 10

_PEER: Final = re.compile(r"urn:hostler:(?:host:(?!controller$)([\w-]{1,64})|(controller))")
_RANGE: Final = re.compile(rb"bytes=(\d{1,18})-")
_STATUS: Final[tuple[tuple[type[Exception], int], ...]] = (
    (BadTicket, 403),
    (NotFound, 404),
    (Invalid, 404),
    (Busy, 503),
)

log = structlog.get_logger()

Images = Callable[[str], Awaitable[str]]
"""An image's sha256, or a disk's id → the path of its file here. Raises NotFound, Busy."""

Opener = Callable[[str], Awaitable[socket.socket]]
"""An object's id → a connected socket that belongs to the caller. Raises a WireError."""


class _Refused(Exception):
    """What is asked is not served; says with which status."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class HostChannel:
    """Serves one host's channel. `tunnels` are the kinds of streams, and what opens each."""

    def __init__(
        self,
        world: World,
        address: str,
        files: IdentityFiles,
        *,
        images: Images,
        disks: Images,
        tunnels: Mapping[str, Opener],
    ) -> None:
        self._world = world
        self._address = address
        self._files = files
        self._keeper = Doorkeeper(world.entropy.hex(32), files.verify_ticket, world.clock)
        self._files_of = {IMAGE: images, DISK: disks}
        self._tunnels = tunnels
        self._open: set[asyncio.Task[None]] = set()
        self._serving = 0
        self._is_listening = False

    def door(self) -> Door | None:
        """Where this is, for tickets; None while nobody listens."""
        if not self._is_listening:
            return None
        return Door(address=self._address, id=self._keeper.door_id, boottime_s=self._world.clock.boottime())

    async def run(self) -> None:
        """Listen until cancelled; then end what is open. An address that cannot be had is tried again."""
        while True:
            try:
                await self._listen()
            except OSError as error:
                log.warning("the host channel cannot listen; trying again", address=self._address, why=str(error))
            await asyncio.sleep(RETRY_S)

    async def _listen(self) -> None:
        host, _, port = self._address.rpartition(":")
        context = self._files.listening_context()
        server = await asyncio.start_server(
            self._connected,
            host.strip("[]"),
            int(port),
            ssl=context,
            ssl_handshake_timeout=REQUEST_S,
            ssl_shutdown_timeout=1.0,
            limit=HEAD_MAX,
        )
        self._address = f"{host}:{server.sockets[0].getsockname()[1]}"
        self._is_listening = True
        log.info("the host channel listens", address=self._address)
        try:
            while True:
                await asyncio.sleep(RENEW_S)
                self._files.load_own(context)
        finally:
            self._is_listening = False
            server.close()
            open_now = list(self._open)
            for task in open_now:
                task.cancel()
            await asyncio.gather(*open_now, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "the server calls us in a task"
        if len(self._open) >= CONNECTIONS_MAX:
            writer.close()
            return
        self._open.add(task)
        try:
            await self._serve(h11.Connection(h11.SERVER, HEAD_MAX), reader, writer)
        except (OSError, TimeoutError, h11.RemoteProtocolError) as error:
            log.info("channel connection ended", why=str(error) or type(error).__name__)
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self._open.discard(task)
            writer.close()

    async def _serve(self, http: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_S):
                request = await _read(http, reader)
            kind, object_id = self._admitted(request, _peer(writer))
            if kind in self._files_of:
                await self._send_file(http, writer, (kind, object_id), request)
            else:
                await self._tunnel(http, reader, writer, kind, object_id)
        except (_Refused, BadTicket, WireError) as error:
            log.info("refused on the host channel", why=str(error))
            await _refuse(http, writer, error)

    def _admitted(self, request: h11.Request, peer_id: str) -> tuple[str, str]:
        """(kind, object) that this request opens. Raises _Refused, BadTicket."""
        headers = dict(request.headers)
        if request.method != b"GET":
            raise _Refused(405, "Only GET is understood here.")
        kind, _, object_id = request.target.decode("ascii", "replace").removeprefix("/").partition("/")
        if kind not in self._files_of and kind not in self._tunnels:
            raise _Refused(404, "There is nothing here.")
        if kind not in self._files_of and headers.get(b"upgrade") != UPGRADE:
            raise _Refused(426, "This is a stream: ask for the upgrade.")
        self._keeper.redeem(headers.get(TICKET_HEADER, b"").decode("ascii", "replace"), peer_id, kind, object_id)
        return kind, object_id

    async def _send_file(
        self, http: h11.Connection, writer: asyncio.StreamWriter, what: tuple[str, str], request: h11.Request
    ) -> None:
        kind, object_id = what
        if self._serving >= IMAGES_MAX:
            raise Busy("this host serves as many images as it may")
        self._serving += 1
        try:
            path = await self._files_of[kind](object_id)
            begin = _begin(request)
            log.info("a file is fetched from here", kind=kind, object=object_id, begin=begin)
            await self._copy_file(http, writer, Path(path), begin)
        finally:
            self._serving -= 1

    async def _copy_file(self, http: h11.Connection, writer: asyncio.StreamWriter, path: Path, begin: int) -> None:
        threads = self._world.threads
        try:
            file = await threads.run(_opened, path, timeout_s=READ_S)
        except FileNotFoundError as error:
            raise NotFound("this image has no bytes here") from error
        with file:
            size = os.fstat(file.fileno()).st_size
            if begin > size:
                raise _Refused(416, "The image is shorter.")
            file.seek(begin)
            headers = [("content-length", str(size - begin)), ("connection", "close")]
            if begin:
                headers.append(("content-range", f"bytes {begin}-{size - 1}/{size}"))
            await _send(http, writer, h11.Response(status_code=206 if begin else 200, headers=headers))
            while chunk := await threads.run(file.read, CHUNK_BYTES, timeout_s=READ_S):
                await _send(http, writer, h11.Data(data=chunk))
            await _send(http, writer, h11.EndOfMessage())

    async def _tunnel(
        self,
        http: h11.Connection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        kind: str,
        object_id: str,
    ) -> None:
        far = await self._tunnels[kind](object_id)
        headers = [("connection", "upgrade"), ("upgrade", UPGRADE.decode())]
        try:
            await _send(http, writer, h11.InformationalResponse(status_code=101, headers=headers))
            far_reader, far_writer = await asyncio.open_connection(sock=far)
        except BaseException:
            far.close()
            raise
        log.info("a stream begins", kind=kind, object=object_id)
        try:
            if http.trailing_data[0]:
                far_writer.write(http.trailing_data[0])
            await copy_both((reader, writer), (far_reader, far_writer))
        finally:
            far_writer.close()
            log.info("a stream ends", kind=kind, object=object_id)


End = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def copy_both(one: End, other: End) -> None:
    """Copy both ways until either end is done. Each waits until the other has room, so nothing piles up."""
    ways = [asyncio.create_task(_copy(one[0], other[1])), asyncio.create_task(_copy(other[0], one[1]))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(PIECE_BYTES):
        writer.write(piece)
        await writer.drain()


async def _read(http: h11.Connection, reader: asyncio.StreamReader) -> h11.Request:
    """One request; it has no body."""
    while True:
        event: Any = http.next_event()
        if event is h11.NEED_DATA:
            # h11 bounds a head that is not complete; so it must not come complete whatever its size.
            http.receive_data(await reader.read(HEAD_MAX))
        elif isinstance(event, h11.Request):
            return event
        else:
            raise ConnectionResetError("closed before it asked for anything")


async def _send(http: h11.Connection, writer: asyncio.StreamWriter, event: Any) -> None:
    for piece in http.send_with_data_passthrough(event) or ():
        writer.write(piece)
    async with asyncio.timeout(STALL_S):
        await writer.drain()


async def _refuse(http: h11.Connection, writer: asyncio.StreamWriter, error: Exception) -> None:
    if http.our_state not in (h11.SEND_RESPONSE, h11.IDLE):
        raise ConnectionResetError(f"in the middle of a response: {error}")
    found = [status for kind, status in _STATUS if isinstance(error, kind)]
    status = error.status if isinstance(error, _Refused) else (found[0] if found else 500)
    body = str(error).encode()
    headers = [("content-length", str(len(body))), ("content-type", "text/plain"), ("connection", "close")]
    await _send(http, writer, h11.Response(status_code=status, headers=headers))
    await _send(http, writer, h11.Data(data=body))
    await _send(http, writer, h11.EndOfMessage())


def _opened(path: Path) -> IO[bytes]:
    return path.open("rb")


def _begin(request: h11.Request) -> int:
    """The byte from which on something is asked for."""
    asked = dict(request.headers).get(b"range")
    found = None if asked is None else _RANGE.fullmatch(asked)
    if asked is not None and found is None:
        raise _Refused(416, "Only `bytes=<first>-` is understood.")
    return 0 if found is None else int(found.group(1))


def _peer(writer: asyncio.StreamWriter) -> str:
    """Whom the certificate that was presented and verified names: a host's id, or `controller`. Raises _Refused."""
    certificate: Mapping[str, Any] = writer.get_extra_info("peercert") or {}
    for kind, value in certificate.get("subjectAltName", ()):
        found = _PEER.fullmatch(value) if kind == "URI" else None
        if found is not None:
            return found.group(1) or found.group(2)
    raise _Refused(403, "This needs the certificate of a host or a controller.")
