"""Strategies for states of a filter: odd protocols, ranges, prefixes with host bits, shared and empty things."""

from hypothesis import strategies as st

from agent.wire.group import AddressesSpec, GroupSpec, RuleSpec
from agent.wire.lifecycle import Generation
from agent.wire.port import AddressPair, FixedIp, PortSpec
from agent.wire.router import LegSpec, RouterSpec
from drivers.network.base import FilterState
from drivers.network.filter import PROTOCOLS
from tests.host.netlab import a_network, an_id, by_id

G = Generation(0, 1)
NETWORKS = (a_network("red"), a_network("blue", segment=2))
GROUPS = tuple(an_id("group", number) for number in range(4))

v4 = st.ip_addresses(v=4).map(str)
v6 = st.one_of(
    st.ip_addresses(v=6).map(str),
    v4.map(lambda text: f"::ffff:{text}"),
    st.sampled_from(["::", "::1", "fe80::1", "ff02::1", "fd00::a"]),
)
cidrs4 = st.builds(lambda address, length: f"{address}/{length}", v4, st.integers(0, 32))
cidrs6 = st.builds(lambda address, length: f"{address}/{length}", v6, st.integers(0, 128))
near4 = st.integers(0, 40).map(lambda number: f"10.0.0.{number}")
near6 = st.integers(0, 40).map(lambda number: f"fd00::{number:x}")
near_cidrs = st.one_of(
    near4,
    near6,
    st.builds(lambda address, length: f"{address}/{length}", near4, st.sampled_from([0, 8, 24, 29, 30, 31, 32])),
    st.builds(lambda address, length: f"{address}/{length}", near6, st.sampled_from([0, 64, 120, 126, 127, 128])),
)
remotes = st.one_of(st.none(), cidrs4, cidrs6, near_cidrs, st.sampled_from(["0.0.0.0/0", "::/0", "10.0.0.7/24"]))
protocols = st.one_of(
    st.none(),
    st.sampled_from(
        [*PROTOCOLS, "any", "ip", "TCP", "icmp", "0", "6", "58", "255", "256", "-1", "nonsense", "tcp;", ""]
    ),
    st.integers(0, 255).map(str),
)
limits = st.one_of(st.none(), st.integers(-2, 70000), st.sampled_from([0, 1, 8, 22, 128, 255, 256, 65535, 65536]))


@st.composite
def rules(draw: st.DrawFn) -> RuleSpec:
    """Any rule, sensible or not."""
    remote = draw(remotes)
    return RuleSpec(
        id=draw(st.uuids().map(str)),
        direction=draw(st.sampled_from(["ingress", "egress"])),
        ethertype=draw(st.sampled_from(["IPv4", "IPv6", "IPv6", "IPv4", "ARP"])),
        protocol=draw(protocols),
        port_min=draw(limits),
        port_max=draw(limits),
        remote_cidr=remote,
        remote_group=draw(st.sampled_from([None, *GROUPS])) if remote is None else None,
    )


macs = st.integers(0, 12).map(lambda number: f"fa:16:3e:00:05:{number:02x}")
pairs = st.builds(lambda cidr, mac: AddressPair(cidr=cidr, mac=mac), near_cidrs, macs)


@st.composite
def ports(draw: st.DrawFn, number: int) -> PortSpec:
    """A port on one of two networks with equal subnets."""
    network = draw(st.sampled_from(NETWORKS))
    addresses = draw(st.lists(st.one_of(near4, near6), max_size=3, unique=True))
    return PortSpec(
        id=an_id("port", number),
        generation=G,
        network_id=network.id,
        domain_id="d",
        mac=draw(macs),
        fixed_ips=tuple(FixedIp(subnet_id="s", address=address) for address in addresses),
        hostname="h",
        groups=tuple(draw(st.lists(st.sampled_from([*GROUPS, an_id("no such group")]), max_size=3))),
        port_security=draw(st.sampled_from([True, True, True, False])),
        allowed_pairs=tuple(draw(st.lists(pairs, max_size=3))),
        is_up=draw(st.sampled_from([True, True, False])),
    )


@st.composite
def states(draw: st.DrawFn) -> FilterState:
    """Any state of a small host."""
    numbers = draw(st.lists(st.integers(0, 5), max_size=4, unique=True))
    groups = [
        GroupSpec(id=group_id, generation=G, rules=tuple(draw(st.lists(rules(), max_size=4))))
        for group_id in draw(st.lists(st.sampled_from(GROUPS), unique=True))
    ]
    members = [
        AddressesSpec(id=group_id, generation=G, addresses=tuple(draw(st.lists(near_cidrs, max_size=5))))
        for group_id in draw(st.lists(st.sampled_from(GROUPS), unique=True))
    ]
    leg = LegSpec(
        port_id="leg", network_id=NETWORKS[0].id, mac="fa:16:3e:00:06:01", addresses=("10.0.0.1/24", "fd00::1/64")
    )
    routers = (RouterSpec(id="router", generation=G, legs=(leg,)),) if draw(st.booleans()) else ()
    return FilterState(
        ports=tuple(draw(ports(number)) for number in numbers),
        networks=by_id(*NETWORKS),
        groups=by_id(*groups),
        addresses=by_id(*members),
        routers=routers,
    )
