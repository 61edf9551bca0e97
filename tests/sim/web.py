"""Requests to a controller's ASGI application, without a socket and without a client library."""

from typing import Any

import msgspec

from controller.http.app import App


class Answer(msgspec.Struct, frozen=True):
    """What came back."""

    status: int
    request_id: str
    body: Any

    @property
    def is_good(self) -> bool:
        """Accepted or done."""
        return 200 <= self.status < 300


async def ask(app: App, method: str, path: str, token: str, body: Any = None) -> Answer:
    """One request."""
    data = b"" if body is None else msgspec.json.encode(body)
    headers = [
        (b"host", b"127.0.0.1:5000"),
        (b"x-auth-token", token.encode()),
        (b"openstack-api-version", b"compute 2.79, volume 3.70"),
        (b"content-length", str(len(data)).encode()),
    ]
    if data:
        headers.append((b"content-type", b"application/json"))
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 5000),
    }
    said: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": data, "more_body": False}

    async def send(message: Any) -> None:
        said.append(message)

    await app(scope, receive, send)
    answered = dict(said[0]["headers"])
    whole = b"".join(part.get("body", b"") for part in said[1:])
    return Answer(
        said[0]["status"],
        answered[b"x-openstack-request-id"].decode(),
        msgspec.json.decode(whole) if whole else None,
    )
