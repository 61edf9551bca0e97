"""Live migration as clients ask for it: what each version takes, who is refused, and what is told of them."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.wire.host import Door
from controller.errors import Conflict
from tests.controller.volume.cloud import VolumeCloud, volume_cloud


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[VolumeCloud]:
    async with volume_cloud(tmp_path) as made:
        for index, host in enumerate(("h1", "h2")):
            made.hosts.doors[host] = Door(address=f"198.18.0.{11 + index}:5444", id=host, boottime_s=0.0)
        yield made
        assert not made.hosts.broken, made.hosts.broken


async def ask(cloud: VolumeCloud, server_id: str, version: str, **body: Any) -> Any:
    path = f"/servers/{server_id}/action"
    return await cloud.compute("POST", path, {"os-migrateLive": body}, token=cloud.admin, version=version)


async def where(cloud: VolumeCloud, server_id: str) -> str:
    (here,) = [host_id for (host_id, noun, name) in cloud.hosts.objects if (noun, name) == ("domain", server_id)]
    return here


VERSIONS: tuple[tuple[str, dict[str, Any], int], ...] = (
    ("2.1", {"host": None, "block_migration": True}, 400),
    ("2.1", {"host": None, "block_migration": "auto", "disk_over_commit": False}, 400),
    ("2.1", {"host": None, "block_migration": False, "disk_over_commit": False}, 400),  # It has a disk to be copied.
    ("2.25", {"host": None, "block_migration": "auto", "disk_over_commit": False}, 400),
    ("2.25", {"host": None, "block_migration": "auto", "force": False}, 400),
    ("2.25", {"block_migration": "auto"}, 400),
    ("2.30", {"host": None, "block_migration": "auto", "force": True}, 400),
    ("2.68", {"host": None, "block_migration": "auto", "force": False}, 400),
    ("2.68", {"host": "nowhere", "block_migration": "auto"}, 400),
)


@pytest.mark.parametrize(("version", "body", "status"), VERSIONS)
async def test_what_a_version_does_not_take_is_refused_and_leaves_nothing(
    cloud: VolumeCloud, version: str, body: dict[str, Any], status: int
) -> None:
    server = await cloud.boot()
    await cloud.rest()
    assert (await ask(cloud, server["id"], version, **body)).status_code == status
    shown = (await cloud.compute("GET", f"/servers/{server['id']}", token=cloud.admin)).json()["server"]
    assert (shown["status"], shown["OS-EXT-STS:task_state"]) == ("ACTIVE", None)
    listed = await cloud.compute("GET", "/os-migrations", token=cloud.admin)
    assert listed.json()["migrations"] == []


@pytest.mark.parametrize(
    ("version", "body"),
    [
        ("2.1", {"host": None, "block_migration": True, "disk_over_commit": False}),
        ("2.25", {"host": None, "block_migration": "auto"}),
        ("2.30", {"host": None, "block_migration": "auto", "force": False}),
        ("2.79", {"host": None, "block_migration": "auto"}),
    ],
)
async def test_a_server_with_volumes_moves_and_its_secrets_stay(
    cloud: VolumeCloud, version: str, body: dict[str, Any]
) -> None:
    server, data = await cloud.boot(), await cloud.make()
    await cloud.attach(server["id"], data["id"])
    await cloud.rest()
    here = await where(cloud, server["id"])
    before = {name: export.chap for name, export in cloud.hosts.of("export").items()}
    reply = await ask(cloud, server["id"], version, **body)
    assert reply.status_code == 202, reply.text
    await cloud.rest()
    there = await where(cloud, server["id"])
    assert there != here
    fence = cloud.api.cloud.fence
    for name, export in cloud.hosts.of("export").items():
        assert export.initiators == (fence.initiator(there),) and export.chap == before[name]
    (moved,) = (await cloud.compute("GET", "/os-migrations", token=cloud.admin)).json()["migrations"]
    assert (moved["status"], moved["dest_compute"]) == ("completed", f"name-{there}")
    path = f"/servers/{server['id']}/migrations"
    assert (await cloud.compute("GET", path, token=cloud.admin)).json() == {"migrations": []}
    assert (await cloud.compute("DELETE", f"{path}/{moved['id']}", token=cloud.admin)).status_code == 404
    assert (await cloud.compute("GET", path, token=cloud.admin, version="2.22")).status_code == 404


async def test_one_that_its_host_refuses_stays_and_its_volumes_are_reached_as_before(cloud: VolumeCloud) -> None:
    server, data = await cloud.boot(), await cloud.make()
    await cloud.attach(server["id"], data["id"])
    await cloud.rest()
    here = await where(cloud, server["id"])
    there = "h2" if here == "h1" else "h1"
    cloud.hosts.refuse[there, "domain.ensure"] = Conflict("no room")
    assert (await ask(cloud, server["id"], "2.25", host=None, block_migration="auto")).status_code == 202
    await cloud.rest()
    assert await where(cloud, server["id"]) == here
    assert {export.initiators for export in cloud.hosts.of("export").values()} == {
        (cloud.api.cloud.fence.initiator(here),)
    }
    (moved,) = (await cloud.compute("GET", "/os-migrations", token=cloud.admin)).json()["migrations"]
    assert moved["status"] == "error"


async def test_nobody_else_may_ask(cloud: VolumeCloud) -> None:
    server = await cloud.boot()
    await cloud.rest()
    body = {"os-migrateLive": {"host": None, "block_migration": "auto"}}
    reply = await cloud.compute("POST", f"/servers/{server['id']}/action", body)
    assert reply.status_code == 403
