"""Volumes and servers: attach, detach, boot, delete, several at once."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from controller.fleet import store as fleet
from controller.saga.model import Transient
from tests.controller.compute import rows
from tests.controller.volume.cloud import VolumeCloud, volume_cloud


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[VolumeCloud]:
    async with volume_cloud(tmp_path) as made:
        yield made
        assert not made.hosts.broken, made.hosts.broken


def a_device(**values: Any) -> dict[str, Any]:
    return {"source_type": "volume", "destination_type": "volume", **values}


async def test_a_volume_comes_to_a_server_and_goes(cloud: VolumeCloud) -> None:
    server, made = await cloud.boot(), await cloud.make()
    reply = await cloud.attach(server["id"], made["id"], tag="data", delete_on_termination=False)
    assert reply.status_code == 200, reply.text
    assert reply.json()["volumeAttachment"] == {
        "id": made["id"],
        "volumeId": made["id"],
        "serverId": server["id"],
        "device": "/dev/vdb",
        "tag": "data",
        "delete_on_termination": False,
    }
    await cloud.rest()
    attached = await cloud.show(made["id"])
    assert attached["status"] == "in-use"
    (one,) = attached["attachments"]
    assert (one["server_id"], one["device"], one["volume_id"]) == (server["id"], "/dev/vdb", made["id"])
    assert cloud.disks(server["id"]) == [made["id"]]
    shown = await cloud.server(server["id"])
    assert shown["os-extended-volumes:volumes_attached"] == [{"id": made["id"], "delete_on_termination": False}]
    path = f"/servers/{server['id']}/os-volume_attachments"
    assert len((await cloud.compute("GET", path)).json()["volumeAttachments"]) == 1
    assert (await cloud.compute("GET", f"{path}/{made['id']}")).json()["volumeAttachment"]["device"] == "/dev/vdb"
    old = (await cloud.compute("GET", path, version="2.1")).json()["volumeAttachments"][0]
    assert set(old) == {"id", "volumeId", "serverId", "device"}
    assert (await cloud.detach(server["id"], made["id"])).status_code == 202
    await cloud.rest()
    after = await cloud.show(made["id"])
    assert (after["status"], after["attachments"]) == ("available", [])
    assert cloud.disks(server["id"]) == []
    assert not cloud.hosts.of("export")
    assert (await cloud.detach(server["id"], made["id"])).status_code == 404
    actions = (await cloud.compute("GET", f"/servers/{server['id']}/os-instance-actions")).json()["instanceActions"]
    assert {one["action"] for one in actions} == {"create", "attach_volume", "detach_volume"}


async def test_one_volume_is_not_attached_twice(cloud: VolumeCloud) -> None:
    first, second, made = await cloud.boot(), await cloud.boot(), await cloud.make()
    assert (await cloud.attach(first["id"], made["id"])).status_code == 200
    for server in (first, second):
        reply = await cloud.attach(server["id"], made["id"])
        assert reply.status_code == 400, reply.text
    await cloud.rest()
    assert (await cloud.attach(second["id"], made["id"])).status_code == 400
    assert (await cloud.call("DELETE", f"/volumes/{made['id']}")).status_code == 400
    forced = await cloud.act(made["id"], "os-force_delete", {}, token=cloud.admin)
    assert forced.status_code == 400
    await cloud.rest()
    assert cloud.disks(first["id"]) == [made["id"]]
    assert cloud.disks(second["id"]) == []


async def test_a_volume_of_a_multiattach_type_serves_several(cloud: VolumeCloud) -> None:
    specs = {"multiattach": "<is> True"}
    reply = await cloud.call("POST", "/types", {"volume_type": {"name": "m", "extra_specs": specs}}, token=cloud.admin)
    assert reply.status_code == 200, reply.text
    first, second, made = await cloud.boot(), await cloud.boot(), await cloud.make(volume_type="m")
    assert made["multiattach"] is True
    old = await cloud.compute(
        "POST",
        f"/servers/{first['id']}/os-volume_attachments",
        {"volumeAttachment": {"volumeId": made["id"]}},
        version="2.59",
    )
    assert old.status_code == 400
    for server in (first, second):
        assert (await cloud.attach(server["id"], made["id"])).status_code == 200
        await cloud.rest()
    assert len((await cloud.show(made["id"]))["attachments"]) == 2
    exports = cloud.hosts.of("export")
    assert len({export.chap.secret for export in exports.values()}) == 2
    assert all(disk.iscsi is None or disk.iscsi.is_shared for disk in cloud.hosts.of("domain")[first["id"]].disks)
    assert (await cloud.detach(first["id"], made["id"])).status_code == 202
    assert (await cloud.show(made["id"]))["status"] == "detaching", "who detaches waits for it to be in use again"
    await cloud.rest()
    after = await cloud.show(made["id"])
    assert (after["status"], len(after["attachments"])) == ("in-use", 1)


async def test_several_volumes_come_at_once(cloud: VolumeCloud) -> None:
    server = await cloud.boot()
    made = [await cloud.make() for _ in range(4)]
    for one in made:
        assert (await cloud.attach(server["id"], one["id"])).status_code == 200
    await cloud.rest()
    assert sorted(cloud.disks(server["id"])) == sorted(one["id"] for one in made)
    for one in made:
        assert (await cloud.detach(server["id"], one["id"])).status_code == 202
    await cloud.rest()
    assert cloud.disks(server["id"]) == []
    assert {(await cloud.show(one["id"]))["status"] for one in made} == {"available"}


async def test_attaching_is_refused_where_it_cannot_be(cloud: VolumeCloud) -> None:
    server, made = await cloud.boot(), await cloud.make()
    missing = await cloud.attach(server["id"], rows.SUBNET_ID)
    assert missing.status_code == 404
    assert (await cloud.attach(rows.SUBNET_ID, made["id"])).status_code == 404
    taken = await cloud.attach(server["id"], made["id"], device="/dev/vda")
    assert taken.status_code == 400
    assert (await cloud.attach(server["id"], made["id"], device="sdb;")).status_code == 400
    await cloud.compute("POST", f"/servers/{server['id']}/action", {"lock": None}, token=cloud.admin)
    assert (await cloud.attach(server["id"], made["id"])).status_code == 409
    await cloud.compute("POST", f"/servers/{server['id']}/action", {"unlock": None}, token=cloud.admin)
    _, _, stranger = await cloud.api.a_member(cloud.admin, "stranger")
    theirs = await cloud.call("POST", "/volumes", {"volume": {"size": 1}}, token=stranger)
    await cloud.rest()
    assert (await cloud.attach(server["id"], theirs.json()["volume"]["id"])).status_code == 404
    assert (await cloud.show(made["id"]))["status"] == "available"


@pytest.mark.parametrize("noun", ["domain", "volume"])
async def test_nothing_comes_to_a_server_whose_host_is_down(cloud: VolumeCloud, noun: str) -> None:
    """Nor from a host that is."""
    server, made = await cloud.boot(), await cloud.make()
    home = next(host for host, what, _ in cloud.hosts.objects if what == noun)
    cloud.hosts.silent.add(home)
    await cloud.api.cloud.db.write(fleet.set_up, home, False, 1.0)
    reply = await cloud.attach(server["id"], made["id"])
    assert reply.status_code == 409 and "is down" in reply.json()["conflictingRequest"]["message"], reply.text
    shown = await cloud.show(made["id"])
    assert (shown["status"], shown["attachments"]) == ("available", [])
    assert (await cloud.server(server["id"]))["os-extended-volumes:volumes_attached"] == []
    cloud.hosts.silent.clear()
    assert (await cloud.attach(server["id"], made["id"])).status_code == 200
    await cloud.rest()
    assert cloud.disks(server["id"]) == [made["id"]]


async def test_a_failed_attachment_leaves_no_export_and_says_why(cloud: VolumeCloud) -> None:
    from controller.errors import Conflict

    server, made = await cloud.boot(), await cloud.make()
    cloud.hosts.refuse["h1", "domain.ensure"] = Conflict("The host refused it: no slot is free")
    cloud.hosts.refuse["h2", "domain.ensure"] = Conflict("The host refused it: no slot is free")
    assert (await cloud.attach(server["id"], made["id"])).status_code == 200
    import asyncio

    await asyncio.sleep(0.3)
    cloud.hosts.refuse.clear()
    await cloud.rest()
    assert (await cloud.show(made["id"]))["status"] == "available"
    assert cloud.disks(server["id"]) == []
    assert not cloud.hosts.of("export")
    (message,) = (await cloud.call("GET", "/messages")).json()["messages"]
    assert message["user_message"] == "The host refused it: no slot is free"


async def test_a_volume_grows_below_a_guest(cloud: VolumeCloud) -> None:
    server, made = await cloud.boot(), await cloud.make(size=1)
    await cloud.attach(server["id"], made["id"])
    await cloud.rest()
    early = await cloud.act(made["id"], "os-extend", {"new_size": 4}, version="3.41")
    assert early.status_code == 400
    assert (await cloud.act(made["id"], "os-extend", {"new_size": 4})).status_code == 202
    await cloud.rest()
    after = await cloud.show(made["id"])
    assert (after["size"], after["status"]) == (4, "in-use")
    (disk,) = [disk for disk in cloud.hosts.of("domain")[server["id"]].disks if disk.iscsi is not None]
    assert disk.iscsi.size_gib == 4
    actions = (await cloud.compute("GET", f"/servers/{server['id']}/os-instance-actions")).json()["instanceActions"]
    (grown,) = [one for one in actions if one["action"] == "extend_volume"]
    path = f"/servers/{server['id']}/os-instance-actions/{grown['request_id']}"
    events = (await cloud.compute("GET", path)).json()["instanceAction"]["events"]
    assert [(one["event"], one["result"]) for one in events] == [("compute_extend_volume", "Success")]


async def test_a_deleted_server_frees_its_volumes_or_ends_them(cloud: VolumeCloud) -> None:
    server, kept, ended = await cloud.boot(), await cloud.make(), await cloud.make()
    await cloud.attach(server["id"], kept["id"])
    await cloud.attach(server["id"], ended["id"], delete_on_termination=True)
    await cloud.rest()
    assert (await cloud.compute("DELETE", f"/servers/{server['id']}")).status_code == 204
    await cloud.rest()
    assert (await cloud.show(kept["id"]))["status"] == "available"
    assert (await cloud.call("GET", f"/volumes/{ended['id']}")).status_code == 404
    assert not cloud.hosts.of("export")
    assert list(cloud.hosts.of("volume")) == [kept["id"]]


async def test_a_server_boots_from_a_volume_that_is_made_of_an_image(cloud: VolumeCloud) -> None:
    device = {
        "source_type": "image",
        "destination_type": "volume",
        "uuid": rows.IMAGE_ID,
        "boot_index": 0,
        "volume_size": 3,
        "delete_on_termination": True,
    }
    server = await cloud.boot(imageRef="", block_device_mapping_v2=[device])
    assert (server["status"], server["image"]) == ("ACTIVE", "")
    (attached,) = server["os-extended-volumes:volumes_attached"]
    root = await cloud.show(attached["id"])
    assert (root["status"], root["size"], root["bootable"]) == ("in-use", 3, "true")
    assert root["attachments"][0]["device"] == "/dev/vda"
    (disk,) = cloud.hosts.of("domain")[server["id"]].disks
    assert (disk.boot_index, disk.device, disk.iscsi.volume_id) == (0, "vda", root["id"])
    assert not cloud.hosts.of("disk")
    assert (await cloud.detach(server["id"], root["id"])).status_code == 403
    assert (await cloud.compute("DELETE", f"/servers/{server['id']}")).status_code == 204
    await cloud.rest()
    assert not cloud.hosts.of("volume")
    assert (await cloud.call("GET", "/volumes")).json()["volumes"] == []


async def test_a_server_boots_from_a_given_volume_beside_others(cloud: VolumeCloud) -> None:
    root, data = await cloud.make(imageRef=rows.IMAGE_ID, size=2), await cloud.make()
    devices = [
        a_device(uuid=data["id"], boot_index=-1, device_name="/dev/vdc"),
        a_device(uuid=root["id"], boot_index="0"),
        {"source_type": "blank", "destination_type": "volume", "volume_size": 1},
    ]
    server = await cloud.boot(imageRef="", block_device_mapping_v2=devices)
    assert server["status"] == "ACTIVE", server
    domain = cloud.hosts.of("domain")[server["id"]]
    assert [disk.device for disk in domain.disks] == ["vda", "vdb", "vdc"]
    assert domain.disks[0].iscsi.volume_id == root["id"]
    assert domain.disks[2].iscsi.volume_id == data["id"]


async def test_a_local_root_may_have_volumes_beside_it(cloud: VolumeCloud) -> None:
    data = await cloud.make()
    image = {"source_type": "image", "destination_type": "local", "uuid": rows.IMAGE_ID, "boot_index": 0}
    server = await cloud.boot(block_device_mapping_v2=[image, a_device(uuid=data["id"])])
    assert server["status"] == "ACTIVE"
    assert server["image"]["id"] == rows.IMAGE_ID
    assert cloud.disks(server["id"]) == [data["id"]]
    assert len(cloud.hosts.of("disk")) == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"imageRef": ""}, "Invalid imageRef"),
        ({"imageRef": "", "block_device_mapping_v2": [{"source_type": "blank", "destination_type": "volume",
          "volume_size": 1}]}, "Boot sequence"),
        ({"imageRef": "", "block_device_mapping_v2": [{"source_type": "image", "destination_type": "volume",
          "uuid": rows.IMAGE_ID, "boot_index": 0}]}, "non-zero"),
        ({"block_device_mapping_v2": [a_device(uuid=rows.SUBNET_ID)]}, "failed to get volume"),
        ({"imageRef": "", "block_device_mapping_v2": [a_device(uuid=rows.SUBNET_ID, boot_index=0)]}, "failed to get"),
        ({"block_device_mapping_v2": [{"source_type": "blank", "destination_type": "local", "volume_size": 1}]},
         "ephemeral"),
        ({"block_device_mapping_v2": [{"source_type": "blank", "destination_type": "volume", "volume_size": 1,
          "disk_bus": "ide"}]}, "disk_bus"),
        ({"block_device_mapping": [{"volume_id": rows.SUBNET_ID}]}, "block_device_mapping_v2"),
    ],
)  # fmt: skip
async def test_bad_block_devices_are_400_and_leave_nothing(
    cloud: VolumeCloud, changes: dict[str, Any], said: str
) -> None:
    reply = await cloud.post_server(**changes)
    assert reply.status_code == 400, reply.text
    assert said in reply.json()["badRequest"]["message"]
    assert (await cloud.compute("GET", "/servers")).json()["servers"] == []
    assert (await cloud.call("GET", "/volumes")).json()["volumes"] == []


async def test_a_volume_that_is_not_bootable_is_not_booted(cloud: VolumeCloud) -> None:
    made = await cloud.make()
    reply = await cloud.post_server(imageRef="", block_device_mapping_v2=[a_device(uuid=made["id"], boot_index=0)])
    assert reply.status_code == 400
    assert "is not bootable" in reply.text


async def test_volumes_of_a_server_are_charged_with_it(cloud: VolumeCloud) -> None:
    limits = {"quota_set": {"volumes": 1}}
    assert (await cloud.call("PUT", f"/os-quota-sets/{cloud.project_id}", limits, token=cloud.admin)).status_code == 200
    device = {"source_type": "blank", "destination_type": "volume", "volume_size": 1}
    reply = await cloud.post_server(block_device_mapping_v2=[device, device])
    assert reply.status_code == 403
    assert "VolumeLimitExceeded" in reply.text
    assert (await cloud.compute("GET", "/servers")).json()["servers"] == []
    assert (await cloud.call("GET", "/volumes")).json()["volumes"] == []


async def test_a_server_that_cannot_be_built_gives_its_volumes_back(cloud: VolumeCloud) -> None:
    given = await cloud.make()
    blank = {"source_type": "blank", "destination_type": "volume", "volume_size": 1, "delete_on_termination": True}
    huge = {"flavorRef": "42", "host": "name-h1"}
    from controller.errors import Conflict

    for host_id in ("h1", "h2", "s1"):
        cloud.hosts.refuse[host_id, "domain.ensure"] = Conflict("no")
    server = await cloud.boot(block_device_mapping_v2=[a_device(uuid=given["id"]), blank])
    assert server["status"] == "ERROR", huge
    assert server["os-extended-volumes:volumes_attached"] == []
    await cloud.rest()
    assert (await cloud.show(given["id"]))["status"] == "available"
    assert [one["id"] for one in (await cloud.call("GET", "/volumes")).json()["volumes"]] == [given["id"]]
    assert not cloud.hosts.of("export")


async def test_a_volume_that_could_not_be_made_is_not_mended_by_letting_it_go(cloud: VolumeCloud) -> None:
    from controller.errors import Unavailable

    cloud.hosts.refuse["s1", "volume.ensure"] = Unavailable("Host s1 refused it: no more inodes")
    blank = {"source_type": "blank", "destination_type": "volume", "volume_size": 1}
    server = await cloud.boot(block_device_mapping_v2=[blank])
    assert server["status"] == "ERROR"
    await cloud.rest()
    (left,) = (await cloud.call("GET", "/volumes/detail")).json()["volumes"]
    assert (left["status"], left["attachments"]) == ("error", [])


async def test_a_guest_that_keeps_its_disk_keeps_the_volume(
    cloud: VolumeCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    from controller import patience
    from controller.compute import domains
    from controller.errors import Unavailable

    server, made = await cloud.boot(), await cloud.make()
    await cloud.attach(server["id"], made["id"])
    await cloud.rest()

    async def stubborn(run: Any, server_id: str, host_id: str) -> Any:
        if run.attempt < patience.SLICES_MAX:
            raise Transient("the guest has not let go")
        raise Unavailable("The host failed: the guest has not let go of vdb")

    with monkeypatch.context() as patched:
        patched.setattr(domains, "push_patiently", stubborn)
        assert (await cloud.detach(server["id"], made["id"])).status_code == 202
        await cloud.rest()
    after = await cloud.show(made["id"])
    assert (after["status"], len(after["attachments"])) == ("in-use", 1)
    assert cloud.disks(server["id"]) == [made["id"]]
    (message,) = (await cloud.call("GET", "/messages")).json()["messages"]
    assert "has not let go" in message["user_message"]
    assert (await cloud.detach(server["id"], made["id"])).status_code == 202
    await cloud.rest()
    assert (await cloud.show(made["id"]))["status"] == "available"
