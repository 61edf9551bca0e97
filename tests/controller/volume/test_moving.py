"""Servers that go to another host, with their volumes."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from controller.db.tables.fleet import host
from controller.errors import Conflict
from tests.controller.compute import rows
from tests.controller.volume.cloud import VolumeCloud, volume_cloud


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[VolumeCloud]:
    async with volume_cloud(tmp_path) as made:
        yield made
        assert not made.hosts.broken, made.hosts.broken


ROOT: dict[str, Any] = {
    "source_type": "image",
    "destination_type": "volume",
    "uuid": rows.IMAGE_ID,
    "boot_index": 0,
    "volume_size": 2,
}


async def a_server_with_two(cloud: VolumeCloud) -> tuple[str, str, str]:
    """(its id, the host where it is, its second volume): its root is a volume."""
    data = await cloud.make()
    server = await cloud.boot(imageRef="", block_device_mapping_v2=[ROOT])
    await cloud.attach(server["id"], data["id"])
    await cloud.rest()
    (here,) = [host_id for (host_id, noun, name) in cloud.hosts.objects if (noun, name) == ("domain", server["id"])]
    return server["id"], here, data["id"]


async def is_on(cloud: VolumeCloud, server_id: str, host_id: str, but: str = "") -> None:
    """The domain is there and nowhere else, with both volumes, and only that host reaches them."""
    where = [one for (one, noun, name) in cloud.hosts.objects if (noun, name) == ("domain", server_id)]
    assert where == [host_id]
    assert len(cloud.disks(server_id)) == 2
    fence = cloud.api.cloud.fence
    for export in cloud.hosts.of("export").values():
        assert export.initiators == (fence.initiator(host_id),)
    every = (await cloud.call("GET", "/volumes/detail?all_tenants=1", token=cloud.admin)).json()["volumes"]
    found = [one for one in every if one["id"] != but]
    assert {one["attachments"][0]["host_name"] for one in found} == {f"name-{host_id}"}
    assert {one["status"] for one in found} == {"in-use"}


async def test_a_migrated_server_takes_its_volumes_along(cloud: VolumeCloud) -> None:
    server_id, here, data = await a_server_with_two(cloud)
    there = "h2" if here == "h1" else "h1"
    before = {name: export.chap for name, export in cloud.hosts.of("export").items()}
    reply = await cloud.compute("POST", f"/servers/{server_id}/action", {"migrate": None}, token=cloud.admin)
    assert reply.status_code == 202, reply.text
    await cloud.rest()
    await is_on(cloud, server_id, there)
    reply = await cloud.compute("POST", f"/servers/{server_id}/action", {"confirmResize": None})
    assert reply.status_code == 204, reply.text
    await cloud.rest()
    await is_on(cloud, server_id, there)
    assert all(before[name].secret != export.chap.secret for name, export in cloud.hosts.of("export").items())
    assert (await cloud.detach(server_id, data)).status_code == 202
    await cloud.rest()
    assert (await cloud.show(data))["status"] == "available"


async def test_a_reverted_migration_brings_the_volumes_back(cloud: VolumeCloud) -> None:
    server_id, here, _ = await a_server_with_two(cloud)
    for action, token in (("migrate", cloud.admin), ("revertResize", None)):
        reply = await cloud.compute("POST", f"/servers/{server_id}/action", {action: None}, token=token)
        assert reply.status_code == 202, reply.text
        await cloud.rest()
    await is_on(cloud, server_id, here)


async def test_a_migration_that_fails_leaves_the_volumes_where_they_were(cloud: VolumeCloud) -> None:
    server_id, here, _ = await a_server_with_two(cloud)
    there = "h2" if here == "h1" else "h1"
    cloud.hosts.refuse[there, "domain.ensure"] = Conflict("no")
    reply = await cloud.compute("POST", f"/servers/{server_id}/action", {"migrate": None}, token=cloud.admin)
    assert reply.status_code == 202, reply.text
    await cloud.rest()
    await is_on(cloud, server_id, here)


async def test_a_volume_that_waits_for_a_dead_host_follows_the_server(cloud: VolumeCloud) -> None:
    import asyncio

    import sqlalchemy as sa

    server_id, here, data = await a_server_with_two(cloud)
    there = "h2" if here == "h1" else "h1"
    coming = await cloud.make()
    cloud.hosts.silent.add(here)
    assert (await cloud.detach(server_id, data)).status_code == 202
    assert (await cloud.attach(server_id, coming["id"])).status_code == 200
    await asyncio.sleep(0.3)
    moved = await cloud.compute("POST", f"/servers/{server_id}/action", {"migrate": None}, token=cloud.admin)
    assert moved.status_code == 409, "a volume is on its way"
    await cloud.api.cloud.db.write(lambda tx: tx.execute(sa.update(host).where(host.c.id == here).values(up=False)))
    reply = await cloud.compute("POST", f"/servers/{server_id}/action", {"evacuate": {}}, token=cloud.admin)
    assert reply.status_code == 200, reply.text
    for _ in range(400):
        if (await cloud.show(data))["status"] == "available" and (await cloud.show(coming["id"]))["status"] == "in-use":
            break
        await asyncio.sleep(0.1)
    assert coming["id"] in cloud.disks(server_id)
    assert data not in cloud.disks(server_id)
    cloud.hosts.silent.clear()
    await cloud.rest()
    await is_on(cloud, server_id, there, but=data)


async def test_an_evacuated_server_shuts_its_dead_host_out(cloud: VolumeCloud) -> None:
    import sqlalchemy as sa

    server_id, here, _ = await a_server_with_two(cloud)
    there = "h2" if here == "h1" else "h1"
    cloud.hosts.silent.add(here)
    await cloud.api.cloud.db.write(lambda tx: tx.execute(sa.update(host).where(host.c.id == here).values(up=False)))
    reply = await cloud.compute("POST", f"/servers/{server_id}/action", {"evacuate": {}}, token=cloud.admin)
    assert reply.status_code in (200, 202), reply.text
    import asyncio

    for _ in range(200):
        if (there, "domain", server_id) in cloud.hosts.objects:
            break
        await asyncio.sleep(0.05)
    fence = cloud.api.cloud.fence
    for export in cloud.hosts.of("export").values():
        assert export.initiators == (fence.initiator(there),)
    cloud.hosts.silent.clear()
    await cloud.rest()
    await is_on(cloud, server_id, there)
