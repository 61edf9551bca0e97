"""A host's network as a list of what there is, checked as strictly as a kernel would."""

from agent.wire.errors import Failed
from agent.wire.network import NetworkSpec
from agent.wire.port import PortSpec
from agent.wire.router import RouterSpec
from drivers.network.base import FilterState, NetworkCapabilities, ObservedLink


class PlainNetwork:
    """What is there. It outlives agents."""

    def __init__(self) -> None:
        self.networks: dict[str, NetworkSpec] = {}
        self.taps: dict[str, PortSpec] = {}
        self.routers: dict[str, RouterSpec] = {}
        self.filter: FilterState | None = None
        self.leases: dict[str, tuple[str, ...]] = {}
        self.applications = 0
        self.unfiltered: list[str] = []  # Taps that were ever up without rules.

    def look(self) -> None:
        rules = {port.id for port in self.filter.ports} if self.filter else set()
        self.unfiltered += [tap for tap in self.taps if tap not in rules]


class PlainFabric:
    def __init__(self, net: PlainNetwork) -> None:
        self.net = net

    def capabilities(self) -> NetworkCapabilities:
        return NetworkCapabilities(driver="plain", physical_networks=("external",), stateful_groups=True)

    def prepare(self) -> None:
        pass

    def observe(self) -> tuple[ObservedLink, ...]:
        def links(noun: str, specs: dict) -> list[ObservedLink]:
            return [ObservedLink(noun=noun, id=name, generation=specs[name].generation) for name in sorted(specs)]

        net = self.net
        return (*links("network", net.networks), *links("port", net.taps), *links("router", net.routers))

    def ensure_network(self, spec: NetworkSpec) -> None:
        self.net.networks[spec.id] = spec

    def absent_network(self, network_id: str) -> None:
        assert not any(tap.network_id == network_id for tap in self.net.taps.values()), "a tap is in it"
        assert network_id not in self.net.leases, "its DHCP runs"
        self.net.networks.pop(network_id, None)

    def ensure_port(self, spec: PortSpec, network: NetworkSpec) -> str:
        if network.id not in self.net.networks:
            raise Failed("no such bridge")
        self.net.taps[spec.id] = spec
        self.net.look()
        return f"t{spec.id[:10]}"

    def absent_port(self, port_id: str) -> None:
        self.net.taps.pop(port_id, None)

    def ensure_router(self, spec: RouterSpec, networks: dict[str, NetworkSpec]) -> None:
        assert all(leg.network_id in self.net.networks for leg in spec.legs)
        self.net.routers[spec.id] = spec

    def absent_router(self, router_id: str) -> None:
        self.net.routers.pop(router_id, None)

    def namespace(self, network_id: str) -> str:
        return f"hostler-network-{network_id}"


class PlainFilter:
    def __init__(self, net: PlainNetwork) -> None:
        self.net = net

    def apply(self, state: FilterState) -> None:
        assert all(port.network_id in state.networks for port in state.ports)
        assert all(group in state.groups for port in state.ports for group in port.groups)
        self.net.filter = state
        self.net.applications += 1
        self.net.look()

    def clear(self) -> None:
        self.net.filter = None


class PlainDhcp:
    def __init__(self, net: PlainNetwork) -> None:
        self.net = net

    def ensure(self, network: NetworkSpec, ports: tuple[PortSpec, ...], namespace: str) -> None:
        assert network.id in self.net.networks
        self.net.leases[network.id] = tuple(sorted(port.id for port in ports))

    def absent(self, network_id: str) -> None:
        self.net.leases.pop(network_id, None)
