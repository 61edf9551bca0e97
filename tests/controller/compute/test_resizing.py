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
    reply = await cloud.act(server_id, action, value)
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
