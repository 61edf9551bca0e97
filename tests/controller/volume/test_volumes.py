"""Volumes and snapshots through the API, from request to host."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.wire.volume import SourceKind
from controller.errors import Unavailable
from controller.volume.store import pools, volumes
from tests.controller.compute import rows
from tests.controller.volume.cloud import VolumeCloud, told, volume_cloud


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[VolumeCloud]:
    async with volume_cloud(tmp_path) as made:
        yield made
        assert not made.hosts.broken, made.hosts.broken


@pytest.fixture
async def still_cloud(tmp_path: Path) -> AsyncIterator[VolumeCloud]:
    async with volume_cloud(tmp_path, runs=False) as made:
        yield made


async def test_a_volume_is_there_when_post_returns_and_available_when_its_saga_is_done(cloud: VolumeCloud) -> None:
    made = await cloud.post(name="data", size=2, metadata={"a": "b"})
    assert made["status"] == "creating"
    assert (await cloud.show(made["id"]))["name"] == "data"
    await cloud.rest()
    after = await cloud.show(made["id"])
    assert (after["status"], after["size"], after["bootable"], after["metadata"]) == (
        "available",
        2,
        "false",
        {"a": "b"},
    )
    assert after["volume_type"] == "__DEFAULT__"
    assert "os-vol-host-attr:host" not in after
    assert (await cloud.show(made["id"], token=cloud.admin))["os-vol-host-attr:host"] == "name-s1@files#files"
    spec = cloud.hosts.of("volume")[made["id"]]
    assert (spec.size_gib, spec.pool, spec.source.kind) == (2, "files", SourceKind.NONE)


async def test_a_volume_begins_as_an_image_and_says_so(cloud: VolumeCloud) -> None:
    made = await cloud.make(imageRef=rows.IMAGE_ID, size=2)
    assert (made["status"], made["bootable"]) == ("available", "true")
    assert made["volume_image_metadata"]["image_id"] == rows.IMAGE_ID
    source = cloud.hosts.of("volume")[made["id"]].source
    assert source.kind is SourceKind.IMAGE
    assert source.id in cloud.hosts.of("image")


async def test_a_volume_begins_as_a_snapshot_or_another_volume_where_that_lies(cloud: VolumeCloud) -> None:
    first = await cloud.make(imageRef=rows.IMAGE_ID, size=2)
    taken = await cloud.snapshot(first["id"])
    assert taken["status"] == "available"
    from_snapshot = await cloud.make(snapshot_id=taken["id"], size=None)
    from_volume = await cloud.make(source_volid=first["id"], size=3)
    assert (from_snapshot["size"], from_snapshot["bootable"], from_snapshot["snapshot_id"]) == (2, "true", taken["id"])
    assert (from_volume["size"], from_volume["source_volid"]) == (3, first["id"])
    for made, what in ((from_snapshot, taken["id"]), (from_volume, first["id"])):
        assert cloud.hosts.of("volume")[made["id"]].source.id == what


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"size": None}, "needs a size"),
        ({"size": 0}, "integer"),
        ({"size": "x"}, "integer"),
        ({"availability_zone": "mars"}, "Availability zone 'mars' is invalid"),
        ({"imageRef": rows.IMAGE_ID, "snapshot_id": rows.IMAGE_ID}, "one source"),
        ({"imageRef": rows.SUBNET_ID}, "could not be found"),
        ({"metadata": {"k": "v" * 256}}, "more than 255"),
        ({"metadata": {"": "v"}}, "1 to 255"),
        ({"group_id": rows.IMAGE_ID}, "not supported"),
        ({"colour": "blue"}, "colour"),
    ],
)
async def test_bad_requests_are_400_and_leave_nothing(
    still_cloud: VolumeCloud, body: dict[str, Any], said: str
) -> None:
    reply = await still_cloud.call("POST", "/volumes", {"volume": {"size": 1, **body}})
    assert reply.status_code == 400, reply.text
    assert said in reply.json()["badRequest"]["message"]
    assert (await still_cloud.call("GET", "/volumes")).json()["volumes"] == []


async def test_what_is_named_and_not_there_is_404(still_cloud: VolumeCloud) -> None:
    for body in ({"snapshot_id": rows.IMAGE_ID}, {"source_volid": rows.IMAGE_ID}, {"volume_type": "gold"}):
        reply = await still_cloud.call("POST", "/volumes", {"volume": {"size": 1, **body}})
        assert reply.status_code == 404, reply.text


async def test_a_volume_is_not_smaller_than_what_it_begins_as(cloud: VolumeCloud) -> None:
    first = await cloud.make(size=3)
    taken = await cloud.snapshot(first["id"])
    for body in ({"snapshot_id": taken["id"]}, {"source_volid": first["id"]}):
        reply = await cloud.call("POST", "/volumes", {"volume": {"size": 2, **body}})
        assert reply.status_code == 400
        assert "cannot be smaller" in reply.text


async def test_a_volume_that_fits_nowhere_is_in_error_and_a_message_says_why(cloud: VolumeCloud) -> None:
    made = await cloud.make(size=95)
    assert made["status"] == "error"
    (message,) = (await cloud.call("GET", f"/messages?resource_uuid={made['id']}")).json()["messages"]
    assert message["user_message"] == "No pool can take 95 GiB: capacity (1)."
    assert message["event_id"] == "VOLUME_VOLUME_001_003"
    assert message["request_id"].startswith("req-")
    assert (await cloud.call("DELETE", f"/messages/{message['id']}")).status_code == 204
    assert (await cloud.call("GET", f"/messages/{message['id']}")).status_code == 404
    assert (await cloud.call("DELETE", f"/volumes/{made['id']}")).status_code == 202
    await cloud.rest()
    assert (await cloud.call("GET", f"/volumes/{made['id']}")).status_code == 404


async def test_a_pool_that_is_nearly_full_takes_nothing_new(cloud: VolumeCloud) -> None:
    cloud.hosts.heartbeat = lambda host_id: told(10)  # type: ignore[method-assign,assignment]
    made = await cloud.make()
    assert made["status"] == "error"
    cloud.hosts.heartbeat = lambda host_id: told(50)  # type: ignore[method-assign,assignment]
    assert (await cloud.make())["status"] == "available"


async def test_a_host_that_refuses_is_the_reason_that_the_user_reads(cloud: VolumeCloud) -> None:
    cloud.hosts.refuse["s1", "volume.ensure"] = Unavailable("Host s1 refused it: no more inodes")
    made = await cloud.make()
    assert made["status"] == "error"
    (message,) = (await cloud.call("GET", "/messages")).json()["messages"]
    assert message["user_message"] == "The host refused it: no more inodes"
    assert not cloud.hosts.of("volume")


async def test_deleting_needs_rest_and_no_snapshots(cloud: VolumeCloud) -> None:
    made = await cloud.make()
    taken = await cloud.snapshot(made["id"], name="before")
    reply = await cloud.call("DELETE", f"/volumes/{made['id']}")
    assert reply.status_code == 400
    assert "have snapshots" in reply.json()["badRequest"]["message"]
    assert (await cloud.call("DELETE", f"/snapshots/{taken['id']}")).status_code == 202
    await cloud.rest()
    assert (await cloud.call("GET", f"/snapshots/{taken['id']}")).status_code == 404
    assert (await cloud.call("DELETE", f"/volumes/{made['id']}")).status_code == 202
    assert (await cloud.call("DELETE", f"/volumes/{made['id']}")).status_code in (400, 404)
    await cloud.rest()
    assert not cloud.hosts.of("volume")


async def test_cascade_takes_the_snapshots_too(cloud: VolumeCloud) -> None:
    made = await cloud.make()
    await cloud.snapshot(made["id"])
    await cloud.snapshot(made["id"])
    assert (await cloud.call("DELETE", f"/volumes/{made['id']}?cascade=true")).status_code == 202
    await cloud.rest()
    assert (await cloud.call("GET", "/snapshots")).json()["snapshots"] == []
    assert not cloud.hosts.of("volume")
    assert not cloud.hosts.of("snapshot")


async def test_a_volume_that_is_being_made_goes_only_by_force(still_cloud: VolumeCloud) -> None:
    made = await still_cloud.post()
    assert (await still_cloud.call("DELETE", f"/volumes/{made['id']}")).status_code == 400
    assert (await still_cloud.call("DELETE", f"/volumes/{made['id']}?force=true")).status_code == 403
    forced = await still_cloud.act(made["id"], "os-force_delete", {}, token=still_cloud.admin)
    assert forced.status_code == 202
    async with still_cloud.api.cloud.sagas:
        await still_cloud.rest()
    assert (await still_cloud.call("GET", f"/volumes/{made['id']}")).status_code == 404
    assert not still_cloud.hosts.of("volume")


async def test_extending_charges_and_never_shrinks(cloud: VolumeCloud) -> None:
    made = await cloud.make(size=2)
    shrunk = await cloud.act(made["id"], "os-extend", {"new_size": 1})
    assert shrunk.status_code == 400
    assert "must be greater than current size" in shrunk.text
    assert (await cloud.act(made["id"], "os-extend", {"new_size": 5})).status_code == 202
    await cloud.rest()
    after = await cloud.show(made["id"])
    assert (after["size"], after["status"]) == (5, "available")
    assert cloud.hosts.sizes[made["id"]] == 5
    used = (await cloud.call("GET", "/limits")).json()["limits"]["absolute"]
    assert (used["totalVolumesUsed"], used["totalGigabytesUsed"]) == (1, 5)


async def test_extending_beyond_the_pool_leaves_the_volume_as_it_is(cloud: VolumeCloud) -> None:
    made = await cloud.make(size=2)
    assert (await cloud.act(made["id"], "os-extend", {"new_size": 500})).status_code == 202
    await cloud.rest()
    after = await cloud.show(made["id"])
    assert (after["size"], after["status"]) == (2, "available")
    row = await cloud.api.cloud.db.read(volumes.find, made["id"])
    assert row is not None
    assert row.promised_gib == 2


async def test_a_snapshot_that_failed_claims_nothing(cloud: VolumeCloud) -> None:
    made = await cloud.make()
    cloud.hosts.refuse["s1", "snapshot.ensure"] = Unavailable("Host s1 refused it: no more inodes")
    reply = await cloud.call("POST", "/snapshots", {"snapshot": {"volume_id": made["id"]}})
    await cloud.rest()
    snapshot_id = reply.json()["snapshot"]["id"]
    assert (await cloud.call("GET", f"/snapshots/{snapshot_id}")).json()["snapshot"]["status"] == "error"
    promised = await cloud.api.cloud.db.read(pools.promised)
    assert sum(promised.values()) == made["size"]
    assert (await cloud.call("DELETE", f"/snapshots/{snapshot_id}")).status_code == 202
    await cloud.rest()
    assert (await cloud.call("GET", f"/snapshots/{snapshot_id}")).status_code == 404


async def test_what_users_may_change(cloud: VolumeCloud) -> None:
    made = await cloud.make(name="data")
    path = f"/volumes/{made['id']}"
    changed = await cloud.call("PUT", path, {"volume": {"name": "more", "description": "d"}})
    assert changed.status_code == 200
    assert (changed.json()["volume"]["name"], changed.json()["volume"]["description"]) == ("more", "d")
    added = await cloud.call("POST", f"{path}/metadata", {"metadata": {"a": "1", "b": "2"}})
    assert added.json() == {"metadata": {"a": "1", "b": "2"}}
    assert (await cloud.call("PUT", f"{path}/metadata/a", {"meta": {"a": "3"}})).json() == {"meta": {"a": "3"}}
    assert (await cloud.call("PUT", f"{path}/metadata/a", {"meta": {"z": "3"}})).status_code == 400
    assert (await cloud.call("DELETE", f"{path}/metadata/b")).status_code == 200
    assert (await cloud.call("DELETE", f"{path}/metadata/b")).status_code == 404
    assert (await cloud.call("GET", f"{path}/metadata")).json() == {"metadata": {"a": "3"}}
    assert (await cloud.call("PUT", f"{path}/metadata", {"metadata": {}})).json() == {"metadata": {}}
    assert (await cloud.act(made["id"], "os-set_bootable", {"bootable": True})).status_code == 200
    assert (await cloud.act(made["id"], "os-update_readonly_flag", {"readonly": True})).status_code == 202
    assert (await cloud.act(made["id"], "os-set_image_metadata", {"metadata": {"os": "x"}})).json() == {
        "metadata": {"os": "x"}
    }
    after = await cloud.show(made["id"])
    assert (after["bootable"], after["metadata"], after["volume_image_metadata"]) == (
        "true",
        {"readonly": "True"},
        {"os": "x"},
    )
    assert (await cloud.act(made["id"], "os-unset_image_metadata", {"key": "os"})).status_code == 200
    assert "volume_image_metadata" not in await cloud.show(made["id"])


async def test_lists_page_filter_sort_and_count(cloud: VolumeCloud) -> None:
    for name, size in (("a", 1), ("b", 2), ("c", 3)):
        await cloud.make(name=name, size=size, metadata={"name": name})
    await cloud.call("PUT", f"/volumes/{(await named(cloud, 'name=c'))[0]['id']}", {"volume": {"name": "see"}})
    first = (await cloud.call("GET", "/volumes?limit=2&sort=size:asc&with_count=true")).json()
    assert [one["name"] for one in first["volumes"]] == ["a", "b"]
    assert first["count"] == 3
    path = first["volumes_links"][0]["href"].partition("/volume/v3")[2]
    assert [one["name"] for one in (await cloud.call("GET", path)).json()["volumes"]] == ["see"]
    assert [one["size"] for one in await named(cloud, "sort_key=size&sort_dir=desc&offset=1")] == [2, 1]
    assert [one["size"] for one in await named(cloud, "metadata={'name': 'b'}")] == [2]
    assert [one["size"] for one in await named(cloud, "name~=e")] == [3]
    assert len(await named(cloud, "status=available&bootable=false&availability_zone=nova")) == 3
    assert await named(cloud, "status=error") == []
    assert len(await named(cloud, "created_at=gte:2020-01-01T00:00:00,lt:2040-01-01T00:00:00")) == 3
    assert (await cloud.call("GET", "/volumes?marker=nobody")).status_code == 404
    assert (await cloud.call("GET", "/volumes?sort_key=secret")).status_code == 400
    assert (await cloud.call("GET", "/volumes?colour=blue")).status_code == 400
    assert (await cloud.call("GET", "/volumes?colour=blue", version="3.0")).status_code == 200
    summary = (await cloud.call("GET", "/volumes/summary")).json()["volume-summary"]
    assert summary == {"total_size": 6, "total_count": 3, "metadata": {"name": ["a", "b", "c"]}}


async def named(cloud: VolumeCloud, query: str) -> list[dict[str, Any]]:
    reply = await cloud.call("GET", f"/volumes/detail?{query}")
    assert reply.status_code == 200, reply.text
    found: list[dict[str, Any]] = reply.json()["volumes"]
    return found


async def test_a_snapshot_of_a_volume_in_use_is_asked_for_plainly(cloud: VolumeCloud) -> None:
    server, made = await cloud.boot(), await cloud.make()
    await cloud.attach(server["id"], made["id"])
    await cloud.rest()
    body = {"snapshot": {"volume_id": made["id"]}}
    refused = await cloud.call("POST", "/snapshots", body, version="3.65")
    assert refused.status_code == 400
    assert "in-use" in refused.text
    forced = {"snapshot": {"volume_id": made["id"], "force": True}}
    assert (await cloud.call("POST", "/snapshots", forced, version="3.65")).status_code == 202
    assert (await cloud.call("POST", "/snapshots", body)).status_code == 202
    unforced = {"snapshot": {"volume_id": made["id"], "force": False}}
    assert (await cloud.call("POST", "/snapshots", unforced)).status_code == 400
    await cloud.rest()
    found = (await cloud.call("GET", "/snapshots/detail")).json()["snapshots"]
    assert [one["status"] for one in found] == ["available", "available"]
    assert found[0]["os-extended-snapshot-attributes:progress"] == "100%"


async def test_versions_show_what_they_have(cloud: VolumeCloud) -> None:
    made = await cloud.make()
    oldest = await cloud.show(made["id"], version="3.0")
    newest = await cloud.show(made["id"])
    for key in ("group_id", "shared_targets", "volume_type_id", "consumes_quota"):
        assert key not in oldest
        assert key in newest
    assert (await cloud.call("GET", "/messages", version="3.2")).status_code == 404
    assert (await cloud.call("GET", "/attachments", version="3.26")).status_code == 404
    assert (await cloud.call("GET", "/volumes", version="3.71")).status_code == 406
    document = (await cloud.api.http.get("/volume")).json()["versions"][0]
    assert (document["version"], document["min_version"]) == ("3.70", "3.0")
    with_project = await cloud.call("GET", f"/{cloud.project_id}/volumes/{made['id']}")
    assert with_project.status_code == 200


async def test_a_volume_with_an_empty_id_is_nobodys(cloud: VolumeCloud) -> None:
    await cloud.make()
    for method, body in (("GET", None), ("PUT", {"volume": {"name": "x"}}), ("DELETE", None)):
        assert (await cloud.call(method, "/volumes/", body)).status_code == 404
    assert (await cloud.api.http.get("/volume/v3/")).status_code == 200
