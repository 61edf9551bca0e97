"""Hosts are told of each other's ports: just those that share a network, just the difference, everything in doubt."""

from typing import Any

import msgspec
import sqlalchemy as sa

from agent.wire.lifecycle import Generation
from agent.wire.router import tunnel_mac
from controller.cloud import Cloud
from controller.db.tables.fleet import host
from controller.db.tx import Database, Tx
from controller.network import ends, gateways, user_ports, wiring
from controller.network.store import ports
from tests.controller.network.cloud import Api, a_cloud, a_network, an_enrolled_host, an_external_network
from tests.controller.network.test_wiring import bind, hosts_of, settled

ONE, TWO = "host-1", "host-2"
ENDS = {ONE: "198.18.0.11", TWO: "198.18.0.12"}


async def a_pair(database: Database | None = None) -> tuple[Cloud, str]:
    """Two hosts with the external network, and a network of demo's."""
    cloud = a_cloud(database)
    for host_id, end in ENDS.items():
        await cloud.db.write(an_enrolled_host, host_id, f"name-{host_id}", ["external"], end)
    network, _ = await a_network(Api(cloud))
    return cloud, str(network["id"])


async def a_guest(cloud: Cloud, network_id: str, port_id: str, host_id: str) -> None:
    await bind(cloud, network_id, port_id, host_id=host_id)
    await wiring.plug(cloud, host_id, port_id, cloud.world.clock.now() + 60)
    await cloud.db.write(wiring.plugged, port_id, cloud.world.clock.now())


async def spread(cloud: Cloud) -> list[tuple[str, str]]:
    """What hosts are told of each other now."""
    hosts_of(cloud).take()
    report = await wiring.spread(cloud)
    assert report["behind"] == report["told"]
    return [one for one in hosts_of(cloud).take() if one[0].startswith(("forwarding", "addresses"))]


def known(cloud: Cloud, host_id: str, network_id: str) -> dict[str, str]:
    """Tunnel ends by port, as a host was told."""
    return {peer.port_id: peer.end for peer in hosts_of(cloud).spec(host_id, "forwarding", network_id).peers}


async def test_a_network_on_one_host_has_no_tunnel() -> None:
    cloud, network_id = await a_pair()
    await a_guest(cloud, network_id, "p1", ONE)
    await spread(cloud)
    await settled(cloud)
    assert hosts_of(cloud).has(ONE, "forwarding") == set()


async def test_hosts_that_share_a_network_learn_of_each_other_and_others_do_not() -> None:
    cloud, network_id = await a_pair()
    other, _ = await a_network(Api(cloud), cidr="10.7.0.0/24")
    await a_guest(cloud, network_id, "p1", ONE)
    await a_guest(cloud, other["id"], "q1", TWO)
    await a_guest(cloud, network_id, "p2", TWO)
    assert known(cloud, TWO, network_id) == {"p1": ENDS[ONE]}, "its own plug brings it"
    await spread(cloud)
    assert known(cloud, ONE, network_id) == {"p2": ENDS[TWO]}
    assert hosts_of(cloud).has(ONE, "forwarding") == {network_id} == hosts_of(cloud).has(TWO, "forwarding")
    peer = hosts_of(cloud).spec(ONE, "forwarding", network_id).peers[0]
    row = await cloud.db.read(ports.find, "p2")
    assert row is not None
    assert (peer.mac, peer.addresses) == (row.mac_address, tuple(fixed.ip_address for fixed in row.fixed_ips))


async def test_a_further_port_is_told_as_a_difference_and_only_to_whom_it_concerns() -> None:
    cloud, network_id = await a_pair()
    await a_guest(cloud, network_id, "p1", ONE)
    await a_guest(cloud, network_id, "p2", TWO)
    await spread(cloud)
    await settled(cloud)
    await a_guest(cloud, network_id, "p3", TWO)
    said = [one for one in await spread(cloud) if one[0].startswith("forwarding")]
    assert said == [("forwarding.delta", network_id)]
    assert known(cloud, ONE, network_id) == {"p2": ENDS[TWO], "p3": ENDS[TWO]}
    assert await spread(cloud) == [], "nobody is told twice"


async def test_a_port_that_goes_or_moves_is_told_too() -> None:
    cloud, network_id = await a_pair()
    for number, host_id in enumerate((ONE, TWO, TWO)):
        await a_guest(cloud, network_id, f"p{number}", host_id)
    await spread(cloud)
    await cloud.db.write(user_ports.delete, "p2", None, cloud.world.clock.now())
    await spread(cloud)
    assert known(cloud, ONE, network_id) == {"p1": ENDS[TWO]}
    moved: dict[str, Any] = {"host_id": ONE}
    await cloud.db.write(ports.update, "p1", cloud.world.clock.now(), **moved)
    await spread(cloud)
    assert known(cloud, ONE, network_id) == {}
    assert known(cloud, TWO, network_id) == {"p0": ENDS[ONE], "p1": ENDS[ONE]}


async def test_a_host_that_lacks_what_a_difference_is_of_gets_everything() -> None:
    cloud, network_id = await a_pair()
    await a_guest(cloud, network_id, "p1", ONE)
    await a_guest(cloud, network_id, "p2", TWO)
    await spread(cloud)
    held = hosts_of(cloud).spec(ONE, "forwarding", network_id)
    hosts_of(cloud).objects[ONE, "forwarding", network_id] = msgspec.structs.replace(
        held, generation=Generation(held.generation.epoch, 0), peers=()
    )
    await a_guest(cloud, network_id, "p3", TWO)
    said = [one for one in await spread(cloud) if one[0].startswith("forwarding")]
    assert said == [("forwarding.delta", network_id), ("forwarding.ensure", network_id)]
    assert known(cloud, ONE, network_id) == {"p2": ENDS[TWO], "p3": ENDS[TWO]}


async def test_a_host_with_another_address_is_reached_there() -> None:
    cloud, network_id = await a_pair()
    await a_guest(cloud, network_id, "p1", ONE)
    await a_guest(cloud, network_id, "p2", TWO)
    await spread(cloud)

    def move(tx: Tx) -> None:
        tx.execute(sa.update(host).where(host.c.id == TWO).values(underlay_address="198.18.0.99"))
        ends.host_moved(tx, TWO)

    await cloud.db.write(move)
    await spread(cloud)
    assert known(cloud, ONE, network_id) == {"p2": "198.18.0.99"}


async def test_a_router_has_its_gateway_on_one_host_and_the_others_know_where() -> None:
    cloud, network_id = await a_pair()
    api = Api(cloud)
    external = await an_external_network(api)
    router = await api.make("routers", external_gateway_info={"network_id": external["id"]})
    (subnet,) = await api.get(f"/subnets?network_id={network_id}")
    answer = await api("PUT", f"/routers/{router['id']}/add_router_interface", {"subnet_id": subnet["id"]})
    assert answer.status == 200
    (leg,) = await api.as_("admin").get("/ports?device_owner=network:router_interface")
    here = (await cloud.db.read(gateways.of_host, ONE), ONE, TWO)
    at, elsewhere = (ONE, TWO) if here[0] else (TWO, ONE)
    await a_guest(cloud, network_id, "p1", elsewhere)
    await spread(cloud)
    for _ in range(2):
        await settled(cloud)
    assert hosts_of(cloud).spec(at, "router", router["id"]).gateway is not None
    away = hosts_of(cloud).spec(elsewhere, "router", router["id"])
    assert (away.gateway, away.gateway_end) == (None, ENDS[at])
    assert external["id"] not in hosts_of(cloud).has(elsewhere, "network")
    ways = {peer.mac for peer in hosts_of(cloud).spec(elsewhere, "forwarding", network_id).peers if not peer.is_guest}
    assert ways == {tunnel_mac(leg["id"], ENDS[at])}

    assert await cloud.db.write(gateways.elect, frozenset((elsewhere,)), cloud.world.clock.now()) == 1
    for _ in range(2):
        await settled(cloud)
    assert hosts_of(cloud).spec(elsewhere, "router", router["id"]).gateway is not None
    assert not await cloud.db.read(gateways.is_any_misplaced, frozenset((ONE, TWO))), "it stays where it can"
