"""What is below /console on the API's listener: noVNC's page, and the websocket that carries a console.

    GET  /console/vnc_lite.html?path=console/websocket?token=…     the page, which connects to
    ws   /console/websocket?token=…                                binary messages: RFB, or a serial port's bytes

A browser says where the page came from that wants the connection (`Origin`); only our own pages are let in, so that no
other site can use a token that it came by in somebody's browser. A client that is no browser says nothing there.

Both directions wait for each other: what the far end does not take yet is not read here. The websocket's pings find a
dead peer. When the guest's power goes, so does its screen, and the connection with it.
"""

import asyncio
import contextlib
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import structlog
from starlette.types import Receive, Scope, Send

from controller.channel import Stream
from controller.cloud import Cloud
from controller.console import consoles
from controller.console.pages import pages
from controller.errors import CloudError, Forbidden, NotFound, Unavailable

PREFIX: Final = "/console"
SOCKET: Final = f"{PREFIX}/websocket"

OPEN_MAX: Final = 512
"""Consoles at once through this process. More: they take the loop from the API."""

OF_SERVER_MAX: Final = 16
"""Of one server at once."""

WHY: Final = b"x-console-refused"
"""Header that says why there is no console."""

PIECE_BYTES: Final = 64 << 10

log = structlog.get_logger()


class Gate:
    """The ASGI application for what is below PREFIX."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._pages = pages(Path(cloud.settings.controller.novnc))
        self._hosts = {urlsplit(cloud.settings.controller.public_url).netloc.lower()}
        self._open: dict[str, int] = {}
        self._hosts_of: dict[Stream, str] = {}
        cloud.enrollment.on_removed(self.drop)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "http":
            path = scope["path"].removeprefix(PREFIX)
            await self._pages({**scope, "path": path, "root_path": ""}, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)

    def drop(self, host_id: str) -> None:
        """A host was removed: what is open to it ends."""
        for stream, holder in self._hosts_of.items():
            if holder == host_id:
                stream.writer.transport.abort()

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "websocket.connect", "that is how a websocket begins"
        try:
            console = await self._console(scope)
            with self._counted(console.server_id):
                stream = await self._stream(console)
                self._hosts_of[stream] = console.host_id
                try:
                    await send({"type": "websocket.accept", "subprotocol": _subprotocol(scope)})
                    log.info("a console is opened", server_id=console.server_id, kind=console.kind)
                    await _relay(stream, receive, send)
                finally:
                    del self._hosts_of[stream]
                    stream.writer.close()
                    log.info("a console is closed", server_id=console.server_id, kind=console.kind)
        except CloudError as error:
            log.info("a console is refused", why=str(error))
            await _refuse(send, error)

    async def _console(self, scope: Scope) -> consoles.Console:
        if scope["path"] != SOCKET:
            raise NotFound("There is nothing here.")
        if not self._is_ours(scope):
            raise Forbidden("Only this cloud's own page may connect to a console.")
        return await consoles.spend(self._cloud, _token(scope))

    async def _stream(self, console: consoles.Console) -> Stream:
        door = self._cloud.hosts.door(console.host_id)
        if door is None:
            raise Unavailable("The host of this server does not answer.")
        return await self._cloud.channel.stream(console.host_id, door, console.kind, console.server_id)

    def _is_ours(self, scope: Scope) -> bool:
        """Whether the page came from where the connection goes to, or there is no page."""
        named = {name.decode("latin-1"): value.decode("latin-1").lower() for name, value in scope["headers"]}
        origin = named.get("origin")
        if origin is None:
            return True
        return urlsplit(origin).netloc in {*self._hosts, named.get("host", "")} - {""}

    @contextlib.contextmanager
    def _counted(self, server_id: str) -> Any:
        if sum(self._open.values()) >= OPEN_MAX or self._open.get(server_id, 0) >= OF_SERVER_MAX:
            raise Unavailable("Too many consoles are open: close one.")
        self._open[server_id] = self._open.get(server_id, 0) + 1
        try:
            yield
        finally:
            self._open[server_id] -= 1
            if not self._open[server_id]:
                del self._open[server_id]


async def _relay(stream: Stream, receive: Receive, send: Send) -> None:
    """Copy both ways until either end is done."""
    ways = [asyncio.ensure_future(_to_host(stream, receive)), asyncio.ensure_future(_to_client(stream, send))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        is_guests_end = ways[1].done() and not ways[0].done()
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
    if is_guests_end:
        with contextlib.suppress(Exception):  # The client may be gone by now: nothing is to be said to it then.
            await send({"type": "websocket.close", "code": 1000, "reason": "The console has ended."})


async def _to_host(stream: Stream, receive: Receive) -> None:
    while (message := await receive())["type"] == "websocket.receive":
        data = message.get("bytes")
        stream.writer.write(data if data is not None else message["text"].encode())
        await stream.writer.drain()


async def _to_client(stream: Stream, send: Send) -> None:
    piece = stream.first or await stream.reader.read(PIECE_BYTES)
    while piece:
        await send({"type": "websocket.send", "bytes": piece})
        piece = await stream.reader.read(PIECE_BYTES)


async def _refuse(send: Send, error: CloudError) -> None:
    """An HTTP answer in place of a websocket, without a body: clients take what follows the head for a console's."""
    headers = [(b"content-length", b"0"), (WHY, error.message.encode("latin-1", "replace"))]
    await send({"type": "websocket.http.response.start", "status": error.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": b""})


def _token(scope: Scope) -> str:
    try:
        fields = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=16)
    except ValueError as error:
        raise Forbidden("Such a query has no token.") from error
    token: str = fields.get("token", [""])[0]
    return token


def _subprotocol(scope: Scope) -> str | None:
    """What clients of websockify ask for; newer ones ask for nothing."""
    return "binary" if "binary" in scope.get("subprotocols", ()) else None
