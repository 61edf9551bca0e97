"""A network without packets: everything the protocols promise, in memory, and optionally in files.

`FakeNetwork` is the host's network: it outlives agents, as bridges and taps do. `FakeFabric`, `FakeFilter` and
`FakeDhcp` are one agent's hands on it. An agent that crashed and came back is given new ones on the same
`FakeNetwork`; in another process it finds networks, taps and routers through `folder`. Nothing here reads a clock or
draws a random number, and no thread is started, so a simulation is the same every time.

It is stricter than a kernel: what the protocols ask of their caller (ports gone before their network, the filter
before the tap) is asserted or recorded, so that a test sees it.
"""

import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import msgspec

from agent.wire.errors import Failed, NotFound, Unfit, WireError
from agent.wire.forwarding import ForwardingSpec
from agent.wire.network import NetworkSpec
from agent.wire.port import PortSpec, TcpFlow
from agent.wire.router import RouterSpec
from drivers.fake_journal import FakeJournal
from drivers.network import filter as rules
from drivers.network import forwarding, names
from drivers.network.base import FilterState, NetworkCapabilities, ObservedLink


class Leases(msgspec.Struct, frozen=True, kw_only=True):
    """What a network's DHCP serves."""

    network: NetworkSpec
    ports: tuple[PortSpec, ...]
    namespace: str


class FakeNetwork:
    """What exists on one host. Thread-safe.

    `fail_next` makes the next call of one verb (a method of a protocol, such as `ensure_port`, `apply`, `dhcp.ensure`)
    fail, before or after its effect.
    """

    def __init__(
        self, *, folder: str | None = None, physical_networks: tuple[str, ...] = (), latency_s: float = 0.0
    ) -> None:
        def path(noun: str) -> str | None:
            return None if folder is None else f"{folder}/fake-{noun}.jsonl"

        self.latency_s = latency_s
        self.physical_networks = physical_networks
        self.networks = FakeJournal(NetworkSpec, path("networks"))
        self.taps = FakeJournal(PortSpec, path("taps"))
        self.routers = FakeJournal(RouterSpec, path("routers"))
        self.leases: dict[str, Leases] = {}
        self.tunnels: dict[str, ForwardingSpec] = {}
        self.filter: FilterState | None = None
        self.filter_changes = 0
        self.exposed: set[str] = set()  # Ports with port security whose tap was ever up without being filtered.
        self._filtered: dict[str, PortSpec] = {}
        self._lock = threading.RLock()
        self._failures: dict[str, list[tuple[WireError, bool]]] = {}

    def fail_next(self, verb: str, error: WireError, *, is_after_effect: bool = False) -> None:
        """The next call of `verb` raises `error`, having done nothing or all."""
        with self._lock:
            self._failures.setdefault(verb, []).append((error, is_after_effect))

    def power_failure(self) -> None:
        """The host loses its power: nothing of its network is left."""
        with self._lock:
            for journal in (self.networks, self.taps, self.routers):
                for key in journal.keys():  # noqa: SIM118  a journal is no dict.
                    journal.remove(key)
            self.leases.clear()
            self.tunnels.clear()
            self.filter, self._filtered = None, {}

    def filtered(self, port_id: str) -> PortSpec | None:
        """A port as the filter knows it."""
        return self._filtered.get(port_id)

    def set_filter(self, state: FilterState | None) -> None:
        """The filter's new state; invalid addresses in it raise Invalid, as composing the rules would."""
        ports = {port.id: port for port in state.ports} if state is not None else {}
        for port in ports.values():
            if self._filtered.get(port.id) is not port:
                rules.sources(port)
        self.filter, self._filtered = state, ports
        self.filter_changes += 1
        for tap in self.taps.values():
            self.look(tap)

    def look(self, tap: PortSpec) -> None:
        """Record a tap that is up without a filter."""
        if tap.port_security and tap.is_up and tap.id not in self._filtered:
            self.exposed.add(tap.id)

    @contextmanager
    def call(self, verb: str) -> Iterator[None]:
        """One call of a protocol: takes its time, has its turn, fails if told to."""
        if self.latency_s > 0:
            time.sleep(self.latency_s)
        with self._lock:
            planned = self._failures.get(verb)
            error, is_after_effect = planned.pop(0) if planned else (None, False)
            if error is not None and not is_after_effect:
                raise error
            yield
            if error is not None:
                raise error


class FakeFabric:
    """See drivers.network.base.Fabric."""

    def __init__(self, net: FakeNetwork, tag: str = "fa4e", host: str = "") -> None:
        self._net = net
        self._names = names.Namespaces(tag, host)

    def capabilities(self) -> NetworkCapabilities:
        """See Fabric."""
        return NetworkCapabilities(
            driver="fake", physical_networks=tuple(sorted(self._net.physical_networks)), stateful_groups=True
        )

    def prepare(self) -> None:
        """See Fabric."""
        with self._net.call("prepare"):
            pass

    def observe(self) -> tuple[ObservedLink, ...]:
        """See Fabric."""
        with self._net.call("observe"):
            nouns = (("network", self._net.networks), ("port", self._net.taps), ("router", self._net.routers))
            return tuple(
                ObservedLink(noun=noun, id=spec.id, generation=spec.generation)
                for noun, journal in nouns
                for spec in journal.values()
            )

    def ensure_network(self, spec: NetworkSpec) -> None:
        """See Fabric."""
        with self._net.call("ensure_network"):
            if spec.physical_network is not None and spec.physical_network not in self._net.physical_networks:
                raise Unfit(f"this host has no physical network {spec.physical_network}")
            self._net.networks.put(spec.id, spec)

    def absent_network(self, network_id: str) -> None:
        """See Fabric."""
        with self._net.call("absent_network"):
            taps = [tap.id for tap in self._net.taps.values() if tap.network_id == network_id]
            assert not taps, f"network {network_id} still has taps: {taps}"
            assert network_id not in self._net.leases, f"DHCP of network {network_id} still runs"
            self._net.tunnels.pop(network_id, None)
            self._net.networks.remove(network_id)

    def ensure_forwarding(self, spec: ForwardingSpec, network: NetworkSpec) -> None:
        """See Fabric."""
        with self._net.call("ensure_forwarding"):
            if self._net.networks.get(network.id) is None:
                raise Failed(f"network {network.id} is not on this host")
            forwarding.entries(spec)
            if network.physical_network is None:
                self._net.tunnels[spec.id] = spec
            else:
                self._net.tunnels.pop(spec.id, None)

    def absent_forwarding(self, network_id: str) -> None:
        """See Fabric."""
        with self._net.call("absent_forwarding"):
            self._net.tunnels.pop(network_id, None)

    def ensure_port(self, spec: PortSpec, network: NetworkSpec) -> str:
        """See Fabric."""
        with self._net.call("ensure_port"):
            if self._net.networks.get(network.id) is None:
                raise Failed(f"network {network.id} of port {spec.id} is not on this host")
            self._net.taps.put(spec.id, spec)
            self._net.look(spec)
            return names.tap(spec.id)

    def absent_port(self, port_id: str) -> None:
        """See Fabric."""
        with self._net.call("absent_port"):
            self._net.taps.remove(port_id)

    def ensure_router(self, spec: RouterSpec, networks: dict[str, NetworkSpec]) -> None:
        """See Fabric."""
        with self._net.call("ensure_router"):
            legs = [*spec.legs, *((spec.gateway,) if spec.gateway else ())]
            wanted = [leg.network_id for leg in legs]
            missing = [one for one in wanted if self._net.networks.get(one) is None or one not in networks]
            if missing:
                raise Failed(f"router {spec.id} has legs in networks that are not on this host: {', '.join(missing)}")
            self._net.routers.put(spec.id, spec)

    def absent_router(self, router_id: str) -> None:
        """See Fabric."""
        with self._net.call("absent_router"):
            self._net.routers.remove(router_id)

    def namespace(self, network_id: str) -> str:
        """See Fabric."""
        return self._names.network(network_id)


class FakeFilter:
    """See drivers.network.base.Filter."""

    def __init__(self, net: FakeNetwork) -> None:
        self._net = net

    def apply(self, state: FilterState) -> None:
        """See Filter."""
        with self._net.call("apply"):
            self._net.set_filter(
                msgspec.structs.replace(
                    state, networks=dict(state.networks), groups=dict(state.groups), addresses=dict(state.addresses)
                )
            )

    def flows_of(self, port_ids: Collection[str]) -> tuple[TcpFlow, ...]:
        """See Filter. Nobody speaks here."""
        with self._net.call("flows_of"):
            return ()

    def adopt(self, flows: Collection[TcpFlow]) -> None:
        """See Filter."""
        with self._net.call("adopt"):
            return

    def clear(self) -> None:
        """See Filter."""
        with self._net.call("clear"):
            self._net.set_filter(None)


class FakeDhcp:
    """See drivers.network.base.Dhcp."""

    def __init__(self, net: FakeNetwork) -> None:
        self._net = net

    def ensure(self, network: NetworkSpec, ports: tuple[PortSpec, ...], namespace: str) -> None:
        """See Dhcp."""
        with self._net.call("dhcp.ensure"):
            if self._net.networks.get(network.id) is None:
                raise NotFound(f"there is no network namespace {namespace}")
            if network.dhcp is None:
                self._net.leases.pop(network.id, None)
            else:
                self._net.leases[network.id] = Leases(network=network, ports=ports, namespace=namespace)

    def absent(self, network_id: str) -> None:
        """See Dhcp."""
        with self._net.call("dhcp.absent"):
            self._net.leases.pop(network_id, None)
