"""One row per endpoint, and what a handler gets. The tables of all services are lists of these rows.

    Op("POST", "/servers", servers.create, policy="os_compute_api:servers:create", body=ServerCreate, status=202)
    Op("POST", "/servers/{server_id}/action", actions.start, action="os-start", policy="…:start", status=202)

A second row with the same method and path and another version window is another version. `since` and `until`
are inclusive. Handlers are functions of 5-20 lines: fetch (scoped by `call.ctx`), one use-case, render.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
from starlette.requests import Request

from controller.context import Context

if TYPE_CHECKING:
    from controller.cloud import Cloud

Version: TypeAlias = tuple[int, int]

PUBLIC = "public"
"""Policy of routes that need no token: version documents, POST /auth/tokens."""


class Query:
    """The query string: keys repeat, order is kept."""

    __slots__ = ("pairs",)

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self.pairs = pairs

    def get(self, key: str) -> str | None:
        """The last value of a key, or None."""
        return next((value for name, value in reversed(self.pairs) if name == key), None)

    def all(self, key: str) -> list[str]:
        """All values of a key."""
        return [value for name, value in self.pairs if name == key]

    def __contains__(self, key: str) -> bool:
        return any(name == key for name, _ in self.pairs)

    def keys(self) -> list[str]:
        """Every key once, in order of first appearance."""
        return list(dict.fromkeys(name for name, _ in self.pairs))


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that is more than a JSON body with the row's status. `body` may be bytes, or an async iterator."""

    body: Any = None
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Call:
    """One request, authenticated, with its body decoded and its version settled."""

    cloud: "Cloud"
    ctx: Context
    op: "Op"
    params: Mapping[str, str]
    query: Query
    body: Any
    version: Version
    base_url: str  # The service's root as the client reached it, without trailing slash: http://host:5000/compute/v2.1
    path: str  # Below base_url, without query and project: /servers/detail
    request: Request  # For streams and rare headers.

    def authorize(self, rule: str, target: Mapping[str, Any]) -> None:
        """Check an object rule; raises Forbidden that names the rule."""
        from controller.http.policy import check  # A cycle: policy knows rows.

        check(self.ctx, rule, target)


Handler: TypeAlias = Callable[[Call], Awaitable[Any]]
Predicate: TypeAlias = Callable[[Context, Mapping[str, Any]], bool]
"""An object rule or a role rule: (who, what) → allowed. Role rules ignore the target."""


@dataclass(frozen=True, slots=True)
class Op:
    """One endpoint in one window of versions."""

    method: str
    path: str  # Below the service's prefix; `{name}` matches one segment.
    handler: Handler
    policy: str
    body: type[msgspec.Struct] | Any = None  # For an action row: the type of the value below the action's key.
    status: int = 200
    since: Version | None = None
    until: Version | None = None
    action: str | None = None
    open_body: str = ""  # Why unknown keys are welcome, with the API reference; empty: they are a 400.
    media: tuple[str, ...] = ("application/json",)
    streams: bool = False  # The handler reads `call.request.stream()` itself; no body limit applies.


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """An error before it has a service's envelope."""

    status: int
    title: str
    message: str
    kind: str = ""  # The failure's class by name: Neutron's envelope shows it as `type`.
    why: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """One API: where it is mounted, its rows, its policies, its versions, its error envelope."""

    name: str  # compute
    types: tuple[str, ...]  # Catalog types: ("compute",), ("volumev3", "block-storage")
    prefix: str  # /compute/v2.1
    ops: tuple[Op, ...]
    policies: Mapping[str, Predicate]
    envelope: Callable[[Fault], tuple[bytes, str]]  # (body, content type)
    versions: tuple[Version, ...] = ()  # Microversions, ascending without a hole; empty: the service has none.
    version_header: str = ""  # The name in OpenStack-API-Version: "compute".
    catalog_path: str = ""  # What the catalog shows after the listener's address: /compute/v2.1, /image, /network.
    project_in_path: bool = False  # /v2.1/{project_id}/servers is the same as /v2.1/servers.
    over_quota_status: int = 403
    is_slash_an_id: bool = False  # "/images/" is the image with an empty id, hence 404; else the slash means nothing.
    documents: tuple[Op, ...] = ()  # Rows at absolute paths, above the prefix: the list of versions at /compute.
