"""A cloud whose compute API is served in this process, with real sagas on fake hosts."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, cast

import httpx

from controller.compute import founding
from controller.compute.api.routes import SERVICE
from controller.db.tx import Tx
from controller.hosts import Hosts
from controller.identity.api.routes import SERVICE as IDENTITY
from controller.tasks.power_sync import PowerSync
from tests.api.clouds import ApiCloud, api_cloud
from tests.controller.compute import rows
from tests.controller.compute.fake_hosts import FakeHosts
from tests.databases import AnyDatabase

COMPUTE = "/compute/v2.1"
BODY: dict[str, Any] = {"name": "web", "imageRef": rows.IMAGE_ID, "flavorRef": "42", "networks": "auto"}


class ComputeCloud:
    """`demo` is a member of a project that has a network; `admin` the cloud's. The newest version unless it is said."""

    def __init__(self, api: ApiCloud, hosts: FakeHosts, admin: str, demo: str, project_id: str) -> None:
        self.api, self.hosts, self.admin, self.demo, self.project_id = api, hosts, admin, demo, project_id
        self.power_sync = PowerSync(api.cloud)
        hosts.on_event("domain", self.power_sync.hear)

    async def call(
        self, method: str, path: str, *, token: str | None = None, version: str = "2.79", **options: Any
    ) -> httpx.Response:
        headers = {"OpenStack-API-Version": f"compute {version}", **options.pop("headers", {})}
        return await self.api.call(method, COMPUTE + path, token or self.demo, headers=headers, **options)

    async def boot(self, **changes: Any) -> dict[str, Any]:
        """A server that is ACTIVE, as GET shows it."""
        server_id = await self.post(**changes)
        await self.rest()
        return await self.show(server_id)

    async def post(self, **changes: Any) -> str:
        """The id of a server that was accepted."""
        reply = await self.call("POST", "/servers", json={"server": {**BODY, **changes}})
        assert reply.status_code == 202, reply.text
        return str(reply.json()["server"]["id"])

    async def show(self, server_id: str, **options: Any) -> dict[str, Any]:
        reply = await self.call("GET", f"/servers/{server_id}", **options)
        assert reply.status_code == 200, reply.text
        return cast("dict[str, Any]", reply.json()["server"])

    async def act(self, server_id: str, action: str, value: Any = None, **options: Any) -> httpx.Response:
        return await self.call("POST", f"/servers/{server_id}/action", json={action: value}, **options)

    async def rest(self) -> None:
        """Until every saga rests."""
        await self.api.cloud.sagas.rest_all(20.0)

    async def write(self, fn: Any, *args: Any) -> Any:
        return await self.api.cloud.db.write(fn, *args)


@contextlib.asynccontextmanager
async def compute_cloud(
    folder: Path, *host_ids: str, database: AnyDatabase | None = None, runs: bool = True
) -> AsyncIterator[ComputeCloud]:
    """Ready to boot servers. `runs` False: sagas are started, and nobody drives them."""
    async with contextlib.AsyncExitStack() as stack:
        api = await stack.enter_async_context(api_cloud(folder, (IDENTITY, SERVICE), database))
        hosts = FakeHosts(*(host_ids or ("h1",)))
        api.cloud.hosts = cast("Hosts", hosts)
        admin = await api.admin()
        _, project_id, demo = await api.a_member(admin, "demo-user")
        await api.cloud.db.write(_furnish, project_id, sorted(hosts.host_ids))
        if runs:
            await stack.enter_async_context(api.cloud.sagas)
        yield ComputeCloud(api, hosts, admin, demo, project_id)


def _furnish(tx: Tx, project_id: str, host_ids: Sequence[str]) -> None:
    for host_id in host_ids:
        rows.insert_host(tx, host_id)
    founding.found(tx, 900.0)
    rows.insert_image(tx, owner=project_id)
    rows.insert_network(tx, project_id=project_id)
