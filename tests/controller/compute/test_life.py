"""What becomes of servers over HTTP, with real sagas on fake hosts: from pause to the shelf and back."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from agent.wire.lifecycle import Power
from controller import errors, quota
from controller.compute import store
from controller.compute.model import rescue_disk_id, root_disk_id
from controller.compute.sagas import server_offload
from controller.db.tables.network import ip_allocation
from controller.db.tables.placement import allocation
from controller.db.tx import Tx
from controller.image import store as image_store
from controller.image.model import Status
from controller.tasks import server_settle
from tests.controller.compute import rows
from tests.controller.compute.cloud import ComputeCloud, compute_cloud

pytestmark = pytest.mark.timeout(60)

OTHER_IMAGE_ID = "22222222-2222-4222-8222-222222222223"
LARGE_IMAGE_ID = "22222222-2222-4222-8222-222222222224"


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[ComputeCloud]:
    async with compute_cloud(tmp_path) as made:
        _delivering(made)
        yield made


@pytest.fixture
async def still_cloud(tmp_path: Path) -> AsyncIterator[ComputeCloud]:
    async with compute_cloud(tmp_path, runs=False) as made:
        yield made


def _delivering(cloud: ComputeCloud) -> None:
    """Captured disks reach the image store."""
    database: Any = cloud.api.cloud.db
    cloud.hosts.deliver = lambda image_id: database.build(lambda tx: _activate(tx, image_id))


def _activate(tx: Tx, image_id: str) -> None:
    facts = {"size": 1 << 20, "virtual_size": 1 << 30, "sha256": "cd" * 32}
    image_store.update(tx, image_id, 1010.0, status=Status.ACTIVE, **facts)


async def _acted(cloud: ComputeCloud, server_id: str, action: str, value: Any = None, status: int = 202) -> Any:
    cloud.api.clock.time += 1.0
    reply = await cloud.act(server_id, action, value)
    assert reply.status_code == status, reply.text
    await cloud.rest()
    assert not cloud.hosts.broken
    return reply


async def _status(cloud: ComputeCloud, server_id: str) -> tuple[str, str | None, int]:
    shown = await cloud.show(server_id)
    return shown["status"], shown["OS-EXT-STS:task_state"], shown["OS-EXT-STS:power_state"]


async def _claims(cloud: ComputeCloud) -> list[tuple[int, int, int]]:
    def read(tx: Tx) -> list[tuple[int, int, int]]:
        found = tx.execute(sa.select(allocation).order_by(allocation.c.memory_mib))
        return [(row.vcpus, row.memory_mib, row.disk_gib) for row in found]

    result: list[tuple[int, int, int]] = await cloud.api.cloud.db.read(read)
    return result


async def _used(cloud: ComputeCloud) -> dict[str, int]:
    used: dict[str, int] = await cloud.api.cloud.db.read(store.used, cloud.project_id)
    return used


async def test_pause_and_suspend_go_through_novas_states(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    for action, status, power in (
        ("pause", "PAUSED", 3),
        ("unpause", "ACTIVE", 1),
        ("suspend", "SUSPENDED", 4),
        ("resume", "ACTIVE", 1),
    ):
        await _acted(cloud, server_id, action)
        assert await _status(cloud, server_id) == (status, None, power)


async def test_what_the_state_forbids_is_409_in_novas_words(still_cloud: ComputeCloud) -> None:
    server_id = await still_cloud.post()
    on_host = {"host_id": "h1", "host_name": "name-h1", "task_state": None, "launched_at": 1.0}
    bodies: dict[str, Any] = {"rebuild": {"imageRef": rows.IMAGE_ID}, "resize": {"flavorRef": "1"}}
    for vm_state, actions in {
        "active": ("unpause", "resume", "unrescue", "confirmResize", "revertResize", "unshelve"),
        "paused": ("pause", "suspend", "rescue", "rebuild", "resize", "os-start", "os-stop"),
        "suspended": ("pause", "suspend", "rescue", "rebuild", "resize"),
        "rescued": ("pause", "rescue", "rebuild", "resize", "shelve"),
        "resized": ("pause", "resize", "rebuild", "shelve", "createImage"),
        "shelved_offloaded": ("pause", "shelve", "os-start", "os-stop"),
    }.items():
        await still_cloud.write(store.change, server_id, {**on_host, "vm_state": vm_state})
        for action in actions:
            body = bodies.get(action, {"name": "i"} if action == "createImage" else None)
            reply = await still_cloud.act(server_id, action, body)
            assert reply.status_code == 409, (vm_state, action, reply.text)
            verb = action.removeprefix("os-")
            assert reply.json()["conflictingRequest"]["message"] == (
                f"Cannot '{verb}' instance {server_id} while it is in vm_state {vm_state}"
            )


async def test_a_locked_server_is_left_alone(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    reply = await cloud.act(server_id, "lock", {"locked_reason": "mine"}, token=cloud.admin)
    assert reply.status_code == 202
    assert (await cloud.show(server_id))["locked_reason"] == "mine"
    bodies: dict[str, Any] = {"rebuild": {"imageRef": rows.IMAGE_ID}, "resize": {"flavorRef": "2"}}
    for action in ("pause", "suspend", "rescue", "shelve", "rebuild", "resize", "unshelve"):
        reply = await cloud.act(server_id, action, bodies.get(action))
        assert reply.status_code == 409, action
        assert "is locked" in reply.text


async def test_a_guest_that_switched_itself_off_is_not_paused_but_off(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    cloud.hosts.powers["h1", server_id] = Power.SHUTOFF
    await _acted(cloud, server_id, "pause")
    assert await _status(cloud, server_id) == ("SHUTOFF", None, 4)
    actions = (await cloud.call("GET", f"/servers/{server_id}/os-instance-actions")).json()["instanceActions"]
    assert [(one["action"], one["message"]) for one in actions] == [("pause", "Error"), ("create", None)]


async def test_a_rescued_server_boots_from_another_disk_with_its_own_as_the_second(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    reply = await _acted(cloud, server_id, "rescue", {"rescue_image_ref": rows.IMAGE_ID}, 200)
    assert reply.json() == {}
    assert await _status(cloud, server_id) == ("RESCUE", None, 1)
    domain = cloud.hosts.of("domain")[server_id]
    assert [(disk.disk_id, disk.boot_index) for disk in domain.disks] == [
        (rescue_disk_id(server_id), 0),
        (root_disk_id(server_id), None),
    ]
    await _acted(cloud, server_id, "unrescue")
    assert await _status(cloud, server_id) == ("ACTIVE", None, 1)
    assert set(cloud.hosts.of("disk")) == {root_disk_id(server_id)}


async def test_a_server_is_rescued_again(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    for _ in range(2):
        await _acted(cloud, server_id, "rescue", None, 200)
        assert await _status(cloud, server_id) == ("RESCUE", None, 1)
        await _acted(cloud, server_id, "unrescue")
        assert await _status(cloud, server_id) == ("ACTIVE", None, 1)


async def test_a_rescued_server_is_deleted_with_both_disks(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    await _acted(cloud, server_id, "rescue", None, 200)
    assert (await cloud.call("DELETE", f"/servers/{server_id}")).status_code == 204
    await cloud.rest()
    assert not cloud.hosts.of("disk")


async def test_a_domain_that_its_host_does_not_put_back_keeps_the_rescue_disk_that_it_has(
    cloud: ComputeCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    server_id = (await cloud.boot())["id"]
    ensure, said = cloud.hosts.ensure, 0

    async def refusing(host_id: str, row: Any, spec: Any, deadline: float) -> Any:
        nonlocal said
        said += row.name == "domain.ensure"
        if row.name == "domain.ensure" and said > 1:
            raise errors.Unavailable("The host refused it: no more definitions")
        return await ensure(host_id, row, spec, deadline)

    with monkeypatch.context() as patch:
        patch.setattr(cloud.hosts, "ensure", refusing)
        await _acted(cloud, server_id, "rescue", None, 200)
    assert (await _status(cloud, server_id))[0] == "ERROR"
    assert cloud.hosts.of("domain")[server_id].disks[0].disk_id == rescue_disk_id(server_id)
    assert rescue_disk_id(server_id) in cloud.hosts.of("disk")
    assert (await cloud.call("DELETE", f"/servers/{server_id}")).status_code == 204
    await cloud.rest()
    assert not cloud.hosts.of("disk")


async def test_rescue_from_an_image_that_is_not_there_is_400(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    reply = await cloud.act(server_id, "rescue", {"rescue_image_ref": OTHER_IMAGE_ID})
    assert reply.status_code == 400, reply.text


async def _other_images(cloud: ComputeCloud) -> None:
    other = {"owner": cloud.project_id, "name": "other", "properties": {"hw_disk_bus": "scsi"}, "sha256": "ef" * 32}
    await cloud.write(lambda tx: rows.insert_image(tx, id=OTHER_IMAGE_ID, **other))
    large = {"owner": cloud.project_id, "name": "large", "virtual_size": 5 << 30}
    await cloud.write(lambda tx: rows.insert_image(tx, id=LARGE_IMAGE_ID, **large))


async def test_a_rebuild_keeps_id_and_addresses_and_makes_the_disk_anew(cloud: ComputeCloud) -> None:
    await _other_images(cloud)
    before = await cloud.boot()
    server_id = before["id"]
    wanted = {"imageRef": OTHER_IMAGE_ID, "name": "again", "metadata": {"a": "b"}, "user_data": "I2Nsb3Vk"}
    reply = await cloud.act(server_id, "rebuild", wanted)
    assert reply.status_code == 202, reply.text
    told = reply.json()["server"]
    assert (told["status"], told["name"], told["image"]["id"]) == ("REBUILD", "again", OTHER_IMAGE_ID)
    assert (told["key_name"], told["user_data"]) == (None, "I2Nsb3Vk")
    await cloud.rest()
    after = await cloud.show(server_id)
    assert (after["status"], after["addresses"]) == ("ACTIVE", before["addresses"])
    assert after["metadata"] == {"a": "b"}
    assert cloud.hosts.of("disk")[root_disk_id(server_id)].image_sha256 == "ef" * 32
    domain = cloud.hosts.of("domain")[server_id]
    assert (domain.guest.user_data, domain.hardware.disk_bus) == (b"#cloud", "scsi")
    assert not cloud.hosts.broken


async def test_a_stopped_server_is_off_after_its_rebuild(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    await _acted(cloud, server_id, "os-stop")
    await _acted(cloud, server_id, "rebuild", {"imageRef": rows.IMAGE_ID})
    assert await _status(cloud, server_id) == ("SHUTOFF", None, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"imageRef": LARGE_IMAGE_ID}, "Flavor's disk is too small for requested image"),
        ({"imageRef": "33333333-2222-4222-8222-222222222224"}, "could not be found"),
        ({"key_name": "nobody's"}, "Invalid key_name provided."),
        ({"preserve_ephemeral": True}, "ephemeral"),
        ({"name": " "}, ""),
    ],
)
async def test_bad_rebuilds_are_400_and_change_nothing(
    cloud: ComputeCloud, changes: dict[str, Any], message: str
) -> None:
    await _other_images(cloud)
    server_id = (await cloud.boot())["id"]
    reply = await cloud.act(server_id, "rebuild", {"imageRef": rows.IMAGE_ID, **changes})
    assert reply.status_code == 400, reply.text
    assert message in reply.json()["badRequest"]["message"]
    assert await _status(cloud, server_id) == ("ACTIVE", None, 1)


async def test_a_rebuild_that_fails_is_an_error_from_which_another_rebuild_leads_on(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    cloud.hosts.refuse["h1", "disk.ensure"] = errors.Unavailable("The host refused it.")
    await _acted(cloud, server_id, "rebuild", {"imageRef": rows.IMAGE_ID})
    shown = await cloud.show(server_id)
    assert shown["status"] == "ERROR"
    assert "could not be rebuilt" in shown["fault"]["message"]
    cloud.hosts.refuse.clear()
    await _acted(cloud, server_id, "rebuild", {"imageRef": rows.IMAGE_ID})
    assert await _status(cloud, server_id) == ("ACTIVE", None, 1)


async def test_a_resize_claims_and_counts_both_sizes_until_it_is_confirmed(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    await _acted(cloud, server_id, "resize", {"flavorRef": "2"})
    assert await _status(cloud, server_id) == ("VERIFY_RESIZE", None, 1)
    assert await _claims(cloud) == [(1, 128, 1), (1, 512, 5)]
    assert cloud.hosts.of("disk")[root_disk_id(server_id)].size_gib == 5
    second = await cloud.act(server_id, "resize", {"flavorRef": "3"})
    assert second.status_code == 409
    await _acted(cloud, server_id, "confirmResize", None, 204)
    assert await _status(cloud, server_id) == ("ACTIVE", None, 1)
    assert await _claims(cloud) == [(1, 512, 5)]
    assert (await cloud.show(server_id))["flavor"]["original_name"] == "m1.small"


async def test_a_reverted_server_has_its_size_back_and_its_grown_disk(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    await _acted(cloud, server_id, "resize", {"flavorRef": "2"})
    assert (await _used(cloud))["ram"] == 512
    await _acted(cloud, server_id, "revertResize")
    assert await _status(cloud, server_id) == ("ACTIVE", None, 1)
    assert await _claims(cloud) == [(1, 128, 5)]
    assert await _used(cloud) == {"instances": 1, "cores": 1, "ram": 128}
    domain = cloud.hosts.of("domain")[server_id]
    assert (domain.memory_mib, cloud.hosts.of("disk")[root_disk_id(server_id)].size_gib) == (128, 5)


async def test_a_stopped_server_stays_off_through_its_resize(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    await _acted(cloud, server_id, "os-stop")
    await _acted(cloud, server_id, "resize", {"flavorRef": "2"})
    assert await _status(cloud, server_id) == ("VERIFY_RESIZE", None, 4)
    await _acted(cloud, server_id, "confirmResize", None, 204)
    assert await _status(cloud, server_id) == ("SHUTOFF", None, 4)


async def test_a_smaller_flavor_counts_as_the_larger_one_until_it_is_confirmed(cloud: ComputeCloud) -> None:
    flavor = {"flavor": {"name": "wide", "ram": 512, "vcpus": 2, "disk": 1, "id": "wide"}}
    assert (await cloud.call("POST", "/flavors", token=cloud.admin, json=flavor)).status_code == 200
    server_id = (await cloud.boot(flavorRef="wide"))["id"]
    await _acted(cloud, server_id, "resize", {"flavorRef": "42"})
    assert await _used(cloud) == {"instances": 1, "cores": 2, "ram": 512}
    await _acted(cloud, server_id, "confirmResize", None, 204)
    assert await _used(cloud) == {"instances": 1, "cores": 1, "ram": 128}


async def test_a_resize_without_room_leaves_the_server_as_it_was(cloud: ComputeCloud) -> None:
    flavor = {"flavor": {"name": "huge", "ram": 20 * 1024, "vcpus": 1, "disk": 1, "id": "huge"}}
    assert (await cloud.call("POST", "/flavors", token=cloud.admin, json=flavor)).status_code == 200
    server_id = (await cloud.boot())["id"]
    await _acted(cloud, server_id, "resize", {"flavorRef": "huge"})
    assert await _status(cloud, server_id) == ("ACTIVE", None, 1)
    assert await _claims(cloud) == [(1, 128, 1)]
    assert await _used(cloud) == {"instances": 1, "cores": 1, "ram": 128}
    actions = (await cloud.call("GET", f"/servers/{server_id}/os-instance-actions")).json()["instanceActions"]
    assert (actions[0]["action"], actions[0]["message"]) == ("resize", "Error")


@pytest.mark.parametrize(
    ("flavor", "status", "message"),
    [
        ("42", 400, "When resizing, instances must change flavor!"),
        ("nothing", 400, "Flavor nothing could not be found."),
        ("zero", 400, "Resize to zero disk flavor is not allowed."),
    ],
)
async def test_bad_resizes_are_refused(cloud: ComputeCloud, flavor: str, status: int, message: str) -> None:
    zero = {"flavor": {"name": "zero", "ram": 128, "vcpus": 1, "disk": 0, "id": "zero"}}
    assert (await cloud.call("POST", "/flavors", token=cloud.admin, json=zero)).status_code == 200
    server_id = (await cloud.boot())["id"]
    reply = await cloud.act(server_id, "resize", {"flavorRef": flavor})
    assert reply.status_code == status, reply.text
    assert message in reply.text
    assert await _status(cloud, server_id) == ("ACTIVE", None, 1)


async def test_a_resize_to_a_smaller_disk_is_refused(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot(flavorRef="2"))["id"]
    reply = await cloud.act(server_id, "resize", {"flavorRef": "42"})
    assert reply.status_code == 400
    assert "Unable to resize disk down" in reply.text


async def test_a_resize_beyond_the_quota_is_403(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    await cloud.write(quota.set_limits, cloud.project_id, "compute", {"ram": 300})
    reply = await cloud.act(server_id, "resize", {"flavorRef": "2"})
    assert reply.status_code == 403, reply.text
    assert await _status(cloud, server_id) == ("ACTIVE", None, 1)


async def test_a_server_that_waits_for_the_word_is_deleted_with_both_claims(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    await _acted(cloud, server_id, "resize", {"flavorRef": "2"})
    assert (await cloud.call("DELETE", f"/servers/{server_id}")).status_code == 204
    await cloud.rest()
    assert await _claims(cloud) == []
    assert await _used(cloud) == {"instances": 0, "cores": 0, "ram": 0}


async def test_an_admins_word_ends_a_resize_that_went_wrong(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    await _acted(cloud, server_id, "resize", {"flavorRef": "2"})
    cloud.hosts.refuse["h1", "domain.ensure"] = errors.Unavailable("No.")
    await _acted(cloud, server_id, "revertResize")
    assert (await cloud.show(server_id))["status"] == "ERROR"
    cloud.hosts.refuse.clear()
    reply = await cloud.act(server_id, "os-resetState", {"state": "active"}, token=cloud.admin)
    assert reply.status_code == 202
    assert len(await _claims(cloud)) == 1
    await _acted(cloud, server_id, "reboot", {"type": "HARD"})
    assert await _status(cloud, server_id) == ("ACTIVE", None, 1)
    await _acted(cloud, server_id, "resize", {"flavorRef": "3"})
    assert (await _status(cloud, server_id))[0] == "VERIFY_RESIZE"


async def test_an_image_of_a_server_says_what_it_is_of(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    reply = await _acted(cloud, server_id, "createImage", {"name": "picture", "metadata": {"color": "blue"}})
    image_id = reply.json()["image_id"]
    image = await cloud.api.cloud.db.read(image_store.find, image_id)
    assert image is not None
    assert (image.name, image.status, image.disk_format, image.min_disk) == ("picture", Status.ACTIVE, "qcow2", 1)
    assert image.properties["instance_uuid"] == server_id
    assert (image.properties["image_type"], image.properties["color"]) == ("snapshot", "blue")
    assert await _status(cloud, server_id) == ("ACTIVE", None, 1)
    assert not cloud.hosts.of("capture")
    older = await cloud.act(server_id, "createImage", {"name": "older"}, version="2.44")
    assert older.status_code == 202 and not older.content
    assert older.headers["location"].rpartition("/images/")[2]


async def test_an_image_that_cannot_be_made_is_none(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    cloud.hosts.refuse["h1", "capture.ensure"] = errors.Unavailable("No room for a copy.")
    reply = await _acted(cloud, server_id, "createImage", {"name": "picture"})
    assert await cloud.api.cloud.db.read(image_store.find, reply.json()["image_id"]) is None
    assert await _status(cloud, server_id) == ("ACTIVE", None, 1)


async def test_a_shelved_server_is_on_no_host_and_comes_back_with_its_address(cloud: ComputeCloud) -> None:
    before = await cloud.boot()
    server_id = before["id"]
    await _acted(cloud, server_id, "shelve")
    assert await _status(cloud, server_id) == ("SHELVED_OFFLOADED", None, 0)
    for noun in ("domain", "disk", "port", "capture"):
        assert not cloud.hosts.of(noun), noun
    assert await _claims(cloud) == []
    shelved = await cloud.show(server_id)
    assert (shelved["hostId"], shelved["addresses"]) == ("", before["addresses"])
    await _acted(cloud, server_id, "unshelve", {"availability_zone": "nova"})
    assert await _status(cloud, server_id) == ("ACTIVE", None, 1)
    after = await cloud.show(server_id)
    assert (after["addresses"], after["image"]["id"]) == (before["addresses"], rows.IMAGE_ID)
    assert cloud.hosts.of("disk")[root_disk_id(server_id)].image_sha256 == "cd" * 32


async def test_a_server_that_left_while_others_were_told_is_not_told_to_its_old_host(
    cloud: ComputeCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Telling a whole host takes minutes; what was on it at the beginning may be on none by then."""
    server_id = (await cloud.boot())["id"]
    listed = await cloud.api.cloud.db.read(store.settled_on, "h1")
    await _acted(cloud, server_id, "shelve")
    heard = len(cloud.hosts.asked)
    monkeypatch.setattr(store, "settled_on", lambda tx, host_id: listed)
    await server_settle.settle(cloud.api.cloud, "h1")
    assert len(cloud.hosts.asked) == heard
    assert server_id not in cloud.hosts.of("domain")


async def test_a_shelved_server_is_deleted_with_what_it_was_kept_as(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    await _acted(cloud, server_id, "shelve")
    kept = (await cloud.api.cloud.db.read(store.find, server_id)).shelved_image_id
    assert (await cloud.call("DELETE", f"/servers/{server_id}")).status_code == 204
    await cloud.rest()
    assert await cloud.api.cloud.db.read(image_store.find, kept) is None
    count = await cloud.api.cloud.db.read(
        lambda tx: tx.execute(sa.select(sa.func.count()).select_from(ip_allocation)).scalar_one()
    )
    assert count == 0


async def test_an_unshelve_that_finds_no_host_leaves_it_on_the_shelf(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    await _acted(cloud, server_id, "shelve")
    cloud.hosts.refuse["h1", "domain.ensure"] = errors.Conflict("It cannot be.", why={"code": "unfit"})
    await _acted(cloud, server_id, "unshelve")
    assert await _status(cloud, server_id) == ("SHELVED_OFFLOADED", None, 0)
    cloud.hosts.refuse.clear()
    await _acted(cloud, server_id, "unshelve")
    assert await _status(cloud, server_id) == ("ACTIVE", None, 1)


async def test_each_action_has_its_events(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    await _acted(cloud, server_id, "resize", {"flavorRef": "2"})
    listed = (await cloud.call("GET", f"/servers/{server_id}/os-instance-actions")).json()["instanceActions"]
    request_id = listed[0]["request_id"]
    told = await cloud.call("GET", f"/servers/{server_id}/os-instance-actions/{request_id}")
    events = told.json()["instanceAction"]["events"]
    steps = ("place", "off", "port[0]", "image[0]", "bring[0]", "plug[0]", "turn", "reach", "disk[0]", "domain")
    assert [one["event"] for one in events] == [f"server-resize:{step}" for step in steps]
    assert {one["result"] for one in events} == {"Success"}


async def test_a_server_that_is_deleted_before_it_leaves_its_host_for_the_shelf_goes(
    cloud: ComputeCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each waits for the other to rest, unless the one that is overtaken gives way."""
    server_id = (await cloud.boot())["id"]
    with monkeypatch.context() as patched:
        patched.setattr(server_offload, "settled", lambda *_: False)
        await cloud.act(server_id, "shelve")
        while not await _is_leaving(cloud, server_id):
            await asyncio.sleep(0.02)
        assert (await cloud.call("DELETE", f"/servers/{server_id}")).status_code == 204
    await cloud.rest()
    assert (await cloud.call("GET", f"/servers/{server_id}")).status_code == 404
    for noun in ("domain", "disk", "port"):
        assert not cloud.hosts.of(noun)


async def _is_leaving(cloud: ComputeCloud, server_id: str) -> bool:
    found = await cloud.api.cloud.db.read(store.find, server_id)
    return found is not None and found.task_state == "shelving_offloading"
