"""The filter as values: what rules become, how states differ, which flows they allow."""

import ipaddress

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.wire.group import RuleSpec
from drivers.network import filter as rules
from drivers.network import flows, names
from drivers.network.base import FilterState
from drivers.network.conntrack import Flow, Tuple
from drivers.network.tables import change, replace
from tests.drivers import filter_states
from tests.host.netlab import a_group, a_network, a_pair, a_port, a_rule, by_id, members


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (a_rule(), "meta nfproto ipv4 accept"),
        (a_rule(ethertype="IPv6"), "meta nfproto ipv6 accept"),
        (a_rule(protocol="tcp", port_min=22, port_max=22), "meta nfproto ipv4 meta l4proto 6 th dport 22 accept"),
        (a_rule(protocol="udp", port_min=1, port_max=9), "meta nfproto ipv4 meta l4proto 17 th dport 1-9 accept"),
        (a_rule(protocol="tcp", port_min=5), "meta nfproto ipv4 meta l4proto 6 th dport 5 accept"),
        (a_rule(protocol="TCP"), "meta nfproto ipv4 meta l4proto 6 accept"),
        (a_rule(protocol="112"), "meta nfproto ipv4 meta l4proto 112 accept"),
        (a_rule(protocol="ip"), "meta nfproto ipv4 accept"),
        (
            a_rule(protocol="1", port_min=8, port_max=0),
            "meta nfproto ipv4 meta l4proto 1 icmp type 8 icmp code 0 accept",
        ),
        (
            a_rule("ingress", "IPv6", protocol="icmp", port_min=1),
            "meta nfproto ipv6 meta l4proto 58 icmpv6 type 1 accept",
        ),
        (a_rule(remote_cidr="10.1.2.3/8"), "meta nfproto ipv4 ip saddr 10.0.0.0/8 accept"),
        (a_rule(remote_cidr="0.0.0.0/0"), "meta nfproto ipv4 accept"),
        (a_rule("egress", remote_cidr="10.0.0.1/32"), "meta nfproto ipv4 ip daddr 10.0.0.1 accept"),
        (
            a_rule("ingress", "IPv6", remote_cidr="::ffff:10.0.0.0/96"),
            "meta nfproto ipv6 ip6 saddr ::ffff:0:0/96 accept",
        ),
        (a_rule(remote_group="1-2"), "meta nfproto ipv4 ip saddr @m4_12 accept"),
    ],
)
def test_a_rule_becomes_one_line(rule: RuleSpec, text: str) -> None:
    assert rules.rule_text(rule) == text


@pytest.mark.parametrize(
    "rule",
    [
        a_rule(remote_cidr="fd00::/8"),
        a_rule(ethertype="IPv6", remote_cidr="10.0.0.0/8"),
        a_rule(remote_cidr="10.0.0.0/8; accept"),
        a_rule(protocol="tcp accept"),
        a_rule(protocol="256"),
        a_rule(protocol="\u0661"),  # A digit, but not one of ours.
        a_rule(protocol="tcp", port_min=0, port_max=65536),
        a_rule(protocol="tcp", port_min=9, port_max=1),
        a_rule(protocol="gre", port_min=1, port_max=1),
        a_rule(port_min=22, port_max=22),
        a_rule(protocol="icmp", port_max=0),
        a_rule(protocol="icmp", port_min=256),
        a_rule(protocol="ipv6-icmp", port_min=128),
        a_rule(ethertype="ARP"),
    ],
)
def test_a_rule_that_cannot_be_said_lets_nothing_pass(rule: RuleSpec) -> None:
    assert rules.rule_text(rule) is None


def test_link_local_is_made_of_the_mac() -> None:
    assert str(rules.link_local("fa:16:3e:00:01:0a")) == "fe80::f816:3eff:fe00:10a"


def test_a_port_may_speak_as_its_addresses_its_pairs_and_their_link_locals() -> None:
    port = a_port(a_network(), 10, allowed_pairs=(a_pair("192.168.0.9/16", "FA:16:3E:00:09:09"),))
    assert {f"{mac} {prefix}" for mac, prefix in rules.sources(port)} == {
        "fa:16:3e:00:01:0a 10.0.0.10/32",
        "fa:16:3e:00:01:0a fd00::a/128",
        "fa:16:3e:00:01:0a fe80::f816:3eff:fe00:10a/128",
        "fa:16:3e:00:09:09 192.168.0.0/16",
        "fa:16:3e:00:09:09 fe80::f816:3eff:fe00:909/128",
    }


def test_a_new_member_is_one_element_and_no_rule() -> None:
    network = a_network()
    group = a_group("g", a_rule(remote_group=a_group("g").id))
    ports = tuple(a_port(network, number, groups=(group.id,)) for number in (10, 11))

    def state(*addresses: str) -> FilterState:
        return FilterState(
            ports=ports, networks=by_id(network), groups=by_id(group), addresses=by_id(members(group, *addresses))
        )

    before, after = state("10.0.0.10", "10.0.0.11"), state("10.0.0.10", "10.0.0.11", "10.0.0.12")
    numbers = rules.number(before, rules.Numbers())
    pairs = zip(rules.tables(before, numbers, "abcd"), rules.tables(after, numbers, "abcd"), strict=True)
    commands = "".join(change(old, new) for old, new in pairs)
    assert commands == f"add element inet hostler_abcd m4_{group.id.replace('-', '')} {{ 10.0.0.12 }}\n"


def test_a_new_port_touches_no_chain_of_another() -> None:
    network, group = a_network(), a_group("g", a_rule())
    one, two = (a_port(network, number, groups=(group.id,)) for number in (10, 11))
    before = FilterState(ports=(one,), networks=by_id(network), groups=by_id(group), addresses={})
    after = msgspec.structs.replace(before, ports=(one, two))
    old, new = rules.number(before, rules.Numbers()), rules.Numbers()
    new = rules.number(after, old)
    pairs = zip(rules.tables(before, old, "abcd"), rules.tables(after, new, "abcd"), strict=True)
    commands = "".join(change(left, right) for left, right in pairs)
    assert "flush" not in commands and "delete" not in commands
    assert names.short(one.id) not in commands


def test_numbers_are_kept_and_never_shared() -> None:
    networks = [a_network(str(number)) for number in range(3)]

    def numbers(which: list[int], known: rules.Numbers) -> rules.Numbers:
        chosen = [networks[number] for number in which]
        ports = tuple(a_port(network, 10) for network in chosen)
        state = FilterState(ports=ports, networks=by_id(*chosen), groups={}, addresses={})
        return rules.number(state, known)

    first = numbers([0, 1], rules.Numbers())
    second = numbers([1, 2], first)
    kept = names.bridge(networks[1].id)
    assert second.zones[kept] == first.zones[kept]
    assert not set(second.zones.values()) & (set(first.zones.values()) - {first.zones[kept]})


@settings(max_examples=150, deadline=None)
@given(state=filter_states.states())
def test_nothing_of_a_state_gets_into_commands_unparsed(state: FilterState) -> None:
    numbers = rules.number(state, rules.Numbers())
    for table in rules.tables(state, numbers, "abcd"):
        text = replace(table)
        assert ";" not in text.replace("; policy accept; }", "").replace("; }", "").replace("; flags interval", "")
        assert all(line.isascii() and line.split()[0] in ("add", "delete") for line in text.splitlines())


@settings(max_examples=150, deadline=None)
@given(before=filter_states.states(), after=filter_states.states())
def test_a_change_to_the_same_is_nothing_and_a_change_back_is_the_reverse(
    before: FilterState, after: FilterState
) -> None:
    old = rules.number(before, rules.Numbers())
    new = rules.number(after, old)
    for left, right in zip(rules.tables(before, old, "a"), rules.tables(after, new, "a"), strict=True):
        assert change(left, left) == ""
        assert change(right, right) == ""
        assert (change(left, right) == "") == (change(right, left) == "")


# ---------------------------------------------------------------------------------------------------------------
# Flows.


def a_flow(source: str, destination: str, protocol: int = 6, dport: int = 22, **fields: int) -> Flow:
    there = Tuple(source, destination, protocol, fields.get("sport", 40000), dport)
    back = Tuple(destination, source, protocol, dport, fields.get("sport", 40000))
    return Flow(zone=fields.get("zone", rules.ZONE_FIRST), original=there, reply=back)


def judged(flow: Flow, *ports: object, groups: tuple[object, ...] = (), addresses: tuple[object, ...] = ()) -> bool:
    network = a_network()
    state = FilterState(
        ports=ports,  # type: ignore[arg-type]
        networks=by_id(network),
        groups=by_id(*groups),
        addresses=by_id(*addresses),
    )
    return flows.Judge(state, rules.number(state, rules.Numbers())).allows(flow)


def test_a_flow_needs_the_senders_egress_and_the_receivers_ingress() -> None:
    network = a_network()
    out = a_group("out", a_rule("egress"))
    ssh = a_group("ssh", a_rule(protocol="tcp", port_min=22, port_max=22))
    sender, receiver = a_port(network, 10, groups=(out.id,)), a_port(network, 11, groups=(ssh.id,))
    groups = (out, ssh)
    assert judged(a_flow("10.0.0.10", "10.0.0.11"), sender, receiver, groups=groups)
    assert not judged(a_flow("10.0.0.10", "10.0.0.11", dport=23), sender, receiver, groups=groups)
    assert not judged(a_flow("10.0.0.11", "10.0.0.10"), sender, receiver, groups=groups)
    assert judged(a_flow("10.0.0.10", "192.0.2.1"), sender, receiver, groups=groups)
    assert judged(a_flow("192.0.2.1", "10.0.0.11"), sender, receiver, groups=groups)
    assert not judged(a_flow("192.0.2.1", "10.0.0.10"), sender, receiver, groups=groups)


def test_a_flow_of_nobody_here_is_not_kept() -> None:
    assert not judged(a_flow("192.0.2.1", "192.0.2.2"), a_port(a_network(), 10))


def test_dhcp_and_metadata_need_no_group() -> None:
    port = a_port(a_network(), 10)
    assert judged(a_flow("10.0.0.10", "169.254.169.254", dport=80), port)
    assert judged(a_flow("10.0.0.10", "10.0.0.2", 17, 67, sport=68), port)
    assert not judged(a_flow("10.0.0.10", "10.0.0.2", 17, 53), port)


def test_members_count_also_as_prefixes() -> None:
    group = a_group("g", a_rule(remote_group=a_group("g").id))
    port = a_port(a_network(), 10, groups=(group.id,))
    for addresses, allowed in (((), False), (("192.0.2.0/24",), True), (("192.0.2.1",), True), (("192.0.2.2",), False)):
        flow = a_flow("192.0.2.1", "10.0.0.10")
        assert judged(flow, port, groups=(group,), addresses=(members(group, *addresses),)) is allowed


@settings(max_examples=200, deadline=None)
@given(before=filter_states.states(), after=filter_states.states(), data=st.data())
def test_a_change_that_is_not_narrower_cuts_nothing_that_was_allowed(
    before: FilterState, after: FilterState, data: st.DataObject
) -> None:
    """`narrowed` may be asked instead of looking at flows: it never says no where a flow would have to go."""
    after = data.draw(st.sampled_from([after, before, msgspec.structs.replace(before, groups=after.groups)]))
    if flows.narrowed(before, after):
        return
    numbers = rules.number(after, rules.number(before, rules.Numbers()))
    judge_before, judge_after = flows.Judge(before, numbers), flows.Judge(after, numbers)
    addresses = [str(ipaddress.ip_address(f"10.0.0.{number}")) for number in range(8)]
    for zone in numbers.zones.values():
        for source in addresses:
            for destination in addresses:
                flow = a_flow(source, destination, zone=zone)
                assert not judge_before.allows(flow) or judge_after.allows(flow)
