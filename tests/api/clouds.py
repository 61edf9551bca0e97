"""A controller's web side in this process: real tables, real tokens, a real database, no socket.

`ApiCloud` is arranged by builders (`a_user`, `a_project`); its client speaks HTTP to the ASGI application.
"""

import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import httpx

from agent.wire.bus import Handler, Subscription
from agent.wire.errors import Silent
from agent.wire.world import PoolThreads, SystemEntropy, World
from controller.authority import Authority
from controller.bus_identity import BusIdentity, Listen
from controller.cloud import Cloud
from controller.composition import Surroundings, assemble
from controller.config import Settings
from controller.founding import Founded
from controller.http.app import App, build
from controller.http.op import Service
from controller.identity import bootstrap
from controller.identity.api.routes import SERVICE as IDENTITY
from controller.identity.passwords import hash_now
from controller.image.inspectors import Inspectors
from controller.image.stores import Files
from tests.databases import AnyDatabase, memory_database

PASSWORD = "secret-of-admin"
URL = "http://127.0.0.1:5000"


class SettableClock:
    """A calendar that stands still unless told."""

    def __init__(self) -> None:
        self.time = 1_700_000_000.0

    def now(self) -> float:
        return self.time

    def boottime(self) -> float:
        return self.time


@functools.cache
def hashed(password: str) -> str:
    """Argon2 takes its time; the same password needs it once."""
    return hash_now(password)


class ApiCloud:
    """A cloud with the default domain, admin and demo."""

    def __init__(self, cloud: Cloud, app: App, clock: SettableClock, founded: bootstrap.Founded) -> None:
        self.cloud = cloud
        self.app = app
        self.clock = clock
        self.founded = founded
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=URL)

    async def log_in(self, name: str, password: str, scope: Any = None, domain: str = "default") -> httpx.Response:
        user = {"name": name, "password": password, "domain": {"id": domain}}
        auth: dict[str, Any] = {"identity": {"methods": ["password"], "password": {"user": user}}}
        if scope is not None:
            auth["scope"] = scope
        return await self.http.post("/identity/v3/auth/tokens", json={"auth": auth})

    async def token(self, name: str, password: str, scope: Any = None, domain: str = "default") -> str:
        reply = await self.log_in(name, password, scope, domain)
        assert reply.status_code == 201, reply.text
        return str(reply.headers["x-subject-token"])

    async def admin(self) -> str:
        return await self.token("admin", PASSWORD, on_project(self.founded.admin_project_id))

    async def system(self) -> str:
        return await self.token("admin", PASSWORD, {"system": {"all": True}})

    async def call(self, method: str, path: str, token: str | None = None, **options: Any) -> httpx.Response:
        headers = {**({} if token is None else {"X-Auth-Token": token}), **options.pop("headers", {})}
        return await self.http.request(method, path, headers=headers, **options)

    async def made(self, path: str, token: str, body: dict[str, Any]) -> dict[str, Any]:
        """POST to identity; the new object."""
        reply = await self.call("POST", f"/identity/v3{path}", token, json=body)
        assert reply.status_code in (200, 201), reply.text
        ((_, made),) = reply.json().items()
        return cast("dict[str, Any]", made)

    async def a_project(self, token: str, name: str = "p", **more: Any) -> str:
        return str((await self.made("/projects", token, {"project": {"name": name, **more}}))["id"])

    async def a_user(self, token: str, name: str = "u", password: str | None = "pw", **more: Any) -> str:
        body = {"name": name, **({} if password is None else {"password": password}), **more}
        return str((await self.made("/users", token, {"user": body}))["id"])

    async def role(self, token: str, name: str) -> str:
        reply = await self.call("GET", f"/identity/v3/roles?name={name}", token)
        return str(reply.json()["roles"][0]["id"])

    async def grant(self, token: str, user_id: str, place: str, role: str, method: str = "PUT") -> None:
        """`place`: projects/<id>, domains/<id> or system."""
        path = f"/identity/v3/{place}/users/{user_id}/roles/{await self.role(token, role)}"
        reply = await self.call(method, path, token)
        assert reply.status_code == 204, reply.text

    async def a_member(self, token: str, name: str = "u", role: str = "member") -> tuple[str, str, str]:
        """A user with a role in a new project: (user id, project id, token)."""
        project_id = await self.a_project(token, f"project of {name}")
        user_id = await self.a_user(token, name)
        await self.grant(token, user_id, f"projects/{project_id}", role)
        return user_id, project_id, await self.token(name, "pw", on_project(project_id))


def on_project(project_id: str) -> dict[str, Any]:
    return {"project": {"id": project_id}}


class SilentBus:
    """A bus with nobody on it."""

    async def request(self, subject: str, data: bytes, headers: Mapping[str, str], timeout_s: float) -> bytes:
        raise Silent(f"{subject}: nobody listens")

    async def publish(self, subject: str, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        pass

    async def subscribe(self, subject: str, handler: Handler, queue: str = "") -> Subscription:
        raise AssertionError("nothing runs here")

    def on_gap(self, callback: Callable[[], None]) -> None:
        pass


@contextlib.asynccontextmanager
async def api_cloud(
    folder: Path, services: Sequence[Service] = (IDENTITY,), database: AnyDatabase | None = None
) -> AsyncIterator[ApiCloud]:
    """Founded and ready. Sagas and reconcilers are there, but nothing runs them; there is no host."""
    clock = SettableClock()
    threads = PoolThreads(2, "api-test")
    world = World(clock, SystemEntropy(), threads)
    db = database or memory_database(clock.now)
    authority = Authority(folder / "authority", clock.now())
    nowhere = Listen(address="127.0.0.1", port=1, certificate=folder, key=folder, folder=folder, ca=folder)
    given = Surroundings(
        settings=Settings(),
        world=world,
        db=db,
        bus=SilentBus(),
        images=Files(folder / "images", threads),
        inspectors=Inspectors(),
        founded=Founded(name="test", tag="beef", epoch=1),
        authority=authority,
        identity=BusIdentity(folder / "bus"),
        listen=nowhere,
        fernet=folder / "fernet",
        owner_id="test",
        volume_key=b"k" * 32,
    )
    plan = bootstrap.plan(
        world.entropy,
        given.settings.controller.region,
        clock.now(),
        admin_password_hash=hashed(PASSWORD),
        demo_password_hash=hashed("secret-of-demo"),
    )
    founded = await db.write(bootstrap.found, plan, tuple(services))
    cloud = assemble(given)
    made = ApiCloud(cloud, build(cloud, tuple(services)), clock, founded)
    try:
        async with made.http:
            yield made
    finally:
        given.inspectors.close()
        threads.close()
        if database is None:
            await db.close()
