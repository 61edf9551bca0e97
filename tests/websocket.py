"""As much of a websocket client as tests need, blocking: binary messages over a line of bytes."""

import contextlib
import socket
import ssl
from urllib.parse import parse_qs, urlsplit

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Message,
    Ping,
    RejectConnection,
    Request,
)


class Refused(Exception):
    """The server answered something else than a websocket."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"{status}: {body.decode()}")
        self.status = status


class Websocket:
    """An open one. It is a line (tests.rfb)."""

    def __init__(self, url: str, *, origin: str | None = None, subprotocols: tuple[str, ...] = ()) -> None:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "wss" else 80)
        self._sock = socket.create_connection((parts.hostname or "", port), timeout=30)
        if parts.scheme == "wss":
            self._sock = ssl.create_default_context().wrap_socket(self._sock, server_hostname=parts.hostname)
        self._ws = WSConnection(ConnectionType.CLIENT)
        self._events: list[Event] = []
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        headers = [] if origin is None else [(b"Origin", origin.encode())]
        asked = Request(host=parts.netloc, target=target, extra_headers=headers, subprotocols=list(subprotocols))
        self._sock.sendall(self._ws.send(asked))
        try:
            self.subprotocol = self._accepted()
        except BaseException:
            self._sock.close()
            raise

    def send(self, data: bytes) -> None:
        self._sock.sendall(self._ws.send(Message(data=data)))

    def receive(self) -> bytes:
        """The bytes of the next message; empty at the end."""
        while True:
            event = self._next()
            if isinstance(event, BytesMessage):
                if event.data:
                    return bytes(event.data)
            elif isinstance(event, Ping):
                self._sock.sendall(self._ws.send(event.response()))
            elif isinstance(event, CloseConnection) or event is None:
                return b""

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.sendall(self._ws.send(CloseConnection(code=1000)))
        self._sock.close()

    def _accepted(self) -> str | None:
        event = self._next()
        if isinstance(event, AcceptConnection):
            return event.subprotocol
        if not isinstance(event, RejectConnection):
            raise ConnectionError("the connection was closed")
        said = {bytes(name): bytes(value) for name, value in event.headers}
        raise Refused(event.status_code, said.get(b"x-console-refused", b""))

    def _next(self) -> Event | None:
        while not self._events:
            data = self._sock.recv(65536)
            self._ws.receive_data(data or None)
            self._events += list(self._ws.events())
            if not data:
                break
        return self._events.pop(0) if self._events else None


def of_page(url: str) -> str:
    """The websocket that noVNC's page at this URL connects to, found as the page finds it."""
    parts = urlsplit(url)
    (path,) = parse_qs(parts.query)["path"]
    return f"{'wss' if parts.scheme == 'https' else 'ws'}://{parts.netloc}/{path}"
