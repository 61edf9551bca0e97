"""Images of servers that boot from volumes: they name snapshots, and new servers are made of those."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from controller.image import store as image_store
from controller.image.model import Image
from tests.controller.compute import rows
from tests.controller.volume.cloud import VolumeCloud, volume_cloud

pytestmark = pytest.mark.timeout(60)

NOBODYS = "11111111-2222-4333-8444-555555555555"


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[VolumeCloud]:
    async with volume_cloud(tmp_path) as made:
        yield made


async def _pictured(cloud: VolumeCloud) -> tuple[str, Image]:
    """A server with two volumes, and its image."""
    data = await cloud.make()
    devices = [
        {
            "source_type": "image",
            "destination_type": "volume",
            "uuid": rows.IMAGE_ID,
            "boot_index": 0,
            "volume_size": 3,
        },
        {"source_type": "volume", "destination_type": "volume", "uuid": data["id"], "boot_index": -1},
    ]
    server = await cloud.boot(imageRef="", block_device_mapping_v2=devices)
    body: dict[str, Any] = {"createImage": {"name": "picture", "metadata": {"color": "blue"}}}
    reply = await cloud.compute("POST", f"/servers/{server['id']}/action", body)
    assert reply.status_code == 202, reply.text
    await cloud.rest()
    image: Image | None = await cloud.api.cloud.db.read(image_store.find, reply.json()["image_id"])
    assert image is not None
    return server["id"], image


async def test_an_image_of_a_server_from_a_volume_names_snapshots_of_all_its_volumes(cloud: VolumeCloud) -> None:
    server_id, image = await _pictured(cloud)
    assert (image.status, image.size, image.sha256, image.properties["color"]) == ("active", 0, None, "blue")
    devices = msgspec.json.decode(image.properties["block_device_mapping"])
    listed = (await cloud.call("GET", "/snapshots/detail")).json()["snapshots"]
    assert {one["snapshot_id"] for one in devices} == {one["id"] for one in listed}
    assert {one["status"] for one in listed} == {"available"}
    assert [(one["boot_index"], one["volume_size"]) for one in devices] == [(0, 3), (None, 1)]
    shown = (await cloud.compute("GET", f"/servers/{server_id}")).json()["server"]
    assert (shown["status"], shown["OS-EXT-STS:task_state"]) == ("ACTIVE", None)


async def test_a_server_of_such_an_image_has_volumes_of_its_own(cloud: VolumeCloud) -> None:
    server_id, image = await _pictured(cloud)
    second = await cloud.boot(imageRef=image.id)
    assert (second["status"], second["image"]) == ("ACTIVE", ""), second
    disks = cloud.hosts.of("domain")[second["id"]].disks
    assert [(disk.device, disk.boot_index) for disk in disks] == [("vda", 0), ("vdb", None)]
    first = {disk.iscsi.volume_id for disk in cloud.hosts.of("domain")[server_id].disks}
    assert not first & {disk.iscsi.volume_id for disk in disks}
    assert not cloud.hosts.of("disk")


async def test_what_has_no_data_is_no_root_disk_of_anything_else(cloud: VolumeCloud) -> None:
    _, image = await _pictured(cloud)
    plain = await cloud.boot()
    for action in ({"rebuild": {"imageRef": image.id}}, {"rescue": {"rescue_image_ref": image.id}}):
        reply = await cloud.compute("POST", f"/servers/{plain['id']}/action", action)
        assert reply.status_code == 400, reply.text
        assert "no data of its own" in reply.text


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "{}",
        "[]",
        '[{"source_type": "image", "destination_type": "volume", "boot_index": 0}]',
        '[{"source_type": "snapshot", "destination_type": "volume", "boot_index": 0}]',
        f'[{{"source_type": "snapshot", "destination_type": "volume", "boot_index": 0, "snapshot_id": "{NOBODYS}"}}]',
        '[{"boot_index": "0"}]',
    ],
)
async def test_an_image_that_names_nonsense_boots_nothing(cloud: VolumeCloud, text: str) -> None:
    _, image = await _pictured(cloud)
    properties = {**image.properties, "block_device_mapping": text}
    await cloud.api.cloud.db.write(image_store.update, image.id, 1.0, properties=properties)
    reply = await cloud.post_server(imageRef=image.id)
    assert reply.status_code == 400, reply.text
