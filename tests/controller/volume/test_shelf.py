"""Servers with volumes go to the shelf and come back: no host reaches the volumes meanwhile."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from controller import errors
from controller.image import store as image_store
from controller.image.model import Status
from tests.controller.compute import rows
from tests.controller.volume.cloud import VolumeCloud, volume_cloud

pytestmark = pytest.mark.timeout(60)

ROOT = {"source_type": "image", "destination_type": "volume", "uuid": rows.IMAGE_ID, "boot_index": 0, "volume_size": 1}


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[VolumeCloud]:
    async with volume_cloud(tmp_path) as made:
        database: Any = made.api.cloud.db
        ready = {"size": 1 << 20, "virtual_size": 1 << 30, "sha256": "cd" * 32, "status": Status.ACTIVE}
        made.hosts.deliver = lambda image_id: database.build(
            lambda tx: image_store.update(tx, image_id, 1010.0, **ready)
        )
        yield made


async def _acted(cloud: VolumeCloud, server_id: str, action: str) -> str:
    reply = await cloud.compute("POST", f"/servers/{server_id}/action", {action: None})
    assert reply.status_code == 202, reply.text
    await cloud.rest()
    return str((await cloud.server(server_id))["status"])


def _initiators(cloud: VolumeCloud) -> list[tuple[str, ...]]:
    return [spec.initiators for spec in cloud.hosts.of("export").values()]


@pytest.mark.parametrize("changes", [{}, {"imageRef": "", "block_device_mapping_v2": [ROOT]}])
async def test_a_server_leaves_its_host_without_its_volumes_and_finds_them_again(
    cloud: VolumeCloud, changes: dict[str, Any]
) -> None:
    server_id = (await cloud.boot(**changes))["id"]
    data = await cloud.make()
    assert (await cloud.attach(server_id, data["id"])).status_code == 200
    await cloud.rest()
    before = cloud.disks(server_id)
    assert await _acted(cloud, server_id, "shelve") == "SHELVED_OFFLOADED"
    assert set(_initiators(cloud)) == {()}
    assert not cloud.hosts.of("domain")
    assert (await cloud.show(data["id"]))["status"] == "in-use"
    assert await _acted(cloud, server_id, "unshelve") == "ACTIVE"
    assert cloud.disks(server_id) == before
    assert all(len(initiators) == 1 for initiators in _initiators(cloud))
    assert not cloud.hosts.broken


async def test_who_cannot_come_back_reaches_no_volume(cloud: VolumeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    data = await cloud.make()
    assert (await cloud.attach(server_id, data["id"])).status_code == 200
    await cloud.rest()
    await _acted(cloud, server_id, "shelve")
    for host_id in ("h1", "h2", "s1"):
        cloud.hosts.refuse[host_id, "domain.ensure"] = errors.Conflict("It cannot be.", why={"code": "unfit"})
    assert await _acted(cloud, server_id, "unshelve") == "SHELVED_OFFLOADED"
    assert set(_initiators(cloud)) == {()}
    cloud.hosts.refuse.clear()
    assert (await cloud.compute("DELETE", f"/servers/{server_id}")).status_code == 204
    await cloud.rest()
    assert not cloud.hosts.of("export")
