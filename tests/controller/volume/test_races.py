"""Requests that meet, on both databases: quotas, pools and attachments are exact, and nobody sees a failure of ours."""

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.controller.volume.cloud import GIB_OF_POOL, VolumeCloud, volume_cloud
from tests.databases import AnyDatabase, race

CALLERS = 50


@pytest.fixture
async def cloud(tmp_path: Path, database: AnyDatabase) -> AsyncIterator[VolumeCloud]:
    async with volume_cloud(tmp_path / "cloud", database, runs=False) as made:
        yield made


async def statuses(count: int, request: Any) -> Counter[int]:
    """What so many at once were answered."""
    found: Counter[int] = Counter()
    for answer in await race(count, request):
        assert not isinstance(answer, Exception), answer
        assert answer.status_code < 500, answer.text
        found[answer.status_code] += 1
    return found


async def limit(cloud: VolumeCloud, **limits: int) -> None:
    body = {"quota_set": limits}
    reply = await cloud.call("PUT", f"/os-quota-sets/{cloud.project_id}", body, token=cloud.admin)
    assert reply.status_code == 200, reply.text


async def test_a_quota_of_three_volumes_gives_three(cloud: VolumeCloud) -> None:
    await limit(cloud, volumes=3)
    body = {"volume": {"size": 1}}
    assert await statuses(CALLERS, lambda _: cloud.call("POST", "/volumes", body)) == {202: 3, 413: CALLERS - 3}
    assert len((await cloud.call("GET", "/volumes")).json()["volumes"]) == 3


async def test_a_quota_of_gigabytes_is_shared_by_making_and_extending(cloud: VolumeCloud) -> None:
    async with cloud.api.cloud.sagas:
        made = [await cloud.make(size=1) for _ in range(4)]
    await limit(cloud, gigabytes=7)

    async def request(number: int) -> Any:
        if number % 2:
            return await cloud.call("POST", "/volumes", {"volume": {"size": 1}})
        return await cloud.act(made[number // 2 % 4]["id"], "os-extend", {"new_size": 2})

    found = await statuses(16, request)
    assert found[202] == 3, found
    usage = (await cloud.call("GET", f"/os-quota-sets/{cloud.project_id}?usage=1")).json()["quota_set"]["gigabytes"]
    assert usage["in_use"] == 7


async def test_a_pool_is_never_promised_beyond_what_it_has(cloud: VolumeCloud) -> None:
    """Each claim is a saga's step; the pool takes 90 of its 100 GiB."""
    size = GIB_OF_POOL * 9 // 10 // 3
    body = {"volume": {"size": size}}
    assert await statuses(12, lambda _: cloud.call("POST", "/volumes", body)) == {202: 12}
    async with cloud.api.cloud.sagas:
        await cloud.rest()
    found = (await cloud.call("GET", "/volumes/detail")).json()["volumes"]
    assert Counter(one["status"] for one in found) == {"available": 3, "error": 9}
    assert len(cloud.hosts.of("volume")) == 3


async def test_one_volume_goes_to_one_of_many_servers(cloud: VolumeCloud) -> None:
    async with cloud.api.cloud.sagas:
        made = await cloud.make()
        servers = [await cloud.boot() for _ in range(5)]
    found = await statuses(CALLERS, lambda number: cloud.attach(servers[number % 5]["id"], made["id"]))
    assert found[200] == 1, found
    async with cloud.api.cloud.sagas:
        await cloud.rest()
    assert sum(cloud.disks(server["id"]) == [made["id"]] for server in servers) == 1
    assert not cloud.hosts.broken, cloud.hosts.broken


async def test_devices_of_one_server_are_taken_once_each(cloud: VolumeCloud) -> None:
    async with cloud.api.cloud.sagas:
        server = await cloud.boot()
        made = [await cloud.make() for _ in range(8)]
    assert await statuses(8, lambda number: cloud.attach(server["id"], made[number]["id"])) == {200: 8}
    path = f"/servers/{server['id']}/os-volume_attachments"
    devices = [one["device"] for one in (await cloud.compute("GET", path)).json()["volumeAttachments"]]
    assert sorted(devices) == [f"/dev/vd{letter}" for letter in "bcdefghi"]


async def test_a_volume_is_deleted_or_attached_and_never_both(cloud: VolumeCloud) -> None:
    async with cloud.api.cloud.sagas:
        server = await cloud.boot()
        made = [await cloud.make() for _ in range(6)]
    for one in made:
        answers = await race(
            4,
            lambda number, one=one: (  # type: ignore[misc]
                cloud.call("DELETE", f"/volumes/{one['id']}") if number % 2 else cloud.attach(server["id"], one["id"])
            ),
        )
        good = [answer for answer in answers if not isinstance(answer, Exception) and answer.status_code < 300]
        assert len(good) == 1, answers
    async with cloud.api.cloud.sagas:
        await cloud.rest()
    assert not cloud.hosts.broken, cloud.hosts.broken
    left = (await cloud.call("GET", "/volumes/detail")).json()["volumes"]
    assert {one["status"] for one in left} <= {"in-use"}
    assert sorted(cloud.disks(server["id"])) == sorted(one["id"] for one in left)


async def test_every_list_can_be_filtered_and_sorted_by_all_it_offers(cloud: VolumeCloud) -> None:
    from controller.volume.api import queries

    async with cloud.api.cloud.sagas:
        made = await cloud.make(name="a", metadata={"k": "v"})
        await cloud.snapshot(made["id"], name="s", metadata={"k": "v"})
        await cloud.make(size=95)
    reserved = await cloud.call("POST", "/attachments", {"attachment": {"volume_uuid": made["id"]}})
    assert reserved.status_code == 200, reserved.text
    lists = {
        "volumes/detail": (queries.VOLUMES, queries.VOLUME_SORTS),
        "snapshots": (queries.SNAPSHOTS, queries.SNAPSHOT_SORTS),
        "attachments": (queries.ATTACHMENTS, queries.ATTACHMENT_SORTS),
        "messages": (queries.MESSAGES, queries.MESSAGE_SORTS),
        "types": ({}, queries.TYPE_SORTS),
    }
    dicts = {"metadata", "glance_metadata"}
    numbers = {"size", "volume_size"}
    flags = {"bootable", "multiattach", "consumes_quota"}
    for path, (filters, sorts) in lists.items():
        for key in sorts:
            reply = await cloud.call("GET", f"/{path}?sort={key}:desc&limit=1")
            assert reply.status_code == 200, (path, key, reply.text)
        for key in filters:
            times = "gt:2020-01-01T00:00:00"
            value = (
                "{'k': 'v'}"
                if key in dicts
                else "1"
                if key in numbers
                else "true"
                if key in flags
                else times
                if key.endswith("_at")
                else "x"
            )
            reply = await cloud.call("GET", f"/{path}?{key}={value}")
            assert reply.status_code == 200, (path, key, reply.text)
