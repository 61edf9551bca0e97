"""Which flows a filter allows: the meaning of `filter.tables`, asked about one flow at a time. Pure.

The kernel asks the rules about the first packet of a flow only. So after every change that takes something away the
flows it remembers are asked again, here, and those that would not be let in today are deleted. Judging flows by the
new state, rather than deriving from the difference which ones to delete, also covers the change that a crashed agent
never got to apply.
"""

import ipaddress
import itertools
import socket
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from agent.wire.errors import Invalid
from agent.wire.group import RuleSpec
from agent.wire.port import PortSpec, TcpFlow
from drivers.network import filter as rules
from drivers.network import names
from drivers.network.base import FilterState
from drivers.network.conntrack import Flow, Tuple

ADOPTED_MAX: Final = 20_000
"""Connections of one guest that go along when it moves; more begin anew. A hundred bytes each."""

_DHCP: Final = frozenset(((17, 68, 67), (17, 546, 547)))
_DHCP_ANSWERS: Final = frozenset(((17, 67, 68), (17, 547, 546)))


class _End(msgspec.Struct, frozen=True):
    """A port on this host, as the end of a flow."""

    port: PortSpec
    prefixes: tuple[rules.Prefix, ...]


class Judge:
    """Knows one state; `allows` answers for one flow."""

    def __init__(self, state: FilterState, numbers: rules.Numbers) -> None:
        self._state = state
        self._members = {
            group_id: frozenset(rules.ip_prefix(text) for text in spec.addresses)
            for group_id, spec in state.addresses.items()
        }
        self._single: dict[tuple[int, rules.Address], list[_End]] = {}
        self._wide: dict[int, list[_End]] = {}
        for port in state.ports:
            zone = numbers.zones.get(names.bridge(port.network_id))
            if zone is not None:
                self._remember(zone, port)

    def allows(self, flow: Flow) -> bool:
        """Whether its first packet would pass today. A flow that no port here takes part in is nobody's: False."""
        source, destination = rules.ip_address(flow.original.source), rules.ip_address(flow.original.destination)
        senders, receivers = self._ends(flow.zone, source), self._ends(flow.zone, destination)
        if not senders and not receivers:
            return False
        if senders and not any(self._passes(end.port, "egress", flow.original, destination) for end in senders):
            return False
        return not receivers or any(self._passes(end.port, "ingress", flow.original, source) for end in receivers)

    def _remember(self, zone: int, port: PortSpec) -> None:
        prefixes = tuple(prefix for _, prefix in rules.sources(port))
        end = _End(port, prefixes)
        for prefix in prefixes:
            if prefix.prefixlen == prefix.max_prefixlen:
                self._single.setdefault((zone, prefix.network_address), []).append(end)
        if any(prefix.prefixlen != prefix.max_prefixlen for prefix in prefixes):
            self._wide.setdefault(zone, []).append(end)

    def _ends(self, zone: int, address: rules.Address) -> list[_End]:
        wide = (end for end in self._wide.get(zone, ()) if any(address in prefix for prefix in end.prefixes))
        return [*self._single.get((zone, address), ()), *wide]

    def _passes(self, port: PortSpec, direction: str, packet: Tuple, remote: rules.Address) -> bool:
        if not port.port_security:
            return True
        if not port.is_up:
            return False
        if _is_basic(direction, packet):
            return True
        groups = (self._state.groups[group_id] for group_id in port.groups if group_id in self._state.groups)
        return any(
            rule.direction == direction and self._matches(rule, packet, remote)
            for group in groups
            for rule in group.rules
        )

    def _matches(self, rule: RuleSpec, packet: Tuple, remote: rules.Address) -> bool:
        if rules.rule_text(rule) is None or (remote.version == 4) != (rule.ethertype == "IPv4"):
            return False
        if rule.remote_group:
            return _holds(self._members.get(rule.remote_group, frozenset()), remote)
        if rule.remote_cidr and remote not in rules.ip_prefix(rule.remote_cidr):
            return False
        return _protocol_matches(rule, packet)


def _holds(members: frozenset[rules.Prefix], address: rules.Address) -> bool:
    return ipaddress.ip_network(address) in members or any(address in prefix for prefix in members)


def _is_basic(direction: str, packet: Tuple) -> bool:
    key = (packet.protocol, packet.sport, packet.dport)
    if direction == "ingress":
        return key in _DHCP_ANSWERS
    to_metadata = packet.destination in (rules.METADATA_V4, rules.METADATA_V6)
    return key in _DHCP or (to_metadata and packet.protocol == 6 and packet.dport == 80)


def _protocol_matches(rule: RuleSpec, packet: Tuple) -> bool:
    try:
        number = rules.protocol_number(rule)
    except Invalid:
        return False
    if number is None:
        return True
    if number != packet.protocol:
        return False
    if rule.port_min is None and rule.port_max is None:
        return True
    if packet.icmp_type is not None:
        return rule.port_min == packet.icmp_type and rule.port_max in (None, packet.icmp_code)
    low = rule.port_min if rule.port_min is not None else rule.port_max
    high = rule.port_max if rule.port_max is not None else rule.port_min
    assert low is not None and high is not None, "one of them is set"
    return low <= packet.dport <= high


def narrowed(before: FilterState | None, after: FilterState) -> bool:
    """Whether anything may be forbidden now that was allowed. Unknown is yes; a new port is yes (see `strangers`)."""
    if before is None or before.routers != after.routers:
        return True
    old, new = {port.id: port for port in before.ports}, {port.id: port for port in after.ports}
    if old.keys() != new.keys() or any(_port_narrowed(old[port_id], new[port_id]) for port_id in old):
        return True
    for group_id, group in before.groups.items():
        if group_id in after.groups:
            if not _contents(group.rules) <= _contents(after.groups[group_id].rules):
                return True
        elif any(group_id in port.groups for port in after.ports):
            return True
    return any(
        not set(members.addresses) <= set(after.addresses[group_id].addresses if group_id in after.addresses else ())
        for group_id, members in before.addresses.items()
    )


def strangers(before: FilterState | None, after: FilterState, numbers: rules.Numbers) -> frozenset[tuple[int, str]]:
    """(zone, prefix) whose owner came, went or changed: no flow of a former owner is the new one's."""
    if before is None:
        return frozenset()
    owned_before, owned_after = _owned(before, numbers), _owned(after, numbers)
    return frozenset((zone, str(prefix)) for zone, prefix, _ in owned_before ^ owned_after)


def cut(found: Iterable[Flow], before: FilterState | None, after: FilterState, numbers: rules.Numbers) -> list[Flow]:
    """Those of our zones' flows that must go."""
    judge = Judge(after, numbers)
    zones = set(numbers.zones.values())
    moved: dict[int, list[rules.Prefix]] = {}
    for zone, prefix in strangers(before, after, numbers):
        moved.setdefault(zone, []).append(rules.ip_prefix(prefix))
    return [
        flow
        for flow in found
        if flow.zone in zones and (_touches(flow, moved.get(flow.zone, [])) or not judge.allows(flow))
    ]


def _touches(flow: Flow, prefixes: list[rules.Prefix]) -> bool:
    ends = [rules.ip_address(flow.original.source), rules.ip_address(flow.original.destination)] if prefixes else []
    return any(end in prefix for end in ends for prefix in prefixes)


def _owned(state: FilterState, numbers: rules.Numbers) -> set[tuple[int, rules.Prefix, str]]:
    result = set()
    for port in state.ports:
        zone = numbers.zones.get(names.bridge(port.network_id))
        if zone is not None:
            result |= {(zone, prefix, port.id) for _, prefix in rules.sources(port)}
    return result


def _port_narrowed(before: PortSpec, after: PortSpec) -> bool:
    if not after.port_security:
        return False
    return (
        not before.port_security
        or before.network_id != after.network_id
        or (before.is_up and not after.is_up)
        or not set(before.groups) <= set(after.groups)
        or set(rules.sources(before)) != set(rules.sources(after))  # Whoever had a new address before is a stranger.
    )


def _contents(group: tuple[RuleSpec, ...]) -> set[RuleSpec]:
    """Rules without their ids: the same rule made anew takes nothing away."""
    return {msgspec.structs.replace(rule, id="") for rule in group}


def established(known: Iterable[Flow], ports: Iterable[tuple[PortSpec, int | None]]) -> tuple[TcpFlow, ...]:
    """The TCP connections of these ports (with their zones). Where NAT is at work it is a router's affair."""
    owners = {(zone, fixed.address): port.id for port, zone in ports for fixed in port.fixed_ips}
    found = []
    for flow in known:
        way, back = flow.original, flow.reply
        owner = owners.get((flow.zone, way.source)) or owners.get((flow.zone, way.destination))
        is_plain = (way.source, way.sport, way.destination, way.dport) == (
            back.destination, back.dport, back.source, back.sport
        )  # fmt: skip
        if owner is not None and is_plain and way.protocol == socket.IPPROTO_TCP:
            found.append(TcpFlow(owner, way.source, way.sport, way.destination, way.dport))
    return tuple(found[:ADOPTED_MAX])


def adopted(found: Iterable[TcpFlow], ports: Mapping[str, tuple[PortSpec, int | None]]) -> list[Flow]:
    """As entries here; what is not of a port of this host is nobody's."""
    entries = []
    for one in itertools.islice(found, ADOPTED_MAX):
        port, zone = ports.get(one.port_id, (None, None))
        if port is None or zone is None:
            continue
        if {one.source, one.destination}.isdisjoint(fixed.address for fixed in port.fixed_ips):
            continue
        way = Tuple(one.source, one.destination, socket.IPPROTO_TCP, one.sport, one.dport)
        back = Tuple(one.destination, one.source, socket.IPPROTO_TCP, one.dport, one.sport)
        entries.append(Flow(zone=zone, original=way, reply=back))
    return entries
