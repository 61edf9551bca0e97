"""Does the cost of a request grow with what exists?

Two clouds live in this process, one with a hundred servers and one with ten thousand (each with a port, and as many
images), and are asked the same in turns. What counts is the CPU time of the whole application, from ASGI to the
encoded answer, at its least over many rounds: so neither the machine's speed nor who else uses it matters.
"""

import contextlib
import gc
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final, NamedTuple

from controller.compute import founding
from controller.services import services
from tests.api.clouds import ApiCloud, api_cloud
from tests.bench.crowd import Crowd, insert_host

SMALL: Final = 100
LARGE: Final = 10_000

CALLS: Final = 20
"""Requests of one round: some milliseconds, so that the clock's resolution does not matter."""

ROUNDS_MIN: Final = 5
ROUNDS_MAX: Final = 60
"""Rounds go on while the ratio is above what is allowed: noise only ever adds, so a least value needs luck once."""

PAGE: Final = "limit=20"


class Place(NamedTuple):
    """One cloud: `crowd` has all those servers, and `neighbour` 30."""

    api: ApiCloud
    crowds: dict[str, Crowd]
    tokens: dict[str, str]


Request = Callable[[Crowd], str]


def _middle(kind: str) -> Callable[[Crowd], str]:
    return lambda crowd: crowd.id(kind, crowd.count // 2)


_server, _port, _image = _middle("server"), _middle("port"), _middle("image")

REQUESTS: Final[dict[str, Request]] = {
    "a server": lambda crowd: f"/compute/v2.1/servers/{_server(crowd)}",
    "names of servers": lambda crowd: f"/compute/v2.1/servers?{PAGE}",
    "servers": lambda crowd: f"/compute/v2.1/servers/detail?{PAGE}",
    "servers from the middle on": lambda crowd: f"/compute/v2.1/servers/detail?{PAGE}&marker={_server(crowd)}",
    "a port": lambda crowd: f"/network/v2.0/ports/{_port(crowd)}",
    "ports": lambda crowd: f"/network/v2.0/ports?{PAGE}",
    "ports from the middle on": lambda crowd: f"/network/v2.0/ports?{PAGE}&marker={_port(crowd)}",
    "ports of a server": lambda crowd: f"/network/v2.0/ports?device_id={_server(crowd)}",
    "an image": lambda crowd: f"/image/v2/images/{_image(crowd)}",
    "images": lambda crowd: f"/image/v2/images?{PAGE}",
    "images from the middle on": lambda crowd: f"/image/v2/images?{PAGE}&marker={_image(crowd)}",
    "flavors": lambda crowd: "/compute/v2.1/flavors/detail",
    "networks": lambda crowd: "/network/v2.0/networks",
    "the token": lambda crowd: "/identity/v3/auth/tokens",
}


@contextlib.asynccontextmanager
async def place(count: int) -> AsyncIterator[Place]:
    """A cloud with that many servers."""
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        api = await stack.enter_async_context(api_cloud(folder, services()))
        admin = await api.admin()
        crowds: dict[str, Crowd] = {}
        tokens: dict[str, str] = {}
        for name, size in (("crowd", count), ("neighbour", 30)):
            _, project_id, tokens[name] = await api.a_member(admin, name)
            crowds[name] = Crowd(project_id, name, size)
        await api.cloud.db.write(founding.found, 900.0)
        await api.cloud.db.write(insert_host)
        for crowd in crowds.values():
            await api.cloud.db.write(crowd.gather)
        yield Place(api, crowds, tokens)


async def ask(where: Place, whose: str, request: Request) -> bytes:
    """One answer."""
    crowd, token = where.crowds[whose], where.tokens[whose].encode()
    path, _, query = request(crowd).partition("?")
    headers = [(b"host", b"127.0.0.1:5000"), (b"x-auth-token", token), (b"x-subject-token", token)]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": headers,
    }
    said: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, object]) -> None:
        said.append(message)

    await where.api.app(scope, receive, send)  # type: ignore[arg-type]  # ASGI's messages are mappings.
    body = said[1]["body"]
    assert said[0]["status"] == 200 and isinstance(body, bytes), (path, said)
    return body


async def ratio(small: Place, large: Place, whose: str, name: str, allowed: float) -> float:
    """What the request costs in the large cloud, in terms of the small one."""
    least = [float("inf"), float("inf")]
    for done in range(ROUNDS_MAX):
        if done >= ROUNDS_MIN and least[1] <= least[0] * allowed:
            break
        for i, where in enumerate((small, large)):
            least[i] = min(least[i], await _round(where, whose, REQUESTS[name]))
    return least[1] / least[0]


async def ratios(allowed: float) -> dict[str, float]:
    """Of every request, asked by both."""
    async with place(SMALL) as small, place(LARGE) as large:
        return {
            f"{name} ({whose})": await ratio(small, large, whose, name, allowed)
            for name in REQUESTS
            for whose in ("crowd", "neighbour")
        }


async def _round(where: Place, whose: str, request: Request) -> float:
    gc.collect(0)
    began = time.process_time()
    for _ in range(CALLS):
        await ask(where, whose, request)
    return time.process_time() - began
