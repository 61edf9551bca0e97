"""What keeps guests away from the host itself, composed as values. Pure; `bridge.py` writes it.

Three tables, none of which knows a single guest:

- `inet hostler_<tag>_host` in the host's namespace. Networks' bridges (*guests*) get nothing of the host: no packet
  from them reaches its stack or is routed by it. From physical networks' bridges (*externals*, where routers have
  their gateway legs) only answers and pings reach it; what it routes for them never goes to infrastructure networks,
  and elsewhere only through a named uplink, masqueraded.
- `bridge hostler_<tag>_fabric` in the host's namespace. DHCP and router advertisements never cross a tunnel or
  provider port: every host serves its own taps. Frames that come from there under the MAC of this host's own DHCP
  port or router leg (every host has the same) are dropped, or bridges would learn the wrong way. What a router
  sends through a tunnel leaves under a MAC that its leg has on this host alone, and comes in by that one.
- `inet hostler` inside each network's or router's namespace: DHCP, DNS and metadata, or nothing but ICMP.
"""

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Final

from drivers.network.filter import METADATA_V4, METADATA_V6
from drivers.network.settings import NetworkSettings
from drivers.network.tables import ChainSpec, SetSpec, TableSpec, elements

PRIORITY: Final = -10
"""Before the security groups' chains, which see only what passed here."""

UNTRACKED_PRIORITY: Final = -440
"""After the groups' choice of a zone (which wins), before reassembly and conntrack.

What no group filters is not tracked: in the host's own zone its flows would be taken for the same packets' flows when
they come out of the network again and are routed and masqueraded here (tried: they were not masqueraded then).
"""

INSIDE: Final = "hostler"
"""The table's name inside a namespace of ours, where nobody else writes."""

ECHO_PER_S: Final = 50
"""Pings a second that the host answers on a physical network."""


def host_table_name(tag: str) -> str:
    """The inet table of the host."""
    return f"hostler_{tag}_host"


def fabric_table_name(tag: str) -> str:
    """The bridge table of tunnel and provider ports."""
    return f"hostler_{tag}_fabric"


def quoted(interfaces: Iterable[str]) -> list[str]:
    """Names of interfaces as elements."""
    return [f'"{name}"' for name in interfaces]


def host_table(settings: NetworkSettings, guests: Iterable[str]) -> TableSpec:
    """The host's own table, with the bridges of the networks that are here."""
    physical = settings.physical_networks.values()
    infrastructure = [ipaddress.ip_network(cidr, strict=False) for cidr in settings.guarded()]
    v4 = [str(network) for network in infrastructure if network.version == 4]
    v6 = [str(network) for network in infrastructure if network.version == 6]
    uplinks = {entry.uplink for entry in physical if entry.uplink}
    interfaces = "type ifname;"
    sets = {
        "guests": SetSpec(kind=interfaces, elements=elements(*quoted(sorted(set(guests))))),
        "externals": SetSpec(kind=interfaces, elements=elements(*quoted(entry.bridge for entry in physical))),
        "uplinks": SetSpec(kind=interfaces, elements=elements(*quoted(sorted(uplinks)))),
        "infrastructure4": SetSpec(kind="type ipv4_addr; flags interval; auto-merge;", elements=elements(*v4)),
        "infrastructure6": SetSpec(kind="type ipv6_addr; flags interval; auto-merge;", elements=elements(*v6)),
    }
    chains = {
        "untracked": ChainSpec(
            hook=f"type filter hook prerouting priority {UNTRACKED_PRIORITY}; policy accept;",
            rules=("iifname @guests notrack",),
        ),
        "input": ChainSpec(
            hook=f"type filter hook input priority {PRIORITY}; policy accept;",
            rules=("iifname @guests drop", "iifname @externals jump from_external"),
        ),
        "from_external": ChainSpec(rules=_FROM_EXTERNAL),
        "forward": ChainSpec(hook=f"type filter hook forward priority {PRIORITY}; policy accept;", rules=_FORWARD),
        "bridged_external": ChainSpec(rules=_BRIDGED_EXTERNAL),
        "routed_external": ChainSpec(rules=_ROUTED_EXTERNAL),
    }
    if uplinks:
        chains["outbound"] = ChainSpec(
            hook="type nat hook postrouting priority 100; policy accept;",
            rules=("iifname @externals oifname @uplinks masquerade",),
        )
    return TableSpec(family="inet", name=host_table_name(settings.tag), sets=sets, chains=chains)


_FROM_EXTERNAL: Final = (
    "ct state established,related accept",
    "ct state invalid drop",
    "ip daddr @infrastructure4 drop",
    "ip6 daddr @infrastructure6 drop",
    f"icmp type echo-request limit rate {ECHO_PER_S}/second accept",
    f"icmpv6 type echo-request limit rate {ECHO_PER_S}/second accept",
    "icmpv6 type { 135, 136 } accept",
    "drop",
)

_FORWARD: Final = (
    "iifname @guests oifname @guests accept",  # Bridged: both are the one bridge; the host has no routes there.
    "iifname @guests drop",
    "oifname @guests drop",
    "iifname @externals oifname @externals jump bridged_external",
    "iifname @externals jump routed_external",
)

_BRIDGED_EXTERNAL: Final = (
    "ip daddr @infrastructure4 ct state new drop",
    "ip6 daddr @infrastructure6 ct state new drop",
    "accept",
)

_ROUTED_EXTERNAL: Final = (
    "ct state established,related accept",
    "ct state invalid drop",
    "ip daddr @infrastructure4 drop",
    "ip6 daddr @infrastructure6 drop",
    "oifname @uplinks accept",
    "drop",
)


OURS, ARRIVING, DEPARTING = "ours", "arriving", "departing"
"""Sets of the fabric's table, all keyed by (tunnel or provider port, MAC)."""


def fabric_table(tag: str, far: Iterable[str], known: Mapping[str, Mapping[tuple[str, str], str]]) -> TableSpec:
    """`far` are tunnel and provider ports. `known` has by set and (far port, MAC):

    - ours: MACs of this host's own that must not come from there
    - arriving: a leg's MAC, by the one under which other hosts know it
    - departing: the other way round
    """

    def keyed(name: str) -> dict[str, str]:
        return {f'"{port}" . {mac}': value for (port, mac), value in known.get(name, {}).items()}

    mac_map = "type ifname . ether_addr : ether_addr;"
    sets = {
        "far": SetSpec(kind="type ifname;", elements=elements(*quoted(far))),
        OURS: SetSpec(kind="type ifname . ether_addr;", elements=keyed(OURS)),
        ARRIVING: SetSpec(kind=mac_map, is_map=True, elements=keyed(ARRIVING)),
        DEPARTING: SetSpec(kind=mac_map, is_map=True, elements=keyed(DEPARTING)),
    }
    chains = {
        "prerouting": ChainSpec(
            hook="type filter hook prerouting priority -210; policy accept;",
            rules=("iifname . ether saddr @ours drop", f"ether daddr set iifname . ether daddr map @{ARRIVING}"),
        ),
        "postrouting": ChainSpec(
            hook="type filter hook postrouting priority 0; policy accept;",
            rules=(f"ether saddr set oifname . ether saddr map @{DEPARTING}",),
        ),
        "forward": ChainSpec(
            hook="type filter hook forward priority -110; policy accept;",
            rules=("iifname @far jump served_here", "oifname @far jump served_here"),
        ),
        "served_here": ChainSpec(rules=("udp dport { 67, 68, 546, 547 } drop", "icmpv6 type { 133, 134 } drop")),
    }
    return TableSpec(family="bridge", name=fabric_table_name(tag), sets=sets, chains=chains)


_ICMP: Final = (
    "icmp type { echo-request, echo-reply, destination-unreachable, time-exceeded, parameter-problem } accept",
    "meta l4proto 58 accept",
)


def _closed(*, also: tuple[str, ...]) -> dict[str, ChainSpec]:
    """An input chain that lets in nothing but answers, ICMP and `also`."""
    rules = ('iifname "lo" accept', "ct state established,related accept", *_ICMP, *also)
    return {"input": ChainSpec(hook="type filter hook input priority 0; policy drop;", rules=rules)}


def network_table() -> TableSpec:
    """Inside a network's namespace: DHCP, DNS, metadata."""
    served = (
        "udp dport { 53, 67, 547 } accept",
        "tcp dport 53 accept",
        f"ip daddr {METADATA_V4} tcp dport 80 accept",
        f"ip6 daddr {METADATA_V6} tcp dport 80 accept",
    )
    chains = _closed(also=served)
    chains["forward"] = ChainSpec(hook="type filter hook forward priority 0; policy drop;")
    return TableSpec(family="inet", name=INSIDE, chains=chains)


def router_input_table() -> TableSpec:
    """Inside a router's namespace: a router is no host, it answers pings and neighbours only.

    What it forwards is not judged here: paths between networks are asymmetric, and groups are the guests' affair.
    """
    return TableSpec(family="inet", name=INSIDE, chains=_closed(also=()))
