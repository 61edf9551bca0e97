"""What an agent needs of a host's network. Calls block; the agent runs them in threads with a time-out each.

Three protocols: `Fabric` makes bridges, taps and routers; `Filter` holds the packet filter; `Dhcp` answers
guests. All `ensure` methods converge from any earlier state (also from a crash in the middle of themselves),
all `absent` methods accept what is not there. Links carry `hostler:<tag>:<noun>:<id>:<generation>` as alias,
namespaces and tables carry the tag in their name, so `observe` needs no ledger.
"""

from collections.abc import Collection
from typing import Protocol

import msgspec

from agent.wire.forwarding import ForwardingSpec
from agent.wire.group import AddressesSpec, GroupSpec
from agent.wire.lifecycle import Generation
from agent.wire.network import NetworkSpec
from agent.wire.port import PortSpec, TcpFlow
from agent.wire.router import RouterSpec


class NetworkCapabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What this host's network can do."""

    driver: str
    physical_networks: tuple[str, ...]
    stateful_groups: bool
    why: str = ""


class ObservedLink(msgspec.Struct, frozen=True, kw_only=True):
    """A host object that bears our mark; `noun` is network, port or router."""

    noun: str
    id: str
    generation: Generation


class Fabric(Protocol):
    """Bridges, taps, tunnels, namespaces, routes."""

    def capabilities(self) -> NetworkCapabilities:
        """Cheap."""
        ...

    def prepare(self) -> None:
        """Once at agent start: sysctls, external bridges, the host table that guards infrastructure ports."""
        ...

    def observe(self) -> tuple[ObservedLink, ...]:
        """Everything of this cloud on the host."""
        ...

    def ensure_network(self, spec: NetworkSpec) -> None:
        """The bridge, the cable of a provider network and, for DHCP and metadata, the namespace with its leg."""
        ...

    def absent_network(self, network_id: str) -> None:
        """Remove them. The network's ports and legs are gone before."""
        ...

    def ensure_forwarding(self, spec: ForwardingSpec, network: NetworkSpec) -> None:
        """The tunnel of a tenant network and exactly these peers behind it.

        The network is there. Raises Unfit where the underlay is too narrow for the network's packets.
        """
        ...

    def absent_forwarding(self, network_id: str) -> None:
        """Remove the tunnel."""
        ...

    def ensure_port(self, spec: PortSpec, network: NetworkSpec) -> str:
        """The tap, up and in its bridge; returns its name. The filter was applied before this is called."""
        ...

    def absent_port(self, port_id: str) -> None:
        """Remove the tap."""
        ...

    def ensure_router(self, spec: RouterSpec, networks: dict[str, NetworkSpec]) -> None:
        """The router's namespace with legs, routes, NAT and floating IPs, changed without dropping flows."""
        ...

    def absent_router(self, router_id: str) -> None:
        """Remove it."""
        ...

    def namespace(self, network_id: str) -> str:
        """The name of the network's namespace, where DHCP runs and metadata listens."""
        ...


class FilterState(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the filter of a host needs, at once; the driver works out the smallest change.

    `groups` and `addresses` may hold more than the ports refer to. `routers` name the MACs and addresses of legs,
    which no guest may speak as.
    """

    ports: tuple[PortSpec, ...]
    networks: dict[str, NetworkSpec]
    groups: dict[str, GroupSpec]
    addresses: dict[str, AddressesSpec]
    routers: tuple[RouterSpec, ...] = ()


class Filter(Protocol):
    """Anti-spoofing and security groups."""

    def apply(self, state: FilterState) -> None:
        """Make it so, atomically; flows that are no longer allowed are cut (conntrack entries deleted)."""
        ...

    def flows_of(self, port_ids: Collection[str]) -> tuple[TcpFlow, ...]:
        """The established connections of these ports: what another host must know where their guest goes on."""
        ...

    def adopt(self, flows: Collection[TcpFlow]) -> None:
        """These connections go on although nobody here has seen them begin; those of ports that are not here do not."""
        ...

    def clear(self) -> None:
        """Remove every trace of this cloud's filter."""
        ...


class Dhcp(Protocol):
    """DHCP, router advertisements for tenant networks, and DNS, one server per network namespace."""

    def ensure(self, network: NetworkSpec, ports: tuple[PortSpec, ...], namespace: str) -> None:
        """The server runs with exactly these static leases."""
        ...

    def absent(self, network_id: str) -> None:
        """Stop it and remove its files."""
        ...
