"""What guests hear from DHCP and DNS, asked on the wire; and the life of the server that answers."""

import os
import pwd
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dhcp6 import (
    DUID_LL,
    DHCP6_Advertise,
    DHCP6_Solicit,
    DHCP6OptClientId,
    DHCP6OptDNSServers,
    DHCP6OptIA_NA,
    DHCP6OptIAAddress,
    DHCP6OptOptReq,
)
from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from agent.wire.network import NetworkSpec
from agent.wire.port import PortSpec
from drivers.network import dnsmasq, names
from drivers.network.dnsmasq import DnsmasqDhcp
from tests.host.cloud_on_host import Cloud, opened
from tests.host.netlab import Wire, an_id

pytestmark = pytest.mark.host


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with opened() as cloud:
        yield cloud


def folder(cloud: Cloud, network: NetworkSpec) -> Path:
    return Path(cloud.host.settings.folder) / f"dhcp-{names.short(network.id)}"


def serve(cloud: Cloud, network: NetworkSpec) -> None:
    ports = tuple(port for port in cloud.ports.values() if port.network_id == network.id)
    cloud.dhcp.ensure(network, ports, cloud.fabric.namespace(network.id))


def ask(wire: Wire, mac: str, kind: str, **options: Any) -> Any:
    """A DHCP message broadcast from this MAC; returns the answer, or None."""
    raw = bytes.fromhex(mac.replace(":", ""))
    wanted = [("message-type", kind), ("param_req_list", [1, 3, 6, 12, 15, 26, 51, 121, 249]), *options.items(), "end"]
    packet = (
        Ether(src=mac, dst="ff:ff:ff:ff:ff:ff")
        / IP(src="0.0.0.0", dst="255.255.255.255")
        / UDP(sport=68, dport=67)
        / BOOTP(chaddr=raw, xid=0x1234, flags=0x8000)
        / DHCP(options=wanted)
    )
    wire.frames(0.02)  # Answers to an earlier question.
    wire.send(packet)
    for _ in range(20):
        for data in wire.frames(0.1):
            frame = Ether(data)
            if BOOTP in frame and frame[BOOTP].op == 2 and frame[BOOTP].chaddr[:6] == raw:
                return frame
    return None


def options_of(frame: Any) -> dict[str, Any]:
    return {one[0]: one[1] if len(one) == 2 else one[1:] for one in frame[DHCP].options if isinstance(one, tuple)}


def lease(wire: Wire, port: PortSpec) -> dict[str, Any]:
    """A whole exchange; the options of the acknowledgement and the address."""
    offer = ask(wire, port.mac, "discover")
    assert offer is not None
    address = offer[BOOTP].yiaddr
    ack = ask(wire, port.mac, "request", requested_addr=address, server_id=options_of(offer)["server_id"])
    assert ack is not None
    return {**options_of(ack), "address": ack[BOOTP].yiaddr, "from": ack[IP].src, "from_mac": ack[Ether].src}


def test_a_guest_gets_its_address_and_everything_else(cloud: Cloud) -> None:
    network = cloud.network()
    port, wire = cloud.wire(network, 10)
    serve(cloud, network)
    got = lease(wire, port)
    assert (got["address"], got["from"], got["from_mac"]) == ("10.0.0.10", "10.0.0.2", "fa:16:3e:00:00:02")
    assert (got["subnet_mask"], got["router"], got["name_server"]) == ("255.255.255.0", "10.0.0.1", "10.0.0.2")
    assert (got["hostname"], got["domain"], got["interface-mtu"]) == (b"guest-10", b"cloud.internal", 1450)
    routes = bytes([32, 169, 254, 169, 254, 10, 0, 0, 2, 0, 10, 0, 0, 1])
    assert classless(got) == routes


def classless(got: dict[str, Any]) -> bytes:
    """Option 121 as bytes, however it was decoded."""
    value = got.get("classless_static_routes", got.get(121))
    if isinstance(value, bytes):
        return value
    texts = [value] if isinstance(value, str) else list(value)
    result = b""
    for text in texts:
        destination, _, router = text.partition(":")
        address, _, length = destination.partition("/")
        octets = socket.inet_aton(address)[: (int(length) + 7) // 8]
        result += bytes([int(length)]) + octets + socket.inet_aton(router)
    return result


def test_a_subnet_without_gateway_offers_no_router_and_its_own_servers_and_routes(cloud: Cloud) -> None:
    plain = cloud.network(v6=None)
    subnet = msgspec.structs.replace(
        plain.subnets[0],
        gateway=None,
        dns_nameservers=("192.0.2.53", "192.0.2.54"),
        host_routes=(("10.8.0.0/16", "10.0.0.7"),),
    )
    network = msgspec.structs.replace(plain, subnets=(subnet,))
    port, wire = cloud.wire(network, 10)
    serve(cloud, network)
    offer = ask(wire, port.mac, "discover")
    assert offer is not None
    options = options_of(offer)
    assert "router" not in options
    assert options["name_server"] == ("192.0.2.53", "192.0.2.54")
    assert classless(options) == bytes([32, 169, 254, 169, 254, 10, 0, 0, 2, 16, 10, 8, 10, 0, 0, 7])


def test_strangers_are_not_answered(cloud: Cloud) -> None:
    network = cloud.network()
    _, wire = cloud.wire(network, 10, port_security=False)
    serve(cloud, network)
    assert ask(wire, "fa:16:3e:66:66:66", "discover") is None


def test_a_new_port_is_served_by_the_running_server(cloud: Cloud) -> None:
    network = cloud.network()
    cloud.wire(network, 10)
    serve(cloud, network)
    pid = dnsmasq.running(folder(cloud, network))
    port, wire = cloud.wire(network, 11)
    serve(cloud, network)
    assert lease(wire, port)["address"] == "10.0.0.11"
    assert dnsmasq.running(folder(cloud, network)) == pid


def test_an_address_moves_to_a_new_port_at_once(cloud: Cloud) -> None:
    network = cloud.network()
    old, old_wire = cloud.wire(network, 10)
    keeper, keeper_wire = cloud.wire(network, 11)
    serve(cloud, network)
    assert lease(old_wire, old)["address"] == "10.0.0.10"
    assert lease(keeper_wire, keeper)["address"] == "10.0.0.11"
    del cloud.ports[old.id]
    cloud.apply()
    cloud.fabric.absent_port(old.id)
    new, new_wire = cloud.wire(
        network, 12, id=an_id("port", "new"), mac="fa:16:3e:00:01:0c", fixed_ips=old.fixed_ips, hostname="heir"
    )
    serve(cloud, network)
    assert lease(new_wire, new)["address"] == "10.0.0.10"
    assert lease(keeper_wire, keeper)["address"] == "10.0.0.11"


def test_the_server_has_no_rights_outlives_the_agent_and_is_replaced_when_it_dies(cloud: Cloud) -> None:
    network = cloud.network()
    port, wire = cloud.wire(network, 10)
    serve(cloud, network)
    pid = dnsmasq.running(folder(cloud, network))
    assert pid is not None
    uids = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("Uid:"))
    assert set(uids.split()[1:]) == {str(pwd.getpwnam(dnsmasq.account()).pw_uid)}
    cloud.dhcp = cloud.host.driver(DnsmasqDhcp(cloud.host.settings))  # An agent that has just started.
    serve(cloud, network)
    assert dnsmasq.running(folder(cloud, network)) == pid
    os.kill(pid, signal.SIGKILL)
    while dnsmasq.running(folder(cloud, network)) == pid:
        pass
    serve(cloud, network)
    assert dnsmasq.running(folder(cloud, network)) not in (None, pid)
    assert lease(wire, port)["address"] == "10.0.0.10"


def test_a_changed_network_restarts_the_server_with_the_new_subnets(cloud: Cloud) -> None:
    network = cloud.network(v6=None)
    port, wire = cloud.wire(network, 10)
    serve(cloud, network)
    pid = dnsmasq.running(folder(cloud, network))
    changed = msgspec.structs.replace(network, dns_domain="other.test", mtu=1400)
    cloud.fabric.ensure_network(changed)
    serve(cloud, changed)
    assert dnsmasq.running(folder(cloud, network)) != pid
    got = lease(wire, port)
    assert (got["domain"], got["interface-mtu"]) == (b"other.test", 1400)


def test_dhcpv6_gives_the_ports_address(cloud: Cloud) -> None:
    network = cloud.network()
    guest = cloud.guest(network, 10)
    serve(cloud, network)
    solicit = (
        DHCP6_Solicit(trid=7)
        / DHCP6OptClientId(duid=DUID_LL(lladdr=guest.port.mac))
        / DHCP6OptIA_NA(iaid=1)
        / DHCP6OptOptReq(reqopts=[23])
    )

    def inside() -> Any:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as handle:
            handle.settimeout(5)
            handle.bind(("::", 546))
            handle.sendto(bytes(solicit), ("ff02::1:2", 547, 0, socket.if_nametoindex("eth0")))
            return DHCP6_Advertise(handle.recv(2048))

    answer = guest.run(inside)
    assert answer[DHCP6OptIAAddress].addr == "fd00::a"
    assert answer[DHCP6OptDNSServers].dnsservers == ["fd00::2"]


def test_dns_knows_the_networks_ports_and_nobody_else(cloud: Cloud) -> None:
    network = cloud.network()
    guest = cloud.guest(network, 10, cloud.open_group())
    cloud.wire(network, 11, hostname="Web-Server")
    serve(cloud, network)

    def resolve(name: str, kind: str = "A") -> tuple[int, list[str]]:
        def inside() -> tuple[int, list[str]]:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
                handle.settimeout(3)
                handle.sendto(bytes(DNS(id=5, rd=1, qd=DNSQR(qname=name, qtype=kind))), ("10.0.0.2", 53))
                answer = DNS(handle.recv(2048))
            return answer.rcode, [str(record.rdata) for record in answer.an or []]

        result: tuple[int, list[str]] = guest.run(inside)
        return result

    assert resolve("web-server.cloud.internal") == (0, ["10.0.0.11"])
    assert resolve("web-server.cloud.internal", "AAAA") == (0, ["fd00::b"])
    assert resolve("guest-10") == (0, ["10.0.0.10"])
    assert resolve("nobody.cloud.internal") == (3, [])
    assert resolve("example.org")[1] == []


def test_host_names_that_are_none_cannot_speak_to_the_server(cloud: Cloud) -> None:
    network = cloud.network()
    evil = ("a\nfa:16:3e:00:01:0b,10.0.0.99", "a,ignore", "ignore", "infinite", "1234", "12h", "-x", "x" * 64, "ä", "")
    ports = []
    for number, hostname in enumerate(evil, start=20):
        ports.append(cloud.wire(network, number, hostname=hostname))
    serve(cloud, network)
    for port, wire in ports:
        got = lease(wire, port)
        assert got["address"] == port.fixed_ips[0].address, port.hostname
        assert got["lease_time"] == dnsmasq.LEASE_S, port.hostname
    assert "10.0.0.99" not in (folder(cloud, network) / "hosts").read_text()
