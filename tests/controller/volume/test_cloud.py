"""Types, quotas, attachments that users make, and what the cloud is made of."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.controller.volume.cloud import VolumeCloud, told, volume_cloud


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[VolumeCloud]:
    async with volume_cloud(tmp_path) as made:
        yield made
        assert not made.hosts.broken, made.hosts.broken


# Types.


async def test_types_are_made_changed_and_removed_while_nothing_has_them(cloud: VolumeCloud) -> None:
    new = {"volume_type": {"name": "gold", "extra_specs": {"volume_backend_name": "files"}}}
    made = (await cloud.call("POST", "/types", new, token=cloud.admin)).json()["volume_type"]
    path = f"/types/{made['id']}"
    assert (await cloud.call("POST", "/types", new, token=cloud.admin)).status_code == 409
    assert (await cloud.call("POST", "/types", new)).status_code == 403
    assert (await cloud.call("GET", path)).json()["volume_type"]["extra_specs"] == {}
    assert (await cloud.call("GET", path, token=cloud.admin)).json()["volume_type"]["extra_specs"] == {
        "volume_backend_name": "files"
    }
    changed = {"volume_type": {"description": "fast", "is_public": True}}
    assert (await cloud.call("PUT", path, changed, token=cloud.admin)).json()["volume_type"]["description"] == "fast"
    specs = f"{path}/extra_specs"
    assert (await cloud.call("POST", specs, {"extra_specs": {"a": "1"}}, token=cloud.admin)).status_code == 200
    assert (await cloud.call("PUT", f"{specs}/a", {"a": "2"}, token=cloud.admin)).json() == {"a": "2"}
    assert (await cloud.call("GET", f"{specs}/a", token=cloud.admin)).json() == {"a": "2"}
    assert (await cloud.call("DELETE", f"{specs}/a", token=cloud.admin)).status_code == 202
    assert (await cloud.call("DELETE", f"{specs}/a", token=cloud.admin)).status_code == 404
    volume = await cloud.make(volume_type="gold")
    assert volume["volume_type"] == "gold"
    assert (await cloud.call("DELETE", path, token=cloud.admin)).status_code == 400
    multi = {"extra_specs": {"multiattach": "<is> True"}}
    assert (await cloud.call("POST", specs, multi, token=cloud.admin)).status_code == 400
    await cloud.call("DELETE", f"/volumes/{volume['id']}")
    await cloud.rest()
    assert (await cloud.call("DELETE", path, token=cloud.admin)).status_code == 202
    assert (await cloud.call("GET", path)).status_code == 404
    default = (await cloud.call("GET", "/types/default")).json()["volume_type"]
    assert default["name"] == "__DEFAULT__"
    assert (await cloud.call("DELETE", f"/types/{default['id']}", token=cloud.admin)).status_code == 400


async def test_a_private_type_is_of_those_who_may_use_it(cloud: VolumeCloud) -> None:
    new = {"volume_type": {"name": "secret", "os-volume-type-access:is_public": False}}
    made = (await cloud.call("POST", "/types", new, token=cloud.admin)).json()["volume_type"]
    path = f"/types/{made['id']}"
    assert (await cloud.call("GET", path)).status_code == 404
    assert (await cloud.call("POST", "/volumes", {"volume": {"size": 1, "volume_type": "secret"}})).status_code == 404
    names = [one["name"] for one in (await cloud.call("GET", "/types")).json()["volume_types"]]
    assert names == ["__DEFAULT__"]
    grant = {"addProjectAccess": {"project": cloud.project_id}}
    assert (await cloud.call("POST", f"{path}/action", grant, token=cloud.admin)).status_code == 202
    assert (await cloud.call("POST", f"{path}/action", grant, token=cloud.admin)).status_code == 409
    assert (await cloud.make(volume_type="secret"))["status"] == "available"
    listed = (await cloud.call("GET", f"{path}/os-volume-type-access", token=cloud.admin)).json()
    assert listed["volume_type_access"] == [{"volume_type_id": made["id"], "project_id": cloud.project_id}]
    revoke = {"removeProjectAccess": {"project": cloud.project_id}}
    assert (await cloud.call("POST", f"{path}/action", revoke, token=cloud.admin)).status_code == 202
    assert (await cloud.call("GET", path)).status_code == 404


async def test_a_project_may_have_a_default_of_its_own(cloud: VolumeCloud) -> None:
    await cloud.call("POST", "/types", {"volume_type": {"name": "gold"}}, token=cloud.admin)
    path = f"/default-types/{cloud.project_id}"
    body = {"default_type": {"volume_type": "gold"}}
    assert (await cloud.call("PUT", path, body, token=cloud.admin)).status_code == 200
    assert (await cloud.make())["volume_type"] == "gold"
    assert (await cloud.call("GET", "/types/default")).json()["volume_type"]["name"] == "gold"
    assert len((await cloud.call("GET", "/default-types", token=cloud.admin)).json()["default_types"]) == 1
    assert (await cloud.call("DELETE", path, token=cloud.admin)).status_code == 204
    assert (await cloud.make())["volume_type"] == "__DEFAULT__"


async def test_a_type_of_another_backend_fits_nowhere(cloud: VolumeCloud) -> None:
    unfit = ({"volume_backend_name": "tape"}, {"vendor_name": "x"}, {"capabilities:storage_protocol": "FC"})
    for number, specs in enumerate(unfit):
        new = {"volume_type": {"name": f"unfit{number}", "extra_specs": specs}}
        await cloud.call("POST", "/types", new, token=cloud.admin)
        made = await cloud.make(volume_type=f"unfit{number}")
        assert made["status"] == "error", specs
        (message,) = (await cloud.call("GET", f"/messages?resource_uuid={made['id']}")).json()["messages"]
        assert "other-backend (1)" in message["user_message"]
    fit = {"volume_backend_name": "files", "vendor_name": "Hostler", "storage_protocol": "iSCSI", "note": "any"}
    await cloud.call("POST", "/types", {"volume_type": {"name": "fit", "extra_specs": fit}}, token=cloud.admin)
    assert (await cloud.make(volume_type="fit"))["status"] == "available"


# Quotas.


async def test_quotas_are_by_project_and_by_type(cloud: VolumeCloud) -> None:
    path = f"/os-quota-sets/{cloud.project_id}"
    limits = {"quota_set": {"volumes": 3, "gigabytes": 6, "volumes___DEFAULT__": 2, "per_volume_gigabytes": 4}}
    assert (await cloud.call("PUT", path, limits)).status_code == 403
    assert (await cloud.call("PUT", path, limits, token=cloud.admin)).status_code == 200
    await cloud.make(size=3)
    refused = await cloud.call("POST", "/volumes", {"volume": {"size": 5}})
    assert refused.status_code == 413
    assert refused.json()["overLimit"]["message"].startswith("VolumeSizeExceedsLimit")
    refused = await cloud.call("POST", "/volumes", {"volume": {"size": 4}})
    assert refused.status_code == 413
    assert "Requested 4G, quota is 6G and 3G has been consumed" in refused.text
    second = await cloud.make(size=1)
    refused = await cloud.call("POST", "/volumes", {"volume": {"size": 1}})
    assert refused.status_code == 413
    assert "allowed (2) exceeded for quota 'volumes___DEFAULT__'" in refused.text
    extended = await cloud.act(second["id"], "os-extend", {"new_size": 4})
    assert extended.status_code == 413
    await cloud.snapshot(second["id"])
    usage = (await cloud.call("GET", f"{path}?usage=true")).json()["quota_set"]
    assert usage["volumes"] == {"limit": 3, "in_use": 2, "reserved": 0}
    assert usage["gigabytes"] == {"limit": 6, "in_use": 5, "reserved": 0}
    assert usage["snapshots___DEFAULT__"]["in_use"] == 1
    other = await cloud.call("GET", "/os-quota-sets/0123456789abcdef0123456789abcdef")
    assert other.status_code == 403
    wrong = {"quota_set": {"apples": 1}}
    assert (await cloud.call("PUT", path, wrong, token=cloud.admin)).status_code == 400
    assert (await cloud.call("DELETE", path, token=cloud.admin)).status_code == 200
    again = (await cloud.call("GET", path)).json()["quota_set"]
    assert (again["volumes"], again["volumes___DEFAULT__"]) == (100, -1)
    classes = await cloud.call("GET", "/os-quota-class-sets/default", token=cloud.admin)
    assert classes.json()["quota_class_set"]["gigabytes"] == 10_000


# Attachments that users make.


async def test_an_initiator_of_a_users_own_gets_an_account_of_its_own(cloud: VolumeCloud) -> None:
    made = await cloud.make()
    reserved = (await cloud.call("POST", "/attachments", {"attachment": {"volume_uuid": made["id"]}})).json()
    attachment_id = reserved["attachment"]["id"]
    path = f"/attachments/{attachment_id}"
    assert (reserved["attachment"]["status"], reserved["attachment"]["connection_info"]) == ("reserved", {})
    assert (await cloud.show(made["id"]))["status"] == "reserved"
    second = await cloud.call("POST", "/attachments", {"attachment": {"volume_uuid": made["id"]}})
    assert second.status_code == 400
    assert (await cloud.call("DELETE", f"/volumes/{made['id']}")).status_code == 400
    nameless = await cloud.call("PUT", path, {"attachment": {"connector": {"host": "desk"}}})
    assert nameless.status_code == 400
    connector = {"connector": {"initiator": "iqn.1993-08.org:desk", "host": "desk", "ip": "198.18.0.9"}}
    connected = (await cloud.call("PUT", path, {"attachment": connector})).json()["attachment"]
    info = connected["connection_info"]
    assert (info["target_portal"], info["target_lun"], info["auth_method"]) == ("198.18.0.1:3260", 1, "CHAP")
    export = cloud.hosts.of("export")[attachment_id]
    assert export.initiators == ("iqn.1993-08.org:desk",)
    assert (info["auth_username"], info["auth_password"]) == (export.chap.user, export.chap.secret)
    shown = (await cloud.call("GET", path)).json()["attachment"]["connection_info"]
    assert "auth_password" not in shown
    assert (await cloud.call("POST", f"{path}/action", {"os-complete": {}})).status_code == 204
    assert (await cloud.show(made["id"]))["status"] == "in-use"
    assert len((await cloud.call("GET", f"/attachments?volume_id={made['id']}")).json()["attachments"]) == 1
    assert (await cloud.call("DELETE", path)).json() == {"attachments": []}
    assert not cloud.hosts.of("export")
    assert (await cloud.show(made["id"]))["status"] == "available"
    assert (await cloud.call("DELETE", path)).status_code == 404


async def test_what_serves_a_server_is_not_taken_away_below_it(cloud: VolumeCloud) -> None:
    server, made = await cloud.boot(), await cloud.make()
    await cloud.attach(server["id"], made["id"])
    await cloud.rest()
    (one,) = (await cloud.call("GET", "/attachments/detail")).json()["attachments"]
    assert one["instance"] == server["id"]
    assert "auth_password" not in one["connection_info"]
    path = f"/attachments/{one['id']}"
    for token in (cloud.demo, cloud.admin):
        assert (await cloud.call("DELETE", path, token=token)).status_code == 409
        body = {"attachment": {"connector": {"initiator": "iqn.evil:x"}}}
        assert (await cloud.call("PUT", path, body, token=token)).status_code == 409
    detached = await cloud.act(made["id"], "os-detach", {"attachment_id": one["id"]})
    assert detached.status_code == 400
    assert cloud.disks(server["id"]) == [made["id"]]


async def test_a_volume_may_be_noted_as_used(cloud: VolumeCloud) -> None:
    made = await cloud.make()
    assert (await cloud.act(made["id"], "os-reserve")).status_code == 202
    assert (await cloud.show(made["id"]))["status"] == "attaching"
    assert (await cloud.act(made["id"], "os-unreserve")).status_code == 202
    assert (await cloud.show(made["id"]))["status"] == "available"
    noted = {"instance_uuid": cloud.project_id, "mountpoint": "/dev/vdc"}
    assert (await cloud.act(made["id"], "os-attach", noted)).status_code == 202
    shown = await cloud.show(made["id"])
    assert (shown["status"], shown["attachments"][0]["device"]) == ("in-use", "/dev/vdc")
    assert (await cloud.act(made["id"], "os-attach", noted)).status_code == 400
    assert (await cloud.act(made["id"], "os-detach", {})).status_code == 202
    assert (await cloud.show(made["id"]))["status"] == "available"
    assert (await cloud.act(made["id"], "os-detach", {})).status_code == 400


# What operators do and see.


async def test_operators_reset_what_nobody_works_on(cloud: VolumeCloud) -> None:
    made = await cloud.make()
    assert (await cloud.act(made["id"], "os-reset_status", {"status": "error"})).status_code == 403
    assert (await cloud.act(made["id"], "os-reset_status", {"status": "error"}, token=cloud.admin)).status_code == 202
    assert (await cloud.show(made["id"]))["status"] == "error"
    wrong = await cloud.act(made["id"], "os-reset_status", {"status": "happy"}, token=cloud.admin)
    assert wrong.status_code == 400
    back = await cloud.act(made["id"], "os-reset_status", {"status": "available"}, token=cloud.admin)
    assert back.status_code == 202


async def test_what_somebody_called_deleting_goes_by_force(cloud: VolumeCloud) -> None:
    made = await cloud.make()
    taken = await cloud.snapshot(made["id"])
    path = f"/snapshots/{taken['id']}"
    for status in ("creating", "deleting", "error_deleting"):
        body = {"os-reset_status": {"status": status}}
        assert (await cloud.call("POST", f"{path}/action", body, token=cloud.admin)).status_code == 202
    assert (await cloud.call("POST", f"{path}/action", {"os-force_delete": {}})).status_code == 403
    assert (await cloud.call("POST", f"{path}/action", {"os-force_delete": {}}, token=cloud.admin)).status_code == 202
    await cloud.rest()
    assert (await cloud.call("GET", path)).status_code == 404
    for status in ("attaching", "maintenance", "deleting"):
        await cloud.act(made["id"], "os-reset_status", {"status": status}, token=cloud.admin)
    assert (await cloud.call("DELETE", f"/volumes/{made['id']}")).status_code == 400
    assert (await cloud.act(made["id"], "os-force_delete", {}, token=cloud.admin)).status_code == 202
    await cloud.rest()
    assert not cloud.hosts.of("volume")


async def test_pools_services_and_zones(cloud: VolumeCloud) -> None:
    cloud.hosts.heartbeat = lambda host_id: told(80)  # type: ignore[method-assign,assignment]
    await cloud.make(size=4)
    assert (await cloud.call("GET", "/scheduler-stats/get_pools")).status_code == 403
    (pool,) = (await cloud.call("GET", "/scheduler-stats/get_pools?detail=true", token=cloud.admin)).json()["pools"]
    assert pool["name"] == "name-s1@files#files"
    found = pool["capabilities"]
    assert (found["total_capacity_gb"], found["free_capacity_gb"], found["allocated_capacity_gb"]) == (100, 80, 4)
    services = (await cloud.call("GET", "/os-services", token=cloud.admin)).json()["services"]
    assert [one["binary"] for one in services] == ["cinder-scheduler", "cinder-volume"]
    assert {one["state"] for one in services} == {"up"}
    for host, binaries in (("name-s1", 1), ("name-s1@files", 1), ("name-s1@f", 0)):
        of_host = await cloud.call("GET", f"/os-services?binary=cinder-volume&host={host}", token=cloud.admin)
        assert len(of_host.json()["services"]) == binaries, host
    host = await cloud.call("GET", "/capabilities/name-s1@files", token=cloud.admin)
    assert host.json()["volume_backend_name"] == "files"
    zones = (await cloud.call("GET", "/os-availability-zone")).json()["availabilityZoneInfo"]
    assert zones == [{"zoneName": "nova", "zoneState": {"available": True}}]
    filters = (await cloud.call("GET", "/resource_filters?resource=snapshot")).json()["resource_filters"]
    assert "status" in filters[0]["filters"]
    assert (await cloud.call("GET", "/extensions")).status_code == 200


async def test_admins_see_all_projects_and_members_their_own(cloud: VolumeCloud) -> None:
    made = await cloud.make()
    for token, query, count in (
        (cloud.admin, "", 0),
        (cloud.admin, "?all_tenants=1", 1),
        (cloud.admin, f"?all_tenants=1&project_id={cloud.project_id}", 1),
        (cloud.demo, "?all_tenants=1", 1),
    ):
        assert len((await cloud.call("GET", f"/volumes{query}", token=token)).json()["volumes"]) == count
    _, _, stranger = await cloud.api.a_member(cloud.admin, "stranger")
    assert (await cloud.call("GET", "/volumes?all_tenants=1", token=stranger)).json()["volumes"] == []
    assert (await cloud.call("GET", f"/volumes/{made['id']}", token=stranger)).status_code == 404


async def test_an_attachment_that_is_deleted_twice_at_once_is_gone(cloud: VolumeCloud) -> None:
    """Two who wait until nobody else works on it would wait for each other."""
    made = await cloud.make()
    wish = {"volume_uuid": made["id"], "connector": {"initiator": "iqn.2026-01.org.example:me", "host": "me"}}
    reply = await cloud.call("POST", "/attachments", {"attachment": wish})
    path = f"/attachments/{reply.json()['attachment']['id']}"
    replies = await asyncio.gather(*(cloud.call("DELETE", path) for _ in range(3)))
    assert {one.status_code for one in replies} <= {200, 404}
    await cloud.rest()
    assert (await cloud.show(made["id"]))["status"] == "available"
