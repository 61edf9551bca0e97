"""Servers with volumes that get another size on another host."""

import sqlalchemy as sa

from controller.db.tables.fleet import host
from controller.errors import Conflict
from tests.controller.volume.cloud import VolumeCloud
from tests.controller.volume.test_moving import a_server_with_two, cloud, is_on

__all__ = ["cloud"]


async def _resized(cloud: VolumeCloud, server_id: str, here: str) -> None:
    await cloud.api.cloud.db.write(
        lambda tx: tx.execute(sa.update(host).where(host.c.id == here).values(disabled=True))
    )
    await _act(cloud, server_id, "resize", {"flavorRef": "2"})


async def _act(cloud: VolumeCloud, server_id: str, action: str, value: object = None) -> None:
    reply = await cloud.compute("POST", f"/servers/{server_id}/action", {action: value})
    assert reply.status_code in (202, 204), reply.text
    await cloud.rest()


async def _size(cloud: VolumeCloud, server_id: str) -> tuple[str, int]:
    shown = (await cloud.compute("GET", f"/servers/{server_id}")).json()["server"]
    return shown["status"], shown["flavor"]["ram"]


async def test_a_server_that_boots_from_a_volume_takes_its_volumes_along_and_back(cloud: VolumeCloud) -> None:
    server_id, here, _ = await a_server_with_two(cloud)
    there = "h2" if here == "h1" else "h1"
    await _resized(cloud, server_id, here)
    assert await _size(cloud, server_id) == ("VERIFY_RESIZE", 512)
    await is_on(cloud, server_id, there)
    await _act(cloud, server_id, "revertResize")
    assert await _size(cloud, server_id) == ("ACTIVE", 128)
    await is_on(cloud, server_id, here)
    await _resized(cloud, server_id, here)
    await _act(cloud, server_id, "confirmResize")
    assert await _size(cloud, server_id) == ("ACTIVE", 512)
    await is_on(cloud, server_id, there)
    assert not cloud.hosts.of("disk")


async def test_a_resize_that_fails_elsewhere_leaves_the_volumes_where_they_were(cloud: VolumeCloud) -> None:
    server_id, here, _ = await a_server_with_two(cloud)
    there = "h2" if here == "h1" else "h1"
    cloud.hosts.refuse[there, "domain.ensure"] = Conflict("no")
    await _resized(cloud, server_id, here)
    assert await _size(cloud, server_id) == ("ACTIVE", 128)
    await is_on(cloud, server_id, here)


async def test_a_volume_that_is_just_coming_is_waited_for(cloud: VolumeCloud) -> None:
    server_id, here, _ = await a_server_with_two(cloud)
    there = "h2" if here == "h1" else "h1"
    coming = await cloud.make()
    cloud.hosts.silent.add("s1")
    assert (await cloud.attach(server_id, coming["id"])).status_code == 200
    await cloud.api.cloud.db.write(
        lambda tx: tx.execute(sa.update(host).where(host.c.id == here).values(disabled=True))
    )
    reply = await cloud.compute("POST", f"/servers/{server_id}/action", {"resize": {"flavorRef": "2"}})
    assert reply.status_code == 202, reply.text
    cloud.hosts.silent.clear()
    await cloud.rest()
    assert await _size(cloud, server_id) == ("VERIFY_RESIZE", 512)
    assert len(cloud.disks(server_id)) == 3
    fence = cloud.api.cloud.fence
    assert {one.initiators for one in cloud.hosts.of("export").values()} == {(fence.initiator(there),)}
