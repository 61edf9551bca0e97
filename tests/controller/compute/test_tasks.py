"""Reconcilers of servers: what guests do, what hosts forget, what nobody owns, what is long gone."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from agent.wire.lifecycle import Power
from controller.compute import domains, store
from controller.compute.model import Event, PowerState
from controller.errors import Conflict
from controller.network import user_ports
from controller.tasks import lost_ports, server_purge, server_settle
from controller.tasks.orphans import Orphans
from controller.tasks.server_push import push_all
from tests.controller.compute.cloud import ComputeCloud, compute_cloud

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[ComputeCloud]:
    async with compute_cloud(tmp_path) as made:
        yield made


async def test_a_late_hint_about_power_changes_nothing(cloud: ComputeCloud) -> None:
    """What is written is what the host answers when it is asked, not what an event said."""
    server_id = (await cloud.boot())["id"]
    cloud.hosts.power_changes("h1", server_id, Power.SHUTOFF)
    cloud.hosts.powers["h1", server_id] = Power.RUNNING
    assert (await cloud.power_sync.run())["changed"] == 0
    assert (await cloud.show(server_id))["status"] == "ACTIVE"


async def test_a_lost_event_about_power_is_found_by_looking(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    await cloud.power_sync.run()
    cloud.hosts.powers["h1", server_id] = Power.CRASHED
    cloud.api.clock.time += 60.0
    assert (await cloud.power_sync.run())["changed"] == 1
    assert (await cloud.show(server_id))["status"] == "SHUTOFF"


async def test_a_row_whose_power_is_known_and_whose_state_denies_it_is_found_by_looking(cloud: ComputeCloud) -> None:
    """The host was booted between a saga's last word to it and the end of the saga."""
    server_id = (await cloud.boot())["id"]
    await cloud.power_sync.run()
    cloud.hosts.powers["h1", server_id] = Power.SHUTOFF
    await cloud.write(store.change, server_id, {"power_state": PowerState.SHUTDOWN.value})
    cloud.api.clock.time += 60.0
    assert (await cloud.power_sync.run())["changed"] == 1
    assert (await cloud.show(server_id))["status"] == "SHUTOFF"
    cloud.api.clock.time += 60.0
    assert (await cloud.power_sync.run())["changed"] == 0


async def test_power_is_not_judged_while_somebody_works_on_the_server(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    await cloud.write(store.change, server_id, {"task_state": "rebooting"})
    cloud.hosts.power_changes("h1", server_id, Power.SHUTOFF)
    assert (await cloud.power_sync.run())["changed"] == 0
    assert (await cloud.show(server_id))["OS-EXT-STS:vm_state"] == "active"


async def test_a_paused_guest_shows_as_paused_power(cloud: ComputeCloud) -> None:
    """The host paused it, because a disk is full: it is still ACTIVE, and comes back by itself."""
    server_id = (await cloud.boot())["id"]
    cloud.hosts.power_changes("h1", server_id, Power.PAUSED)
    await cloud.power_sync.run()
    shown = await cloud.show(server_id)
    assert (shown["status"], shown["OS-EXT-STS:power_state"]) == ("ACTIVE", 3)


async def test_a_host_that_forgot_is_told_again_at_the_same_generation(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    before = cloud.hosts.of("domain")[server_id]
    await server_settle.settle(cloud.api.cloud, "h1")
    assert cloud.hosts.asked[-1][1] == "domain.ensure"  # Of the boot: what the host holds is not said again.
    heard = len(cloud.hosts.asked)
    del cloud.hosts.objects["h1", "domain", server_id]
    await server_settle.settle(cloud.api.cloud, "h1")
    after = cloud.hosts.of("domain")[server_id]
    assert len(cloud.hosts.asked) == heard + 1
    assert after == msgspec.structs.replace(before, hardware=after.hardware)
    assert after.hardware.machine == "pc-q35-7.2"


async def test_orphans_are_reported_when_they_were_seen_twice_and_are_left_alone(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    lost = "99999999-0000-4000-8000-000000000000"
    spec = cloud.hosts.of("domain")[server_id]
    cloud.hosts.objects["h1", "domain", lost] = msgspec.structs.replace(spec, id=lost)
    cloud.hosts.powers["h1", lost] = Power.RUNNING
    task = Orphans(cloud.api.cloud)
    assert (await task.run())["orphans"] == 0
    assert await task.run() == {"orphans": 1, "domains": [f"h1/{lost}"]}
    assert lost in cloud.hosts.of("domain")


async def test_servers_deleted_a_month_ago_are_forgotten(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    await cloud.call("DELETE", f"/servers/{server_id}")
    await cloud.rest()
    task = server_purge.task(cloud.api.cloud.db, cloud.api.cloud.world)
    assert await task.run() == {"purged": 0}
    cloud.api.clock.time += server_purge.KEPT_S + 1
    assert await task.run() == {"purged": 1}
    assert await cloud.api.cloud.db.read(store.find, server_id) is None


async def test_a_server_goes_on_without_a_port_that_somebody_deleted(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    (nic,) = await cloud.api.cloud.db.read(store.nics, server_id)
    await cloud.write(lambda tx: user_ports.delete(tx, nic.port_id, None, 2.0))
    assert await lost_ports.lost_ports(cloud.api.cloud).run() == {"servers": 1}
    await push_all(cloud.api.cloud)
    assert cloud.hosts.of("domain")[server_id].nics == ()
    assert await lost_ports.lost_ports(cloud.api.cloud).run() == {"servers": 0}


async def test_a_server_that_is_being_deleted_is_not_told_to_its_host_any_more(cloud: ComputeCloud) -> None:
    """The deletion's generation is its own: a definition sent at it would make the host refuse the removal."""
    server_id = (await cloud.boot())["id"]
    await cloud.write(store.change, server_id, {"is_deleting": True})
    await cloud.write(store.bump, server_id)
    with pytest.raises(Conflict):
        await domains.push(cloud.api.cloud, server_id, "h1", cloud.api.clock.now() + 10)
    assert cloud.hosts.of("domain")[server_id].generation.n == 1


async def test_a_report_that_comes_too_late_is_ignored(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    assert not await cloud.write(store.report, server_id, Event.STARTED, 1.0)
    assert (await cloud.show(server_id))["status"] == "ACTIVE"


async def test_the_groups_of_a_server_change_on_all_its_ports(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    path = f"/servers/{server_id}/os-security-groups"
    (default,) = (await cloud.call("GET", path)).json()["security_groups"]
    assert (default["name"], len(default["rules"])) == ("default", 2)
    assert default["rules"][0]["group"] == {"name": "default", "tenant_id": cloud.project_id}
    assert (await cloud.act(server_id, "addSecurityGroup", {"name": "none"})).status_code == 404
    assert (await cloud.act(server_id, "removeSecurityGroup", {"name": "default"})).status_code == 202
    assert (await cloud.call("GET", path)).json()["security_groups"] == []
    assert "security_groups" not in await cloud.show(server_id)
    assert (await cloud.act(server_id, "removeSecurityGroup", {"name": "default"})).status_code == 404
    assert (await cloud.act(server_id, "addSecurityGroup", {"name": "default"})).status_code == 202
    assert (await cloud.show(server_id))["security_groups"] == [{"name": "default"}]
