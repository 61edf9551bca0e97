"""The web layer's front: one ASGI application over the tables of all services.

A request meets, in this order, the first that fails answering: 401, 404 (no such path), 405, 400/406 (version; a row
outside its window is a 404), 403 (role), 415, 413, 400 (body); what follows is the handler's: 404 and 403 of the
object, 409. Public rows ask for no token. An action's row is only known from its body, so there 415, 413 and the
body's syntax precede the 403.

There is no middleware and no router object per request: at 4,000 requests a second and core everything here costs some
tens of microseconds, so what can be made once (trie, decoders, echoed headers) is made in the constructor.
"""

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import msgspec
import structlog
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from controller.cloud import Cloud
from controller.context import Context
from controller.errors import CloudError, Invalid, MethodNotAllowed, NotFound, Unauthorized, Unavailable
from controller.http import auth, bodies, faults, policy
from controller.http.microversion import Negotiator
from controller.http.op import Call, Fault, Op, Query, Reply, Service
from controller.http.trie import Found, Route, Trie, decoded_segments

PUBLIC_BODY_BYTES_MAX: Final = 64 << 10
"""Bodies of callers we do not know yet. A login has less than 1 KiB; a larger bound only helps who wants our CPU."""

QUERY_FIELDS_MAX: Final = 1000
"""Neutron's clients send hundreds of repeated ids in one query; more is no list but an attack."""

_WRITES: Final = frozenset({"POST", "PUT", "PATCH"})

_encode = msgspec.json.Encoder().encode
_log: Final = structlog.get_logger()

Headers = list[tuple[bytes, bytes]]


@dataclass(slots=True)
class _Incoming:
    """One request, and what its reply must carry whatever happens."""

    scope: Scope
    receive: Receive
    headers: dict[str, str]
    request_id: str
    service: Service | None = None
    echo: tuple[tuple[bytes, bytes], ...] = ()
    extra: Headers = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Outgoing:
    """One reply. `body` is whole, or comes in pieces."""

    status: int
    body: bytes | AsyncIterator[bytes]
    headers: Headers


class App:
    """The ASGI application."""

    def __init__(
        self, cloud: Cloud, services: tuple[Service, ...], identities: auth.Identities, mounts: Mapping[str, ASGIApp]
    ) -> None:
        self.cloud = cloud
        self._mounts = mounts
        self._identities = identities
        self._trie = Trie(services)
        self._negotiators = {service.name: Negotiator(service) for service in services}
        self._bodies_max = cloud.settings.limits
        public = urlsplit(cloud.settings.controller.public_url)
        self._public_scheme, self._public_host = public.scheme, public.netloc
        uri = f"{cloud.settings.controller.public_url.rstrip('/')}/identity"
        self.answered: Counter[tuple[str, int]] = Counter()  # (service, hundreds of the status) → replies.
        self._challenge = (b"www-authenticate", f'Keystone uri="{uri}"'.encode())
        for service in services:
            policy.declare(service.policies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        mount = self._mount(scope)
        if mount is not None:
            await mount(scope, receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)
        elif scope["type"] == "lifespan":
            await _lifespan(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    def _mount(self, scope: Scope) -> ASGIApp | None:
        """What is no API: its own application has the whole of what is below its prefix."""
        path: str = scope.get("path", "")
        return next((app for prefix, app in self._mounts.items() if path.startswith(f"{prefix}/")), None)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = "req-" + self.cloud.world.entropy.uuid()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        incoming = _Incoming(scope, receive, _headers(scope["headers"]), request_id)
        try:
            outgoing = await self._answer(incoming)
        except bodies.ClientGone:
            return
        except CloudError as error:
            outgoing = self._refusal(incoming, error)
        except Exception:
            _log.exception("request failed", method=scope["method"], path=scope["path"])
            outgoing = _faulty(incoming, faults.internal(request_id))
        name = "" if incoming.service is None else incoming.service.name
        self.answered[name, outgoing.status // 100] += 1
        await _send(send, scope["method"], outgoing, _common(incoming))

    async def _answer(self, incoming: _Incoming) -> _Outgoing:
        scope, headers = incoming.scope, incoming.headers
        found = self._trie.find(decoded_segments(scope["path"], scope.get("raw_path") or b""))
        if scope["path"].endswith("/") and _is_empty_id(found):
            found = Found(found.service, None)
        incoming.service = found.service
        rows = _rows(found, scope["method"])
        ctx = await self._caller(incoming, found, rows)
        if found.node is None:
            raise NotFound("The resource could not be found.")
        if rows is None:
            incoming.extra.append((b"allow", ", ".join(sorted(found.node.methods)).encode()))
            raise MethodNotAllowed(f"The method {scope['method']} is not allowed for this resource.")
        _check_project(found, ctx)
        service = incoming.service = rows[0].service
        negotiator = self._negotiators[service.name]
        incoming.echo = negotiator.echo(negotiator.oldest)
        version = negotiator.version(headers)
        incoming.echo = negotiator.echo(version)
        live = [row for row in rows if row.offered_at(version)]
        if not live:
            raise NotFound("The resource could not be found.")
        route, body = await self._chosen(incoming, ctx, live)
        self._check_room(route)
        base_url = self._base_url(incoming, service)
        path = scope["path"][len(service.prefix) :].rstrip("/")
        if found.project_id is not None:
            path = path[1 + len(found.project_id) :]
        call = Call(
            cloud=self.cloud,
            ctx=ctx,
            op=route.op,
            params=dict(zip(route.names, found.values, strict=True)),
            query=_query(scope["query_string"]),
            body=body,
            version=version,
            base_url=base_url,
            path=path,
            request=Request(scope, incoming.receive),
        )
        return _outgoing(await route.op.handler(call), route.op)

    async def _caller(self, incoming: _Incoming, found: Found, rows: tuple[Route, ...] | None) -> Context:
        """Whoever asks, or nobody where the rows are public. Unknown paths of a service are a 401 first."""
        headers = incoming.headers
        global_id = auth.global_id(headers.get("x-openstack-request-id"))
        is_public = rows is not None and rows[0].allows is None
        if is_public or (found.node is None and found.service is None):
            return auth.anonymous(incoming.request_id, global_id)
        return await auth.caller(self._identities, headers.get("x-auth-token"), incoming.request_id, global_id)

    async def _chosen(self, incoming: _Incoming, ctx: Context, live: list[Route]) -> tuple[Route, Any]:
        """The row that serves, its role rule passed, and the decoded body."""
        limits, headers = self._bodies_max, incoming.headers
        route = live[0]
        if route.op.action is None:
            assert len(live) == 1, f"two rows serve {route.op.method} {route.op.path} in one version"
            _check_role(ctx, route)
            bodies.check_media(route, headers.get("content-type"))
            if route.decode is None or route.op.streams:
                return route, None
            limit = limits.body_bytes if route.allows is not None else min(limits.body_bytes, PUBLIC_BODY_BYTES_MAX)
            data = await bodies.read(incoming.receive, headers.get("content-length"), limit)
            return route, bodies.decode(route, data, limits.body_depth)
        bodies.check_media(route, headers.get("content-type"))
        data = await bodies.read(incoming.receive, headers.get("content-length"), limits.body_bytes)
        name, raw = bodies.action_of(data, limits.body_depth)
        chosen = next((row for row in live if row.op.action == name), None)
        if chosen is None:
            raise Invalid(f"There is no such action: {name}")
        _check_role(ctx, chosen)
        return chosen, bodies.decode_action(chosen, raw)

    def _check_room(self, route: Route) -> None:
        """A nearly full disk takes deletes, which make room, and logins, which write nothing."""
        if route.allows is not None and route.op.method in _WRITES and (why := self.cloud.db.shortage()):
            raise Unavailable(why)

    def _base_url(self, incoming: _Incoming, service: Service) -> str:
        """As the client reached us. Behind something that ends TLS, the public URL knows the scheme better."""
        host = incoming.headers.get("host") or self._public_host
        scheme = self._public_scheme if host == self._public_host else incoming.scope["scheme"]
        return f"{scheme}://{host}{service.prefix}"

    def _refusal(self, incoming: _Incoming, error: CloudError) -> _Outgoing:
        if isinstance(error, Unauthorized):
            incoming.extra.append(self._challenge)
        elif isinstance(error, Unavailable):
            incoming.extra.append((b"retry-after", b"1"))
        return _faulty(incoming, faults.fault_of(error, incoming.service))


def build(
    cloud: Cloud,
    services: tuple[Service, ...],
    identities: auth.Identities | None = None,
    mounts: Mapping[str, ASGIApp] | None = None,
) -> App:
    """The application of one process. Without `identities` the cloud's own tokens are asked.

    `mounts` are applications beside the APIs, by prefix: `/console`.
    """
    return App(cloud, services, identities or cloud.tokens, mounts or {})


def _rows(found: Found, method: str) -> tuple[Route, ...] | None:
    if found.node is None:
        return None
    rows = found.node.methods.get(method)
    return found.node.methods.get("GET") if rows is None and method == "HEAD" else rows


def _is_empty_id(found: Found) -> bool:
    """Whether a path that ends with a slash names a member without an id."""
    service, node = found.service, found.node
    return service is not None and service.is_slash_an_id and node is not None and node.param is not None


def _check_project(found: Found, ctx: Context) -> None:
    """A project in the path says nothing new: it must be the token's."""
    if found.project_id is not None and ctx.user_id and found.project_id != ctx.project_id:
        raise Invalid(
            f"Malformed request URL: URL's project_id '{found.project_id}' "
            f"doesn't match Context's project_id '{ctx.project_id}'"
        )


def _check_role(ctx: Context, route: Route) -> None:
    if route.allows is not None and not route.allows(ctx, policy.NO_TARGET):
        raise policy.forbidden(route.op.policy)


def _headers(raw: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """By lower-case name; a repeated header is one with commas (RFC 9110)."""
    headers: dict[str, str] = {}
    for name, value in raw:
        key = name.decode("latin-1")
        headers[key] = f"{headers[key]}, {value.decode('latin-1')}" if key in headers else value.decode("latin-1")
    return headers


_NO_QUERY: Final = Query([])


def _query(raw: bytes) -> Query:
    if not raw:
        return _NO_QUERY
    try:
        pairs = parse_qsl(raw.decode(), keep_blank_values=True, errors="strict", max_num_fields=QUERY_FIELDS_MAX)
    except ValueError as error:
        raise Invalid("The query string is not UTF-8, or has too many fields.") from error
    if any("\0" in name or "\0" in value for name, value in pairs):
        raise Invalid("The query string has a NUL character.")
    return Query(pairs)


def _outgoing(result: Any, op: Op) -> _Outgoing:
    """A handler's result as bytes: None is no body, bytes and iterators pass, everything else is JSON."""
    if not isinstance(result, Reply):
        result = Reply(result)
    status = op.status if result.status is None else result.status
    headers = [(name.lower().encode(), _value(value)) for name, value in result.headers.items()]
    if result.body is None:
        return _Outgoing(status, b"", headers)
    if isinstance(result.body, bytes | AsyncIterator):
        return _Outgoing(status, result.body, headers)
    return _Outgoing(status, _encode(result.body), [*headers, (b"content-type", b"application/json")])


def _value(text: str) -> bytes:
    assert "\r" not in text and "\n" not in text, "a header's value would split the reply"
    return text.encode()


def _faulty(incoming: _Incoming, fault: Fault) -> _Outgoing:
    envelope = incoming.service.envelope if incoming.service is not None else faults.keystone
    body, content_type = envelope(fault)
    return _Outgoing(fault.status, body, [*incoming.extra, (b"content-type", content_type.encode())])


def _common(incoming: _Incoming) -> Headers:
    """What every reply carries."""
    request_id = incoming.request_id.encode()
    headers = [(b"x-openstack-request-id", request_id), *incoming.echo]
    if incoming.service is not None and incoming.service.name == "compute":
        headers.append((b"x-compute-request-id", request_id))
    return headers


async def _send(send: Send, method: str, outgoing: _Outgoing, common: Headers) -> None:
    headers = [*outgoing.headers, *common]
    body = outgoing.body
    if isinstance(body, bytes):
        if outgoing.status != 204:
            headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": outgoing.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})
        return
    await send({"type": "http.response.start", "status": outgoing.status, "headers": headers})
    if method != "HEAD":
        async for piece in body:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _lifespan(receive: Receive, send: Send) -> None:
    """Nothing starts or stops here: the process owns its parts."""
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return
