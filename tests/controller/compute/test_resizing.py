"""Servers that get another size on another host, over HTTP, with real sagas on fake hosts: and the word about it."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from agent.wire.host import Door
from agent.wire.lifecycle import Power
from controller import errors
from controller.compute import image_users
from controller.compute.model import root_disk_id
from controller.db.tables.fleet import host
from controller.db.tables.placement import allocation
from controller.db.tx import Tx
from tests.controller.compute import rows
from tests.controller.compute.cloud import ComputeCloud, compute_cloud

pytestmark = pytest.mark.timeout(60)

HUGE = {"flavor": {"name": "huge", "ram": 12 * 1024, "vcpus": 1, "disk": 2, "id": "huge"}}
TOO_HUGE = {"flavor": {"name": "too-huge", "ram": 64 * 1024, "vcpus": 1, "disk": 2, "id": "too-huge"}}


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[ComputeCloud]:
    async with compute_cloud(tmp_path, "h1", "h2") as made:
        for host_id in ("h1", "h2"):
            made.hosts.doors[host_id] = Door(address=f"{host_id}:5444", id=f"door-{host_id}", boottime_s=0.0)
        for flavor in (HUGE, TOO_HUGE):
            assert (await made.call("POST", "/flavors", token=made.admin, json=flavor)).status_code == 200
        yield made
        assert not made.hosts.broken


async def _act(cloud: ComputeCloud, server_id: str, action: str, value: Any = None, status: int = 202) -> Any:
    cloud.api.clock.time += 1.0
    reply = await cloud.act(server_id, action, value, token=cloud.admin if action == "migrate" else None)
    assert reply.status_code == status, reply.text
    await cloud.rest()
    return await cloud.show(server_id, token=cloud.admin)


async def _booted(cloud: ComputeCloud) -> tuple[str, str, str]:
    """(its id, its host, the other host)."""
    server_id = (await cloud.boot())["id"]
    (here,) = _domains(cloud, server_id)
    return server_id, here, "h2" if here == "h1" else "h1"


def _domains(cloud: ComputeCloud, server_id: str) -> dict[str, Power]:
    """Where it has a domain, and what that is."""
    return {where: power for (where, one), power in cloud.hosts.powers.items() if one == server_id}


def _disks(cloud: ComputeCloud, server_id: str) -> dict[str, int]:
    """GiB by host."""
    found = {(noun, name): noun for (_, noun, name) in cloud.hosts.objects}
    assert all(noun != "disk" or name == root_disk_id(server_id) for noun, name in found)
    return {where: spec.size_gib for (where, noun, _), spec in cloud.hosts.objects.items() if noun == "disk"}


async def _empty(cloud: ComputeCloud, host_id: str, **values: Any) -> None:
    def change(tx: Tx) -> None:
        tx.execute(sa.update(host).where(host.c.id == host_id).values(**(values or {"disabled": True})))

    await cloud.write(change)


async def _claims(cloud: ComputeCloud) -> dict[str, int]:
    """MiB by host."""

    def read(tx: Tx) -> dict[str, int]:
        return {row.host_id: row.memory_mib for row in tx.execute(sa.select(allocation))}

    found: dict[str, int] = await cloud.api.cloud.db.read(read)
    return found


async def test_a_resize_stays_where_there_is_room(cloud: ComputeCloud) -> None:
    server_id, here, _ = await _booted(cloud)
    shown = await _act(cloud, server_id, "resize", {"flavorRef": "2"})
    assert (shown["status"], shown["OS-EXT-SRV-ATTR:host"]) == ("VERIFY_RESIZE", f"name-{here}")
    assert _disks(cloud, server_id) == {here: 5}


async def test_a_resize_leaves_a_full_host_and_its_disk_stays_until_it_is_confirmed(cloud: ComputeCloud) -> None:
    server_id, here, there = await _booted(cloud)
    addresses = (await cloud.show(server_id))["addresses"]
    await _empty(cloud, here, memory_mib=1024)
    shown = await _act(cloud, server_id, "resize", {"flavorRef": "huge"})
    assert (shown["status"], shown["OS-EXT-SRV-ATTR:host"]) == ("VERIFY_RESIZE", f"name-{there}")
    assert shown["addresses"] == addresses
    assert _domains(cloud, server_id) == {there: Power.RUNNING}, "nothing but the disk is left behind"
    assert _disks(cloud, server_id) == {here: 1, there: 2}
    assert {where for where, noun, _ in cloud.hosts.objects if noun == "port"} == {there}
    assert await _claims(cloud) == {here: 128, there: 12 * 1024}
    kept = await cloud.api.cloud.db.read(image_users.image_ids, here)
    assert kept == {rows.IMAGE_ID}, "what the disk lies upon stays"
    again = await cloud.act(server_id, "resize", {"flavorRef": "3"})
    assert again.status_code == 409
    assert "while it is in vm_state resized" in again.text
    shown = await _act(cloud, server_id, "confirmResize", None, 204)
    assert (shown["status"], shown["flavor"]["original_name"]) == ("ACTIVE", "huge")
    assert _disks(cloud, server_id) == {there: 2}
    assert await _claims(cloud) == {there: 12 * 1024}
    assert await cloud.api.cloud.db.read(image_users.image_ids, here) == set()


async def test_a_reverted_server_is_back_on_the_disk_that_it_left(cloud: ComputeCloud) -> None:
    server_id, here, there = await _booted(cloud)
    await _empty(cloud, here)
    await _act(cloud, server_id, "resize", {"flavorRef": "2"})
    assert _disks(cloud, server_id) == {here: 1, there: 5}
    shown = await _act(cloud, server_id, "revertResize")
    assert (shown["status"], shown["OS-EXT-SRV-ATTR:host"]) == ("ACTIVE", f"name-{here}")
    assert shown["flavor"]["original_name"] == "m1.nano"
    assert _domains(cloud, server_id) == {here: Power.RUNNING}
    assert _disks(cloud, server_id) == {here: 1}
    disk = cloud.hosts.objects[here, "disk", root_disk_id(server_id)]
    assert disk.is_kept and disk.source is None, "what is gone must not be made anew"
    assert await _claims(cloud) == {here: 128}
    assert {where for where, noun, _ in cloud.hosts.objects if noun == "port"} == {here}


async def test_a_stopped_server_stays_off_on_another_host(cloud: ComputeCloud) -> None:
    server_id, here, there = await _booted(cloud)
    await _act(cloud, server_id, "os-stop")
    await _empty(cloud, here)
    shown = await _act(cloud, server_id, "resize", {"flavorRef": "2"})
    assert (shown["status"], shown["OS-EXT-STS:power_state"]) == ("VERIFY_RESIZE", 4)
    assert _domains(cloud, server_id) == {there: Power.SHUTOFF}
    shown = await _act(cloud, server_id, "revertResize")
    assert (shown["status"], _domains(cloud, server_id)) == ("SHUTOFF", {here: Power.SHUTOFF})


async def test_a_resize_that_fails_elsewhere_leaves_the_server_whole(cloud: ComputeCloud) -> None:
    server_id, here, there = await _booted(cloud)
    await _empty(cloud, here)
    cloud.hosts.refuse[there, "domain.ensure"] = errors.Conflict("no")
    shown = await _act(cloud, server_id, "resize", {"flavorRef": "2"})
    assert (shown["status"], shown["OS-EXT-SRV-ATTR:host"]) == ("ACTIVE", f"name-{here}")
    assert _domains(cloud, server_id) == {here: Power.RUNNING}
    assert _disks(cloud, server_id) == {here: 1}
    assert await _claims(cloud) == {here: 128}


async def test_a_revert_that_fails_leaves_the_server_waiting_for_a_word(cloud: ComputeCloud) -> None:
    server_id, here, there = await _booted(cloud)
    await _empty(cloud, here)
    await _act(cloud, server_id, "resize", {"flavorRef": "2"})
    cloud.hosts.refuse[here, "domain.ensure"] = errors.Conflict("no")
    shown = await _act(cloud, server_id, "revertResize")
    assert (shown["status"], shown["OS-EXT-SRV-ATTR:host"]) == ("VERIFY_RESIZE", f"name-{there}")
    assert _domains(cloud, server_id) == {there: Power.RUNNING}
    assert _disks(cloud, server_id) == {here: 1, there: 5}
    cloud.hosts.refuse.clear()
    shown = await _act(cloud, server_id, "confirmResize", None, 204)
    assert shown["status"] == "ACTIVE" and _disks(cloud, server_id) == {there: 5}


@pytest.mark.parametrize("how", ["DELETE", "os-resetState"])
async def test_who_does_not_wait_for_the_word_leaves_no_disk(cloud: ComputeCloud, how: str) -> None:
    server_id, here, there = await _booted(cloud)
    await _empty(cloud, here)
    await _act(cloud, server_id, "resize", {"flavorRef": "2"})
    if how == "DELETE":
        assert (await cloud.call("DELETE", f"/servers/{server_id}")).status_code == 204
    else:
        await cloud.write(lambda tx: tx.execute(sa.text("UPDATE server SET vm_state = 'error'")))
        reply = await cloud.act(server_id, how, {"state": "active"}, token=cloud.admin)
        assert reply.status_code == 202, reply.text
    await cloud.rest()
    left = {} if how == "DELETE" else {there: 512}
    assert await _claims(cloud) == left
    assert set(_disks(cloud, server_id)) == set(left)


async def test_a_size_that_no_host_has_room_for_changes_nothing_and_says_why(cloud: ComputeCloud) -> None:
    server_id, here, _ = await _booted(cloud)
    await _act(cloud, server_id, "resize", {"flavorRef": "too-huge"})
    shown = await cloud.show(server_id)
    assert shown["status"] == "ACTIVE" and await _claims(cloud) == {here: 128}
    path = f"/servers/{server_id}/os-instance-actions"
    request_id = (await cloud.call("GET", path)).json()["instanceActions"][0]["request_id"]
    detail = (await cloud.call("GET", f"{path}/{request_id}", token=cloud.admin)).json()["instanceAction"]
    assert detail["message"] == "Error"
    said = await cloud.api.cloud.db.read(_cause)
    assert "No valid host was found" in said and "memory (2)" in said


def _cause(tx: Tx) -> str:
    return " ".join(tx.execute(sa.text("SELECT error FROM saga_event WHERE event = 'failed'")).scalars())


async def test_a_dead_host_may_keep_the_old_disk_and_the_word_is_taken_all_the_same(cloud: ComputeCloud) -> None:
    import asyncio

    server_id, here, there = await _booted(cloud)
    await _empty(cloud, here)
    await _act(cloud, server_id, "resize", {"flavorRef": "2"})
    cloud.hosts.silent.add(here)
    assert (await cloud.act(server_id, "confirmResize")).status_code == 204
    for _ in range(200):
        if (await cloud.show(server_id))["status"] == "ACTIVE":
            break
        await asyncio.sleep(0.05)
    assert await _claims(cloud) == {there: 512}
    assert set(_disks(cloud, server_id)) == {here, there}
    cloud.hosts.silent.clear()
    await cloud.rest()
    assert set(_disks(cloud, server_id)) == {there}


# Migrations: the same, in the size that it has.


async def _migrations(cloud: ComputeCloud, server_id: str) -> list[dict[str, Any]]:
    reply = await cloud.call("GET", f"/os-migrations?instance_uuid={server_id}", token=cloud.admin)
    found: list[dict[str, Any]] = reply.json()["migrations"]
    return found


async def test_a_migrated_server_waits_for_a_word_on_another_host(cloud: ComputeCloud) -> None:
    server_id, here, there = await _booted(cloud)
    shown = await _act(cloud, server_id, "migrate")
    assert (shown["status"], shown["OS-EXT-SRV-ATTR:host"]) == ("VERIFY_RESIZE", f"name-{there}")
    assert shown["flavor"]["original_name"] == "m1.nano"
    assert _domains(cloud, server_id) == {there: Power.RUNNING}
    assert _disks(cloud, server_id) == {here: 1, there: 1}, "its disk stays until the word"
    assert await _claims(cloud) == {here: 128, there: 128}
    for action in ("migrate", "resize"):
        again = await cloud.act(
            server_id, action, {"flavorRef": "2"} if action == "resize" else None, token=cloud.admin
        )
        assert (again.status_code, "while it is in vm_state resized" in again.text) == (409, True), again.text
    shown = await _act(cloud, server_id, "confirmResize", None, 204)
    assert (shown["status"], shown["OS-EXT-SRV-ATTR:host"]) == ("ACTIVE", f"name-{there}")
    assert _disks(cloud, server_id) == {there: 1} and await _claims(cloud) == {there: 128}
    actions = (await cloud.call("GET", f"/servers/{server_id}/os-instance-actions")).json()["instanceActions"]
    assert [one["action"] for one in actions[:2]] == ["confirmResize", "migrate"]


async def test_a_reverted_migration_is_back_where_it_was(cloud: ComputeCloud) -> None:
    server_id, here, there = await _booted(cloud)
    await _act(cloud, server_id, "os-stop")
    shown = await _act(cloud, server_id, "migrate", {"host": f"name-{there}"})
    assert (shown["status"], _domains(cloud, server_id)) == ("VERIFY_RESIZE", {there: Power.SHUTOFF})
    shown = await _act(cloud, server_id, "revertResize")
    assert (shown["status"], shown["OS-EXT-SRV-ATTR:host"]) == ("SHUTOFF", f"name-{here}")
    assert _domains(cloud, server_id) == {here: Power.SHUTOFF} and _disks(cloud, server_id) == {here: 1}
    assert await _claims(cloud) == {here: 128}


async def test_migrations_that_cannot_be_are_refused_with_the_why(cloud: ComputeCloud) -> None:
    server_id, here, there = await _booted(cloud)
    same = await cloud.act(server_id, "migrate", {"host": f"name-{here}"}, token=cloud.admin)
    assert (same.status_code, "can't be the same one" in same.text) == (400, True)
    unknown = await cloud.act(server_id, "migrate", {"host": "nowhere"}, token=cloud.admin)
    assert (unknown.status_code, "nowhere could not be found" in unknown.text) == (400, True)
    assert (await cloud.act(server_id, "migrate")).status_code == 403
    await _empty(cloud, there)
    for named in (None, {"host": f"name-{there}"}):
        unfit = await cloud.act(server_id, "migrate", named, token=cloud.admin)
        assert (unfit.status_code, "host-disabled (1)" in unfit.text) == (409, True), unfit.text
    await _act(cloud, server_id, "pause")
    paused = await cloud.act(server_id, "migrate", token=cloud.admin)
    assert (paused.status_code, "vm_state paused" in paused.text) == (409, True)
    assert await _claims(cloud) == {here: 128} and await _migrations(cloud, server_id) == []


async def test_migrations_and_resizes_are_listed_with_how_far_they_are(cloud: ComputeCloud) -> None:
    server_id, here, there = await _booted(cloud)
    for action, value in (("migrate", None), ("resize", {"flavorRef": "2"})):
        await _act(cloud, server_id, action, value)
        assert (await _migrations(cloud, server_id))[0]["status"] == "finished"
        await _act(cloud, server_id, "revertResize")
    cloud.hosts.refuse[there, "domain.ensure"] = errors.Conflict("no")
    await _act(cloud, server_id, "migrate")
    cloud.hosts.refuse.clear()
    await _act(cloud, server_id, "resize", {"flavorRef": "2"})
    assert (await cloud.call("DELETE", f"/servers/{server_id}")).status_code == 204
    await cloud.rest()
    found = await _migrations(cloud, server_id)
    assert [(one["migration_type"], one["status"]) for one in found] == [
        ("resize", "confirmed"),
        ("migration", "error"),
        ("resize", "reverted"),
        ("migration", "reverted"),
    ]
    assert [one["dest_compute"] == f"name-{there}" for one in found] == [False, True, False, True]
    assert {one["source_compute"] for one in found} == {f"name-{here}"}
    changed = [one["old_instance_type_id"] != one["new_instance_type_id"] for one in found]
    assert changed == [True, False, True, False]
    assert all("links" not in one for one in found), "there is nothing to be called off"
