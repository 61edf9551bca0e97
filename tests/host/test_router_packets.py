"""Packets through routers: NAT, floating IPs, advertisements, metadata by the gateway, and the host behind it all."""

import socket
import time
from collections.abc import Iterator

import msgspec
import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_RA, ICMPv6NDOptDstLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from agent.wire.network import NetworkSpec
from drivers.network import conntrack, names, netns
from drivers.network import links as host_links
from drivers.network.settings import PhysicalNetwork, Underlay
from tests.host.cloud_on_host import Cloud, a_floating, a_gateway, a_leg, a_router, opened
from tests.host.netlab import Wire, a_rule, outward, talks

pytestmark = pytest.mark.host

PUBLIC = PhysicalNetwork(bridge="br-ex", addresses=("203.0.113.1/24", "2001:db8:ff::1/64"))
UNDERLAY = Underlay(address="198.18.0.2", cidr="198.18.0.0/24")


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with opened(physical_networks={"public": PUBLIC}, underlay=UNDERLAY) as cloud:
        yield cloud


def external(cloud: Cloud) -> NetworkSpec:
    return cloud.network(
        "external", v4="203.0.113.0/24", v6="2001:db8:ff::/64", physical_network="public", dhcp=None, mtu=1500
    )


def router_namespace(cloud: Cloud) -> str:
    return names.Namespaces(cloud.host.tag, "").router(cloud.routers[0].id)


def sees(cloud: Cloud, namespace: str, port: int) -> list[tuple[str, str]]:
    """(source, destination) of the flows to a port, as a namespace knows them."""
    found = conntrack.flows(namespace)
    return [(flow.original.source, flow.original.destination) for flow in found if flow.original.dport == port]


@pytest.mark.parametrize("version", ["v4", "v6"])
def test_networks_of_one_router_reach_each_other_without_nat(cloud: Cloud, version: str) -> None:
    one, two = cloud.network("one"), cloud.network("two", v4="10.1.0.0/24", v6="fd01::/64", segment=2)
    group = cloud.open_group()
    cloud.router(a_router(a_leg(one), a_leg(two, 2)))
    client, server = cloud.guest(one, 10, group), cloud.guest(two, 10, group)
    echo = cloud.serve(server, getattr(server, version), 22)
    connection = client.connect(getattr(server, version), 22)
    assert connection is not None and talks(connection)
    assert echo.connections[0].getpeername()[0] == getattr(client, version)
    connection.close()


@pytest.mark.parametrize("version", ["v4", "v6"])
def test_groups_hold_for_what_a_router_forwards(cloud: Cloud, version: str) -> None:
    one, two = cloud.network("one"), cloud.network("two", v4="10.1.0.0/24", v6="fd01::/64", segment=2)
    ssh = a_rule(protocol="tcp", port_min=22, port_max=22, ethertype="IPv4" if version == "v4" else "IPv6")
    group = cloud.group("ssh", *outward(), ssh)
    cloud.router(a_router(a_leg(one), a_leg(two, 2)))
    client, server = cloud.guest(one, 10, group), cloud.guest(two, 10, group)
    for port in (22, 80):
        cloud.serve(server, getattr(server, version), port)
    connection = client.connect(getattr(server, version), 22)
    assert connection is not None and talks(connection)
    assert client.connect(getattr(server, version), 80, 0.7) is None
    cloud.group("ssh", *outward())
    cloud.apply()
    assert not talks(connection, 0.7)
    connection.close()


def test_source_nat_and_floating_ip(cloud: Cloud) -> None:
    one, outside = cloud.network("one"), external(cloud)
    group = cloud.open_group()
    gateway = a_gateway(outside, "203.0.113.10/24", "2001:db8:ff::10/64")
    cloud.router(a_router(a_leg(one), gateway=gateway, floating=(a_floating("203.0.113.20", "10.0.0.10"),)))
    named, nameless = cloud.guest(one, 10, group), cloud.guest(one, 11, group)
    far = netns.listen(cloud.host.namespace, "203.0.113.1", 7)
    try:
        assert named.pings("203.0.113.1") and nameless.pings("203.0.113.1")
        for guest in (named, nameless):
            assert guest.connect("203.0.113.1", 7, 0.4) is None  # The host answers pings of the outside, no more.
    finally:
        far.close()
    echo = cloud.serve(named, "0.0.0.0", 22)
    cloud.serve(nameless, "0.0.0.0", 22)
    assert reaches_from_host(cloud, "203.0.113.20", 22)
    assert not reaches_from_host(cloud, "203.0.113.10", 22, 0.7)
    sources = {
        flow.original.source for flow in conntrack.flows(cloud.host.namespace)
        if flow.original.destination == "203.0.113.1" and flow.zone == 0
    }  # fmt: skip
    assert sources <= {"203.0.113.10", "203.0.113.20"}
    assert nameless.reaches("203.0.113.20", 22), "a neighbour in the same subnet"
    assert named.reaches("203.0.113.20", 22), "itself"
    assert echo.peers == ["203.0.113.1", "203.0.113.10", "203.0.113.20"]


def test_a_floating_ip_taken_away_takes_its_flows_and_moves(cloud: Cloud) -> None:
    one, outside = cloud.network("one"), external(cloud)
    group = cloud.open_group()
    gateway = a_gateway(outside, "203.0.113.10/24")
    router = cloud.router(a_router(a_leg(one), gateway=gateway, floating=(a_floating("203.0.113.20", "10.0.0.10"),)))
    first, second = cloud.guest(one, 10, group), cloud.guest(one, 11, group)
    cloud.serve(first, "0.0.0.0", 22)
    echo = cloud.serve(second, "0.0.0.0", 22)
    kept = first.connect("10.0.0.11", 22)
    connection = connect_from_host(cloud, "203.0.113.20", 22)
    assert kept is not None and connection is not None and talks(connection)
    cloud.router(msgspec.structs.replace(router, floating=(a_floating("203.0.113.20", "10.0.0.11"),)))
    assert not talks(connection, 0.7)
    assert reaches_from_host(cloud, "203.0.113.20", 22)
    assert len(echo.connections) == 2
    cloud.router(msgspec.structs.replace(router, floating=()))
    assert not reaches_from_host(cloud, "203.0.113.20", 22, 0.7)
    assert talks(kept)
    for handle in (kept, connection):
        handle.close()


def test_a_changed_router_drops_no_other_flow(cloud: Cloud) -> None:
    one, two = cloud.network("one"), cloud.network("two", v4="10.1.0.0/24", v6="fd01::/64", segment=2)
    outside, group = external(cloud), cloud.open_group()
    gateway = a_gateway(outside, "203.0.113.10/24")
    floating = a_floating("203.0.113.20", "10.0.0.10")
    router = cloud.router(a_router(a_leg(one), gateway=gateway, floating=(floating,)))
    guest = cloud.guest(one, 10, group)
    cloud.serve(guest, "0.0.0.0", 22)
    connection = connect_from_host(cloud, "203.0.113.20", 22)
    assert connection is not None and talks(connection)
    more = (floating, a_floating("203.0.113.21", "10.0.0.11"))
    router = cloud.router(msgspec.structs.replace(router, legs=(*router.legs, a_leg(two, 2)), floating=more))
    assert talks(connection)
    from drivers.network.bridge import BridgeFabric

    cloud.fabric = cloud.host.driver(BridgeFabric(cloud.host.settings))  # An agent that has just started.
    cloud.fabric.prepare()
    cloud.router(msgspec.structs.replace(router, floating=(floating,)))
    assert talks(connection)
    connection.close()


def test_the_outside_hears_of_new_addresses(cloud: Cloud) -> None:
    one, outside = cloud.network("one"), external(cloud)
    group = cloud.open_group()
    _, wire = cloud.wire(outside, 50, group)
    router = cloud.router(a_router(a_leg(one), gateway=a_gateway(outside, "203.0.113.10/24", "2001:db8:ff::10/64")))
    heard = [Ether(frame) for frame in wire.frames(1.5)]
    adverts = [frame for frame in heard if ICMPv6ND_NA in frame and frame[ICMPv6ND_NA].tgt == "2001:db8:ff::10"]
    assert len(adverts) == 3
    for frame in adverts:
        assert (frame.src, frame[IPv6].hlim, frame[ICMPv6ND_NA].O) == ("fa:16:3e:00:03:01", 255, 1)
        assert frame[ICMPv6NDOptDstLLAddr].lladdr == "fa:16:3e:00:03:01"
        given, frame[ICMPv6ND_NA].cksum = frame[ICMPv6ND_NA].cksum, None
        assert Ether(bytes(frame))[ICMPv6ND_NA].cksum == given
    cloud.router(msgspec.structs.replace(router, floating=(a_floating("203.0.113.20", "10.0.0.10"),)))
    heard = [Ether(frame) for frame in wire.frames(1.8)]
    claims = [frame for frame in heard if ARP in frame and frame[ARP].psrc == frame[ARP].pdst == "203.0.113.20"]
    assert len(claims) == 3
    assert {frame[ARP].hwsrc for frame in claims} == {"fa:16:3e:00:03:01"}


def test_a_router_that_is_down_forwards_nothing_and_comes_back(cloud: Cloud) -> None:
    one, two = cloud.network("one"), cloud.network("two", v4="10.1.0.0/24", v6="fd01::/64", segment=2)
    group = cloud.open_group()
    router = cloud.router(a_router(a_leg(one), a_leg(two, 2), routes=(("10.9.0.0/16", "10.1.0.10"),)))
    client, server = cloud.guest(one, 10, group), cloud.guest(two, 10, group)
    assert client.pings(server.v4) and client.pings(server.v6)
    cloud.router(msgspec.structs.replace(router, is_up=False))
    assert not client.pings(server.v4, 0.7) and not client.pings(server.v6, 0.7)
    cloud.router(router)
    assert client.pings(server.v4, 5) and client.pings(server.v6, 5)


def test_extra_routes_are_followed_and_withdrawn(cloud: Cloud) -> None:
    one, two = cloud.network("one"), cloud.network("two", v4="10.1.0.0/24", v6="fd01::/64", segment=2)
    router = cloud.router(a_router(a_leg(one), a_leg(two, 2), routes=(("10.9.0.0/16", "10.1.0.10"),)))
    client = cloud.guest(one, 10, cloud.open_group())
    middle = cloud.guest(two, 10, port_security=False)

    def behind() -> None:
        with host_links.opened() as links:
            link = links.get("eth0")
            links.ensure_addresses(link, {*links.addresses(link), "10.9.0.1/32"})

    middle.run(behind)
    assert client.pings("10.9.0.1")
    cloud.router(msgspec.structs.replace(router, routes=()))
    assert not client.pings("10.9.0.1", 0.7)


def test_a_router_has_no_open_door(cloud: Cloud) -> None:
    one, outside = cloud.network("one"), external(cloud)
    cloud.router(a_router(a_leg(one), gateway=a_gateway(outside, "203.0.113.10/24")))
    guest = cloud.guest(one, 10, cloud.open_group())
    listener = netns.listen(router_namespace(cloud), "0.0.0.0", 8080)
    try:
        assert guest.pings("10.0.0.1") and guest.pings("fd00::1")
        assert guest.connect("10.0.0.1", 8080, 0.5) is None
        assert guest.connect("203.0.113.10", 8080, 0.5) is None
    finally:
        listener.close()


def test_a_scan_through_the_router_finds_no_infrastructure(cloud: Cloud) -> None:
    """The host's underlay address, a neighbour on the underlay, and the host's own address outside."""
    one, outside = cloud.network("one"), external(cloud)
    beside = cloud.host.namespace_beside("root")

    def underlay(peer: str) -> None:
        with host_links.opened() as links:
            link = links.add("under0", "veth", peer={"ifname": "under1", "net_ns_fd": peer})
            links.ensure_addresses(link, ["198.18.0.2/24"])
            links.shape(link, state="up")

    def other_end() -> None:
        with host_links.opened() as links:
            link = links.get("under1")
            links.ensure_addresses(link, ["198.18.0.1/24"])
            links.shape(link, state="up")
            links.ensure_routes([host_links.Route("203.0.113.0/24", "198.18.0.2", link.index)])

    cloud.host.run(lambda: underlay(str(netns.path(beside))))
    netns.call(beside, other_end)
    cloud.router(
        a_router(
            a_leg(one),
            gateway=a_gateway(outside, "203.0.113.10/24"),
            floating=(a_floating("203.0.113.20", "10.0.0.10"),),
        )
    )
    guest = cloud.guest(one, 10, cloud.open_group())
    listeners = [netns.listen(cloud.host.namespace, "0.0.0.0", port) for port in (4222, 5443, 16509)]
    listeners.append(netns.listen(beside, "0.0.0.0", 4222))
    try:
        assert guest.pings("203.0.113.1")
        for address in ("198.18.0.2", "203.0.113.1", "127.0.0.1"):
            for port in (4222, 5443, 16509):
                assert guest.connect(address, port, 0.3) is None, (address, port)
        assert guest.connect("198.18.0.1", 4222, 0.5) is None
        assert not guest.pings("198.18.0.1", 0.5) and not guest.pings("198.18.0.2", 0.5)
        cloud.serve(guest, "0.0.0.0", 22)
        handle = netns.call(beside, lambda: connected("203.0.113.20", 22, 2.0))
        assert handle is not None and talks(handle)  # The operator's way in, from beyond the underlay, is open.
        handle.close()
    finally:
        for listener in listeners:
            listener.close()

        def unplug() -> None:
            with host_links.opened() as links:
                links.absent("under0")

        cloud.host.run(unplug)


def test_metadata_is_reached_by_way_of_the_gateway_too(cloud: Cloud) -> None:
    """Guests that ignore the routes of DHCP send to their gateway, whatever network they are in."""
    one, two = cloud.network("one"), cloud.network("two", v4="10.1.0.0/24", v6="fd01::/64", segment=2)
    cloud.router(a_router(a_leg(one), a_leg(two, 2)))
    for network in (one, two):
        guest = cloud.guest(network, 10)
        listener = netns.listen(cloud.fabric.namespace(network.id), "169.254.169.254", 80)
        try:
            connection = guest.connect("169.254.169.254", 80)
            assert connection is not None
            accepted, peer = accept(listener)
            assert peer == guest.v4
            accepted.close()
            connection.close()
        finally:
            listener.close()


@pytest.mark.parametrize(
    ("mode", "managed", "other", "autonomous"),
    [("slaac", 0, 0, 1), ("dhcpv6-stateless", 0, 1, 1), ("dhcpv6-stateful", 1, 1, 0)],
)
def test_router_advertises_what_the_subnet_says(
    cloud: Cloud, mode: str, managed: int, other: int, autonomous: int
) -> None:
    plain = cloud.network("one")
    four, six = plain.subnets
    network = msgspec.structs.replace(
        plain, subnets=(four, msgspec.structs.replace(six, ipv6_ra_mode=mode, ipv6_address_mode=mode))
    )
    cloud.networks[network.id] = network
    _, wire = cloud.wire(network, 10, cloud.open_group())
    cloud.router(a_router(a_leg(network)))
    heard = first_advert(wire)
    assert heard is not None
    assert heard[IPv6].src == "fe80::f816:3eff:fe00:201"
    advert = heard[ICMPv6ND_RA]
    assert (advert.M, advert.O, advert.routerlifetime > 0) == (managed, other, True)
    prefix = heard.getlayer("ICMPv6 Neighbor Discovery Option - Prefix Information")
    assert (prefix.prefix, prefix.prefixlen, prefix.A) == ("fd00::", 64, autonomous)
    assert heard.getlayer("ICMPv6 Neighbor Discovery Option - MTU").mtu == 1450
    rdnss = heard.getlayer("ICMPv6 Neighbor Discovery Option - Recursive DNS Server Option")
    assert rdnss is not None and rdnss.dns == ["fd00::2"]


def test_dhcp_and_adverts_do_not_cross_to_the_provider_network(cloud: Cloud) -> None:
    network = cloud.network("provider", physical_network="public", v4="192.0.2.0/24", v6="fd22::/64")
    sender, wire = cloud.wire(network, 10, port_security=False)
    with_nic = cloud.host.namespace_beside("nic")

    def cable() -> None:
        with host_links.opened() as links:
            link = links.add("nic0", "veth", peer={"ifname": "nic1", "net_ns_fd": str(netns.path(with_nic))})
            links.shape(link, master=links.get("br-ex").index, state="up")

    cloud.host.run(cable)

    def far_end() -> socket.socket:
        with host_links.opened() as links:
            links.shape(links.get("nic1"), state="up")
        handle = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(3))
        handle.bind(("nic1", 0))
        handle.settimeout(0.5)
        return handle

    nic = netns.call(with_nic, far_end)
    everyone = Ether(src=sender.mac, dst="ff:ff:ff:ff:ff:ff")
    try:
        wire.send(everyone / IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67) / Raw(b"dhcp-mark"))
        wire.send(everyone / IPv6(src="fe80::1", dst="ff02::1", hlim=255) / ICMPv6ND_RA() / Raw(b"ra-mark"))
        wire.send(everyone / IP(src="192.0.2.10", dst="192.0.2.255") / UDP(sport=5, dport=6) / Raw(b"plain-mark"))
        heard = b"".join(frames_of(nic))
        assert b"plain-mark" in heard and b"dhcp-mark" not in heard and b"ra-mark" not in heard
        server = Ether(src="fa:16:3e:00:77:02", dst="ff:ff:ff:ff:ff:ff")
        nic.send(bytes(server / IP(src="192.0.2.9", dst="192.0.2.255") / UDP(sport=67, dport=68) / Raw(b"in-dhcp")))
        nic.send(
            bytes(
                Ether(src="fa:16:3e:00:00:02", dst=sender.mac)
                / IP(src="192.0.2.9", dst="192.0.2.10")
                / UDP()
                / Raw(b"in-mac")
            )
        )
        nic.send(
            bytes(
                Ether(src="fa:16:3e:00:77:02", dst=sender.mac)
                / IP(src="192.0.2.9", dst="192.0.2.10")
                / UDP()
                / Raw(b"in-plain")
            )
        )
        seen = b"".join(wire.frames(0.5))
        assert b"in-plain" in seen and b"in-dhcp" not in seen and b"in-mac" not in seen
    finally:
        nic.close()

        def uncable() -> None:
            with host_links.opened() as links:
                links.absent("nic0")

        cloud.host.run(uncable)


def test_nothing_is_masqueraded_without_an_uplink_and_with_one_it_is() -> None:
    for uplink, passes in ((None, False), ("up0", True)):
        physical = msgspec.structs.replace(PUBLIC, uplink=uplink)
        with opened(physical_networks={"public": physical}, underlay=UNDERLAY) as cloud:
            world = cloud.host.namespace_beside("world")

            def plug(world: str = world) -> None:
                with host_links.opened() as links:
                    link = links.add("up0", "veth", peer={"ifname": "eth0", "net_ns_fd": str(netns.path(world))})
                    links.ensure_addresses(link, ["192.0.2.1/24"])
                    links.shape(link, state="up")

            def far_end() -> None:
                with host_links.opened() as links:
                    link = links.get("eth0")
                    links.ensure_addresses(link, ["192.0.2.2/24"])
                    links.shape(link, state="up")

            def unplug() -> None:
                with host_links.opened() as links:
                    links.absent("up0")

            cloud.host.run(plug)
            netns.call(world, far_end)
            one = cloud.network("one")
            cloud.router(a_router(a_leg(one), gateway=a_gateway(external(cloud), "203.0.113.10/24")))
            guest = cloud.guest(one, 10, cloud.open_group())
            assert guest.pings("192.0.2.2", 2.0 if passes else 0.7) is passes
            cloud.host.run(unplug)


# ---------------------------------------------------------------------------------------------------------------


def connected(address: str, port: int, wait_s: float) -> socket.socket | None:
    handle = socket.socket()
    handle.settimeout(wait_s)
    try:
        handle.connect((address, port))
    except OSError:
        handle.close()
        return None
    return handle


def connect_from_host(cloud: Cloud, address: str, port: int, wait_s: float = 2.0) -> socket.socket | None:
    handle: socket.socket | None = cloud.host.run(lambda: connected(address, port, wait_s))
    return handle


def reaches_from_host(cloud: Cloud, address: str, port: int, wait_s: float = 2.0) -> bool:
    handle = connect_from_host(cloud, address, port, wait_s)
    if handle is None:
        return False
    with handle:
        return talks(handle)


def accept(listener: socket.socket) -> tuple[socket.socket, str]:
    listener.settimeout(3)
    connection, peer = listener.accept()
    return connection, peer[0]


def frames_of(handle: socket.socket) -> list[bytes]:
    found = []
    try:
        while True:
            found.append(handle.recv(4096))
    except TimeoutError:
        return found


def first_advert(wire: object) -> Ether | None:

    assert isinstance(wire, Wire)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for data in wire.frames(0.2):
            frame = Ether(data)
            if ICMPv6ND_RA in frame:
                return frame
    return None
