"""Where a router's packets go and as whom, composed as values. Pure; `router.py` writes it.

NAT happens at the gateway leg only: traffic between legs keeps its addresses. The one exception is a guest that calls
a floating IP of its own router: its packet turns around inside, so its source becomes an address of the gateway, or
the answer would take the short way and be refused.

The table's base chains are never removed while the router lives, and floating IPs are elements of maps: existing
flows keep their translation through every change, except those of a floating IP that is gone (`stale`).
"""

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from agent.wire.network import NetworkSpec
from agent.wire.router import RouterSpec, tunnel_mac
from drivers.network import names
from drivers.network.conntrack import Flow
from drivers.network.filter import METADATA_V4, ip_address, ip_prefix, link_local
from drivers.network.tables import ChainSpec, SetSpec, TableSpec

TABLE: Final = "hostler_nat"


def nat_table(spec: RouterSpec) -> TableSpec:
    """The NAT of a router (IPv4; IPv6 is never translated)."""
    pairs = [
        (str(ip_address(floating.address)), str(ip_address(floating.fixed)))
        for floating in spec.floating
        if spec.gateway is not None
    ]
    sets = {
        "floating": SetSpec(kind="type ipv4_addr : ipv4_addr;", is_map=True, elements=dict(pairs)),
        "fixed": SetSpec(
            kind="type ipv4_addr : ipv4_addr;", is_map=True, elements={fixed: floating for floating, fixed in pairs}
        ),
    }
    chains = {
        "arriving": ChainSpec(
            hook="type nat hook prerouting priority -100; policy accept;", rules=("dnat ip to ip daddr map @floating",)
        ),
        "leaving": ChainSpec(
            hook="type nat hook postrouting priority 100; policy accept;", rules=tuple(_source_rules(spec))
        ),
    }
    return TableSpec(family="inet", name=TABLE, sets=sets, chains=chains)


def _source_rules(spec: RouterSpec) -> Iterable[str]:
    if spec.gateway is None:
        return
    gateway = f'"{names.router_gateway(spec.gateway.port_id)}"'
    outward = f"oifname {gateway} iifname != {gateway}"
    turning = f"oifname != {gateway} iifname != {gateway} ct status dnat"
    own = source_address(spec)
    yield f"{outward} snat ip to ip saddr map @fixed"
    yield f"{turning} snat ip to ip saddr map @fixed"
    if own is not None:
        if spec.gateway.snat:
            yield f"{outward} meta nfproto ipv4 snat ip to {own}"
        yield f"{turning} meta nfproto ipv4 snat ip to {own}"


def source_address(spec: RouterSpec) -> str | None:
    """The gateway's first IPv4 address: whom everybody without a floating IP appears as."""
    found = (ipaddress.ip_interface(text) for text in (spec.gateway.addresses if spec.gateway else ()))
    return next((str(interface.ip) for interface in found if interface.version == 4), None)


def stale(flows: Iterable[Flow], spec: RouterSpec) -> list[Flow]:
    """Translated flows whose translation is not the router's any more: a floating IP went, moved, or SNAT ended."""
    floating = {str(ip_address(item.address)): str(ip_address(item.fixed)) for item in spec.floating}
    own = source_address(spec)
    has_snat = spec.gateway is not None and spec.gateway.snat
    return [flow for flow in flows if not _is_kept(flow, floating if spec.gateway else {}, own, has_snat)]


def _is_kept(flow: Flow, floating: dict[str, str], own: str | None, has_snat: bool) -> bool:
    """The reply's ends are the translated ones: its source is the real destination, its destination the new source."""
    original, reply = flow.original, flow.reply
    is_dnat = reply.source != original.destination
    if is_dnat and floating.get(original.destination) != reply.source:
        return False
    if reply.destination == original.source:
        return True
    if reply.destination == own:
        return has_snat or is_dnat
    return floating.get(reply.destination) == original.source


class Hop(msgspec.Struct, frozen=True):
    """A route of a router: `leg` is the inner name of the interface it uses."""

    destination: str
    gateway: str
    leg: str


class WayOut(msgspec.Struct, frozen=True, kw_only=True):
    """How a router reaches the host that has its gateway: through the tunnel of a network that it joins.

    Nobody has the addresses: they stand for the MAC of the router's own leg on that host.
    """

    leg: str
    mac: str

    @property
    def addresses(self) -> tuple[str, str]:
        """A next hop of either family."""
        return WAY_OUT_V4, str(link_local(self.mac))


WAY_OUT_V4: Final = "169.254.64.1"


def way_out(spec: RouterSpec, networks: Mapping[str, NetworkSpec]) -> WayOut | None:
    """None where the gateway is here, or there is none, or no tunnel leads to it."""
    if not spec.gateway_end:
        return None
    tunneled = [leg for leg in spec.legs if networks[leg.network_id].physical_network is None]
    if not tunneled:
        return None
    leg = min(tunneled, key=lambda leg: leg.port_id)
    return WayOut(leg=names.router_inner(leg.port_id), mac=tunnel_mac(leg.port_id, spec.gateway_end))


def hops(spec: RouterSpec, out: WayOut | None = None) -> tuple[Hop, ...]:
    """Default and extra routes; each leaves by the leg whose subnet holds the next hop, else by the gateway."""
    legs = [(names.router_inner(leg.port_id), leg.addresses) for leg in spec.legs]
    outward = names.router_gateway(spec.gateway.port_id) if spec.gateway else None
    if spec.gateway is not None and outward is not None:
        legs.append((outward, spec.gateway.addresses))
    outer = spec.gateway.next_hops if spec.gateway else ()
    defaults = (("0.0.0.0/0" if ip_address(next_hop).version == 4 else "::/0", next_hop) for next_hop in outer)
    found: dict[str, Hop] = {}
    for destination, next_hop in (*spec.routes, *defaults):
        address = ip_address(next_hop)
        leg = next((name for name, texts in legs if _on_link(address, texts)), outward)
        if leg is not None and ip_prefix(destination).version == address.version:
            found.setdefault(str(ip_prefix(destination)), Hop(str(ip_prefix(destination)), str(address), leg))
        elif leg is None and out is not None:
            there = out.addresses[0 if address.version == 4 else 1]
            found.setdefault(str(ip_prefix(destination)), Hop(str(ip_prefix(destination)), there, out.leg))
    if out is not None:
        for everywhere, there in zip(("0.0.0.0/0", "::/0"), out.addresses, strict=True):
            found.setdefault(everywhere, Hop(everywhere, there, out.leg))
    return tuple(found.values())


def _on_link(address: ipaddress.IPv4Address | ipaddress.IPv6Address, texts: Iterable[str]) -> bool:
    return any(address in ipaddress.ip_interface(text).network for text in texts)


def metadata_hop(network: NetworkSpec) -> str | None:
    """Where a router sends what a guest without DHCP's routes sends to the metadata address: the DHCP port."""
    for _, address in network.dhcp.addresses if network.dhcp else ():
        if ip_address(address).version == 4 and address != METADATA_V4:
            return address
    return None


class Advert(msgspec.Struct, frozen=True, kw_only=True):
    """What a router advertises on one leg for one subnet."""

    leg: str
    prefix: str
    mode: str  # slaac | dhcpv6-stateless | dhcpv6-stateful
    mtu: int
    dns: tuple[str, ...]


MODES: Final = frozenset(("slaac", "dhcpv6-stateless", "dhcpv6-stateful"))


def adverts(spec: RouterSpec, networks: dict[str, NetworkSpec]) -> tuple[Advert, ...]:
    """One for each IPv6 subnet with a mode in which a leg has an address."""
    found = []
    for leg in spec.legs:
        network = networks[leg.network_id]
        own_dns = [a for _, a in network.dhcp.addresses if ip_address(a).version == 6] if network.dhcp else []
        for subnet in network.subnets:
            prefix = ip_prefix(subnet.cidr)
            is_here = any(ipaddress.ip_interface(text).ip in prefix for text in leg.addresses)
            if subnet.ip_version != 6 or subnet.ipv6_ra_mode not in MODES or not is_here:
                continue
            given = [server for server in subnet.dns_nameservers if ip_address(server).version == 6]
            found.append(
                Advert(
                    leg=names.router_inner(leg.port_id),
                    prefix=str(prefix),
                    mode=subnet.ipv6_ra_mode or "slaac",
                    mtu=network.mtu,
                    dns=tuple(str(ip_address(server)) for server in (given or own_dns)),
                )
            )
    return tuple(found)
