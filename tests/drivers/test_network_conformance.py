"""What every set of network drivers promises: on the fake everywhere, on bridges and nftables as root."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.wire.errors import Failed, Invalid, NotFound, Unfit
from agent.wire.lifecycle import Generation
from drivers.network import names, netns
from drivers.network.base import Dhcp, Fabric, Filter, FilterState, ObservedLink
from drivers.network.fake import FakeDhcp, FakeFabric, FakeFilter, FakeNetwork
from drivers.network.load import DRIVERS, load
from drivers.network.nft import Ruleset
from drivers.network.settings import NetworkSettings, PhysicalNetwork
from tests.host.cloud_on_host import a_floating, a_gateway, a_leg, a_router
from tests.host.netlab import G1, Host, a_group, a_network, a_port, a_rule, by_id, members, outward

G2 = Generation(0, 2)
PHYSICAL = {"public": PhysicalNetwork(bridge="br-ex", addresses=("203.0.113.1/24",))}


class FakeStand:
    """A fake host."""

    def __init__(self) -> None:
        self.net = FakeNetwork(physical_networks=("public",))

    def connect(self) -> tuple[Fabric, Filter, Dhcp]:
        return FakeFabric(self.net), FakeFilter(self.net), FakeDhcp(self.net)

    def leftovers(self) -> object:
        net = self.net
        kept = (net.networks, net.taps, net.routers)
        return {} if not any(one.values() for one in kept) and not net.leases and net.filter is None else kept

    def close(self) -> None:
        pass


class RealStand:
    """A namespace as a host."""

    def __init__(self) -> None:
        self.host = Host(physical_networks=PHYSICAL)

    def connect(self) -> tuple[Any, Any, Any]:
        drivers = load(self.host.settings)
        return self.host.driver(drivers.fabric), self.host.driver(drivers.filter), self.host.driver(drivers.dhcp)

    def leftovers(self) -> object:
        from drivers.network.load import purge

        self.host.run(lambda: purge(self.host.settings))
        return self.host.leftovers()

    def close(self) -> None:
        self.host.close()


@pytest.fixture(params=["fake", pytest.param("bridge", marks=pytest.mark.host)])
def stand(request: pytest.FixtureRequest) -> Iterator[FakeStand | RealStand]:
    if request.param == "bridge" and os.geteuid() != 0:
        pytest.skip("needs root")
    stand = FakeStand() if request.param == "fake" else RealStand()
    try:
        yield stand
    finally:
        stand.close()


class Hands:
    """The drivers of one agent."""

    def __init__(self, stand: FakeStand | RealStand) -> None:
        self.fabric, self.filter, self.dhcp = stand.connect()
        self.fabric.prepare()


@pytest.fixture
def hands(stand: FakeStand | RealStand) -> Iterator[Hands]:
    hands = Hands(stand)
    yield hands
    remove_everything(hands)
    assert stand.leftovers() == {}


def remove_everything(hands: Hands) -> None:
    """As an agent would, from what it observes."""
    hands.filter.clear()
    seen = hands.fabric.observe()
    for noun, absent in (("router", hands.fabric.absent_router), ("port", hands.fabric.absent_port)):
        for link in seen:
            if link.noun == noun:
                absent(link.id)
    for link in seen:
        if link.noun == "network":
            hands.dhcp.absent(link.id)
            hands.fabric.absent_network(link.id)
    assert hands.fabric.observe() == ()


def observed(hands: Hands) -> dict[tuple[str, str], Generation]:
    return {(link.noun, link.id): link.generation for link in hands.fabric.observe()}


def a_state(*ports: Any, network: Any, groups: tuple[Any, ...] = (), addresses: tuple[Any, ...] = ()) -> FilterState:
    return FilterState(ports=ports, networks=by_id(network), groups=by_id(*groups), addresses=by_id(*addresses))


def test_capabilities_name_physical_networks_and_stateful_groups(hands: Hands) -> None:
    capabilities = hands.fabric.capabilities()
    assert capabilities.physical_networks == ("public",)
    assert capabilities.stateful_groups and capabilities.why == ""


def test_prepare_may_be_repeated(hands: Hands) -> None:
    hands.fabric.prepare()
    network = a_network()
    hands.fabric.ensure_network(network)
    hands.fabric.prepare()
    assert hands.fabric.observe() == (ObservedLink(noun="network", id=network.id, generation=G1),)


def test_what_is_made_is_observed_with_its_generation_also_by_the_next_agent(
    stand: FakeStand | RealStand, hands: Hands
) -> None:
    network, outside = (
        a_network(),
        a_network("outside", v4="203.0.113.0/24", v6=None, physical_network="public", dhcp=None),
    )
    port = a_port(network, 10)
    router = a_router(a_leg(network), gateway=a_gateway(outside, "203.0.113.10/24"))
    hands.fabric.ensure_network(network)
    hands.fabric.ensure_network(outside)
    hands.filter.apply(a_state(port, network=network))
    assert hands.fabric.ensure_port(port, network) == names.tap(port.id)
    hands.fabric.ensure_router(router, by_id(network, outside))
    expected = {
        ("network", network.id): G1,
        ("network", outside.id): G1,
        ("port", port.id): G1,
        ("router", router.id): G1,
    }
    assert observed(hands) == expected
    assert observed(Hands(stand)) == expected


def test_every_ensure_may_be_repeated_and_raises_the_generation(hands: Hands) -> None:
    network = a_network()
    port, router = a_port(network, 10), a_router(a_leg(network))
    for generation in (G1, G1, G2):
        network, port, router = (
            msgspec.structs.replace(spec, generation=generation) for spec in (network, port, router)
        )
        hands.fabric.ensure_network(network)
        hands.filter.apply(a_state(port, network=network))
        hands.fabric.ensure_port(port, network)
        hands.fabric.ensure_router(router, by_id(network))
        hands.dhcp.ensure(network, (port,), hands.fabric.namespace(network.id))
    assert set(observed(hands).values()) == {G2}


def test_every_absent_accepts_what_is_not_there(hands: Hands) -> None:
    network = a_network()
    for _ in range(2):
        hands.fabric.absent_port("00000000-0000-0000-0000-000000000001")
        hands.fabric.absent_router("00000000-0000-0000-0000-000000000002")
        hands.fabric.absent_network(network.id)
        hands.dhcp.absent(network.id)
        hands.filter.clear()
    assert hands.fabric.observe() == ()


def test_a_port_needs_its_network(hands: Hands) -> None:
    network = a_network()
    with pytest.raises(Failed, match="not on this host"):
        hands.fabric.ensure_port(a_port(network, 10), network)
    assert hands.fabric.observe() == ()


def test_a_router_needs_its_networks(hands: Hands) -> None:
    network, other = a_network("one"), a_network("two")
    hands.fabric.ensure_network(network)
    router = a_router(a_leg(network), a_leg(other, 2))
    with pytest.raises(Failed, match=other.id):
        hands.fabric.ensure_router(router, by_id(network))
    with pytest.raises(Failed, match=other.id):
        hands.fabric.ensure_router(router, by_id(network, other))


def test_a_physical_network_that_the_host_has_not_is_unfit(hands: Hands) -> None:
    with pytest.raises(Unfit, match="moon"):
        hands.fabric.ensure_network(a_network(physical_network="moon"))
    remove_everything(hands)


def test_a_failed_ensure_is_never_observed_as_whole(hands: Hands) -> None:
    network = a_network()
    hands.fabric.ensure_network(network)
    hands.fabric.ensure_network(msgspec.structs.replace(network, generation=G2))
    with pytest.raises(Unfit):
        hands.fabric.ensure_network(msgspec.structs.replace(network, generation=Generation(0, 3), physical_network="x"))
    assert observed(hands)["network", network.id] == G2


def test_networks_change_shape(hands: Hands) -> None:
    network = a_network()
    hands.fabric.ensure_network(network)
    for changes in (
        {"mtu": 1400},
        {"physical_network": "public"},
        {"dhcp": None},
        {"dhcp": network.dhcp, "physical_network": None},
    ):
        network = msgspec.structs.replace(network, generation=Generation(0, network.generation.n + 1), **changes)
        hands.fabric.ensure_network(network)
        assert observed(hands) == {("network", network.id): network.generation}


def test_routers_change_shape(hands: Hands) -> None:
    one, two = a_network("one"), a_network("two", v4="10.1.0.0/24", v6=None, segment=2)
    outside = a_network("outside", v4="203.0.113.0/24", v6=None, physical_network="public", dhcp=None)
    for network in (one, two, outside):
        hands.fabric.ensure_network(network)
    networks = by_id(one, two, outside)
    gateway = a_gateway(outside, "203.0.113.10/24")
    base = a_router(a_leg(one))
    for changes in (
        {"legs": (a_leg(one), a_leg(two, 2)), "gateway": gateway},
        {"floating": (a_floating("203.0.113.20", "10.0.0.9"), a_floating("203.0.113.21", "10.0.0.8"))},
        {"floating": (a_floating("203.0.113.20", "10.0.0.8"),), "routes": (("10.9.0.0/16", "10.1.0.7"),)},
        {"is_up": False},
        {"is_up": True, "gateway": None, "floating": ()},
        {"legs": ()},
    ):
        base = msgspec.structs.replace(base, generation=Generation(0, base.generation.n + 1), **changes)
        hands.fabric.ensure_router(base, networks)
        assert observed(hands)["router", base.id] == base.generation


def test_the_filter_takes_every_kind_of_rule_and_any_order_of_change(hands: Hands) -> None:
    network = a_network()
    group = a_group(
        "g",
        *outward(),
        a_rule(protocol="tcp", port_min=1, port_max=65535, remote_cidr="0.0.0.0/0"),
        a_rule(protocol="132", port_min=5),
        a_rule(ethertype="IPv6", protocol="icmp", port_min=128, port_max=0, remote_cidr="fd00::1:2/64"),
        a_rule(protocol="vrrp", remote_cidr="10.0.0.7/24"),
    )
    by_group = a_rule(remote_group=group.id)
    with_remote = msgspec.structs.replace(group, rules=(*group.rules, by_group))
    one, two = (a_port(network, number, groups=(group.id,)) for number in (10, 11))
    for state in (
        a_state(one, network=network, groups=(group,)),
        a_state(one, two, network=network, groups=(with_remote,)),
        a_state(one, two, network=network, groups=(with_remote,), addresses=(members(group, "10.0.0.10", "fd00::a"),)),
        a_state(two, network=network, groups=(with_remote,), addresses=(members(group, "10.0.0.0/24", "10.0.0.9"),)),
        a_state(two, network=network, groups=(with_remote,)),
        a_state(msgspec.structs.replace(two, port_security=False), network=network),
        a_state(one, two, network=network, groups=(group,)),
        a_state(network=network),
    ):
        hands.filter.apply(state)
        hands.filter.apply(state)


def test_a_filter_refuses_addresses_that_are_none_and_stays_as_it_was(hands: Hands) -> None:
    network = a_network()
    good = a_port(network, 10)
    hands.filter.apply(a_state(good, network=network))
    for changes in ({"mac": "00:00:00:00:00:0g"}, {"mac": 'fa:16:3e:00:00:00" } ; flush ruleset'}):
        with pytest.raises(Invalid):
            hands.filter.apply(a_state(good, a_port(network, 11, **changes), network=network))
    hands.filter.apply(a_state(good, network=network))


def test_the_caller_may_change_its_dicts_after_apply(hands: Hands) -> None:
    network, group = a_network(), a_group("g", a_rule())
    state = a_state(a_port(network, 10, groups=(group.id,)), network=network, groups=(group,))
    hands.filter.apply(state)
    state.groups[group.id] = a_group("g")
    hands.filter.apply(state)
    state.networks.clear()


def test_dhcp_needs_the_networks_namespace(hands: Hands) -> None:
    network = a_network()
    with pytest.raises(NotFound, match="namespace"):
        hands.dhcp.ensure(network, (a_port(network, 10),), hands.fabric.namespace(network.id))
    hands.dhcp.absent(network.id)


def test_dhcp_follows_the_network(hands: Hands) -> None:
    network = a_network()
    hands.fabric.ensure_network(network)
    namespace = hands.fabric.namespace(network.id)
    for ports in ((), (a_port(network, 10),), (a_port(network, 10), a_port(network, 11)), (a_port(network, 11),)):
        hands.dhcp.ensure(network, ports, namespace)
    hands.dhcp.ensure(msgspec.structs.replace(network, dhcp=None), (), namespace)


def test_unknown_driver_is_unfit(tmp_path: Path) -> None:
    with pytest.raises(Unfit, match="bridge, fake"):
        load(NetworkSettings(tag="abcd", folder=str(tmp_path), driver="ovs"))
    assert sorted(DRIVERS) == ["bridge", "fake"]


def test_the_fake_survives_its_process(tmp_path: Path) -> None:
    settings = NetworkSettings(tag="abcd", folder=str(tmp_path), driver="fake")
    network = a_network()
    load(settings).fabric.ensure_network(network)
    assert load(settings).fabric.observe() == (ObservedLink(noun="network", id=network.id, generation=G1),)


def test_the_fake_records_a_tap_that_was_up_without_a_filter() -> None:
    net = FakeNetwork()
    fabric, packet_filter, network = FakeFabric(net), FakeFilter(net), a_network()
    fabric.ensure_network(network)
    good, bad = a_port(network, 10), a_port(network, 11)
    packet_filter.apply(a_state(good, network=network))
    fabric.ensure_port(good, network)
    fabric.ensure_port(bad, network)
    assert net.exposed == {bad.id}


@pytest.mark.host
def test_a_half_made_network_is_observed_as_unfinished_and_made_whole() -> None:
    stand = RealStand()
    try:
        hands = Hands(stand)
        network = a_network()
        hands.fabric.ensure_network(network)
        from drivers.network.links import opened

        def forget() -> None:
            with opened() as links:
                links.absent(names.bridge(network.id))

        stand.host.run(forget)
        assert observed(hands) == {("network", network.id): names.UNFINISHED}
        hands.fabric.ensure_network(network)
        assert observed(hands) == {("network", network.id): G1}
        namespace = hands.fabric.namespace(network.id)
        hands.dhcp.ensure(network, (a_port(network, 10),), namespace)
        (server,) = netns.pids(namespace)
        netns.absent(namespace)
        hands.fabric.ensure_network(network)
        hands.dhcp.ensure(network, (a_port(network, 10),), namespace)
        (renewed,) = netns.pids(namespace)
        assert renewed != server
        remove_everything(hands)
        assert stand.leftovers() == {}
    finally:
        stand.close()


@pytest.mark.host
def test_purge_leaves_nothing_even_without_files_and_marks_of_finished_things() -> None:
    stand = RealStand()
    try:
        hands = Hands(stand)
        network = a_network()
        outside = a_network("outside", v4="203.0.113.0/24", v6=None, physical_network="public", dhcp=None)
        for spec in (network, outside):
            hands.fabric.ensure_network(spec)
        port = a_port(network, 10)
        hands.filter.apply(a_state(port, network=network))
        hands.fabric.ensure_port(port, network)
        hands.fabric.ensure_router(
            a_router(a_leg(network), gateway=a_gateway(outside, "203.0.113.10/24")), by_id(network, outside)
        )
        hands.dhcp.ensure(network, (port,), hands.fabric.namespace(network.id))
        shutil.rmtree(stand.host.settings.folder)
        assert stand.leftovers() == {}
    finally:
        stand.close()


@pytest.mark.host
def test_the_hosts_own_sets_forget_a_removed_network() -> None:
    stand = RealStand()
    try:
        hands = Hands(stand)
        network = a_network()

        def sets() -> list[str]:
            listed = stand.host.run(lambda: Ruleset().text("list ruleset"))
            return [line for line in listed.splitlines() if f'"{names.vxlan(network.id)}"' in line]

        hands.fabric.ensure_network(network)
        hands.fabric.ensure_router(a_router(a_leg(network)), by_id(network))
        assert sets()
        remove_everything(hands)
        assert sets() == []
    finally:
        stand.close()
