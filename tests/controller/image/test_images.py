"""The image API over HTTP: lives of images, what uploads refuse, who sees what."""

import asyncio
import hashlib
import json
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from controller.identity.api.routes import SERVICE as IDENTITY
from controller.image import inspectors, uploads
from controller.image.api.routes import SERVICE
from controller.image.stores import Files
from controller.image.uploads import LEASE_S, LOOK_BYTES
from controller.tasks import image_gc
from tests.api.clouds import ApiCloud, api_cloud

PATCH = "application/openstack-images-v2.1-json-patch"
OLD_PATCH = "application/openstack-images-v2.0-json-patch"
MIB = 1 << 20
RAW = bytes(range(256)) * 4096


def qcow2(*, virtual_bytes: int = 1 << 30, backing: bytes = b"", incompatible: int = 0) -> bytes:
    """A qcow2 header (version 3) as small as inspectors accept, with what an attacker would put into it."""
    header = bytearray(65536)
    backing_at = 4096 if backing else 0
    struct.pack_into(
        ">4sIQIIQIIQQIIQQQQII",
        header,
        0,
        b"QFI\xfb",
        3,
        backing_at,
        len(backing),
        16,
        virtual_bytes,
        0,
        1,
        65536,
        131072,
        1,
        0,
        0,
        incompatible,
        0,
        0,
        4,
        104,
    )
    if backing:
        header[backing_at : backing_at + len(backing)] = backing
    return bytes(header) + bytes(65536)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[ApiCloud]:
    async with api_cloud(tmp_path / "keys", (IDENTITY, SERVICE)) as made:
        made.cloud.images = Files(tmp_path / "images", made.cloud.world.threads)
        yield made


async def an_image(api: ApiCloud, token: str, **values: Any) -> dict[str, Any]:
    body = {"name": "i", "disk_format": "raw", "container_format": "bare", **values}
    reply = await api.call("POST", "/image/v2/images", token, json=body)
    assert reply.status_code == 201, reply.text
    found: dict[str, Any] = reply.json()
    return found


async def upload(api: ApiCloud, token: str, image_id: str, data: bytes | AsyncIterator[bytes]) -> Any:
    headers = {"Content-Type": "application/octet-stream"}
    return await api.call("PUT", f"/image/v2/images/{image_id}/file", token, content=data, headers=headers)


async def test_an_image_is_queued_then_active_and_its_bytes_come_back(api: ApiCloud) -> None:
    _, _, token = await api.a_member(await api.admin())
    made = await an_image(api, token, os_distro="tiny")
    assert (made["status"], made["size"], made["visibility"], made["os_distro"]) == ("queued", None, "shared", "tiny")
    assert (await api.call("GET", f"/image/v2/images/{made['id']}/file", token)).status_code == 204
    assert (await upload(api, token, made["id"], RAW)).status_code == 204
    shown = (await api.call("GET", f"/image/v2/images/{made['id']}", token)).json()
    assert (shown["status"], shown["size"], shown["virtual_size"]) == ("active", len(RAW), len(RAW))
    assert shown["checksum"] == hashlib.md5(RAW).hexdigest()
    assert (shown["os_hash_algo"], shown["os_hash_value"]) == ("sha256", hashlib.sha256(RAW).hexdigest())
    got = await api.call("GET", f"/image/v2/images/{made['id']}/file", token)
    assert got.content == RAW and got.headers["content-md5"] == shown["checksum"]


async def test_bytes_of_an_active_image_cannot_be_replaced(api: ApiCloud) -> None:
    _, _, token = await api.a_member(await api.admin())
    made = await an_image(api, token)
    assert (await upload(api, token, made["id"], RAW)).status_code == 204
    assert (await upload(api, token, made["id"], b"other")).status_code == 409


@pytest.mark.parametrize(
    ("declared", "data"),
    [
        ("raw", qcow2()),
        ("qcow2", RAW),
        ("qcow2", qcow2(backing=b"/etc/shadow")),
        ("qcow2", qcow2(incompatible=4)),  # External data file.
        ("qcow2", qcow2(incompatible=1 << 40)),  # A feature nobody knows.
        ("qcow2", qcow2(virtual_bytes=8 << 60)),
        ("qcow2", qcow2()[:40]),
    ],
    ids=["qcow2-as-raw", "raw-as-qcow2", "backing-file", "data-file", "unknown-feature", "8-EiB", "truncated"],
)
async def test_what_is_not_what_was_declared_is_refused_and_leaves_nothing(
    api: ApiCloud, tmp_path: Path, declared: str, data: bytes
) -> None:
    _, _, token = await api.a_member(await api.admin())
    made = await an_image(api, token, disk_format=declared)
    reply = await upload(api, token, made["id"], data)
    assert reply.status_code == 415, reply.text
    assert (await api.call("GET", f"/image/v2/images/{made['id']}", token)).json()["status"] == "queued"
    assert list((tmp_path / "images").iterdir()) == []


async def test_an_upload_that_nobody_can_look_at_is_asked_to_come_again(
    api: ApiCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, token = await api.a_member(await api.admin())
    made = await an_image(api, token)
    with monkeypatch.context() as broken:
        broken.setattr(inspectors.sys, "executable", "/nonexistent")
        assert (await upload(api, token, made["id"], RAW)).status_code == 503
    assert (await api.call("GET", f"/image/v2/images/{made['id']}", token)).json()["status"] == "queued"
    assert list((tmp_path / "images").iterdir()) == []
    assert (await upload(api, token, made["id"], RAW)).status_code == 204


async def test_a_plain_qcow2_passes_with_its_virtual_size(api: ApiCloud) -> None:
    _, _, token = await api.a_member(await api.admin())
    made = await an_image(api, token, disk_format="qcow2")
    assert (await upload(api, token, made["id"], qcow2(virtual_bytes=3 << 30))).status_code == 204
    assert (await api.call("GET", f"/image/v2/images/{made['id']}", token)).json()["virtual_size"] == 3 << 30


async def test_another_project_sees_nothing_of_a_private_image(api: ApiCloud) -> None:
    admin = await api.admin()
    _, _, mine = await api.a_member(admin, "a")
    _, _, theirs = await api.a_member(admin, "b")
    made = await an_image(api, mine, visibility="private")
    path = f"/image/v2/images/{made['id']}"
    for method, where in (("GET", path), ("DELETE", path), ("GET", f"{path}/file"), ("PUT", f"{path}/tags/x")):
        assert (await api.call(method, where, theirs)).status_code == 404
    assert (await api.call("GET", "/image/v2/images", theirs)).json()["images"] == []


async def test_a_shared_image_is_listed_only_once_it_was_accepted(api: ApiCloud) -> None:
    admin = await api.admin()
    _, _, mine = await api.a_member(admin, "a")
    _, other, theirs = await api.a_member(admin, "b")
    made = await an_image(api, mine)
    members = f"/image/v2/images/{made['id']}/members"
    assert (await api.call("POST", members, mine, json={"member": other})).status_code == 200
    assert (await api.call("GET", f"/image/v2/images/{made['id']}", theirs)).status_code == 200
    assert (await api.call("GET", "/image/v2/images", theirs)).json()["images"] == []
    assert (await api.call("PUT", f"{members}/{other}", mine, json={"status": "accepted"})).status_code == 403
    assert (await api.call("PUT", f"{members}/{other}", theirs, json={"status": "accepted"})).status_code == 200
    listed = (await api.call("GET", "/image/v2/images", theirs)).json()["images"]
    assert [one["id"] for one in listed] == [made["id"]]
    assert (await api.call("DELETE", f"/image/v2/images/{made['id']}", theirs)).status_code == 403


async def test_a_member_cannot_make_an_image_public(api: ApiCloud) -> None:
    _, _, token = await api.a_member(await api.admin())
    body = {"name": "i", "visibility": "public"}
    assert (await api.call("POST", "/image/v2/images", token, json=body)).status_code == 403


async def test_json_patch(api: ApiCloud) -> None:
    _, _, token = await api.a_member(await api.admin())
    path = f"/image/v2/images/{(await an_image(api, token, colour='red'))['id']}"

    async def patch(*operations: dict[str, Any], media: str = PATCH) -> Any:
        content = json.dumps(operations)
        return await api.call("PATCH", path, token, content=content, headers={"Content-Type": media})

    done = await patch(
        {"op": "replace", "path": "/name", "value": "n"},
        {"op": "add", "path": "/a~1b", "value": "x"},
        {"op": "remove", "path": "/colour"},
    )
    assert done.status_code == 200, done.text
    assert (done.json()["name"], done.json()["a/b"], "colour" in done.json()) == ("n", "x", False)
    assert (await patch({"op": "replace", "path": "/nothing", "value": "x"})).status_code == 409
    assert (await patch({"op": "replace", "path": "/status", "value": "active"})).status_code == 403
    assert (await patch({"op": "add", "path": "/os_glance_x", "value": "y"})).status_code == 403
    reserved = await api.call("POST", "/image/v2/images", token, json={"os_glance_x": "y"})
    assert reserved.status_code == 403
    assert (await patch({"op": "replace", "path": "/name", "value": 7})).status_code == 400
    assert (await patch(media="application/json")).status_code == 415


async def test_the_older_patch_says_the_same_in_other_keys(api: ApiCloud) -> None:
    _, _, token = await api.a_member(await api.admin())
    path = f"/image/v2/images/{(await an_image(api, token, colour='red'))['id']}"

    async def patch(*operations: dict[str, Any], media: str = OLD_PATCH) -> Any:
        content = json.dumps(operations)
        return await api.call("PATCH", path, token, content=content, headers={"Content-Type": media})

    done = await patch({"replace": "/name", "value": "n"}, {"add": "/x", "value": "y"}, {"remove": "/colour"})
    assert done.status_code == 200, done.text
    assert (done.json()["name"], done.json()["x"], "colour" in done.json()) == ("n", "y", False)
    for mixed in ({"op": "replace", "path": "/name"}, {"add": "/a", "remove": "/x"}, {"value": "x"}):
        assert (await patch({"value": "z", **mixed})).status_code == 400, mixed
    assert (await patch({"replace": "/name", "value": "n"}, media=PATCH)).status_code == 400


async def test_an_image_is_out_of_use_for_as_long_as_its_owner_wants(api: ApiCloud) -> None:
    admin = await api.admin()
    _, _, token = await api.a_member(admin)
    _, _, stranger = await api.a_member(admin, "stranger")
    path = f"/image/v2/images/{(await an_image(api, admin, visibility='public'))['id']}"
    own = f"/image/v2/images/{(await an_image(api, token))['id']}"
    for one in (path, own):
        media = {"Content-Type": "application/octet-stream"}
        upload = await api.call("PUT", f"{one}/file", admin, content=RAW, headers=media)
        assert upload.status_code == 204
    assert (await api.call("POST", f"{path}/actions/deactivate", stranger)).status_code == 403
    assert (await api.call("POST", f"{own}/actions/deactivate", stranger)).status_code == 404
    assert (await api.call("POST", f"{own}/actions/deactivate", token)).status_code == 204
    assert (await api.call("GET", f"{own}/file", token)).status_code == 403
    assert (await api.call("POST", f"{own}/actions/reactivate", token)).status_code == 204
    assert (await api.call("GET", f"{own}/file", token)).content == RAW


async def test_only_administrators_give_an_image_to_another_project(api: ApiCloud) -> None:
    admin = await api.admin()
    _, project_id, token = await api.a_member(admin)
    _, _, stranger = await api.a_member(admin, "stranger")
    path = f"/image/v2/images/{(await an_image(api, stranger))['id']}"
    content = json.dumps([{"op": "replace", "path": "/owner", "value": project_id}])
    headers = {"Content-Type": PATCH}
    assert (await api.call("PATCH", path, stranger, content=content, headers=headers)).status_code == 403
    assert (await api.call("PATCH", path, admin, content=content, headers=headers)).status_code == 200
    assert (await api.call("GET", path, token)).json()["owner"] == project_id
    assert (await api.call("GET", path, stranger)).status_code == 404


async def test_an_empty_id_is_no_image(api: ApiCloud) -> None:
    token = await api.admin()
    for method in ("GET", "DELETE"):
        assert (await api.call(method, "/image/v2/images/", token)).status_code == 404


async def test_a_deleted_id_is_never_used_again(api: ApiCloud) -> None:
    _, _, token = await api.a_member(await api.admin())
    made = await an_image(api, token)
    assert (await api.call("DELETE", f"/image/v2/images/{made['id']}", token)).status_code == 204
    assert (await api.call("DELETE", f"/image/v2/images/{made['id']}", token)).status_code == 404
    again = await api.call("POST", "/image/v2/images", token, json={"id": made["id"]})
    assert again.status_code == 409


async def test_a_protected_image_stays(api: ApiCloud) -> None:
    _, _, token = await api.a_member(await api.admin())
    made = await an_image(api, token, protected=True)
    assert (await api.call("DELETE", f"/image/v2/images/{made['id']}", token)).status_code == 403


async def test_lists_page_filter_and_sort(api: ApiCloud) -> None:
    _, _, token = await api.a_member(await api.admin())
    for name in ("c", "a", "b"):
        await an_image(api, token, name=name, group=name, tags=["t" + name])

    async def names(query: str) -> list[str]:
        reply = await api.call("GET", f"/image/v2/images?{query}", token)
        assert reply.status_code == 200, reply.text
        return [one["name"] for one in reply.json()["images"]]

    assert await names("sort_key=name&sort_dir=asc") == ["a", "b", "c"]
    assert await names("name=in:a,b&sort=name:desc") == ["b", "a"]
    assert await names("group=c") == ["c"]
    assert await names("tag=tb") == ["b"]
    assert await names("size_min=1") == []
    with_bytes = await an_image(api, token, name="d")
    assert (await upload(api, token, with_bytes["id"], RAW)).status_code == 204
    digests = {"checksum": hashlib.md5(RAW).hexdigest(), "os_hash_value": hashlib.sha256(RAW).hexdigest()}
    for query in (f"size={len(RAW)}", *(f"{key}={value}" for key, value in digests.items())):
        assert await names(query) == ["d"], query
    assert await names("size=7") == []
    assert (await api.call("DELETE", f"/image/v2/images/{with_bytes['id']}", token)).status_code == 204
    first = (await api.call("GET", "/image/v2/images?limit=2&sort_key=name&sort_dir=asc", token)).json()
    assert first["next"].startswith("/v2/images?")
    assert await names(first["next"].partition("?")[2]) == ["c"]
    for bad in ("limit=-1", "marker=nope", "visibility=odd", "sort_key=secret", "size_min=x", "created_at=gt:noon"):
        assert (await api.call("GET", f"/image/v2/images?{bad}", token)).status_code == 400, bad


async def test_quota_is_reserved_before_bytes_are_written(api: ApiCloud) -> None:
    from controller import quota

    _, project_id, token = await api.a_member(await api.admin())
    await api.cloud.db.write(quota.set_limits, project_id, "image", {"image_size_total": 1})
    first, second = await an_image(api, token), await an_image(api, token)
    assert (await upload(api, token, first["id"], RAW)).status_code == 204
    assert (await upload(api, token, second["id"], RAW)).status_code == 413
    assert (await api.call("DELETE", f"/image/v2/images/{first['id']}", token)).status_code == 204
    assert (await upload(api, token, second["id"], RAW)).status_code == 204


async def _bytes(*chunks: bytes, gate: asyncio.Event | None = None) -> AsyncIterator[bytes]:
    """A body in pieces; the last one only when the gate opens."""
    for chunk in chunks[:-1]:
        yield chunk
    if gate is not None:
        await gate.wait()
    yield chunks[-1]


async def test_an_upload_that_lost_its_lease_changes_nothing_of_the_next_one(api: ApiCloud) -> None:
    _, _, token = await api.a_member(await api.admin())
    image = await an_image(api, token)
    late, early = asyncio.Event(), asyncio.Event()
    first = asyncio.create_task(upload(api, token, image["id"], _bytes(b"a" * 512, b"a" * 512, gate=late)))
    await asyncio.sleep(0.1)
    api.clock.time += LEASE_S + 1
    assert (await image_gc.run(api.cloud))["requeued"] == 1
    second = asyncio.create_task(upload(api, token, image["id"], _bytes(b"b" * 512, b"b" * 512, gate=early)))
    await asyncio.sleep(0.1)
    late.set()
    assert (await first).status_code == 410
    early.set()
    assert (await second).status_code == 204
    shown = (await api.call("GET", f"/image/v2/images/{image['id']}", token)).json()
    data = (await api.call("GET", f"/image/v2/images/{image['id']}/file", token)).content
    assert (data, shown["os_hash_value"]) == (b"b" * 1024, hashlib.sha256(b"b" * 1024).hexdigest())
    assert list(await api.cloud.images.stored()) == [image["id"]]


async def test_of_two_uploads_at_once_one_is_taken(api: ApiCloud) -> None:
    _, _, token = await api.a_member(await api.admin())
    image = await an_image(api, token)
    bodies = [bytes([n]) * 4096 for n in range(8)]
    replies = await asyncio.gather(*(upload(api, token, image["id"], body) for body in bodies))
    assert sorted(reply.status_code for reply in replies) == [204] + [409] * 7
    taken = next(body for body, reply in zip(bodies, replies, strict=True) if reply.status_code == 204)
    assert (await api.call("GET", f"/image/v2/images/{image['id']}/file", token)).content == taken


async def test_an_image_deleted_during_its_upload_ends_it_soon_and_leaves_nothing(api: ApiCloud) -> None:
    _, _, token = await api.a_member(await api.admin())
    image = await an_image(api, token)
    gate, sent = asyncio.Event(), 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield bytes(MIB)
        await gate.wait()
        for _ in range(1000):
            sent += 1
            yield bytes(MIB)

    running = asyncio.create_task(upload(api, token, image["id"], endless()))
    await asyncio.sleep(0.1)
    assert (await api.call("DELETE", f"/image/v2/images/{image['id']}", token)).status_code == 204
    gate.set()
    assert (await running).status_code == 410
    assert sent <= LOOK_BYTES // MIB
    assert await api.cloud.images.stored() == {}


async def test_an_upload_that_stands_still_is_ended(api: ApiCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "IDLE_S", 0.05)
    _, _, token = await api.a_member(await api.admin())
    image = await an_image(api, token)
    reply = await upload(api, token, image["id"], _bytes(b"a", b"b", gate=asyncio.Event()))
    assert reply.status_code == 400
    assert (await api.call("GET", f"/image/v2/images/{image['id']}", token)).json()["status"] == "queued"
    assert await api.cloud.images.stored() == {}
