"""Bytes that a host brings: held to all that a user's upload is."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller import quota
from controller.db.tx import Tx
from controller.errors import Conflict, NotFound, OverQuota, UnsupportedMedia
from controller.identity.api.routes import SERVICE as IDENTITY
from controller.image import store, uploads
from controller.image.api.routes import SERVICE
from controller.image.model import Status
from controller.image.stores import Files
from tests.api.clouds import ApiCloud, api_cloud
from tests.controller.image.test_images import RAW, an_image, qcow2


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[ApiCloud]:
    async with api_cloud(tmp_path / "keys", (IDENTITY, SERVICE)) as made:
        made.cloud.images = Files(tmp_path / "images", made.cloud.world.threads)
        yield made


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for begin in range(0, len(data), 100_000):
        yield data[begin : begin + 100_000]


async def test_a_host_brings_the_bytes_of_a_queued_image(api: ApiCloud) -> None:
    _, _, token = await api.a_member(await api.admin())
    image_id = (await an_image(api, token))["id"]
    await uploads.take(api.cloud, image_id, pieces(RAW), len(RAW))
    found = await api.cloud.db.read(store.find, image_id)
    assert found is not None
    assert (found.status, found.sha256) == (Status.ACTIVE, hashlib.sha256(RAW).hexdigest())
    with pytest.raises(Conflict):
        await uploads.take(api.cloud, image_id, pieces(RAW), len(RAW))
    with pytest.raises(NotFound):
        await uploads.take(api.cloud, "no-image", pieces(RAW), len(RAW))


async def test_a_guests_disk_is_not_trusted(api: ApiCloud) -> None:
    _, _, token = await api.a_member(await api.admin())
    image_id = (await an_image(api, token, disk_format="qcow2"))["id"]
    with pytest.raises(UnsupportedMedia):
        await uploads.take(api.cloud, image_id, pieces(qcow2(backing=b"/etc/shadow")), None)
    found = await api.cloud.db.read(store.find, image_id)
    assert found is not None and found.status is Status.QUEUED


async def test_it_is_charged_to_the_images_owner(api: ApiCloud) -> None:
    _, project_id, token = await api.a_member(await api.admin())
    image_id = (await an_image(api, token))["id"]

    def limit(tx: Tx) -> None:
        quota.set_limits(tx, project_id, "image", {"image_size_total": 0})

    await api.cloud.db.write(limit)
    with pytest.raises(OverQuota):
        await uploads.take(api.cloud, image_id, pieces(RAW), len(RAW))
