"""A prepared host with the real network drivers, and what a test has put on it; taken down whole at the end."""

import contextlib
from collections.abc import Iterator
from typing import Any

import msgspec

from agent.wire.group import AddressesSpec, GroupSpec, RuleSpec
from agent.wire.network import NetworkSpec
from agent.wire.port import PortSpec
from agent.wire.router import FloatingSpec, GatewaySpec, LegSpec, RouterSpec
from drivers.network import names
from drivers.network.base import FilterState
from drivers.network.bridge import BridgeFabric
from drivers.network.dnsmasq import DnsmasqDhcp
from drivers.network.nft_filter import NftFilter
from tests.host.netlab import G1, Guest, Host, Wire, a_group, a_network, a_port, a_rule, an_id, outward


class Cloud:
    """Specs go in by name, drivers are called as the agent calls them: filter before tap, network before port."""

    def __init__(self, **settings: Any) -> None:
        self.host = Host(**settings)
        self.fabric = self.host.driver(BridgeFabric(self.host.settings))
        self.filter = self.host.driver(NftFilter(self.host.settings))
        self.dhcp = self.host.driver(DnsmasqDhcp(self.host.settings))
        self.networks: dict[str, NetworkSpec] = {}
        self.ports: dict[str, PortSpec] = {}
        self.groups: dict[str, GroupSpec] = {}
        self.addresses: dict[str, AddressesSpec] = {}
        self.routers: tuple[RouterSpec, ...] = ()
        self.closables: list[Any] = []

    def network(self, name: str = "net", **changes: Any) -> NetworkSpec:
        spec = a_network(name, **changes)
        self.fabric.ensure_network(spec)
        self.networks[spec.id] = spec
        return spec

    def group(self, name: str, *rules: RuleSpec) -> GroupSpec:
        spec = a_group(name, *rules)
        self.groups[spec.id] = spec
        return spec

    def open_group(self) -> GroupSpec:
        return self.group("open", *outward(), a_rule("ingress", "IPv4"), a_rule("ingress", "IPv6"))

    def port(self, network: NetworkSpec, number: int, *groups: GroupSpec, **changes: Any) -> PortSpec:
        spec = a_port(network, number, groups=tuple(group.id for group in groups), **changes)
        self.ports[spec.id] = spec
        self.apply()
        self.fabric.ensure_port(spec, network)
        return spec

    def change(self, port: PortSpec, **changes: Any) -> PortSpec:
        spec = msgspec.structs.replace(port, **changes)
        self.ports[spec.id] = spec
        self.apply()
        return spec

    def apply(self) -> None:
        self.filter.apply(self.state())

    def state(self) -> FilterState:
        return FilterState(
            ports=tuple(self.ports.values()),
            networks=self.networks,
            groups=self.groups,
            addresses=self.addresses,
            routers=self.routers,
        )

    def guest(self, network: NetworkSpec, number: int, *groups: GroupSpec, **changes: Any) -> Guest:
        """A guest whose gateway is the first address of its subnets."""
        gateways = {subnet.ip_version: subnet.gateway for subnet in network.subnets}
        return self.host.guest(self.port(network, number, *groups, **changes), gateways.get(4), gateways.get(6))

    def wire(self, network: NetworkSpec, number: int, *groups: GroupSpec, **changes: Any) -> tuple[PortSpec, Wire]:
        spec = self.port(network, number, *groups, **changes)
        wire = self.host.wire(names.tap(spec.id))
        self.closables.append(wire)
        wire.frames(0.05)
        return spec, wire

    def serve(self, guest: Guest, address: str, port: int) -> Any:
        echo = guest.serve(address, port)
        self.closables.append(echo)
        return echo

    def router(self, spec: RouterSpec) -> RouterSpec:
        self.fabric.ensure_router(spec, self.networks)
        self.routers = (*(router for router in self.routers if router.id != spec.id), spec)
        self.apply()
        return spec

    def take_down(self) -> None:
        for closable in self.closables:
            closable.close()
        self.filter.clear()
        for port_id in self.ports:
            self.fabric.absent_port(port_id)
        for router in self.routers:
            self.fabric.absent_router(router.id)
        for network_id in self.networks:
            self.dhcp.absent(network_id)
            self.fabric.absent_network(network_id)
        assert self.fabric.observe() == ()
        self.fabric.purge()


@contextlib.contextmanager
def opened(**settings: Any) -> Iterator[Cloud]:
    """A cloud on a host of its own; nothing of it remains."""
    cloud = Cloud(**settings)
    try:
        cloud.fabric.prepare()
        yield cloud
        cloud.take_down()
        assert cloud.host.leftovers() == {}
    finally:
        cloud.host.close()


def a_leg(network: NetworkSpec, number: int = 1, **changes: Any) -> LegSpec:
    """A router's leg with the gateway addresses of every subnet."""
    prefixes = {subnet.gateway: subnet.cidr.partition("/")[2] for subnet in network.subnets}
    fields: dict[str, Any] = {
        "port_id": an_id("leg", network.id, number),
        "network_id": network.id,
        "mac": f"fa:16:3e:00:02:{number:02x}",
        "addresses": tuple(f"{gateway}/{length}" for gateway, length in prefixes.items()),
    }
    return LegSpec(**{**fields, **changes})


def a_gateway(network: NetworkSpec, *addresses: str, **changes: Any) -> GatewaySpec:
    fields: dict[str, Any] = {
        "port_id": an_id("gateway", network.id),
        "network_id": network.id,
        "mac": "fa:16:3e:00:03:01",
        "addresses": addresses,
        "next_hops": tuple(subnet.gateway for subnet in network.subnets),
        "snat": True,
    }
    return GatewaySpec(**{**fields, **changes})


def a_router(*legs: LegSpec, **changes: Any) -> RouterSpec:
    return RouterSpec(**{"id": an_id("router", legs), "generation": G1, "legs": legs, **changes})


def a_floating(address: str, fixed: str) -> FloatingSpec:
    return FloatingSpec(id=an_id("floating", address), address=address, fixed=fixed)
