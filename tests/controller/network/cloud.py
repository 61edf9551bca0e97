"""A network API to talk to in-process: the real routes and tables, callers by token, hosts that only listen."""

import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import httpx
import sqlalchemy as sa

from agent.wire.world import World
from controller.cloud import Cloud
from controller.config import Settings
from controller.context import Context
from controller.db.tables.fleet import host
from controller.db.tx import Database, Tx
from controller.errors import Unauthorized
from controller.fleet.model import HostState
from controller.http import app
from controller.network.api.routes import SERVICE
from controller.tasks.driver import Driver, Task
from tests.controller.network.hosts import ListeningHosts
from tests.databases import memory_database
from tests.virtual import InlineThreads, SeededEntropy

DEMO, OTHER, ADMIN = "d" * 32, "e" * 32, "a" * 32

_ROLES: Mapping[str, frozenset[str]] = {
    "admin": frozenset({"admin", "manager", "member", "reader"}),
    "member": frozenset({"member", "reader"}),
    "reader": frozenset({"reader"}),
}

CALLERS: Mapping[str, tuple[str | None, str]] = {
    "demo": (DEMO, "member"),
    "other": (OTHER, "member"),
    "viewer": (DEMO, "reader"),
    "admin": (ADMIN, "admin"),
    "system": (None, "admin"),
}


class Tokens:
    """The token is the caller's name."""

    async def authenticate(self, token: str, request_id: str, global_request_id: str) -> Context:
        if token not in CALLERS:
            raise Unauthorized("The token is not valid.")
        return a_context(token, request_id)


def a_context(token: str, request_id: str = "req-1") -> Context:
    """One of the callers."""
    project_id, role = CALLERS[token]
    return Context(
        request_id=request_id,
        user_id=token,
        project_id=project_id,
        is_system=project_id is None,
        roles=_ROLES[role],
    )


class TickingClock:
    """Every look is a second later, so that times differ and order is known."""

    def __init__(self) -> None:
        self._now = 1_800_000_000.0

    def now(self) -> float:
        self._now += 1
        return self._now

    def boottime(self) -> float:
        return self._now


async def _nothing() -> None:
    return None


def a_cloud(database: Database | None = None) -> Cloud:
    """A cloud whose network slice works; what it does not use is missing."""
    world = World(TickingClock(), SeededEntropy(7), InlineThreads())
    made = SimpleNamespace(
        world=world,
        db=database or memory_database(),
        settings=Settings(),
        epoch=1,
        tokens=Tokens(),
        hosts=ListeningHosts(),
        tasks=Driver(world, Task("network_sync", 60.0, _nothing), Task("network_spread", 60.0, _nothing)),
    )
    return cast(Cloud, made)


class Answer:
    """One reply."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.headers = response.headers
        self.body: Any = response.json() if response.content else None

    @property
    def kind(self) -> str:
        """The failure's type in Neutron's envelope."""
        return str(self.body["NeutronError"]["type"])

    @property
    def message(self) -> str:
        return str(self.body["NeutronError"]["message"])


class Api:
    """Requests as one caller."""

    def __init__(self, cloud: Cloud, token: str = "demo") -> None:
        self.cloud = cloud
        self._token = token
        self._application = app.build(cloud, (SERVICE,))

    def as_(self, token: str) -> "Api":
        """The same cloud, another caller."""
        return Api(self.cloud, token)

    async def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        url = path if path == "/network" or path.startswith("/network/") else f"/network/v2.0{path}"
        sent = {"X-Auth-Token": self._token, **{name.replace("_", "-"): value for name, value in headers.items()}}
        transport = httpx.ASGITransport(app=self._application, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:5000") as client:
            content = json.dumps(body).encode() if body is not None else None
            if content is not None:
                sent["Content-Type"] = "application/json"
            return Answer(await client.request(method, url, content=content, headers=sent))

    async def make(self, collection: str, **values: Any) -> dict[str, Any]:
        """POST, which must succeed; the object."""
        noun = collection.removesuffix("s").replace("-", "_")
        answer = await self("POST", f"/{collection}", {noun: {k.replace("__", ":"): v for k, v in values.items()}})
        assert answer.status == 201, answer.body
        made: dict[str, Any] = answer.body[noun]
        return made

    async def get(self, path: str) -> Any:
        """GET, which must succeed; the only value of the body."""
        answer = await self("GET", path)
        assert answer.status == 200, answer.body
        return next(iter(answer.body.values()))

    async def change(self, path: str, values: dict[str, Any]) -> Answer:
        """PUT of one object."""
        noun = path.split("/")[1].removesuffix("s").replace("-", "_")
        return await self("PUT", path, {noun: values})


async def a_network(api: Api, cidr: str | None = "10.0.0.0/24", **values: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """A network with a subnet."""
    network = await api.make("networks", **values)
    subnet = await api.make("subnets", network_id=network["id"], ip_version=4, cidr=cidr) if cidr else {}
    return network, subnet


async def an_external_network(api: Api) -> dict[str, Any]:
    """The network `public`, flat on `external`, with addresses."""
    admin = api.as_("admin")
    network = await admin.make(
        "networks",
        name="public",
        router__external=True,
        provider__network_type="flat",
        provider__physical_network="external",
    )
    await admin.make(
        "subnets",
        network_id=network["id"],
        ip_version=4,
        cidr="203.0.113.0/24",
        gateway_ip="203.0.113.1",
        enable_dhcp=False,
    )
    return network


async def a_routed_port(api: Api) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """(external network, router, port) such that a floating IP can be put in front of the port; `host-1` has both."""
    await api.cloud.db.write(an_enrolled_host, "host-1", "node-1", ["external"])
    external = await an_external_network(api)
    network, subnet = await a_network(api)
    router = await api.make("routers", external_gateway_info={"network_id": external["id"]})
    answer = await api("PUT", f"/routers/{router['id']}/add_router_interface", {"subnet_id": subnet["id"]})
    assert answer.status == 200, answer.body
    return external, router, await api.make("ports", network_id=network["id"])


def an_enrolled_host(
    tx: Tx, host_id: str, hostname: str, physical_networks: list[str], address: str = "198.18.0.1"
) -> None:
    """A host that has reported what it has."""
    values = {"id": host_id, "hostname": hostname, "underlay_address": address, "state": HostState.ENROLLED.value}
    size = {"vcpus": 8, "memory_mib": 16384, "disk_gib": 100}
    tx.execute(
        sa.insert(host).values(
            **values, **size, up=True, physical_networks=physical_networks, created_at=0, updated_at=0
        )
    )
