"""What may pass: from ports, groups and addresses to tables of nftables. Pure; `nft_filter.py` applies it.

Theory of operation
-------------------
Guests hang on taps in bridges. Two tables of the host's namespace see their frames:

*bridge* (stateless, knows taps). `prerouting` at -200 sends what enters by a filtered tap through `entering`: source
MAC, ARP, IPv4 and IPv6 source must be the port's own, nobody but the network's own servers answers DHCP, nobody but
routers advertises routes, no VLAN tags, nothing but IP and ARP. It also gives the frame the tap's number as packet
mark. `leaving` (forward at -100) replaces the mark by the number of the tap the frame is about to leave by (each copy
of a flooded frame by its own), and keeps frames for other MACs away.

*inet* (stateful, reached by bridged frames through br_netfilter, where interfaces are bridges, not taps). `zone` at
-450, before reassembly, puts each bridge into its own conntrack zone, so tenants that use the same addresses never
meet in the table of flows nor in a half-assembled packet. `from_guest` (prerouting, after conntrack) holds egress
rules by the mark of the tap a packet came from; `to_guest` (forward) holds ingress rules by the mark of the tap it
leaves by. Keys are (bridge, mark): a mark that other software of the host uses means nothing without the bridge.
Traffic between two taps of one bridge passes both; traffic from a router's or DHCP's leg passes the second only.

Marks are used rather than guests' addresses because an address does not always name a port: broadcasts, multicasts,
floods, and addresses that two ports may share (allowed address pairs) would slip past a filter keyed by address.

A new TCP flow from a guest must begin with SYN: when the flow's entry was deleted because its rule is gone, the next
segment of the guest's own end would else open it anew from inside (the kernel picks up flows in the middle).

Rules only ever let traffic pass, so one that cannot be expressed (a CIDR of the other family, a port range on a
protocol without ports) is left out: the filter is never wider than what was asked for.
"""

import functools
import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, TypeVar

import msgspec

from agent.wire.errors import Invalid
from agent.wire.group import AddressesSpec, RuleSpec
from agent.wire.port import PortSpec
from drivers.network import names
from drivers.network.base import FilterState
from drivers.network.tables import ChainSpec, SetSpec, TableSpec, elements

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Prefix = ipaddress.IPv4Network | ipaddress.IPv6Network

METADATA_V4: Final = "169.254.169.254"
METADATA_V6: Final = "fe80::a9fe:a9fe"

PROTOCOLS: Final = {
    "ah": 51, "dccp": 33, "egp": 8, "esp": 50, "gre": 47, "hopopt": 0, "icmp": 1, "icmpv6": 58, "igmp": 2,
    "ipip": 4, "ipv6-encap": 41, "ipv6-frag": 44, "ipv6-icmp": 58, "ipv6-nonxt": 59, "ipv6-opts": 60,
    "ipv6-route": 43, "ospf": 89, "pgm": 113, "rsvp": 46, "sctp": 132, "tcp": 6, "udp": 17, "udplite": 136,
    "vrrp": 112,
}  # fmt: skip
"""Neutron's protocol names."""

ANY_PROTOCOL: Final = frozenset((None, "", "any", "ip", "0"))
"""Neutron's ways to say that a rule is about every protocol."""

WITH_PORTS: Final = frozenset((6, 17, 33, 132, 136))
_ICMP, _ICMPV6 = 1, 58
_MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")

_BRIDGED: Final = "{ ip, ip6, arp }"
_ND_BOTH: Final = "133, 135, 136"  # Router solicitation, neighbour solicitation and advertisement.
_MLD: Final = "130, 131, 132, 143"


_T = TypeVar("_T")


class Numbers(msgspec.Struct, frozen=True, kw_only=True):
    """Small numbers that the kernel knows things by: conntrack zones of bridges, packet marks of taps.

    They must not change while the thing lives (flows are remembered by zone), so they are taken over from the
    kernel by whoever starts without memory.
    """

    zones: Mapping[str, int] = {}  # bridge's name -> zone
    marks: Mapping[str, int] = {}  # tap's name -> mark


ZONE_FIRST: Final = 0x4000
"""Zones below are left to other software of the host; there are 65535."""

ZONE_LAST: Final = 0xFFFF


def number(state: FilterState, known: Numbers) -> Numbers:
    """Numbers for everything in `state`; what is known keeps its own."""
    bridges = sorted({names.bridge(port.network_id) for port in state.ports if port.port_security})
    taps = sorted(names.tap(port.id) for port in state.ports if port.port_security)
    return Numbers(zones=_numbered(bridges, known.zones, ZONE_FIRST), marks=_numbered(taps, known.marks, 1))


def _numbered(wanted: Iterable[str], known: Mapping[str, int], first: int) -> dict[str, int]:
    kept = {name: known[name] for name in wanted if name in known}
    taken = set(known.values())  # Also of what goes in this change: its flows are cut after the numbers are in use.
    result, candidate = dict(kept), first
    for name in wanted:
        if name in kept:
            continue
        while candidate in taken:
            candidate += 1
        result[name] = candidate
        candidate += 1
    assert first < ZONE_FIRST or candidate <= ZONE_LAST + 1, "more networks on one host than conntrack has zones"
    return result


def table_name(tag: str) -> str:
    """Both tables' name; they differ in family."""
    return f"hostler_{tag}"


def tables(state: FilterState, numbers: Numbers, tag: str) -> tuple[TableSpec, TableSpec]:
    """The bridge table and the inet table for this state. Raises Invalid for addresses that are none."""
    ports = [port for port in state.ports if port.port_security]
    return _bridge_table(state, ports, numbers, tag), _inet_table(state, ports, numbers, tag)


# ---------------------------------------------------------------------------------------------------------------
# What came from outside, parsed: nothing else of a spec ever gets into a command.


def mac_address(text: str) -> str:
    """A MAC as nft writes it. Raises Invalid."""
    if not _MAC.fullmatch(text.lower()):
        raise Invalid(f"{text!r} is not a MAC address")
    return text.lower()


def ip_address(text: str) -> Address:
    """An address. Raises Invalid."""
    try:
        return ipaddress.ip_address(text)
    except ValueError as cause:
        raise Invalid(str(cause)) from cause


def ip_prefix(text: str) -> Prefix:
    """A prefix; host bits are ignored, an address alone is a prefix of one. Raises Invalid."""
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError as cause:
        raise Invalid(str(cause)) from cause


def link_local(mac: str) -> ipaddress.IPv6Address:
    """The link-local address that a stack makes of its MAC (EUI-64, RFC 4291 appendix A)."""
    octets = bytes.fromhex(mac_address(mac).replace(":", ""))
    interface = bytes((octets[0] ^ 2,)) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + interface)


def sources(port: PortSpec) -> tuple[tuple[str, Prefix], ...]:
    """Every (MAC, prefix) that may be the source of a port's packets."""
    own = mac_address(port.mac)
    found: list[tuple[str, Prefix]] = [(own, ip_prefix(str(ip_address(fixed.address)))) for fixed in port.fixed_ips]
    found += [(mac_address(pair.mac), ip_prefix(pair.cidr)) for pair in port.allowed_pairs]
    found += [(mac, ip_prefix(str(link_local(mac)))) for mac in _unique((own, *(mac for mac, _ in found)))]
    return tuple(_unique(found))


def _unique(items: Iterable[_T]) -> list[_T]:
    return list(dict.fromkeys(items))


def disjoint(prefixes: Iterable[Prefix]) -> list[Prefix]:
    """Without those that lie within others (a set of intervals refuses overlaps); neighbours are not joined."""
    kept: list[Prefix] = []
    for prefix in sorted(set(prefixes), key=lambda p: (p.version, int(p.network_address), p.prefixlen)):
        if not (kept and kept[-1].version == prefix.version and prefix.subnet_of(kept[-1])):  # type: ignore[arg-type]
            kept.append(prefix)
    return kept


# ---------------------------------------------------------------------------------------------------------------
# The bridge table: who may speak as whom.


def _bridge_table(state: FilterState, ports: list[PortSpec], numbers: Numbers, tag: str) -> TableSpec:
    """Rules are the same for all taps; what differs are elements, so a port that comes or goes touches no rule."""
    chains = {
        "prerouting": ChainSpec(
            hook="type filter hook prerouting priority -200; policy accept;",
            rules=("iifname @filtered jump entering",),
        ),
        "entering": ChainSpec(rules=_ENTERING),
        "leaving": ChainSpec(hook="type filter hook forward priority -100; policy accept;", rules=_LEAVING),
    }
    for network_id in _unique(port.network_id for port in ports):
        chains[_guard_chain(network_id)] = ChainSpec(rules=tuple(_guard_rules(state, network_id)))
    return TableSpec(family="bridge", name=table_name(tag), sets=_port_sets(ports, numbers), chains=chains)


_ENTERING: Final = (
    "meta mark set iifname map @marks",
    f"ether type != {_BRIDGED} drop",
    "iifname . ether saddr != @owned drop",
    "iifname vmap @guards",
    "arp htype != 1 drop",
    "arp ptype != 0x0800 drop",
    "arp hlen != 6 drop",
    "arp plen != 4 drop",
    "arp operation 1 arp saddr ip 0.0.0.0 iifname . arp saddr ether @owned accept",  # A probe, RFC 5227.
    "arp operation { 1, 2 } iifname . arp saddr ether . arp saddr ip @from4 accept",
    "arp operation { 1, 2 } iifname . arp saddr ether . arp saddr ip @wide4 accept",
    "ether type arp drop",
    "udp dport { 68, 546 } drop",  # DHCP's answers, from any source port: clients look at their own only.
    "ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 accept",
    "iifname . ether saddr . ip saddr @from4 accept",
    "iifname . ether saddr . ip saddr @wide4 accept",
    "icmpv6 type { 134, 137 } drop",  # Router advertisement, redirect.
    "icmpv6 type 136 iifname . ether saddr . @th,64,128 != @nd iifname . ether saddr . @th,64,128 != @nd_wide drop",
    "ip6 saddr :: icmpv6 type 135 iifname . ether saddr . @th,64,128 @nd accept",  # Duplicate address detection.
    "ip6 saddr :: icmpv6 type 135 iifname . ether saddr . @th,64,128 @nd_wide accept",
    "ip6 saddr :: icmpv6 type { 133, 131, 132, 143 } accept",
    "iifname . ether saddr . ip6 saddr @from6 accept",
    "iifname . ether saddr . ip6 saddr @wide6 accept",
    "drop",
)
"""Everything a filtered port may send. A port that is down has no elements in the sets, so it may send nothing."""

_LEAVING: Final = (
    "iifname @filtered meta mark set 0",
    f"oifname @filtered ether type != {_BRIDGED} drop",
    "oifname @filtered ether daddr & 01:00:00:00:00:00 == 00:00:00:00:00:00 oifname . ether daddr != @owned drop",
    "meta mark set oifname map @marks",
)


def _port_sets(ports: list[PortSpec], numbers: Numbers) -> dict[str, SetSpec]:
    content: dict[str, dict[str, str]] = {name: {} for name in _PORT_SETS}
    for port in ports:
        tap = f'"{names.tap(port.id)}"'
        content["filtered"][tap] = ""
        content["marks"][tap] = str(numbers.marks[names.tap(port.id)])
        if not port.is_up:
            continue
        content["guards"][tap] = f"jump {_guard_chain(port.network_id)}"
        for mac, prefixes in _per_mac(sources(port)).items():
            content["owned"][f"{tap} . {mac}"] = ""
            for prefix in disjoint(prefixes):
                is_single = prefix.prefixlen == prefix.max_prefixlen
                content[f"{'from' if is_single else 'wide'}{prefix.version}"][f"{tap} . {mac} . {_element(prefix)}"] = (
                    ""
                )
                if prefix.version == 6:
                    content["nd" if is_single else "nd_wide"][f"{tap} . {mac} . {_number_range(prefix)}"] = ""
    return {
        name: SetSpec(kind=kind, is_map=is_map, elements=content[name]) for name, (kind, is_map) in _PORT_SETS.items()
    }


_PORT_SETS: Final = {
    "filtered": ("type ifname;", False),
    "marks": ("type ifname : mark;", True),
    "guards": ("type ifname : verdict;", True),
    "owned": ("type ifname . ether_addr;", False),
    "from4": ("type ifname . ether_addr . ipv4_addr;", False),
    "wide4": ("type ifname . ether_addr . ipv4_addr; flags interval;", False),
    "from6": ("type ifname . ether_addr . ipv6_addr;", False),
    "wide6": ("type ifname . ether_addr . ipv6_addr; flags interval;", False),
    "nd": ("typeof iifname . ether saddr . @th,64,128;", False),
    "nd_wide": ("typeof iifname . ether saddr . @th,64,128; flags interval;", False),
}
"""Name: (declaration, is it a map). `nd` holds the targets of neighbour advertisements; this nft has no word for
that field, so it is the 128 bits after the ICMP header's first eight bytes."""


def _per_mac(allowed: Iterable[tuple[str, Prefix]]) -> dict[str, list[Prefix]]:
    result: dict[str, list[Prefix]] = {}
    for mac, prefix in allowed:
        result.setdefault(mac, []).append(prefix)
    return result


def _number_range(prefix: Prefix) -> str:
    low, high = int(prefix.network_address), int(prefix.broadcast_address)
    return f"0x{low:032x}" if low == high else f"0x{low:032x}-0x{high:032x}"


def _guard_chain(network_id: str) -> str:
    return f"guard_{names.short(network_id)}"


def _guard_rules(state: FilterState, network_id: str) -> Iterator[str]:
    """Nobody speaks as the network's own servers, whatever its allowed address pairs say."""
    macs, addresses = _servers(state, network_id)
    v4 = [str(address) for address in addresses if address.version == 4]
    v6 = [address for address in addresses if address.version == 6]
    if macs:
        yield f"ether saddr {{ {', '.join(macs)} }} drop"
        yield f"arp saddr ether {{ {', '.join(macs)} }} drop"
    if v4:
        yield f"arp saddr ip {{ {', '.join(v4)} }} drop"
        yield f"ip saddr {{ {', '.join(v4)} }} drop"
    if v6:
        yield f"ip6 saddr {{ {', '.join(map(str, v6))} }} drop"
        yield f"icmpv6 type 136 @th,64,128 {{ {', '.join(_number_range(ip_prefix(str(a))) for a in v6)} }} drop"


def _servers(state: FilterState, network_id: str) -> tuple[list[str], list[Address]]:
    """MACs and addresses of a network's DHCP port and of the routers' legs in it."""
    network = state.networks.get(network_id)
    macs: list[str] = []
    addresses: list[Address] = [ip_address(METADATA_V4), ip_address(METADATA_V6)]
    if network is not None and network.dhcp is not None:
        macs.append(mac_address(network.dhcp.mac))
        addresses += [ip_address(address) for _, address in network.dhcp.addresses]
    for router in state.routers:
        legs = [*router.legs, *((router.gateway,) if router.gateway else ())]
        for leg in (leg for leg in legs if leg.network_id == network_id):
            macs.append(mac_address(leg.mac))
            addresses += [ip_address(address.partition("/")[0]) for address in leg.addresses]
    return _unique(macs), _unique([*addresses, *map(link_local, macs)])


def _element(prefix: Prefix) -> str:
    """A prefix as an element; a whole family as a range, since `0.0.0.0/0` is refused among others."""
    if prefix.prefixlen == 0:
        return f"{prefix.network_address}-{prefix.broadcast_address}"
    return str(prefix.network_address) if prefix.prefixlen == prefix.max_prefixlen else str(prefix)


# ---------------------------------------------------------------------------------------------------------------
# The inet table: which flows may be.


def _inet_table(state: FilterState, ports: list[PortSpec], numbers: Numbers, tag: str) -> TableSpec:
    used = [group for group in _unique(group for port in ports for group in port.groups) if group in state.groups]
    rules = {group_id: state.groups[group_id].rules for group_id in used}
    remotes = _unique(rule.remote_group for group in used for rule in rules[group] if rule.remote_group)
    chains = {
        "zone": ChainSpec(
            hook="type filter hook prerouting priority -450; policy accept;", rules=("ct zone set iifname map @zones",)
        ),
        "from_guest": ChainSpec(
            hook="type filter hook prerouting priority -110; policy accept;",
            rules=("iifname . meta mark vmap @egress",),
        ),
        "to_guest": ChainSpec(
            hook="type filter hook forward priority 0; policy accept;", rules=("oifname . meta mark vmap @ingress",)
        ),
        "always_out": ChainSpec(rules=_ALWAYS_OUT),
        "always_in": ChainSpec(rules=_ALWAYS_IN),
    }
    for group_id in used:
        for direction, prefix in (("egress", "ge"), ("ingress", "gi")):
            texts = (rule_text(rule) for rule in rules[group_id] if rule.direction == direction)
            chains[f"{prefix}_{_long(group_id)}"] = ChainSpec(rules=tuple(_unique(text for text in texts if text)))
    egress, ingress = {}, {}
    for port in ports:
        key = f'"{names.bridge(port.network_id)}" . {numbers.marks[names.tap(port.id)]}'
        short = names.short(port.id)
        egress[key], ingress[key] = f"jump out_{short}", f"jump to_{short}"
        groups = [_long(group_id) for group_id in _unique(port.groups) if group_id in rules]
        chains[f"out_{short}"] = _port_chain("always_out", "ge", groups, port.is_up)
        chains[f"to_{short}"] = _port_chain("always_in", "gi", groups, port.is_up)
    zones = {f'"{name}"': str(zone) for name, zone in numbers.zones.items()}
    sets = {
        "zones": SetSpec(kind="typeof iifname : ct zone;", is_map=True, elements=zones),
        "egress": SetSpec(kind="type ifname . mark : verdict;", is_map=True, elements=egress),
        "ingress": SetSpec(kind="type ifname . mark : verdict;", is_map=True, elements=ingress),
        **_member_sets(remotes, state.addresses),
    }
    return TableSpec(family="inet", name=table_name(tag), sets=sets, chains=chains)


_ALWAYS_OUT: Final = (
    f"icmpv6 type {{ {_ND_BOTH}, {_MLD} }} accept",
    "ct state established,related accept",
    "ct state invalid drop",
    "tcp flags & (fin | syn | rst | ack) != syn drop",
    "udp sport 68 udp dport 67 accept",
    "udp sport 546 udp dport 547 accept",
    f"ip daddr {METADATA_V4} tcp dport 80 accept",
    f"ip6 daddr {METADATA_V6} tcp dport 80 accept",
)
"""What every guest may send: neighbours, answers, DHCP, metadata."""

_ALWAYS_IN: Final = (
    f"icmpv6 type {{ {_ND_BOTH}, 134, {_MLD} }} accept",
    "ct state established,related accept",
    "ct state invalid drop",
    "udp sport 67 udp dport 68 accept",
    "udp sport 547 udp dport 546 accept",
)
"""What every guest may get. Guests cannot send router advertisements or DHCP answers, so what comes is a server's."""


def _port_chain(always: str, prefix: str, groups: list[str], is_up: bool) -> ChainSpec:
    if not is_up:
        return ChainSpec(rules=("drop",))
    return ChainSpec(rules=(f"jump {always}", *(f"jump {prefix}_{group}" for group in groups), "drop"))


def _long(object_id: str) -> str:
    """An id as part of a name in nft: letters and digits."""
    digits = object_id.replace("-", "")
    return digits if digits.isascii() and digits.isalnum() else names.short(object_id)


def _member_sets(remotes: Iterable[str], addresses: Mapping[str, AddressesSpec]) -> dict[str, SetSpec]:
    sets = {}
    for group_id in remotes:
        spec = addresses.get(group_id)
        for version, found in zip((4, 6), _member_set(spec.addresses if spec else ()), strict=True):
            sets[_members(group_id, version)] = found
    return sets


@functools.lru_cache(maxsize=64)
def _member_set(addresses: tuple[str, ...]) -> tuple[SetSpec, SetSpec]:
    """For IPv4 and IPv6. Kept, because every change of the host's filter asks again, and some groups are large."""
    members = disjoint(ip_prefix(text) for text in addresses)

    def of(version: int, kind: str) -> SetSpec:
        found = (_element(prefix) for prefix in members if prefix.version == version)
        return SetSpec(kind=f"type {kind}; flags interval;", elements=elements(*found))

    return of(4, "ipv4_addr"), of(6, "ipv6_addr")


def _members(group_id: str, version: int) -> str:
    return f"m{version}_{_long(group_id)}"


def protocol_number(rule: RuleSpec) -> int | None:
    """The IP protocol a rule is about, None for any. Raises Invalid for what is none."""
    text = rule.protocol.lower() if rule.protocol is not None else None
    if text in ANY_PROTOCOL:
        return None
    assert text is not None, "None is any protocol"
    if text == "icmp" and rule.ethertype == "IPv6":
        return _ICMPV6
    number = PROTOCOLS.get(text)
    if number is None:
        number = int(text) if text.isascii() and text.isdigit() else -1
    if not 0 <= number <= 255:
        raise Invalid(f"{rule.protocol!r} is not an IP protocol")
    return number


def rule_text(rule: RuleSpec) -> str | None:
    """A rule as nft writes it, or None if it can let nothing pass."""
    matches = _remote_match(rule)
    if matches is None or rule.ethertype not in ("IPv4", "IPv6"):
        return None
    try:
        number = protocol_number(rule)
    except Invalid:
        return None
    protocol = _protocol_match(rule, number)
    if protocol is None:
        return None
    family = "ipv4" if rule.ethertype == "IPv4" else "ipv6"
    return " ".join(word for word in (f"meta nfproto {family}", matches, protocol, "accept") if word)


def _remote_match(rule: RuleSpec) -> str | None:
    version = 4 if rule.ethertype == "IPv4" else 6
    side = "saddr" if rule.direction == "ingress" else "daddr"
    header = "ip" if version == 4 else "ip6"
    if rule.remote_group:
        return f"{header} {side} @{_members(rule.remote_group, version)}"
    if rule.remote_cidr:
        try:
            prefix = ip_prefix(rule.remote_cidr)
        except Invalid:
            return None
        if prefix.version != version:
            return None
        return "" if prefix.prefixlen == 0 else f"{header} {side} {_element(prefix)}"
    return ""


def _protocol_match(rule: RuleSpec, number: int | None) -> str | None:
    low, high = rule.port_min, rule.port_max
    if number is None:
        return "" if low is None and high is None else None
    match = f"meta l4proto {number}"
    if low is None and high is None:
        return match
    if number in (_ICMP, _ICMPV6):
        return _icmp_match(match, number, rule)
    if number not in WITH_PORTS:
        return None
    low, high = (high if low is None else low), (low if high is None else high)
    assert low is not None and high is not None, "one of them is set"
    if not 0 <= low <= high <= 65535:
        return None
    return f"{match} th dport {low}" if low == high else f"{match} th dport {low}-{high}"


def _icmp_match(match: str, number: int, rule: RuleSpec) -> str | None:
    kind, code = rule.port_min, rule.port_max
    family_fits = (number == _ICMP) == (rule.ethertype == "IPv4")
    if kind is None or not 0 <= kind <= 255 or not (code is None or 0 <= code <= 255) or not family_fits:
        return None
    header = "icmp" if number == _ICMP else "icmpv6"
    return f"{match} {header} type {kind}" + (f" {header} code {code}" if code is not None else "")
