"""Two hosts of one cloud on one underlay, each a namespace with the real drivers, told of each other as agents are."""

import contextlib
from collections.abc import Iterator
from typing import Any

import msgspec
from pyroute2 import IPRoute

from agent.wire.forwarding import ForwardingSpec, Peer
from agent.wire.network import NetworkSpec
from agent.wire.port import PortSpec
from agent.wire.router import RouterSpec, tunnel_mac
from drivers.network import netns
from drivers.network.links import opened as links_opened
from drivers.network.settings import Underlay
from tests.host.cloud_on_host import Cloud
from tests.host.netlab import G1, Guest

ENDS = ("198.18.0.11", "198.18.0.12")


class Pair:
    """Host `one` and host `two`, and what the controller would know."""

    def __init__(self, mtu: int = 1500, **settings: Any) -> None:
        self.hosts = tuple(Cloud(underlay=Underlay(address=end, cidr="198.18.0.0/24"), **settings) for end in ENDS)
        self.one, self.two = self.hosts
        self._generation = 1
        _wire(self.one, self.two, mtu)

    def network(self, name: str = "net", **changes: Any) -> NetworkSpec:
        """On both hosts."""
        one, _ = (host.network(name, **changes) for host in self.hosts)
        return one

    def router(self, spec: RouterSpec) -> RouterSpec:
        """On both hosts."""
        one, _ = (host.router(spec) for host in self.hosts)
        return one

    def router_with_gateway(self, spec: RouterSpec, at: Cloud) -> RouterSpec:
        """On both hosts, its gateway on one of them."""
        for host in self.hosts:
            lesser = msgspec.structs.replace(spec, gateway=None, floating=(), gateway_end=self.end(at))
            host.router(spec if host is at else lesser)
        return spec

    def tell(self, *networks: NetworkSpec, gateway: tuple[RouterSpec, Cloud] | None = None) -> None:
        """Both hosts know the other's ports of these networks, and the legs of a router whose gateway is there."""
        for network in networks:
            for host in self.hosts:
                host.fabric.ensure_forwarding(self.forwarding(host, network, gateway), network)

    def forwarding(
        self, host: Cloud, network: NetworkSpec, gateway: tuple[RouterSpec, Cloud] | None = None
    ) -> ForwardingSpec:
        """What a host is told of a network."""
        other = self.two if host is self.one else self.one
        ports = [port for port in other.ports.values() if port.network_id == network.id]
        peers = [_peer(port, self.end(other)) for port in ports]
        if gateway is not None and gateway[1] is other:
            legs = [leg for leg in gateway[0].legs if leg.network_id == network.id]
            peers += [_way_out(leg.port_id, self.end(other)) for leg in legs]
        return ForwardingSpec(id=network.id, generation=G1, peers=tuple(peers))

    def end(self, host: Cloud) -> str:
        return ENDS[self.hosts.index(host)]


def _peer(port: PortSpec, end: str) -> Peer:
    return Peer(port_id=port.id, mac=port.mac, addresses=tuple(fixed.address for fixed in port.fixed_ips), end=end)


def _way_out(leg_id: str, end: str) -> Peer:
    return Peer(port_id=leg_id, mac=tunnel_mac(leg_id, end), addresses=(), end=end, is_guest=False)


def _wire(one: Cloud, two: Cloud, mtu: int) -> None:
    """Two cables between the hosts: `underlay`, and `external` for whoever wants it."""
    far = str(netns.path(two.host.namespace))

    def plug() -> None:
        with IPRoute() as ip:
            for name in ("underlay", "external"):
                ip.link("add", ifname=name, kind="veth", peer={"ifname": name, "net_ns_fd": far})

    one.host.run(plug)
    for host, end in zip((one, two), ENDS, strict=True):
        host.host.run(lambda end=end: _shape(end, mtu))  # type: ignore[misc]
        host.host._before = host.host.remains()


def _shape(end: str, mtu: int) -> None:
    with links_opened() as links:
        link = links.get("underlay")
        links.shape(link, mtu=mtu, state="up")
        links.ensure_addresses(link, [f"{end}/24"])


def neighbours_of(guest: Guest) -> dict[str, str]:
    """What a guest has learned: MACs by address."""

    def look() -> dict[str, str]:
        with IPRoute() as ip:
            found = [one for family in (2, 10) for one in ip.get_neighbours(family=family)]
        return {one.get_attr("NDA_DST"): one.get_attr("NDA_LLADDR") for one in found if one.get_attr("NDA_LLADDR")}

    return guest.run(look)


@contextlib.contextmanager
def paired(**settings: Any) -> Iterator[Pair]:
    """Two hosts; nothing of them remains."""
    pair = Pair(**settings)
    try:
        for host in pair.hosts:
            host.fabric.prepare()
        yield pair
        for host in pair.hosts:
            host.take_down()
            assert host.host.leftovers() == {}
    finally:
        for host in pair.hosts:
            host.host.close()
