"""A router: a namespace with a leg in each network, brought to a wanted state while traffic flows through it.

Order: the namespace and its closed door first, legs with their addresses, NAT, then routes, and forwarding at last;
so a half-made router forwards nothing. Every part compares before it writes. What is gone from the wish is removed
after what is new has been added.
"""

import contextlib
import ipaddress
import socket
import struct
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from agent.wire.errors import Failed
from agent.wire.network import NetworkSpec
from agent.wire.router import RouterSpec
from drivers.network import conntrack, dnsmasq, host_tables, names, netns, router_nat
from drivers.network.filter import METADATA_V4, link_local, mac_address
from drivers.network.links import Links, Route, ensure_veth, opened
from drivers.network.names import Alias
from drivers.network.nft import NftFailed, Ruleset
from drivers.network.settings import NetworkSettings
from drivers.network.tables import TableSpec, change, replace

ANNOUNCEMENTS: Final = 3
ANNOUNCEMENT_GAP_S: Final = 0.5
"""Between repeats: a switch that has just learned of a link may lose the first."""

_METADATA_TABLE_BASE: Final = 10_000
_METADATA_PRIORITY: Final = 100


class Leg(msgspec.Struct, frozen=True, kw_only=True):
    """A leg or the gateway, resolved to interfaces."""

    outer: str
    inner: str
    mac: str
    addresses: tuple[str, ...]
    network: NetworkSpec


class RouterHome:
    """Makes and removes routers of one host."""

    def __init__(self, settings: NetworkSettings) -> None:
        self._settings = settings
        self._names = names.Namespaces(settings.tag, settings.host)
        self._written: dict[str, TableSpec] = {}  # Router id -> its NAT as written last, by this process.

    def ensure(self, spec: RouterSpec, networks: dict[str, NetworkSpec]) -> None:
        """See Fabric.ensure_router."""
        legs = resolve(spec, networks)
        namespace = self._names.router(spec.id)
        if netns.ensure(namespace):
            self._written.pop(spec.id, None)
        netns.call(namespace, _close_doors)
        for leg in legs:
            ensure_veth(leg.outer, namespace, leg.inner)
        fresh = netns.call(namespace, lambda: _shape_inside(legs, spec.is_up))
        self._connect(spec, legs)
        self._translate(spec, namespace)
        refused = netns.call(namespace, lambda: _route_inside(spec, legs, router_nat.way_out(spec, networks)))
        netns.call(namespace, lambda: _forward(spec.is_up))
        dnsmasq.ensure_adverts(
            self._folder(spec.id), namespace, router_nat.adverts(spec, networks) if spec.is_up else ()
        )
        announce(namespace, fresh)
        if refused:
            raise Failed("; ".join(refused))
        netns.call(namespace, lambda: _mark_inside(self._alias(spec)))

    def absent(self, router_id: str) -> None:
        """See Fabric.absent_router."""
        dnsmasq.remove(self._folder(router_id))
        with opened() as links:
            for link in links.all():
                mark = link.mark(self._settings.tag)
                if mark is not None and mark.noun == "leg" and mark.id == router_id:
                    links.absent(link.name)
        netns.absent(self._names.router(router_id))
        self._written.pop(router_id, None)

    def generation(self, router_id: str) -> Alias | None:
        """The mark inside a router's namespace."""
        with contextlib.suppress(OSError, Failed):
            return netns.call(self._names.router(router_id), lambda: _marked_inside(self._settings.tag))
        return None

    def _folder(self, router_id: str) -> Path:
        return Path(self._settings.folder) / f"ra-{names.short(router_id)}"

    def _alias(self, spec: RouterSpec) -> Alias:
        return Alias(tag=self._settings.tag, noun="router", id=spec.id, generation=spec.generation)

    def _connect(self, spec: RouterSpec, legs: list[Leg]) -> None:
        """Legs into their bridges; legs that are not wanted any more are cut off."""
        alias = Alias(tag=self._settings.tag, noun="leg", id=spec.id, generation=spec.generation)
        with opened() as links:
            for leg in legs:
                link = links.get(leg.outer)
                links.mark(link, alias)
                bridge = links.get(names.bridge(leg.network.id))
                netns.write_sysctl(None, f"net.ipv6.conf.{leg.outer}.disable_ipv6", "1")
                links.shape(link, mtu=leg.network.mtu, master=bridge.index, state="up")
                links.ensure_static_macs(link, [leg.mac])
            wanted = {leg.outer for leg in legs}
            for link in links.all():
                mark = link.mark(self._settings.tag)
                if mark is not None and mark.noun == "leg" and mark.id == spec.id and link.name not in wanted:
                    links.absent(link.name)

    def _translate(self, spec: RouterSpec, namespace: str) -> None:
        """NAT by difference; replaced whole when what is there is not known. Then flows that lost their translation."""
        table, ruleset = router_nat.nat_table(spec), Ruleset(namespace)
        before = self._written.get(spec.id)
        try:
            ruleset.run(change(before, table) if before is not None else _rewrite(table, ruleset))
        except NftFailed:
            ruleset.run(replace(table))
        self._written[spec.id] = table
        if before != table:
            conntrack.delete(router_nat.stale(conntrack.flows(namespace), spec), namespace)


def resolve(spec: RouterSpec, networks: dict[str, NetworkSpec]) -> list[Leg]:
    """Legs and gateway as interfaces. Raises Failed when a network is not known."""
    found = [(leg, names.router_inner(leg.port_id)) for leg in spec.legs]
    every: list[tuple[Any, str]] = list(found)
    if spec.gateway is not None:
        every.append((spec.gateway, names.router_gateway(spec.gateway.port_id)))
    missing = [leg.network_id for leg, _ in every if leg.network_id not in networks]
    if missing:
        raise Failed(f"router {spec.id} has legs in networks that are not on this host: {', '.join(missing)}")
    extra = tuple(f"{floating.address}/32" for floating in spec.floating)
    return [
        Leg(
            outer=names.router_leg(leg.port_id),
            inner=inner,
            mac=mac_address(leg.mac),
            addresses=(*leg.addresses, *(extra if leg is spec.gateway else ())),
            network=networks[leg.network_id],
        )
        for leg, inner in every
    ]


def _rewrite(table: TableSpec, ruleset: Ruleset) -> str:
    """Write a table over one that may be there without removing its base chains: flows keep their translation."""
    if not ruleset.has_table(table.family, table.name):
        return replace(table)
    where = f"{table.family} {table.name}"
    bare = TableSpec(family=table.family, name=table.name)
    emptied = [f"flush chain {where} {name}\n" for name in table.chains]
    emptied += [f"flush map {where} {name}\n" for name in table.sets]
    return "".join(emptied) + change(bare, table)


def _close_doors() -> None:
    """What holds before any leg is there: nothing is forwarded, nothing but ICMP is answered."""
    for key, value in _KNOBS.items():
        netns.write_sysctl(None, key, value)
    table, ruleset = host_tables.router_input_table(), Ruleset()
    if not ruleset.has_table(table.family, table.name):
        ruleset.run(replace(table))


_KNOBS: Final = {
    # Duplicate address detection off: the same leg is on several hosts. Redirects off: bridges filter by path.
    "net.ipv6.conf.all.accept_dad": "0",
    "net.ipv6.conf.default.accept_dad": "0",
    "net.ipv6.conf.all.accept_ra": "0",
    "net.ipv6.conf.default.accept_ra": "0",
    "net.ipv4.conf.all.send_redirects": "0",
    "net.ipv4.conf.default.send_redirects": "0",
    "net.ipv4.conf.all.accept_redirects": "0",
    "net.ipv6.conf.all.accept_redirects": "0",
    "net.ipv6.conf.default.accept_redirects": "0",
    # Asymmetric paths are normal; an address is answered for only on the leg that has it.
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
    "net.ipv4.conf.all.arp_ignore": "1",
    "net.ipv4.conf.all.arp_announce": "2",
    "net.ipv4.conf.all.promote_secondaries": "1",
    "net.ipv4.conf.default.promote_secondaries": "1",
}


def _shape_inside(legs: list[Leg], is_up: bool) -> list[tuple[str, str, str]]:
    """Legs as they should be; returns the new addresses as (interface, MAC, address)."""
    fresh: list[tuple[str, str, str]] = []
    with opened() as links:
        wanted = {leg.inner for leg in legs}
        for link in links.all():
            if link.kind == "veth" and link.name not in wanted:
                links.absent(link.name)
        for leg in legs:
            link = links.get(leg.inner)
            links.shape(link, mtu=leg.network.mtu, address=leg.mac)
            links.shape(link, state="up" if is_up else "down")
            added = links.ensure_addresses(link, leg.addresses)
            fresh += [(leg.inner, leg.mac, str(ipaddress.ip_interface(text).ip)) for text in sorted(added)]
    return fresh if is_up else []


def _route_inside(spec: RouterSpec, legs: list[Leg], out: router_nat.WayOut | None) -> list[str]:
    """Routes, and the detour to metadata; returns what the kernel refused, with why."""
    if not spec.is_up:
        return []
    with opened() as links:
        index = {leg.inner: links.get(leg.inner).index for leg in legs}
        for leg in legs:
            is_way = out is not None and leg.inner == out.leg
            known = dict.fromkeys(out.addresses, out.mac) if out is not None and is_way else {}
            links.ensure_neighbours(links.get(leg.inner), known)
        refused = links.ensure_routes(
            Route(hop.destination, hop.gateway, index[hop.leg]) for hop in router_nat.hops(spec, out)
        )
        detours = {
            index[leg.inner]: (leg.inner, via)
            for leg in legs
            if leg.inner.startswith("l") and (via := router_nat.metadata_hop(leg.network)) is not None
        }
        _ensure_detours(links, detours)
        return refused


def _ensure_detours(links: Links, detours: dict[int, tuple[str, str]]) -> None:
    """A guest that ignores DHCP's routes sends metadata requests to its gateway: each leg has its own way to there."""
    for index, (inner, via) in detours.items():
        links.ensure_table_route(_METADATA_TABLE_BASE + index, Route(f"{METADATA_V4}/32", via, index))
        links.ensure_rule(inner, f"{METADATA_V4}/32", _METADATA_TABLE_BASE + index, _METADATA_PRIORITY)
    links.keep_rules(_METADATA_PRIORITY, {_METADATA_TABLE_BASE + index for index in detours})


def _forward(is_up: bool) -> None:
    value = "1" if is_up else "0"
    netns.write_sysctl(None, "net.ipv4.ip_forward", value)
    netns.write_sysctl(None, "net.ipv6.conf.all.forwarding", value)


def _mark_inside(alias: Alias) -> None:
    with opened() as links:
        links.mark(links.get("lo"), alias)


def _marked_inside(tag: str) -> Alias | None:
    with opened() as links:
        return links.get("lo").mark(tag)


# ---------------------------------------------------------------------------------------------------------------
# Telling the neighbours.


def announce(namespace: str, addresses: Iterable[tuple[str, str, str]]) -> None:
    """Gratuitous ARP or unsolicited neighbour advertisement for (interface, MAC, address): now, and twice again."""
    wanted = list(addresses)
    if not wanted:
        return
    frames = [(interface, _announcement(mac, ipaddress.ip_address(address))) for interface, mac, address in wanted]
    sender = netns.call(namespace, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
    _send(sender, frames)
    threading.Thread(target=_repeat, args=(sender, frames), name="announce", daemon=True).start()


def _repeat(sender: socket.socket, frames: list[tuple[str, bytes]]) -> None:
    with sender:
        for _ in range(ANNOUNCEMENTS - 1):
            time.sleep(ANNOUNCEMENT_GAP_S)
            _send(sender, frames)


def _send(sender: socket.socket, frames: list[tuple[str, bytes]]) -> None:
    for interface, frame in frames:
        with contextlib.suppress(OSError):  # The leg went meanwhile, or its cable is not plugged in yet.
            sender.bind((interface, 0))
            sender.send(frame)


def _announcement(mac: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bytes:
    own = bytes.fromhex(mac.replace(":", ""))
    if isinstance(address, ipaddress.IPv4Address):
        arp = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + own + address.packed + bytes(6) + address.packed
        return b"\xff" * 6 + own + b"\x08\x06" + arp
    everyone = ipaddress.IPv6Address("ff02::1").packed
    body = struct.pack("!BBHI", 136, 0, 0, 0xA0000000) + address.packed + b"\x02\x01" + own  # Router, override.
    source = link_local(mac).packed
    total = _sum(source + everyone + struct.pack("!II", len(body), 58) + body)
    body = body[:2] + struct.pack("!H", total) + body[4:]
    header = struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + source + everyone
    return b"\x33\x33\x00\x00\x00\x01" + own + b"\x86\xdd" + header + body


def _sum(data: bytes) -> int:
    """The Internet checksum of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
