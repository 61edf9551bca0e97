"""Packets, not rules: what guests on one host can and cannot send each other, on the real filter and real taps."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from pyroute2 import IPRoute
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dhcp6 import DHCP6_Reply
from scapy.layers.inet import IP, TCP, UDP, fragment
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrDestOpt,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from agent.wire.group import GroupSpec
from agent.wire.port import PortSpec
from agent.wire.router import LegSpec, RouterSpec
from drivers.network import conntrack, names, netns
from drivers.network import links as host_links
from drivers.network.nft import Ruleset
from drivers.network.nft_filter import NftFilter
from tests.host import netlab
from tests.host.cloud_on_host import Cloud, opened
from tests.host.netlab import a_pair, a_rule, outward, talks

pytestmark = pytest.mark.host

MARK = b"hostler-packet"
EVERYONE = "ff:ff:ff:ff:ff:ff"


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with opened() as cloud:
        yield cloud


def open_group(cloud: Cloud) -> GroupSpec:
    return cloud.open_group()


def frame(sender: PortSpec, receiver: PortSpec, version: int = 4, **changes: Any) -> Packet:
    """A UDP packet with our mark; `mac`, `ip` replace the sender's own."""
    mac = changes.get("mac", sender.mac)
    own, other = (
        next(fixed.address for fixed in port.fixed_ips if (":" in fixed.address) == (version == 6))
        for port in (sender, receiver)
    )
    header = IP if version == 4 else IPv6
    packet = header(src=changes.get("ip", own), dst=changes.get("to", other)) / UDP(sport=1000, dport=2000) / Raw(MARK)
    return Ether(src=mac, dst=changes.get("to_mac", receiver.mac)) / packet


# ---------------------------------------------------------------------------------------------------------------
# Groups.


@pytest.mark.parametrize("version", ["v4", "v6"])
def test_nothing_comes_in_unless_a_rule_allows_it_and_replies_come_back(cloud: Cloud, version: str) -> None:
    network = cloud.network()
    ethertype = "IPv4" if version == "v4" else "IPv6"
    closed = cloud.group("closed", *outward())
    web = cloud.group("web", *outward(), a_rule(ethertype=ethertype, protocol="tcp", port_min=80, port_max=81))
    client, server = cloud.guest(network, 10, closed), cloud.guest(network, 11, web)
    address = getattr(server, version)
    for port in (79, 80, 81, 82):
        cloud.serve(server, address, port)
    cloud.serve(client, getattr(client, version), 80)
    assert client.reaches(address, 80) and client.reaches(address, 81)
    assert not client.reaches(address, 79, 0.7) and not client.reaches(address, 82, 0.7)
    assert not server.reaches(getattr(client, version), 80, 0.7)
    assert not client.pings(address, 0.7)


@pytest.mark.parametrize("version", ["v4", "v6"])
def test_icmp_rules_name_type_and_code(cloud: Cloud, version: str) -> None:
    network = cloud.network()
    ethertype, echo = ("IPv4", 8) if version == "v4" else ("IPv6", 128)
    pinged = cloud.group("ping", *outward(), a_rule(ethertype=ethertype, protocol="icmp", port_min=echo, port_max=0))
    other = cloud.group("other", *outward(), a_rule(ethertype=ethertype, protocol="icmp", port_min=3, port_max=0))
    client, yes, no = (cloud.guest(network, n, g) for n, g in ((10, pinged), (11, pinged), (12, other)))
    assert client.pings(getattr(yes, version))
    assert not client.pings(getattr(no, version), 0.7)


@pytest.mark.parametrize("version", ["v4", "v6"])
def test_a_removed_rule_stops_new_and_established_flows(cloud: Cloud, version: str) -> None:
    network = cloud.network()
    ssh = a_rule(protocol="tcp", port_min=22, port_max=22, ethertype="IPv4" if version == "v4" else "IPv6")
    group = cloud.group("ssh", *outward(), ssh)
    client, server = cloud.guest(network, 10, open_group(cloud)), cloud.guest(network, 11, group)
    echo = cloud.serve(server, getattr(server, version), 22)
    connection = client.connect(getattr(server, version), 22)
    assert connection is not None and talks(connection)
    cloud.group("ssh", *outward())
    cloud.apply()
    assert not talks(connection, 0.7)
    assert client.connect(getattr(server, version), 22, 0.7) is None
    echo.connections[0].sendall(b"still there?")  # Neither may the server's own end open it anew from inside.
    assert not netlab.hears(connection, 1.5)
    cloud.group("ssh", *outward(), ssh)
    cloud.apply()
    assert client.reaches(getattr(server, version), 22)
    connection.close()


def test_an_unrelated_change_leaves_established_flows_alone(cloud: Cloud) -> None:
    network = cloud.network()
    ssh = a_rule(protocol="tcp", port_min=22, port_max=22)
    group = cloud.group("ssh", *outward(), ssh, a_rule(protocol="udp"))
    client, server = cloud.guest(network, 10, group), cloud.guest(network, 11, group)
    cloud.serve(server, server.v4, 22)
    connection = client.connect(server.v4, 22)
    assert connection is not None and talks(connection)
    cloud.group("ssh", *outward(), msgspec.structs.replace(ssh, id="made-anew"))
    cloud.apply()
    assert talks(connection)
    cloud.wire(network, 12)
    assert talks(connection)
    connection.close()


def test_a_restarted_filter_disturbs_no_flow_and_cuts_what_is_no_longer_allowed(cloud: Cloud) -> None:
    network = cloud.network()
    ssh, web = (a_rule(protocol="tcp", port_min=port, port_max=port) for port in (22, 80))
    group = cloud.group("both", *outward(), ssh, web)
    client, server = cloud.guest(network, 10, group), cloud.guest(network, 11, group)
    connections = []
    for port in (22, 80):
        cloud.serve(server, server.v4, port)
        connections.append(client.connect(server.v4, port))
    assert all(connection is not None and talks(connection) for connection in connections)
    cloud.filter = cloud.host.driver(NftFilter(cloud.host.settings))
    cloud.apply()
    assert all(connection is not None and talks(connection) for connection in connections)
    cloud.filter = cloud.host.driver(NftFilter(cloud.host.settings))
    cloud.group("both", *outward(), web)
    cloud.apply()
    assert [connection is not None and talks(connection, 1.0) for connection in connections] == [False, True]
    for connection in connections:
        assert connection is not None
        connection.close()


def test_a_filter_that_somebody_flushed_is_whole_again_after_apply(cloud: Cloud) -> None:
    network = cloud.network()
    group = cloud.group("closed", *outward())
    client, server = cloud.guest(network, 10, group), cloud.guest(network, 11, group)
    Ruleset(cloud.host.namespace).run("flush ruleset")
    assert client.pings(server.v4)
    cloud.apply()
    assert not client.pings(server.v4, 0.7)


@pytest.mark.parametrize("version", ["v4", "v6"])
def test_members_of_a_remote_group_come_and_go(cloud: Cloud, version: str) -> None:
    network = cloud.network()
    clients = cloud.group("clients", *outward())
    rule = a_rule(ethertype="IPv4" if version == "v4" else "IPv6", remote_group=clients.id)
    servers = cloud.group("servers", *outward(), rule)
    client, server = cloud.guest(network, 10, clients), cloud.guest(network, 11, servers)
    cloud.serve(server, getattr(server, version), 22)
    assert client.connect(getattr(server, version), 22, 0.7) is None
    cloud.addresses[clients.id] = netlab.members(clients, client.v4, client.v6, "10.0.0.99")
    cloud.apply()
    connection = client.connect(getattr(server, version), 22)
    assert connection is not None and talks(connection)
    cloud.addresses[clients.id] = netlab.members(clients, "10.0.0.99")
    cloud.apply()
    assert not talks(connection, 0.7)
    assert client.connect(getattr(server, version), 22, 0.7) is None
    connection.close()


def test_a_group_taken_from_a_port_takes_its_flows(cloud: Cloud) -> None:
    network = cloud.network()
    base, ssh = cloud.group("base", *outward()), cloud.group("ssh", a_rule(protocol="tcp", port_min=22, port_max=22))
    client, server = cloud.guest(network, 10, base), cloud.guest(network, 11, base, ssh)
    cloud.serve(server, server.v4, 22)
    connection = client.connect(server.v4, 22)
    assert connection is not None and talks(connection)
    cloud.change(server.port, groups=(base.id,))
    assert not talks(connection, 0.7)
    connection.close()


@pytest.mark.parametrize("version", ["v4", "v6"])
def test_egress_rules_are_honoured(cloud: Cloud, version: str) -> None:
    network = cloud.network()
    everyone = open_group(cloud)
    rule = a_rule("egress", "IPv4" if version == "v4" else "IPv6", protocol="tcp", port_min=80, port_max=80)
    web_only = cloud.group("web-only", rule)
    client, server = cloud.guest(network, 10, web_only), cloud.guest(network, 11, everyone)
    for port in (22, 80):
        cloud.serve(server, getattr(server, version), port)
    connection = client.connect(getattr(server, version), 80)
    assert connection is not None and talks(connection)
    assert client.connect(getattr(server, version), 22, 0.7) is None
    cloud.group("web-only")
    cloud.apply()
    assert not talks(connection, 0.7)
    assert client.connect(getattr(server, version), 80, 0.7) is None
    connection.close()


def test_a_port_without_groups_has_dhcp_and_metadata_only(cloud: Cloud) -> None:
    network = cloud.network()
    guest = cloud.guest(network, 10)
    neighbour = cloud.guest(network, 11, open_group(cloud))
    namespace = cloud.fabric.namespace(network.id)
    metadata = netns.listen(namespace, "169.254.169.254", 80)
    try:

        def route() -> None:
            with host_links.opened() as links:
                links.ensure_routes([host_links.Route("169.254.169.254/32", "10.0.0.2", links.get("eth0").index)])

        guest.run(route)
        connection = guest.connect("169.254.169.254", 80)
        assert connection is not None
        connection.close()
        assert not guest.pings(neighbour.v4, 0.7)
        assert not guest.pings("10.0.0.2", 0.7)
    finally:
        metadata.close()


def test_broadcast_and_multicast_obey_ingress_rules_as_unicast_does(cloud: Cloud) -> None:
    network = cloud.network()
    everyone, closed = open_group(cloud), cloud.group("closed", *outward())
    sender, wire = cloud.wire(network, 10, everyone)
    opened_port, opened_wire = cloud.wire(network, 11, everyone)
    _, closed_wire = cloud.wire(network, 12, closed)
    for to_mac, to in ((EVERYONE, "255.255.255.255"), (EVERYONE, "10.0.0.255"), ("01:00:5e:00:00:fb", "224.0.0.251")):
        wire.send(frame(sender, opened_port, to_mac=to_mac, to=to))
        assert opened_wire.got(MARK), to
        assert not any(MARK in seen for seen in closed_wire.frames(0.2)), to


def test_an_address_that_two_ports_share_obeys_the_groups_of_the_tap_it_reaches(cloud: Cloud) -> None:
    network = cloud.network()
    everyone, closed = open_group(cloud), cloud.group("closed", *outward())
    sender, wire = cloud.wire(network, 10, everyone)
    shared = "10.0.0.200"
    first, first_wire = cloud.wire(network, 11, everyone, allowed_pairs=(a_pair(shared, "fa:16:3e:00:01:0b"),))
    second, second_wire = cloud.wire(network, 12, closed, allowed_pairs=(a_pair(shared, "fa:16:3e:00:01:0c"),))
    wire.send(frame(sender, second, to=shared))
    assert not any(MARK in seen for seen in second_wire.frames(0.3))
    wire.send(frame(sender, first, to=shared))
    assert first_wire.got(MARK)


def test_frames_for_another_mac_are_not_flooded_to_guests(cloud: Cloud) -> None:
    network = cloud.network()
    everyone = open_group(cloud)
    sender, wire = cloud.wire(network, 10, everyone)
    other, other_wire = cloud.wire(network, 11, everyone)
    wire.send(frame(sender, other, to_mac="fa:16:3e:99:99:99"))
    assert not any(MARK in seen for seen in other_wire.frames(0.3))
    wire.send(frame(sender, other))
    assert other_wire.got(MARK)


def test_fragments_are_judged_whole(cloud: Cloud) -> None:
    network = cloud.network()
    udp = cloud.group("udp", *outward(), a_rule(protocol="udp", port_min=2000, port_max=2000))
    sender, wire = cloud.wire(network, 10, udp)
    receiver, receiver_wire = cloud.wire(network, 11, udp)
    for port, arrives in ((2000, True), (2001, False)):
        packet = IP(src="10.0.0.10", dst="10.0.0.11", id=port) / UDP(sport=1, dport=port) / Raw(b"x" * 2000 + MARK)
        for part in fragment(packet, fragsize=800):
            wire.send(Ether(src=sender.mac, dst=receiver.mac) / part)
        assert receiver_wire.got(MARK, 2.0 if arrives else 0.4) is arrives


# ---------------------------------------------------------------------------------------------------------------
# Anti-spoofing.


def spoofs(attacker: PortSpec, victim: PortSpec) -> dict[str, Packet]:
    """Name: a frame that must not arrive."""
    own, mine = attacker.mac, Ether(src=attacker.mac, dst=EVERYONE)
    v4, v6 = (f.address for f in attacker.fixed_ips)
    theirs4, theirs6 = (f.address for f in victim.fixed_ips)
    to_all6 = Ether(src=own, dst="33:33:00:00:00:01")
    sll = "fe80::f816:3eff:fe00:10a"
    mark = Raw(MARK)
    tagged = IP(src=v4, dst=theirs4) / UDP(sport=1, dport=2) / mark
    return {
        "foreign MAC": frame(attacker, victim, mac="fa:16:3e:66:66:66"),
        "victim's MAC": frame(attacker, victim, mac=victim.mac),
        "foreign IPv4": frame(attacker, victim, ip="10.0.0.77"),
        "gateway's IPv4": frame(attacker, victim, ip="10.0.0.1"),
        "source 0.0.0.0": frame(attacker, victim, ip="0.0.0.0"),
        "foreign IPv6": frame(attacker, victim, 6, ip="fd00::77"),
        "foreign link-local": frame(attacker, victim, 6, ip="fe80::77"),
        "unspecified IPv6": frame(attacker, victim, 6, ip="::"),
        "ARP for another's address": mine / ARP(op=2, hwsrc=own, psrc=theirs4, pdst=theirs4) / mark,
        "ARP for the gateway": mine / ARP(op=2, hwsrc=own, psrc="10.0.0.1", pdst=theirs4) / mark,
        "ARP request from another": mine / ARP(op=1, hwsrc=own, psrc=theirs4, pdst=v4) / mark,
        "ARP with another's MAC": mine / ARP(op=2, hwsrc=victim.mac, psrc=v4, pdst=theirs4) / mark,
        "ARP answer from nowhere": mine / ARP(op=2, hwsrc=own, psrc="0.0.0.0", pdst=theirs4) / mark,
        "ARP with odd lengths": mine / ARP(op=2, hwlen=8, plen=4, hwsrc=own, psrc=v4, pdst=theirs4) / mark,
        "NA for another": to_all6
        / IPv6(src=v6, dst="ff02::1", hlim=255)
        / ICMPv6ND_NA(tgt=theirs6, O=1)
        / ICMPv6NDOptDstLLAddr(lladdr=own)
        / mark,
        "NA from another": to_all6 / IPv6(src=theirs6, dst="ff02::1", hlim=255) / ICMPv6ND_NA(tgt=v6) / mark,
        "NA for the gateway from link-local": to_all6
        / IPv6(src=sll, dst="ff02::1", hlim=255)
        / ICMPv6ND_NA(tgt="fd00::1", O=1)
        / mark,
        "NS from another": to_all6 / IPv6(src=theirs6, dst="ff02::1", hlim=255) / ICMPv6ND_NS(tgt=v6) / mark,
        "DAD for another": to_all6 / IPv6(src="::", dst="ff02::1", hlim=255) / ICMPv6ND_NS(tgt=theirs6) / mark,
        "RA": to_all6 / IPv6(src=sll, dst="ff02::1", hlim=255) / ICMPv6ND_RA() / mark,
        "RA behind an extension header": to_all6
        / IPv6(src=sll, dst="ff02::1", hlim=255)
        / IPv6ExtHdrDestOpt()
        / ICMPv6ND_RA()
        / mark,
        "redirect": to_all6 / IPv6(src=sll, dst=theirs6, hlim=255) / ICMPv6ND_Redirect(tgt=sll, dst="fd00::55") / mark,
        "DHCP offer": mine
        / IP(src=v4, dst="255.255.255.255")
        / UDP(sport=67, dport=68)
        / BOOTP(op=2)
        / DHCP(options=[("message-type", "offer"), "end"])
        / mark,
        "DHCP offer from another port": mine
        / IP(src=v4, dst="255.255.255.255")
        / UDP(sport=6767, dport=68)
        / BOOTP(op=2)
        / mark,
        "DHCPv6 reply": to_all6 / IPv6(src=sll, dst="ff02::1") / UDP(sport=547, dport=546) / DHCP6_Reply() / mark,
        "802.1Q": Ether(src=own, dst=victim.mac) / Dot1Q(vlan=7) / tagged,
        "802.1Q priority": Ether(src=own, dst=victim.mac) / Dot1Q(vlan=0, prio=5) / tagged,
        "802.1ad": Ether(src=own, dst=victim.mac, type=0x88A8) / Dot1Q(vlan=7) / tagged,
        "MPLS": Ether(src=own, dst=victim.mac, type=0x8847) / mark,
        "LLC": Ether(bytes(Ether(src=own, dst=victim.mac, type=0x0040)) + b"\xaa\xaa\x03" + MARK + bytes(50)),
        "foreign IPv4 fragment": Ether(src=own, dst=victim.mac)
        / IP(src="10.0.0.77", dst=theirs4, frag=10, proto=17)
        / mark,
    }


def test_no_spoofed_frame_arrives(cloud: Cloud) -> None:
    network = cloud.network()
    everyone = open_group(cloud)
    attacker, wire = cloud.wire(network, 10, everyone)
    victim, victim_wire = cloud.wire(network, 11, everyone)
    arrived = []
    for name, packet in spoofs(attacker, victim).items():
        wire.send(packet)
        if any(MARK in seen for seen in victim_wire.frames(0.12)):
            arrived.append(name)
    assert arrived == []
    wire.send(frame(attacker, victim))  # The wire did work all the time.
    assert victim_wire.got(MARK)


def test_without_port_security_the_same_frames_arrive(cloud: Cloud) -> None:
    """The proof that the frames of the test above are well-formed enough to arrive."""
    network = cloud.network()
    attacker, wire = cloud.wire(network, 10, port_security=False)
    victim, victim_wire = cloud.wire(network, 11, port_security=False)
    missing = []
    for name, packet in spoofs(attacker, victim).items():
        victim_wire.send(frame(victim, attacker))  # The bridge learns again where the victim is.
        wire.send(packet)
        if not victim_wire.got(MARK, 0.5):
            missing.append(name)
    # One fragment alone waits for the others, and of a frame that says it comes from where it goes the bridge knows.
    assert set(missing) <= {"victim's MAC", "foreign IPv4 fragment"}, missing


def test_what_a_guest_must_be_able_to_send_arrives(cloud: Cloud) -> None:
    network = cloud.network()
    everyone = open_group(cloud)
    sender, wire = cloud.wire(network, 10, everyone)
    receiver, receiver_wire = cloud.wire(network, 11, everyone)
    own, to_all6 = sender.mac, Ether(src=sender.mac, dst="33:33:00:00:00:01")
    v4, v6 = (f.address for f in sender.fixed_ips)
    sll, mark = "fe80::f816:3eff:fe00:10a", Raw(MARK)
    fine = {
        "IPv4": frame(sender, receiver),
        "IPv6": frame(sender, receiver, 6),
        "link-local": frame(sender, receiver, 6, ip=sll),
        "ARP request": Ether(src=own, dst=EVERYONE) / ARP(op=1, hwsrc=own, psrc=v4, pdst="10.0.0.11") / mark,
        "gratuitous ARP": Ether(src=own, dst=EVERYONE) / ARP(op=2, hwsrc=own, psrc=v4, pdst=v4) / mark,
        "ARP probe": Ether(src=own, dst=EVERYONE) / ARP(op=1, hwsrc=own, psrc="0.0.0.0", pdst=v4) / mark,
        "NS": to_all6 / IPv6(src=v6, dst="ff02::1", hlim=255) / ICMPv6ND_NS(tgt="fd00::b") / mark,
        "NA": to_all6 / IPv6(src=v6, dst="ff02::1", hlim=255) / ICMPv6ND_NA(tgt=v6) / mark,
        "NA for link-local": to_all6 / IPv6(src=sll, dst="ff02::1", hlim=255) / ICMPv6ND_NA(tgt=sll) / mark,
        "DAD": to_all6 / IPv6(src="::", dst="ff02::1", hlim=255) / ICMPv6ND_NS(tgt=v6) / mark,
        "ping": Ether(src=own, dst=receiver.mac) / IPv6(src=v6, dst="fd00::b") / ICMPv6EchoRequest(data=MARK),
    }
    missing = []
    for name, packet in fine.items():
        wire.send(packet)
        if not receiver_wire.got(MARK, 1.0):
            missing.append(name)
    assert missing == []


def test_allowed_pairs_widen_the_source_but_never_to_the_networks_own_servers(cloud: Cloud) -> None:
    network = cloud.network()
    everyone = open_group(cloud)
    leg = LegSpec(
        port_id=netlab.an_id("leg"), network_id=network.id, mac="fa:16:3e:00:00:01", addresses=("10.0.0.1/24",)
    )
    cloud.routers = (RouterSpec(id=netlab.an_id("router"), generation=netlab.G1, legs=(leg,)),)
    pairs = (
        a_pair("10.0.0.0/24", "fa:16:3e:00:01:0a"),
        a_pair("192.168.0.0/16", "fa:16:3e:00:09:09"),
        a_pair("fd00::/64", "fa:16:3e:00:01:0a"),
        a_pair("10.0.0.2", "fa:16:3e:00:00:02"),
        a_pair("0.0.0.0/0", "fa:16:3e:00:00:01"),
    )
    sender, wire = cloud.wire(network, 10, everyone, allowed_pairs=pairs)
    receiver, receiver_wire = cloud.wire(network, 11, everyone)
    own = sender.mac
    to_all6 = Ether(src=own, dst="33:33:00:00:00:01") / IPv6(src="fd00::77", dst="ff02::1", hlim=255)
    arrives = {
        "address of a pair": frame(sender, receiver, ip="10.0.0.77"),
        "MAC and address of a pair": frame(sender, receiver, mac="fa:16:3e:00:09:09", ip="192.168.3.4"),
        "IPv6 address of a pair": frame(sender, receiver, 6, ip="fd00::77"),
        "ARP for a pair": Ether(src=own, dst=EVERYONE) / ARP(op=2, hwsrc=own, psrc="10.0.0.77") / Raw(MARK),
        "NA for a pair": to_all6 / ICMPv6ND_NA(tgt="fd00::77") / Raw(MARK),
    }
    refused = {
        "address of one pair, MAC of another": frame(sender, receiver, mac="fa:16:3e:00:09:09", ip="10.0.0.77"),
        "DHCP port's address": frame(sender, receiver, ip="10.0.0.2"),
        "DHCP port's MAC": frame(sender, receiver, mac="fa:16:3e:00:00:02", ip="10.0.0.2"),
        "router's address": frame(sender, receiver, ip="10.0.0.1"),
        "router's MAC": frame(sender, receiver, mac="fa:16:3e:00:00:01", ip="10.0.0.99"),
        "ARP for the router": Ether(src=own, dst=EVERYONE) / ARP(op=2, hwsrc=own, psrc="10.0.0.1") / Raw(MARK),
        "NA for the DHCP port": to_all6 / ICMPv6ND_NA(tgt="fd00::2") / Raw(MARK),
        "metadata's address": frame(sender, receiver, ip="169.254.169.254"),
    }
    for name, packet in arrives.items():
        wire.send(packet)
        assert receiver_wire.got(MARK, 1.0), name
    for name, packet in refused.items():
        wire.send(packet)
        assert not any(MARK in seen for seen in receiver_wire.frames(0.12)), name


def test_a_port_that_is_down_carries_nothing(cloud: Cloud) -> None:
    network = cloud.network()
    everyone = open_group(cloud)
    one, two = cloud.guest(network, 10, everyone), cloud.guest(network, 11, everyone)
    assert one.pings(two.v4)
    down = cloud.change(two.port, is_up=False)
    assert not one.pings(two.v4, 0.7)
    cloud.fabric.ensure_port(down, network)
    assert not one.pings(two.v4, 0.7)
    cloud.fabric.ensure_port(cloud.change(down, is_up=True), network)
    assert one.pings(two.v4, 5)


# ---------------------------------------------------------------------------------------------------------------
# Tenants.


def test_two_networks_with_the_same_subnet_do_not_meet(cloud: Cloud) -> None:
    everyone, closed = open_group(cloud), cloud.group("closed", *outward())
    red, blue = cloud.network("red", segment=1), cloud.network("blue", segment=2)
    red_client, red_server = cloud.guest(red, 10, everyone), cloud.guest(red, 11, everyone)
    blue_client, blue_server = cloud.guest(blue, 10, everyone), cloud.guest(blue, 11, closed)
    assert (red_client.v4, red_server.v4) == (blue_client.v4, blue_server.v4)
    cloud.serve(red_server, red_server.v4, 22)
    cloud.serve(blue_server, blue_server.v4, 22)
    connection = red_client.connect(red_server.v4, 22, source_port=5555)
    assert connection is not None and talks(connection)
    # The same five values, the other tenant: established there does not mean established here.
    assert blue_client.connect(blue_server.v4, 22, 0.7, source_port=5555) is None
    segment = IP(src="10.0.0.10", dst="10.0.0.11") / TCP(sport=5555, dport=22, flags="PA", seq=1, ack=1) / Raw(MARK)
    blue_client.send(Ether(src=blue_client.port.mac, dst=blue_server.port.mac) / segment)
    zones = {flow.zone for flow in conntrack.flows(cloud.host.namespace) if flow.original.dport == 22}
    assert len(zones) == 1
    assert talks(connection)
    connection.close()


def test_fragments_of_two_tenants_are_not_put_together(cloud: Cloud) -> None:
    everyone = open_group(cloud)
    red, blue = cloud.network("red", segment=1), cloud.network("blue", segment=2)
    red_port, red_wire = cloud.wire(red, 10, everyone)
    receiver, red_receiver = cloud.wire(red, 11, everyone)
    _, blue_wire = cloud.wire(blue, 10, everyone)
    cloud.wire(blue, 11, everyone)
    packet = IP(src="10.0.0.10", dst="10.0.0.11", id=77) / UDP(sport=1, dport=2, chksum=0) / Raw(b"a" * 800 + MARK)
    first, last = fragment(packet, fragsize=800)
    red_wire.send(Ether(src=red_port.mac, dst=receiver.mac) / first)
    blue_wire.send(Ether(src=red_port.mac, dst=receiver.mac) / last)
    assert not any(MARK in seen for seen in red_receiver.frames(0.4))
    red_wire.send(Ether(src=red_port.mac, dst=receiver.mac) / last)
    assert red_receiver.got(MARK)


def test_a_new_owner_of_an_address_inherits_no_flow(cloud: Cloud) -> None:
    network = cloud.network()
    everyone, closed = open_group(cloud), cloud.group("closed", *outward())
    client, client_wire = cloud.wire(network, 10, everyone)
    old, old_wire = cloud.wire(network, 11, everyone)
    client_wire.send(frame(client, old))
    assert old_wire.got(MARK)
    reply = IP(src="10.0.0.11", dst="10.0.0.10") / UDP(sport=2000, dport=1000) / Raw(MARK)
    old_wire.send(Ether(src=old.mac, dst=client.mac) / reply)
    assert client_wire.got(MARK)
    del cloud.ports[old.id]
    cloud.apply()
    cloud.fabric.absent_port(old.id)
    new, new_wire = cloud.wire(
        network, 12, closed, id=netlab.an_id("port", "new"), fixed_ips=old.fixed_ips, mac="fa:16:3e:00:01:0c"
    )
    client_wire.send(frame(client, new))
    assert not any(MARK in seen for seen in new_wire.frames(0.4))


def test_a_port_that_changes_hands_within_one_change_keeps_no_flow(cloud: Cloud) -> None:
    network = cloud.network()
    everyone = open_group(cloud)
    client, client_wire = cloud.wire(network, 10, everyone)
    old, old_wire = cloud.wire(network, 11, everyone)
    client_wire.send(frame(client, old))
    assert old_wire.got(MARK)
    heir = msgspec.structs.replace(old, id=netlab.an_id("port", "heir"))
    assert any(flow.original.dport == 2000 for flow in conntrack.flows(cloud.host.namespace))
    cloud.fabric.absent_port(old.id)
    del cloud.ports[old.id]
    cloud.ports[heir.id] = heir
    cloud.apply()
    assert not any(flow.original.dport == 2000 for flow in conntrack.flows(cloud.host.namespace))


# ---------------------------------------------------------------------------------------------------------------
# The host.


def test_a_guest_reaches_no_port_of_the_host(cloud: Cloud) -> None:
    """Also one without port security that knows the bridge's MAC, on a host that knows the way back."""
    network = cloud.network()
    guest = cloud.guest(network, 10, port_security=False)
    host, bridge = cloud.host.namespace, names.bridge(network.id)
    addresses = ("198.18.0.1", "fd18::1")

    def underlay() -> str:
        with host_links.opened() as links:
            lo, link = links.get("lo"), links.get(bridge)
            links.ensure_addresses(lo, ["198.18.0.1/32", "fd18::1/128"])
            links.ensure_routes([host_links.Route("10.0.0.0/24", None, link.index)])
            return link.mac

    def prepared(mac: str) -> None:
        with IPRoute() as ip:
            index = ip.link_lookup(ifname="eth0")[0]
            for address in addresses:
                ip.route("add", dst=address, oif=index)
                ip.neigh("add", dst=address, lladdr=mac, ifindex=index, state=0x80)

    mac = cloud.host.run(underlay)
    guest.run(lambda: prepared(mac))
    listeners = [netns.listen(host, "0.0.0.0", 4222), netns.listen(host, "::", 4223)]
    try:
        assert guest.connect("198.18.0.1", 4222, 0.5) is None
        assert guest.connect("fd18::1", 4223, 0.5) is None
        assert not guest.pings("198.18.0.1", 0.5) and not guest.pings("fd18::1", 0.5)
        Ruleset(host).run(f"flush chain inet hostler_{cloud.host.tag}_host input")
        assert guest.pings("198.18.0.1", 5)  # The way was there; only the host's table was in it.
        cloud.fabric.prepare()
        assert not guest.pings("198.18.0.1", 0.5)
    finally:
        for listener in listeners:
            listener.close()


def test_the_host_answers_no_guest_about_its_addresses(cloud: Cloud) -> None:
    network = cloud.network()
    port, wire = cloud.wire(network, 10, port_security=False)

    def underlay() -> None:
        with host_links.opened() as links:
            links.ensure_addresses(links.get("lo"), ["198.18.0.1/32", "fd18::1/128"])

    cloud.host.run(underlay)
    wire.send(Ether(src=port.mac, dst=EVERYONE) / ARP(op=1, hwsrc=port.mac, psrc="10.0.0.10", pdst="198.18.0.1"))
    solicit = ICMPv6ND_NS(tgt="fd18::1") / ICMPv6NDOptSrcLLAddr(lladdr=port.mac)
    wire.send(Ether(src=port.mac, dst="33:33:ff:00:00:01") / IPv6(src="fd00::a", dst="ff02::1:ff00:1") / solicit)
    heard = [Ether(data) for data in wire.frames(0.5)]
    assert not any(ARP in one or ICMPv6ND_NA in one for one in heard)
    wire.send(Ether(src=port.mac, dst=EVERYONE) / ARP(op=1, hwsrc=port.mac, psrc="10.0.0.10", pdst="10.0.0.2"))
    assert any(ARP in Ether(data) for data in wire.frames(0.5)), "the DHCP port does answer"
