"""As much of HTTP as guests need to ask about themselves: GET and HEAD, one request a connection. Pure.

Headers are not read at all: who asks is known from where the connection came from, never from what it says.
"""

from typing import Final

from agent import layouts
from agent.wire.domain import GuestData

HEAD_BYTES_MAX: Final = 8192
"""Of a request's head. Clients send a few hundred bytes."""

_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
}


def is_complete(head: bytes | bytearray) -> bool:
    """Whether all of a request's head has come."""
    return b"\r\n\r\n" in head or b"\n\n" in head


def respond(head: bytes, guest: GuestData | None) -> bytes:
    """The whole response to a request's head; `guest` is whoever asks, None if nobody knows."""
    words = head.split(b"\n", 1)[0].rstrip(b"\r").split(b" ")
    if len(words) != 3 or words[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
        return _response(400)
    method, target = words[0], words[1]
    if method not in (b"GET", b"HEAD"):
        return _response(405, extra="Allow: GET, HEAD\r\n")
    path = _path(target)
    if path is None:
        return _response(400)
    found = layouts.find(path, guest) if guest is not None else None
    if found is None:
        return _response(404, is_head=method == b"HEAD")
    return _response(200, found.body, found.kind, is_head=method == b"HEAD")


def refuse(code: int) -> bytes:
    """A response to what is no request."""
    return _response(code)


def _path(target: bytes) -> str | None:
    """The path of a request's target, without its query; also of the absolute form that proxies send."""
    try:
        text = target.decode("ascii")
    except UnicodeDecodeError:
        return None
    if text.startswith("http://"):
        text = "/" + text.removeprefix("http://").partition("/")[2]
    text = text.partition("?")[0]
    return text if text.startswith("/") else None


def _response(
    code: int, body: bytes | None = None, kind: str = "text/plain", *, is_head: bool = False, extra: str = ""
) -> bytes:
    reason = _REASONS[code]
    content = f"{reason}\n".encode() if body is None else body
    head = (
        f"HTTP/1.1 {code} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n"
        f"{extra}Connection: close\r\n\r\n"
    )
    return head.encode() + (b"" if is_head else content)
