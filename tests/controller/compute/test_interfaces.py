"""Interfaces that come to servers and go from them, over HTTP, with real sagas on fake hosts."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from controller import quota
from controller.compute import domains, store
from controller.db.tables.network import port
from controller.db.tx import Tx
from tests.controller.compute import rows
from tests.controller.compute.cloud import ComputeCloud, compute_cloud

pytestmark = pytest.mark.timeout(60)

OTHER_NETWORK_ID = "77777777-3333-4333-8333-333333333333"


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[ComputeCloud]:
    async with compute_cloud(tmp_path) as made:
        yield made


async def _attach(cloud: ComputeCloud, server_id: str, status: int = 200, **wanted: Any) -> Any:
    reply = await cloud.call("POST", f"/servers/{server_id}/os-interface", json={"interfaceAttachment": wanted})
    assert reply.status_code == status, reply.text
    return reply.json()["interfaceAttachment"] if status == 200 else reply.text


async def _interfaces(cloud: ComputeCloud, server_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await cloud.call("GET", f"/servers/{server_id}/os-interface")).json()[
        "interfaceAttachments"
    ]
    return found


async def test_an_interface_is_told_at_once_and_active_when_the_guest_has_it(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    made = await _attach(cloud, server_id, net_id=rows.NETWORK_ID, fixed_ips=[{"ip_address": "10.0.0.77"}], tag="db")
    assert (made["fixed_ips"][0]["ip_address"], made["port_state"], made["tag"]) == ("10.0.0.77", "DOWN", "db")
    await cloud.rest()
    shown = await _interfaces(cloud, server_id)
    assert [one["port_state"] for one in shown] == ["ACTIVE", "ACTIVE"]
    domain = cloud.hosts.of("domain")[server_id]
    assert made["mac_addr"] in [nic.mac for nic in domain.nics]
    assert len(json.loads(domain.guest.network_data)["links"]) == 2
    assert "10.0.0.77" in [one["addr"] for one in (await cloud.show(server_id))["addresses"]["demo-net"]]
    assert not cloud.hosts.broken


async def test_a_detached_port_that_was_made_for_the_server_is_gone(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    made = await _attach(cloud, server_id)
    await cloud.rest()
    reply = await cloud.call("DELETE", f"/servers/{server_id}/os-interface/{made['port_id']}")
    assert reply.status_code == 202
    await cloud.rest()
    assert len(await _interfaces(cloud, server_id)) == 1
    assert made["port_id"] not in cloud.hosts.of("port")
    assert await cloud.api.cloud.db.read(_count_ports) == 1
    assert (await cloud.call("DELETE", f"/servers/{server_id}/os-interface/{made['port_id']}")).status_code == 404
    assert not cloud.hosts.broken


async def test_a_guest_reads_no_address_of_an_interface_that_has_left(cloud: ComputeCloud) -> None:
    """Also not in the very definition by which it leaves: afterwards the generation stays, and so must the words."""
    server_id = (await cloud.boot())["id"]
    (first,) = await _interfaces(cloud, server_id)
    assert cloud.hosts.of("domain")[server_id].guest.ec2["local-ipv4"] == first["fixed_ips"][0]["ip_address"]
    await cloud.call("DELETE", f"/servers/{server_id}/os-interface/{first['port_id']}")
    await cloud.rest()
    told = cloud.hosts.of("domain")[server_id]
    found = await cloud.api.cloud.db.read(domains.whole, server_id)
    assert told.guest == domains.spec_of(found, 1, cloud.api.cloud.fence).guest
    assert told.guest.ec2["local-ipv4"] == ""


def _count_ports(tx: Tx) -> int:
    mine = port.c.device_owner.like("compute:%")
    return tx.execute(sa.select(sa.func.count()).select_from(port).where(mine)).scalar_one()


async def test_a_users_port_stays_theirs(cloud: ComputeCloud) -> None:
    await cloud.write(lambda tx: rows.insert_user_port(tx, project_id=cloud.project_id))
    server_id = (await cloud.boot())["id"]
    await _attach(cloud, server_id, port_id=rows.USER_PORT_ID)
    await cloud.rest()
    again = await _attach(cloud, server_id, status=409, port_id=rows.USER_PORT_ID)
    assert "in use" in again
    await cloud.call("DELETE", f"/servers/{server_id}/os-interface/{rows.USER_PORT_ID}")
    await cloud.rest()

    def read(tx: Tx) -> Any:
        return tx.execute(sa.select(port.c.device_id, port.c.host_id).where(port.c.id == rows.USER_PORT_ID)).one()

    assert tuple(await cloud.api.cloud.db.read(read)) == ("", "")


async def test_several_come_at_once_and_all_go_with_the_server(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    for _ in range(4):
        await _attach(cloud, server_id)
    await cloud.rest()
    assert len(cloud.hosts.of("domain")[server_id].nics) == 5
    await _attach(cloud, server_id)
    assert (await cloud.call("DELETE", f"/servers/{server_id}")).status_code == 204
    await cloud.rest()
    for noun in ("domain", "disk", "port"):
        assert not cloud.hosts.of(noun)
    assert await cloud.api.cloud.db.read(_count_ports) == 0


@pytest.mark.parametrize(
    ("wanted", "status"),
    [
        ({"net_id": rows.NETWORK_ID, "port_id": rows.USER_PORT_ID}, 400),
        ({"fixed_ips": [{"ip_address": "10.0.0.9"}]}, 400),
        ({"net_id": rows.NETWORK_ID, "fixed_ips": []}, 400),
        ({"net_id": rows.NETWORK_ID, "fixed_ips": [{"ip_address": "10.0.0.300"}]}, 400),
        ({"net_id": rows.NETWORK_ID, "fixed_ips": [{"ip_address": "172.16.0.1"}]}, 400),
        ({"net_id": OTHER_NETWORK_ID}, 400),
        ({"port_id": OTHER_NETWORK_ID}, 404),
        ({"net_id": "x"}, 400),
        ({"tag": "a/b"}, 400),
        ({"surely": "unknown"}, 400),
    ],
)
async def test_bad_interfaces_are_refused_and_leave_nothing(
    cloud: ComputeCloud, wanted: dict[str, Any], status: int
) -> None:
    server_id = (await cloud.boot())["id"]
    await _attach(cloud, server_id, status=status, **wanted)
    assert len(await _interfaces(cloud, server_id)) == 1
    assert len(await cloud.api.cloud.db.read(store.nics, server_id)) == 1


async def test_an_interface_beyond_the_quota_of_ports_is_refused(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    await cloud.write(quota.set_limits, cloud.project_id, "network", {"port": 1})
    await _attach(cloud, server_id, status=403)


async def test_a_suspended_server_gets_none(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    assert (await cloud.act(server_id, "suspend")).status_code == 202
    await cloud.rest()
    told = await _attach(cloud, server_id, status=409)
    assert f"Cannot 'attach_interface' instance {server_id} while it is in vm_state suspended" in told


async def test_a_server_does_not_leave_its_host_while_an_interface_comes(tmp_path: Path) -> None:
    async with compute_cloud(tmp_path, "h1", "h2") as cloud:
        server_id = (await cloud.boot())["id"]
        cloud.hosts.silent |= {"h1", "h2"}
        await _attach(cloud, server_id)
        refused = await cloud.act(server_id, "migrate", token=cloud.admin, version="2.79")
        assert (refused.status_code, "coming or going" in refused.text) == (409, True), refused.text
        cloud.hosts.silent.clear()
        await cloud.rest()
        assert [one["port_state"] for one in await _interfaces(cloud, server_id)] == ["ACTIVE", "ACTIVE"]
