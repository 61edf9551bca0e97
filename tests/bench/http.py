"""A load generator's HTTP client: one kept connection a worker, nothing decoded that is not asked for.

It costs a fraction of a millisecond a request, so that what is measured is the cloud.
"""

import asyncio
import json
import re
from typing import Any
from urllib.parse import urlsplit

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_TOKEN = re.compile(rb"\r\nx-subject-token:[ \t]*([^\r]+)", re.IGNORECASE)


class BadAnswer(Exception):
    """An answer outside 2xx."""


class Connection:
    """One connection to one server, one request at a time."""

    def __init__(self, base: str) -> None:
        parts = urlsplit(base)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def request(
        self, method: str, path: str, token: str = "", body: bytes = b"", headers: tuple[tuple[str, str], ...] = ()
    ) -> tuple[int, bytes, bytes]:
        """(status, head, body)."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        assert self._reader is not None
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}:{self._port}", "Accept: application/json"]
        lines += [f"X-Auth-Token: {token}"] if token else []
        lines += [f"{key}: {value}" for key, value in headers]
        if body or method in ("POST", "PUT"):
            kind = "application/octet-stream" if method == "PUT" else "application/json"
            lines += [f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
        self._writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        head = await self._reader.readuntil(b"\r\n\r\n")
        status = int(head[9:12])
        match = _LENGTH.search(head)
        data = await self._reader.readexactly(int(match[1])) if match and status != 204 else b""
        return status, head, data

    async def json(self, method: str, path: str, token: str, body: Any = None, **more: Any) -> Any:
        """The decoded answer. Raises BadAnswer."""
        sent = json.dumps(body).encode() if body is not None else b""
        status, _, data = await self.request(method, path, token, sent, **more)
        if not 200 <= status < 300:
            raise BadAnswer(f"{method} {path}: {status} {data[:300]!r}")
        return json.loads(data) if data else None

    async def token(self, body: bytes) -> str:
        """Log in."""
        status, head, data = await self.request("POST", "/identity/v3/auth/tokens", body=body)
        match = _TOKEN.search(head)
        if status != 201 or match is None:
            raise BadAnswer(f"login: {status} {data[:300]!r}")
        return match[1].decode()

    def close(self) -> None:
        """Hang up."""
        if self._writer is not None:
            self._writer.close()
