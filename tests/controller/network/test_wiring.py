"""What hosts are told, and above all what they are not told again."""

import asyncio
from collections import Counter
from typing import Any

import msgspec
import pytest

from agent.wire import port as port_calls
from agent.wire.lifecycle import Generation
from agent.wire.specs import Absence
from controller.cloud import Cloud
from controller.errors import Conflict
from controller.network import ports, user_ports, wiring
from controller.network.store import host_objects
from controller.saga.model import Transient
from tests.controller.network.cloud import DEMO, Api, a_cloud, a_network, a_routed_port
from tests.controller.network.hosts import ListeningHosts

HOST = "host-1"


def hosts_of(cloud: Cloud) -> ListeningHosts:
    assert isinstance(cloud.hosts, ListeningHosts)
    return cloud.hosts


async def bind(cloud: Cloud, network_id: str, port_id: str, *, created: bool = True, host_id: str = HOST) -> None:
    await cloud.db.write(
        ports.bind_for_server,
        port_id=port_id,
        created=created,
        network_id=network_id,
        fixed_ip=None,
        groups_wanted=[],
        project_id=DEMO,
        server_id=f"server-of-{port_id}",
        hostname="guest",
        host_id=host_id,
        zone="nova",
        now=cloud.world.clock.now(),
    )


async def a_running_guest(cloud: Cloud, network_id: str, port_id: str, *, created: bool = True) -> None:
    """A port of a server, bound, plugged and in service."""
    await bind(cloud, network_id, port_id, created=created)
    await wiring.plug(cloud, HOST, port_id, cloud.world.clock.now() + 60)
    await cloud.db.write(wiring.plugged, port_id, cloud.world.clock.now())


async def settled(cloud: Cloud) -> list[tuple[str, str]]:
    """What a settle of every host says."""
    hosts_of(cloud).take()
    report = await wiring.settle_all(cloud)
    assert report["settled"] == report["hosts"]
    return hosts_of(cloud).take()


async def test_a_plug_brings_what_the_port_needs_before_the_port() -> None:
    cloud = a_cloud()
    network, _ = await a_network(Api(cloud))
    await a_running_guest(cloud, network["id"], "p1")
    said = [call for call, _ in hosts_of(cloud).take()]
    assert said[-1] == "port.ensure"
    assert said.index("network.ensure") < said.index("group.ensure")
    assert said.index("addresses.ensure") < said.index("group.ensure")
    assert (await Api(cloud).get("/ports/p1"))["status"] == "ACTIVE"


async def test_a_second_plug_says_only_what_is_new() -> None:
    cloud = a_cloud()
    network, _ = await a_network(Api(cloud))
    await a_running_guest(cloud, network["id"], "p1")
    hosts_of(cloud).take()
    await a_running_guest(cloud, network["id"], "p2")
    assert sorted(call for call, _ in hosts_of(cloud).take()) == ["addresses.delta", "port.ensure"]


async def test_nothing_is_said_in_a_steady_state() -> None:
    cloud = a_cloud()
    _, _, port = await a_routed_port(Api(cloud))
    await a_running_guest(cloud, port["network_id"], port["id"], created=False)
    await settled(cloud)
    assert await settled(cloud) == []


async def test_a_router_brings_its_other_networks_and_the_external_one() -> None:
    cloud = a_cloud()
    external, router, port = await a_routed_port(Api(cloud))
    await a_running_guest(cloud, port["network_id"], port["id"], created=False)
    hosts = hosts_of(cloud)
    assert hosts.has(HOST, "network") == {external["id"], port["network_id"]}
    spec = hosts.spec(HOST, "router", router["id"])
    assert spec.gateway.next_hops == ("203.0.113.1",)
    assert [leg.addresses for leg in spec.legs] == [("10.0.0.1/24",)]


async def test_a_floating_ip_reaches_the_router_and_leaves_it_with_its_port() -> None:
    cloud = a_cloud()
    api = Api(cloud)
    external, router, port = await a_routed_port(api)
    await a_running_guest(cloud, port["network_id"], port["id"], created=False)
    front = await api.make("floatingips", floating_network_id=external["id"], port_id=port["id"])
    assert await settled(cloud) == [("router.ensure", router["id"])]
    (floating,) = hosts_of(cloud).spec(HOST, "router", router["id"]).floating
    assert floating.address == front["floating_ip_address"]
    assert (await api("DELETE", f"/ports/{port['id']}")).status == 204
    await settled(cloud)
    assert (await api.get(f"/floatingips/{front['id']}"))["status"] == "DOWN"


async def test_what_is_no_longer_needed_goes_and_comes_back_with_a_newer_generation() -> None:
    cloud = a_cloud()
    network, _ = await a_network(Api(cloud))
    await a_running_guest(cloud, network["id"], "p1")
    before = hosts_of(cloud).spec(HOST, "network", network["id"]).generation
    await wiring.unplug(cloud, HOST, "p1", cloud.world.clock.now() + 60)
    release: dict[str, Any] = {"port_id": "p1", "created": True, "server_id": "server-of-p1"}
    await cloud.db.write(ports.release_for_server, **release, now=cloud.world.clock.now())
    assert {call for call, _ in await settled(cloud)} == {"network.absent", "group.absent", "addresses.absent"}
    assert hosts_of(cloud).has(HOST, "network") == set()
    await a_running_guest(cloud, network["id"], "p2")
    after = hosts_of(cloud).spec(HOST, "network", network["id"]).generation
    assert (after.epoch, after.n) > (before.epoch, before.n + 1)


async def test_what_is_gone_for_good_is_forgotten() -> None:
    cloud = a_cloud()
    api = Api(cloud)
    network, _ = await a_network(api)
    await a_running_guest(cloud, network["id"], "p1")
    assert (await api("DELETE", "/ports/p1")).status == 204
    assert (await api("DELETE", f"/networks/{network['id']}")).status == 204
    await settled(cloud)
    known = await cloud.db.read(host_objects.of_host, HOST)
    assert {noun for noun, _ in known} == {"group", "addresses"}  # The default group is there for ever.
    assert await settled(cloud) == []


async def test_a_deleted_port_of_a_running_server_is_taken_off_its_host() -> None:
    cloud = a_cloud()
    api = Api(cloud)
    network, _ = await a_network(api)
    await a_running_guest(cloud, network["id"], "p1")
    assert (await api("DELETE", "/ports/p1")).status == 204
    assert ("port.absent", "p1") in await settled(cloud)
    assert hosts_of(cloud).has(HOST, "port") == set()


async def test_a_port_that_is_deleted_on_its_way_is_taken_off_both_hosts() -> None:
    cloud = a_cloud()
    api = Api(cloud)
    network, _ = await a_network(api)
    await a_running_guest(cloud, network["id"], "p1")
    far, now = "host-2", cloud.world.clock.now()
    await cloud.db.write(ports.move_towards, port_id="p1", server_id="server-of-p1", host_id=far, now=now)
    await wiring.plug(cloud, far, "p1", now + 60)
    assert (await api("DELETE", "/ports/p1")).status == 204
    assert (await settled(cloud)).count(("port.absent", "p1")) == 2
    assert hosts_of(cloud).has(HOST, "port") == hosts_of(cloud).has(far, "port") == set()


async def test_a_port_that_comes_back_is_newer_than_its_removal() -> None:
    cloud = a_cloud()
    network, _ = await a_network(Api(cloud))
    await a_running_guest(cloud, network["id"], "p1")
    far, now, hosts = "host-2", cloud.world.clock.now(), hosts_of(cloud)
    where: dict[str, Any] = {"port_id": "p1", "server_id": "server-of-p1", "now": now}
    await cloud.db.write(ports.move_towards, **where, host_id=far)
    await cloud.db.write(ports.arrive, **where, host_id=far, zone="nova")
    await wiring.plug(cloud, far, "p1", now + 60)
    newest = hosts.spec(far, "port", "p1").generation
    # It was told to go at the newest generation that there was, and could not yet.
    late = msgspec.structs.replace(hosts.spec(HOST, "port", "p1"), generation=newest)
    hosts.objects[HOST, "port", "p1"] = late
    await wiring.unplug(cloud, HOST, "p1", now + 60)
    await cloud.db.write(ports.move_towards, **where, host_id=HOST)
    await wiring.plug(cloud, HOST, "p1", now + 60)
    assert hosts.has(HOST, "port") == hosts.has(far, "port") == {"p1"}


async def test_a_late_absence_of_a_deleted_port_is_no_failure() -> None:
    cloud = a_cloud()
    api = Api(cloud)
    network, _ = await a_network(api)
    await a_running_guest(cloud, network["id"], "p1")
    assert (await api("DELETE", "/ports/p1")).status == 204
    for _ in range(2):  # The server's own delete asks the host how old the port is, and goes past it.
        await wiring.unplug(cloud, HOST, "p1", cloud.world.clock.now() + 60)
    await settled(cloud)
    assert hosts_of(cloud).has(HOST, "port") == set()


async def test_changed_rules_and_pairs_reach_ports_in_service() -> None:
    cloud = a_cloud()
    api = Api(cloud)
    network, _ = await a_network(api)
    await a_running_guest(cloud, network["id"], "p1")
    group = await api.make("security-groups", name="web")
    await api.change("/ports/p1", {"security_groups": [group["id"]]})
    said = await settled(cloud)
    assert ("port.ensure", "p1") in said
    assert ("group.ensure", group["id"]) in said
    assert hosts_of(cloud).spec(HOST, "port", "p1").groups == (group["id"],)
    await api.change("/ports/p1", {"allowed_address_pairs": [{"ip_address": "10.0.0.99"}]})
    await settled(cloud)
    assert hosts_of(cloud).spec(HOST, "port", "p1").allowed_pairs[0].cidr == "10.0.0.99"
    rule = {"direction": "ingress", "protocol": "tcp", "port_range_min": 80, "port_range_max": 80}
    await api.make("security-group-rules", security_group_id=group["id"], **rule)
    assert await settled(cloud) == [("group.ensure", group["id"])]


async def test_a_new_member_is_told_to_those_whose_rules_name_the_group() -> None:
    cloud = a_cloud()
    api = Api(cloud)
    network, _ = await a_network(api)
    await a_running_guest(cloud, network["id"], "p1")
    made = await api.make("ports", network_id=network["id"])
    (default,) = await api.get("/security-groups?name=default")
    assert await settled(cloud) == [("addresses.delta", default["id"])]
    told = hosts_of(cloud).spec(HOST, "addresses", default["id"]).addresses
    assert made["fixed_ips"][0]["ip_address"] in told


async def test_a_changed_subnet_reaches_the_network_and_a_changed_gateway_the_router() -> None:
    cloud = a_cloud()
    api = Api(cloud)
    external, router, port = await a_routed_port(api)
    await a_running_guest(cloud, port["network_id"], port["id"], created=False)
    await settled(cloud)
    (inside,) = await api.get(f"/subnets?network_id={port['network_id']}")
    await api.change(f"/subnets/{inside['id']}", {"dns_nameservers": ["9.9.9.9"]})
    assert await settled(cloud) == [("network.ensure", port["network_id"])]
    admin = api.as_("admin")
    (outside,) = await admin.get(f"/subnets?network_id={external['id']}")
    pools = [{"start": "203.0.113.10", "end": "203.0.113.200"}]
    answer = await admin.change(f"/subnets/{outside['id']}", {"gateway_ip": "203.0.113.254", "allocation_pools": pools})
    assert answer.status == 200
    assert sorted(await settled(cloud)) == sorted([("network.ensure", external["id"]), ("router.ensure", router["id"])])
    assert hosts_of(cloud).spec(HOST, "router", router["id"]).gateway.next_hops == ("203.0.113.254",)


async def test_a_host_that_forgot_is_told_everything_again_and_decides_nothing() -> None:
    cloud = a_cloud()
    network, _ = await a_network(Api(cloud))
    await a_running_guest(cloud, network["id"], "p1")
    known = await cloud.db.read(host_objects.of_host, HOST)
    hosts_of(cloud).objects.clear()
    said = await settled(cloud)
    assert {call for call, _ in said} == {"network.ensure", "group.ensure", "addresses.ensure", "port.ensure"}
    assert await cloud.db.read(host_objects.of_host, HOST) == known


async def test_plugs_at_once_say_what_they_share_once_or_twice() -> None:
    cloud = a_cloud()
    network, _ = await a_network(Api(cloud))
    names = [f"p{index}" for index in range(20)]
    for name in names:
        await bind(cloud, network["id"], name)
    deadline = cloud.world.clock.now() + 60
    await asyncio.gather(*(wiring.plug(cloud, HOST, name, deadline) for name in names))
    said = Counter(call for call, _ in hosts_of(cloud).take())
    assert said == {"network.ensure": 1, "addresses.ensure": 1, "group.ensure": 1, "port.ensure": 20}


async def test_two_that_take_the_port_of_nobody_away_do_not_overtake_each_other() -> None:
    """A saga that undoes itself, and whoever settles the host: both ask how old the port is, and go past that."""
    cloud = a_cloud()
    network, _ = await a_network(Api(cloud))
    await a_running_guest(cloud, network["id"], "p1")
    await cloud.db.write(user_ports.delete, "p1", None, cloud.world.clock.now())
    hosts, deadline = hosts_of(cloud), cloud.world.clock.now() + 60
    hosts.take()
    await asyncio.gather(*(wiring.unplug(cloud, HOST, "p1", deadline) for _ in range(3)))
    assert [call for call, _ in hosts.take()] == ["port.absent"]


async def test_a_port_of_nobody_that_another_controller_takes_away_is_looked_at_again() -> None:
    cloud = a_cloud()
    network, _ = await a_network(Api(cloud))
    await a_running_guest(cloud, network["id"], "p1")
    await cloud.db.write(user_ports.delete, "p1", None, cloud.world.clock.now())
    hosts, deadline = hosts_of(cloud), cloud.world.clock.now() + 60

    async def overtake() -> None:
        hosts.before_absent = None
        absence = Absence(id="p1", generation=Generation(1, 99))
        await hosts.absent(HOST, port_calls.ABSENT, absence, deadline)

    hosts.before_absent = overtake
    with pytest.raises(Transient):
        await wiring.unplug(cloud, HOST, "p1", deadline)
    await wiring.unplug(cloud, HOST, "p1", deadline)
    assert hosts.has(HOST, "port") == set()


async def test_a_decision_that_was_overtaken_is_no_failure() -> None:
    cloud = a_cloud()
    network, _ = await a_network(Api(cloud))
    await a_running_guest(cloud, network["id"], "p1")
    hosts = hosts_of(cloud)

    async def overtake() -> None:
        hosts.before_ensure = None
        await bind(cloud, network["id"], "p3")
        await wiring.settle(cloud, HOST)

    await bind(cloud, network["id"], "p2")
    hosts.before_ensure = overtake
    hosts.take()
    await wiring.plug(cloud, HOST, "p2", cloud.world.clock.now() + 60)
    said = [call for call, _ in hosts.take()]
    assert said == ["addresses.delta", "addresses.delta", "port.ensure"]


async def test_one_refusal_does_not_keep_the_rest_from_being_said() -> None:
    cloud = a_cloud()
    api = Api(cloud)
    one, _ = await a_network(api)
    other, _ = await a_network(api, cidr="10.1.0.0/24")
    await a_running_guest(cloud, one["id"], "p1")
    await a_running_guest(cloud, other["id"], "p2")
    for network in (one, other):
        await api.change(f"/networks/{network['id']}", {"mtu": 1400})
    hosts = hosts_of(cloud)
    key = (HOST, "network", one["id"])
    stubborn = hosts.spec(*key)
    hosts.objects[key] = type(stubborn)(**{**_fields(stubborn), "generation": Generation(9, 9)})
    with pytest.raises(Conflict, match="stale"):
        await wiring.settle(cloud, HOST)
    assert hosts.spec(HOST, "network", other["id"]).mtu == 1400


def _fields(spec: Any) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in spec.__struct_fields__}
