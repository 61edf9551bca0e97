"""A cloud whose volume and compute APIs are served in this process, with real sagas on fake hosts.

`s1` has a pool of 100 GiB; `h1` and `h2` run servers. `demo` is a member of a project that has a network.
"""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx

from controller.compute import founding
from controller.compute.api.routes import SERVICE as COMPUTE
from controller.db.tx import Tx
from controller.hosts import Hosts
from controller.identity.api.routes import SERVICE as IDENTITY
from controller.image.api.routes import SERVICE as IMAGE
from controller.volume import types
from controller.volume.api.routes import SERVICE as VOLUME
from controller.volume.model import Pool
from controller.volume.store import pools
from tests.api.clouds import ApiCloud, api_cloud
from tests.controller.compute import rows
from tests.controller.compute.fake_hosts import FakeChannel, FakeHosts
from tests.databases import AnyDatabase

GIB_OF_POOL = 100


class VolumeCloud:
    """The newest versions unless it is said."""

    def __init__(self, api: ApiCloud, hosts: FakeHosts, admin: str, demo: str, project_id: str) -> None:
        self.api, self.hosts, self.admin, self.demo, self.project_id = api, hosts, admin, demo, project_id

    async def call(
        self, method: str, path: str, body: Any = None, *, token: str | None = None, version: str = "3.70"
    ) -> httpx.Response:
        headers = {"OpenStack-API-Version": f"volume {version}"}
        options = {} if body is None else {"json": body}
        return await self.api.call(method, f"/volume/v3{path}", token or self.demo, headers=headers, **options)

    async def compute(
        self, method: str, path: str, body: Any = None, *, token: str | None = None, version: str = "2.79"
    ) -> httpx.Response:
        headers = {"OpenStack-API-Version": f"compute {version}"}
        options = {} if body is None else {"json": body}
        return await self.api.call(method, f"/compute/v2.1{path}", token or self.demo, headers=headers, **options)

    async def post(self, **values: Any) -> dict[str, Any]:
        """A volume that was accepted."""
        reply = await self.call("POST", "/volumes", {"volume": {"size": 1, **values}})
        assert reply.status_code == 202, reply.text
        return cast("dict[str, Any]", reply.json()["volume"])

    async def make(self, **values: Any) -> dict[str, Any]:
        """A volume that is there."""
        made = await self.post(**values)
        await self.rest()
        return await self.show(made["id"])

    async def show(self, volume_id: str, **options: Any) -> dict[str, Any]:
        reply = await self.call("GET", f"/volumes/{volume_id}", **options)
        assert reply.status_code == 200, reply.text
        return cast("dict[str, Any]", reply.json()["volume"])

    async def act(self, volume_id: str, action: str, value: Any = None, **options: Any) -> httpx.Response:
        return await self.call("POST", f"/volumes/{volume_id}/action", {action: value}, **options)

    async def snapshot(self, volume_id: str, **values: Any) -> dict[str, Any]:
        reply = await self.call("POST", "/snapshots", {"snapshot": {"volume_id": volume_id, **values}})
        assert reply.status_code == 202, reply.text
        await self.rest()
        reply = await self.call("GET", f"/snapshots/{reply.json()['snapshot']['id']}")
        return cast("dict[str, Any]", reply.json()["snapshot"])

    async def boot(self, **changes: Any) -> dict[str, Any]:
        """A server that has come to rest."""
        reply = await self.post_server(**changes)
        assert reply.status_code == 202, reply.text
        await self.rest()
        return await self.server(reply.json()["server"]["id"])

    async def post_server(self, **changes: Any) -> httpx.Response:
        body = {"name": "web", "imageRef": rows.IMAGE_ID, "flavorRef": "42", "networks": "none", **changes}
        return await self.compute("POST", "/servers", {"server": body})

    async def server(self, server_id: str) -> dict[str, Any]:
        reply = await self.compute("GET", f"/servers/{server_id}")
        assert reply.status_code == 200, reply.text
        return cast("dict[str, Any]", reply.json()["server"])

    async def attach(self, server_id: str, volume_id: str, **more: Any) -> httpx.Response:
        body = {"volumeAttachment": {"volumeId": volume_id, **more}}
        return await self.compute("POST", f"/servers/{server_id}/os-volume_attachments", body)

    async def detach(self, server_id: str, volume_id: str) -> httpx.Response:
        return await self.compute("DELETE", f"/servers/{server_id}/os-volume_attachments/{volume_id}")

    async def rest(self) -> None:
        """Until every saga rests."""
        await self.api.cloud.sagas.rest_all(30.0)

    def disks(self, server_id: str) -> list[str]:
        """The volumes that the server's domain has."""
        spec = self.hosts.of("domain")[server_id]
        return [disk.iscsi.volume_id for disk in spec.disks if disk.iscsi is not None]


@contextlib.asynccontextmanager
async def volume_cloud(
    folder: Path, database: AnyDatabase | None = None, *, runs: bool = True
) -> AsyncIterator[VolumeCloud]:
    """Ready. `runs` False: sagas are started, and nobody drives them."""
    async with contextlib.AsyncExitStack() as stack:
        api = await stack.enter_async_context(api_cloud(folder, (IDENTITY, COMPUTE, IMAGE, VOLUME), database))
        hosts = FakeHosts("h1", "h2", "s1")
        api.cloud.hosts = cast("Hosts", hosts)
        api.cloud.channel = cast("Any", FakeChannel())
        admin = await api.admin()
        _, project_id, demo = await api.a_member(admin, "demo-user")
        await api.cloud.db.write(_furnish, project_id)
        if runs:
            await stack.enter_async_context(api.cloud.sagas)
        yield VolumeCloud(api, hosts, admin, demo, project_id)


def _furnish(tx: Tx, project_id: str) -> None:
    for host_id in ("h1", "h2"):
        rows.insert_host(tx, host_id)
    rows.insert_host(tx, "s1", vcpus=0)
    pools.put(tx, "s1", [Pool("s1", "files", "file", GIB_OF_POOL, False, False, 0)])
    founding.found(tx, 900.0)
    types.found(tx, "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb", 900.0)
    rows.insert_image(tx, owner=project_id)
    rows.insert_network(tx, project_id=project_id)


def told(free_gib: int) -> Any:
    """What a heartbeat says of the pool."""
    return SimpleNamespace(pools=(SimpleNamespace(name="files", free_gib=free_gib),))
