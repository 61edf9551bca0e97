"""Packets between two hosts: tunnels whose tables are told, routers that are on both, groups that follow."""

import socket
import time
from collections.abc import Iterator

import msgspec
import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6ND_RA, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from agent.wire.errors import Unfit
from agent.wire.forwarding import ForwardingSpec, Peer
from agent.wire.lifecycle import Generation
from agent.wire.network import NetworkSpec
from agent.wire.router import tunnel_mac
from drivers.network import links as host_links
from drivers.network import names, netns
from drivers.network.settings import PhysicalNetwork
from tests.host.cloud_on_host import a_floating, a_gateway, a_leg, a_router
from tests.host.netlab import Echo, a_rule, members, outward, ping, talks
from tests.host.two_hosts import ENDS, Pair, neighbours_of, paired

pytestmark = pytest.mark.host

BOTH = pytest.mark.parametrize("version", ["v4", "v6"])


@pytest.fixture
def pair() -> Iterator[Pair]:
    with paired() as pair:
        yield pair


@BOTH
def test_guests_on_two_hosts_reach_each_other(pair: Pair, version: str) -> None:
    network = pair.network()
    one = pair.one.guest(network, 10, pair.one.open_group())
    two = pair.two.guest(network, 11, pair.two.open_group())
    assert not one.pings(getattr(two, version), 0.5), "nobody learns by himself"
    pair.tell(network)
    assert one.pings(getattr(two, version)) and two.pings(getattr(one, version))
    pair.two.serve(two, getattr(two, version), 22)
    assert one.reaches(getattr(two, version), 22)
    assert neighbours_of(one)[getattr(two, version)] == two.port.mac


def test_tenants_with_the_same_addresses_do_not_meet_between_hosts(pair: Pair) -> None:
    mine, theirs = pair.network("mine"), pair.network("theirs", segment=101)
    one = pair.one.guest(mine, 10, pair.one.open_group())
    foreign = pair.two.guest(theirs, 11, pair.two.open_group())
    beside = pair.one.guest(theirs, 12, pair.one.open_group())
    pair.tell(mine, theirs)
    assert beside.pings(foreign.v4)
    assert not one.pings(foreign.v4, 0.5)


def test_what_the_table_knows_is_asked_of_nobody(pair: Pair) -> None:
    """The other host's guest is a bare wire: it answers nothing, so whoever knows its MAC was told."""
    network = pair.network()
    one = pair.one.guest(network, 10, pair.one.open_group())
    silent, wire = pair.two.wire(network, 11, pair.two.open_group())
    pair.tell(network)
    one.pings("10.0.0.11", 0.5)
    one.pings("fd00::b", 0.5)
    assert {neighbours_of(one).get(address) for address in ("10.0.0.11", "fd00::b")} == {silent.mac}
    heard = [Ether(frame) for frame in wire.frames(0.5)]
    assert [frame for frame in heard if IP in frame or IPv6 in frame]
    assert not any(ARP in frame for frame in heard)


def test_what_the_table_knows_outlives_new_ports_of_the_bridge(pair: Pair) -> None:
    """A bridge without a MAC of its own takes that of its lowest port, and with every new one forgets whom it knows."""
    network = pair.network()
    one = pair.one.guest(network, 10, pair.one.open_group())
    silent, _ = pair.two.wire(network, 11, pair.two.open_group())
    pair.tell(network)

    def plug() -> None:
        with host_links.opened() as links:
            bridge = links.get(names.bridge(network.id))
            low = links.add("low", "veth", peer="lowest")
            links.shape(low, address="02:00:00:00:00:01")
            links.shape(low, master=bridge.index, state="up")

    pair.one.host.run(plug)
    one.pings("10.0.0.11", 0.5)
    assert neighbours_of(one).get("10.0.0.11") == silent.mac
    pair.one.host.run(lambda: _absent("low"))


def _absent(name: str) -> None:
    with host_links.opened() as links:
        links.absent(name)


def test_broadcasts_reach_every_end_and_dhcp_and_advertisements_none(pair: Pair) -> None:
    network = pair.network()
    port, near = pair.one.wire(network, 10, port_security=False)
    _, far = pair.two.wire(network, 11, port_security=False)
    pair.tell(network)
    all_of_us = Ether(src=port.mac, dst="ff:ff:ff:ff:ff:ff")
    near.send(all_of_us / IP(src="10.0.0.10", dst="10.0.0.255") / UDP(sport=9, dport=9) / Raw(b"hello"))
    assert far.got(b"hello")
    near.send(all_of_us / IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67) / BOOTP() / DHCP())
    near.send(Ether(src=port.mac, dst="33:33:00:00:00:01") / IPv6(src="fe80::1", dst="ff02::1") / ICMPv6ND_RA())
    heard = [Ether(frame) for frame in far.frames(0.5)]
    assert not any(DHCP in frame or ICMPv6ND_RA in frame for frame in heard)


def test_a_removed_peer_is_reached_no_more_and_a_moved_one_where_it_is(pair: Pair) -> None:
    network = pair.network()
    one = pair.one.guest(network, 10, pair.one.open_group())
    two = pair.two.guest(network, 11, pair.two.open_group())
    pair.tell(network)
    assert one.pings(two.v4)
    told = pair.forwarding(pair.one, network)
    elsewhere = tuple(msgspec.structs.replace(peer, end="198.18.0.13") for peer in told.peers)
    pair.one.fabric.ensure_forwarding(msgspec.structs.replace(told, peers=elsewhere), network)
    assert not one.pings(two.v4, 0.5)
    pair.one.fabric.ensure_forwarding(told, network)
    assert one.pings(two.v4)
    pair.one.fabric.ensure_forwarding(msgspec.structs.replace(told, peers=()), network)
    assert not one.pings(two.v4, 0.5)

    def tunnels() -> list[str]:
        with host_links.opened() as links:
            return [link.name for link in links.all() if link.kind == "vxlan"]

    assert pair.one.host.run(tunnels) == [names.vxlan(network.id)]
    pair.one.fabric.absent_forwarding(network.id)
    assert pair.one.host.run(tunnels) == []


def test_the_largest_packet_of_a_network_passes_whole(pair: Pair) -> None:
    network = pair.network()
    _, near = pair.one.wire(network, 10, port_security=False)
    other, far = pair.two.wire(network, 11, port_security=False)
    pair.tell(network)
    largest = IP(src="10.0.0.10", dst="10.0.0.11", flags="DF") / UDP(sport=9, dport=9) / Raw(b"x" * (1450 - 28))
    near.send(Ether(src=pair.one.ports[next(iter(pair.one.ports))].mac, dst=other.mac) / largest)
    assert far.got(b"x" * (1450 - 28))


def test_an_underlay_that_is_too_narrow_is_told() -> None:
    with paired(mtu=1400) as pair:
        network = pair.network()
        pair.one.guest(network, 10, pair.one.open_group())
        with pytest.raises(Unfit, match="carries 1400 bytes"):
            pair.two.fabric.ensure_forwarding(pair.forwarding(pair.two, network), network)


@BOTH
def test_a_router_on_every_host_joins_networks_between_hosts(pair: Pair, version: str) -> None:
    """Each way takes the sender's own router, so paths differ; frames travel under their host's MAC."""
    left, right = pair.network("left"), pair.network("right", v4="10.1.0.0/24", v6="fd01::/64", segment=101)
    router = pair.router(a_router(a_leg(left), a_leg(right, 2)))
    one = pair.one.guest(left, 10, pair.one.open_group())
    two = pair.two.guest(right, 11, pair.two.open_group())
    pair.tell(left, right)
    pair.two.serve(two, getattr(two, version), 22)
    connection = one.connect(getattr(two, version), 22)
    assert connection is not None and talks(connection)
    connection.close()
    gateways = {"v4": ("10.0.0.1", "10.1.0.1"), "v6": ("fd00::1", "fd01::1")}[version]
    assert neighbours_of(one)[gateways[0]] == router.legs[0].mac
    assert neighbours_of(two)[gateways[1]] == router.legs[1].mac


def test_frames_of_a_router_never_travel_under_the_mac_that_every_host_has(pair: Pair) -> None:
    left, right = pair.network("left"), pair.network("right", v4="10.1.0.0/24", v6=None, segment=101)
    router = pair.router(a_router(a_leg(left), a_leg(right, 2)))
    one = pair.one.guest(left, 10, pair.one.open_group())
    other, far = pair.two.wire(right, 11, port_security=False)
    pair.tell(left, right)
    one.pings("10.1.0.11", 0.5)
    heard = [Ether(frame) for frame in far.frames(0.5)]
    routed = {frame.src for frame in heard if IP in frame and frame[IP].src == "10.0.0.10"}
    assert routed == {tunnel_mac(router.legs[1].port_id, ENDS[0])}
    assert other.mac not in routed


@pytest.fixture
def outside() -> Iterator[tuple[Pair, NetworkSpec, str]]:
    """Two hosts with the external network, that network, and the namespace of 203.0.113.1, a machine on its wire."""
    physical = {"public": PhysicalNetwork(bridge="br-ex", nic="external")}
    with paired(physical_networks=physical) as pair:
        world = _a_world(pair)
        external = pair.network(
            "external", v4="203.0.113.0/24", v6=None, physical_network="public", dhcp=None, mtu=1500
        )
        yield pair, external, world
        pair.one.host.run(_unplug_world)


def _a_world(pair: Pair) -> str:
    name = pair.one.host.namespace_beside("world")

    def shape() -> None:
        with host_links.opened() as links:
            link = links.get("world")
            links.shape(link, state="up")
            links.ensure_addresses(link, ["203.0.113.1/24"])

    pair.one.host.run(lambda: _plug_world(str(netns.path(name))))
    netns.call(name, shape)
    netns.write_sysctl(name, "net.ipv4.ping_group_range", "0 0")
    return name


def _unplug_world() -> None:
    with host_links.opened() as links:
        links.absent("world0")


def _plug_world(far: str) -> None:
    with host_links.opened() as links:
        links.add("world0", "veth", peer={"ifname": "world", "net_ns_fd": far})
        links.shape(links.get("world0"), master=links.get("br-ex").index, state="up")


@pytest.mark.parametrize("at", [0, 1])
def test_guests_of_every_host_go_out_by_the_one_gateway(outside: tuple[Pair, NetworkSpec, str], at: int) -> None:
    """And floating IPs lead to guests of every host, also from inside. It may move while guests are there."""
    pair, external, world = outside
    network, beside = pair.network(), pair.network("beside", v4="10.1.0.0/24", v6=None, segment=101)
    guests = [host.guest(network, 10 + number, host.open_group()) for number, host in enumerate(pair.hosts)]
    third = pair.hosts[1 - at].guest(beside, 12, pair.hosts[1 - at].open_group())
    gateway = a_gateway(external, "203.0.113.10/24", next_hops=("203.0.113.1",))
    fronts = tuple(a_floating(f"203.0.113.{20 + number}", guest.v4) for number, guest in enumerate(guests))
    spec = a_router(a_leg(network), a_leg(beside, 2), gateway=gateway, floating=fronts)
    server = Echo(world, "203.0.113.1", 80)
    for where in (pair.hosts[at], pair.hosts[1 - at], pair.hosts[at]):
        pair.router_with_gateway(spec, where)
        pair.tell(network, beside, gateway=(spec, where))
        for guest in (*guests, third):
            assert guest.reaches("203.0.113.1", 80, 4.0), (guest.v4, where)
        assert server.peers[-3:] == ["203.0.113.20", "203.0.113.21", "203.0.113.10"]
        for front in fronts:
            assert netns.call(world, lambda front=front: ping(front.address, 4.0)), front  # type: ignore[misc]
            assert third.pings(front.address)
    server.close()


def test_remote_groups_follow_members_on_the_other_host(pair: Pair) -> None:
    network = pair.network()
    peers = a_rule(protocol="tcp", port_min=22, port_max=22)
    group = pair.two.group("peers", *outward(), msgspec.structs.replace(peers, remote_group=None))
    group = pair.two.group("peers", *outward(), msgspec.structs.replace(peers, remote_group=group.id))
    one = pair.one.guest(network, 10, pair.one.open_group())
    two = pair.two.guest(network, 11, group)
    pair.two.serve(two, two.v4, 22)
    pair.tell(network)
    pair.two.addresses[group.id] = members(group, two.v4)
    pair.two.apply()
    assert one.connect(two.v4, 22, 0.5) is None
    pair.two.addresses[group.id] = members(group, two.v4, one.v4)
    pair.two.apply()
    connection = one.connect(two.v4, 22)
    assert connection is not None and talks(connection)
    pair.two.addresses[group.id] = members(group, two.v4)
    pair.two.apply()
    assert not talks(connection, 0.7)
    connection.close()


def test_telling_twice_changes_nothing(pair: Pair) -> None:
    network = pair.network()
    one = pair.one.guest(network, 10, pair.one.open_group())
    two = pair.two.guest(network, 11, pair.two.open_group())
    pair.tell(network)
    pair.two.serve(two, two.v4, 22)
    connection = one.connect(two.v4, 22)
    assert connection is not None and isinstance(connection, socket.socket)
    for host in pair.hosts:
        again: ForwardingSpec = pair.forwarding(host, network)
        host.fabric.ensure_network(network)
        host.fabric.ensure_forwarding(msgspec.structs.replace(again, generation=Generation(0, 2)), network)
    assert talks(connection)
    connection.close()
    assert one.pings(two.v6)


def test_of_thousands_of_peers_only_what_changed_is_written(pair: Pair) -> None:
    """Listing them takes the kernel longer than all the rest: who comes last must not wait for it."""
    network = pair.network()
    one = pair.one.guest(network, 10, pair.one.open_group())
    two = pair.two.guest(network, 11, pair.two.open_group())
    pair.two.fabric.ensure_forwarding(pair.forwarding(pair.two, network), network)
    told = pair.forwarding(pair.one, network)
    late = next(peer for peer in told.peers if two.v4 in peer.addresses)
    others = tuple(peer for peer in told.peers if peer is not late) + _peers(3000)
    whole_s = _told(pair, network, msgspec.structs.replace(told, peers=others))
    assert not one.pings(two.v4, 0.5)
    assert _told(pair, network, msgspec.structs.replace(told, peers=(*others, late))) < whole_s / 5
    assert one.pings(two.v4)
    assert _told(pair, network, msgspec.structs.replace(told, peers=others)) < whole_s / 5
    assert not one.pings(two.v4, 0.5)
    pair.one.host.run(lambda: _absent(names.vxlan(network.id)))
    pair.one.fabric.ensure_forwarding(told, network)
    assert one.pings(two.v4), "a tunnel that somebody removed is made whole again"


def _told(pair: Pair, network: NetworkSpec, spec: ForwardingSpec) -> float:
    """How long the first host takes with it, of this process's time."""
    began = time.process_time()
    pair.one.fabric.ensure_forwarding(spec, network)
    return time.process_time() - began


def _peers(count: int) -> tuple[Peer, ...]:
    return tuple(
        Peer(
            port_id=f"00000000-0000-4000-8000-{number:012x}",
            mac=f"fa:16:3f:00:{number >> 8:02x}:{number & 255:02x}",
            addresses=(f"10.0.{4 + (number >> 8)}.{number & 255}", f"fd00::9:{number:x}"),
            end="198.18.0.13",
        )
        for number in range(count)
    )
