"""The network of a host with what every kernel has: Linux bridges, taps, VXLAN, namespaces.

A network is a bridge without any address of the host. On it hang guests' taps, the leg of the network's namespace
(DHCP, DNS, metadata), the legs of routers (each router a namespace), and the way to other hosts: a tunnel, or a cable
to the bridge of a physical network.

    guest ── tap t… ┐                       ┌ dhcp0: dnsmasq, metadata      (namespace …-network-<id>)
    guest ── tap t… ┤ bridge b… ├ d… ───────┘
                    │           ├ r… ─────── l…: router ── g… ─────┐        (namespace …-router-<id>)
                    └ x… (VXLAN) or y… ── z… ┤ physical bridge │   └ r… ┤ bridge b… of the external network

All methods converge: they look, and write what differs. A link is marked with generation 0.0 when it is made and with
the wanted generation when the object is whole, so a crash in between is seen as an old object. Methods of different
objects may run at once; the agent has a lock for each object.
"""

import contextlib
import threading
from pathlib import Path
from typing import Any, Final

import msgspec

from agent.wire.errors import Failed, Unfit
from agent.wire.forwarding import ForwardingSpec
from agent.wire.lifecycle import Generation
from agent.wire.network import NetworkSpec
from agent.wire.port import PortSpec
from agent.wire.router import LegSpec, RouterSpec, tunnel_mac
from drivers import command
from drivers.network import dnsmasq, forwarding, host_tables, names, netns
from drivers.network.base import NetworkCapabilities, ObservedLink
from drivers.network.filter import METADATA_V4, METADATA_V6, ip_address, ip_prefix, mac_address
from drivers.network.links import Link, Links, Route, ensure_veth, opened
from drivers.network.names import UNFINISHED, Alias
from drivers.network.nft import NftFailed, Ruleset
from drivers.network.router import RouterHome
from drivers.network.settings import NetworkSettings
from drivers.network.tables import replace

_VXLAN_TTL: Final = 64
_BRIDGE_NETFILTER: Final = ("net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables")


class _Told(msgspec.Struct, frozen=True):
    """What this process wrote last into the tables of a network's bridge and tunnel, which nobody else writes.

    The kernel takes seconds to list some thousand entries, and a change is mostly about one.
    """

    bridge: int
    tunnel: int
    neighbours: dict[str, str]
    macs: frozenset[str]
    entries: frozenset[tuple[str, str]]


class BridgeFabric:
    """See drivers.network.base.Fabric."""

    def __init__(self, settings: NetworkSettings) -> None:
        self._settings = settings
        self._tag = settings.tag
        self._names = names.Namespaces(settings.tag, settings.host)
        self._ruleset = Ruleset()
        self._routers = RouterHome(settings)
        self._tables_lock = threading.Lock()
        self._told: dict[str, _Told] = {}  # By network.

    def capabilities(self) -> NetworkCapabilities:
        """See Fabric."""
        missing = [knob for knob in _BRIDGE_NETFILTER if not _knob(knob).exists()]
        return NetworkCapabilities(
            driver="bridge",
            physical_networks=tuple(sorted(self._settings.physical_networks)),
            stateful_groups=not missing,
            why="the kernel has no br_netfilter" if missing else "",
        )

    # -- the host itself

    def prepare(self) -> None:
        """See Fabric."""
        if not self.capabilities().stateful_groups:
            with contextlib.suppress(command.CommandFailed):  # Built in, or the host has no modules at all.
                command.run(["modprobe", "br_netfilter"], timeout_s=10)
        for knob in _BRIDGE_NETFILTER:
            if not netns.write_sysctl(None, knob, "1"):
                raise Unfit("the kernel has no br_netfilter: security groups would not see bridged packets")
        self._write_tables()
        with opened() as links:
            for name, physical in self._settings.physical_networks.items():
                self._ensure_physical(links, name, physical.bridge, physical.nic, physical.addresses)
        if any(physical.addresses for physical in self._settings.physical_networks.values()):
            netns.write_sysctl(None, "net.ipv4.ip_forward", "1")
            netns.write_sysctl(None, "net.ipv6.conf.all.forwarding", "1")

    def _ensure_physical(
        self, links: Links, name: str, bridge: str, nic: str | None, addresses: tuple[str, ...]
    ) -> None:
        """The bridge of a physical network: one that is there is the administrator's and is not marked."""
        link = links.find(bridge)
        if link is None:
            link = links.add(bridge, "bridge", **_BRIDGE_OPTIONS)
            links.mark(link, self._alias("physical", name, UNFINISHED))
        netns.write_sysctl(None, f"net.ipv4.conf.{bridge}.arp_ignore", "1")
        if nic is not None:
            self._enslave(links, links.get(nic), link)
        if addresses:
            netns.write_sysctl(None, f"net.ipv6.conf.{bridge}.accept_dad", "0")
            links.ensure_addresses(link, {*addresses, *links.addresses(link)})
        links.shape(link, state="up")

    @staticmethod
    def _enslave(links: Links, nic: Link, bridge: Link) -> None:
        if nic.master != bridge.index and links.addresses(nic):
            raise Unfit(f"{nic.name} has addresses: putting it into {bridge.name} would cut this host off")
        links.shape(nic, master=bridge.index, state="up")

    def _write_tables(self) -> None:
        """The host's own tables as they should be for the networks that are here."""
        with self._tables_lock, opened() as links:
            marked = [(link, mark) for link in links.all() if (mark := link.mark(self._tag)) is not None]
            guests = [link.name for link, mark in marked if mark.noun == "network"]
            far = [link.name for link, mark in marked if mark.noun in ("tunnel", "provider")]
            host = host_tables.host_table(self._settings, guests)
            fabric = host_tables.fabric_table(self._tag, far, self._known())
            self._ruleset.run(replace(host) + replace(fabric))

    def _known(self) -> dict[str, dict[tuple[str, str], str]]:
        """What the fabric's table says of MACs, as an earlier process wrote it: links do not tell."""
        name = host_tables.fabric_table_name(self._tag)
        if not self._ruleset.has_table("bridge", name):
            return {}
        bodies = (row.get("set") or row.get("map") for row in self._ruleset.objects(f"list table bridge {name}"))
        by_name = {body["name"]: body.get("elem", []) for body in bodies if body is not None}
        keyed = (host_tables.OURS, host_tables.ARRIVING, host_tables.DEPARTING)
        return {name: dict(map(_keyed, by_name.get(name, []))) for name in keyed}

    def _element(self, verb: str, table: str, set_name: str, element: str) -> None:
        """Put an element into one of the host's own sets or take it out, whether it is in or not."""
        family = "inet" if table == host_tables.host_table_name(self._tag) else "bridge"
        where = f"{family} {table} {set_name} {{ {element} }}"
        add = f"add element {where}\n"
        try:
            self._ruleset.run(add if verb == "add" else f"{add}delete element {where}\n")
        except NftFailed:
            self._write_tables()  # Somebody removed our tables.
            if verb == "add":
                self._ruleset.run(add)

    # -- what is here

    def observe(self) -> tuple[ObservedLink, ...]:
        """See Fabric."""
        found: dict[tuple[str, str], ObservedLink] = {}
        with opened() as links:
            for link in links.all():
                mark = link.mark(self._tag)
                if mark is not None and mark.noun in ("network", "port"):
                    found[mark.noun, mark.id] = ObservedLink(noun=mark.noun, id=mark.id, generation=mark.generation)
        for name in netns.listed():
            parsed = self._names.parse(name)
            if parsed is not None and parsed not in found:
                found[parsed] = self._observed_namespace(*parsed)
        return tuple(found[key] for key in sorted(found))

    def _observed_namespace(self, noun: str, object_id: str) -> ObservedLink:
        """A router; or a network whose bridge is gone (a crash in the middle of its removal)."""
        mark = self._routers.generation(object_id) if noun == "router" else None
        return ObservedLink(noun=noun, id=object_id, generation=mark.generation if mark else UNFINISHED)

    def namespace(self, network_id: str) -> str:
        """See Fabric."""
        return self._names.network(network_id)

    # -- networks

    def ensure_network(self, spec: NetworkSpec) -> None:
        """See Fabric."""
        name = names.bridge(spec.id)
        self._element("add", host_tables.host_table_name(self._tag), "guests", f'"{name}"')
        with opened() as links:
            bridge = self._ensure_bridge(links, spec)
            self._ensure_way_out(links, spec, bridge)
            if spec.dhcp is None:
                links.absent(names.dhcp_leg(spec.id))
        if spec.dhcp is None:
            netns.absent(self.namespace(spec.id))
        else:
            self._ensure_namespace(spec)
        with opened() as links:
            links.mark(links.get(name), self._alias("network", spec.id, spec.generation))

    def absent_network(self, network_id: str) -> None:
        """See Fabric."""
        self._told.pop(network_id, None)
        with opened() as links:
            for name in (
                names.dhcp_leg(network_id), names.vxlan(network_id), names.provider_leg(network_id),
                names.bridge(network_id),
            ):  # fmt: skip
                links.absent(name)
        netns.absent(self.namespace(network_id))
        self._element("delete", host_tables.host_table_name(self._tag), "guests", f'"{names.bridge(network_id)}"')
        fabric = host_tables.fabric_table_name(self._tag)
        ends = _far_ends(network_id)
        for far in ends:
            self._element("delete", fabric, "far", f'"{far}"')
        for name, content in self._known().items():
            for (far, mac), value in content.items():
                if far in ends:
                    self._element("delete", fabric, name, f'"{far}" . {mac}' + (f" : {value}" if value else ""))

    def _ensure_bridge(self, links: Links, spec: NetworkSpec) -> Link:
        """Without any trace of the host's own stack: no address, no IPv6, no answer to ARP."""
        name = names.bridge(spec.id)
        link = links.find(name)
        if link is None:
            # Given a MAC, or it would take that of its lowest port, and forget all neighbours with each change.
            link = links.add(name, "bridge", address=names.bridge_mac(spec.id), **_BRIDGE_OPTIONS)
            links.mark(link, self._alias("network", spec.id, UNFINISHED))
        if links.find(names.vxlan(spec.id)) is None:  # Else it knows IPv6 neighbours; it has no address even so.
            netns.write_sysctl(None, f"net.ipv6.conf.{name}.disable_ipv6", "1")
        netns.write_sysctl(None, f"net.ipv4.conf.{name}.arp_ignore", "8")
        links.shape(link, mtu=spec.mtu, state="up")
        return link

    def _ensure_way_out(self, links: Links, spec: NetworkSpec, bridge: Link) -> None:
        """A cable for provider networks. A tenant network gets its tunnel when another host has it."""
        if spec.physical_network is None:
            links.absent(names.provider_leg(spec.id))
            if (tunnel := links.find(names.vxlan(spec.id))) is not None:
                links.shape(tunnel, mtu=spec.mtu)
        else:
            links.absent(names.vxlan(spec.id))
            self._ensure_provider(links, spec, bridge)

    def ensure_forwarding(self, spec: ForwardingSpec, network: NetworkSpec) -> None:
        """See Fabric."""
        if network.physical_network is not None:
            self.absent_forwarding(network.id)
            return
        with opened() as links:
            bridge = links.find(names.bridge(network.id))
            if bridge is None:
                raise Failed(f"network {network.id} is not on this host")
            self._check_underlay(links, network)
            tunnel = self._ensure_tunnel(links, network, bridge)
            if any(":" in address for peer in spec.peers for address in peer.addresses):
                _let_ipv6_neighbours(bridge.name)
            known = self._told.pop(network.id, None)
            if known is None or (known.bridge, known.tunnel) != (bridge.index, tunnel.index):
                known = None
            told = _Told(
                bridge=bridge.index,
                tunnel=tunnel.index,
                neighbours=forwarding.neighbours(spec),
                macs=frozenset(forwarding.macs(spec)),
                entries=frozenset(forwarding.entries(spec)),
            )
            links.ensure_neighbours(bridge, told.neighbours, None if known is None else known.neighbours)
            links.ensure_static_macs(tunnel, told.macs, None if known is None else known.macs)
            links.ensure_tunnel_entries(tunnel, told.entries, None if known is None else known.entries)
            links.mark(tunnel, self._alias("tunnel", network.id, spec.generation))
            self._told[network.id] = told

    def absent_forwarding(self, network_id: str) -> None:
        """See Fabric."""
        self._told.pop(network_id, None)
        with opened() as links:
            links.absent(names.vxlan(network_id))
            bridge = links.find(names.bridge(network_id))
            if bridge is not None:
                links.ensure_neighbours(bridge, {})
        if bridge is not None:
            netns.write_sysctl(None, f"net.ipv6.conf.{bridge.name}.disable_ipv6", "1")

    def _check_underlay(self, links: Links, network: NetworkSpec) -> None:
        underlay = self._settings.underlay
        if underlay is None:
            raise Unfit("this host has no address among hosts (agent.underlay_address): it has no tunnels")
        link = links.with_address(underlay.address)
        if link is None:
            raise Failed(f"this host does not have its underlay address {underlay.address}")
        needed = network.mtu + forwarding.overhead(underlay.address)
        if link.mtu < needed:
            raise Unfit(
                f"{link.name}, this host's way to other hosts, carries {link.mtu} bytes; network {network.id} "
                f"needs {needed} there: set the MTU of one or the other"
            )

    def _ensure_tunnel(self, links: Links, spec: NetworkSpec, bridge: Link) -> Link:
        """Learning is off, and what the table knows is not asked of other hosts."""
        underlay = self._settings.underlay
        assert underlay is not None, "the caller looked"
        name = names.vxlan(spec.id)
        link = links.find(name)
        if link is not None and (link.kind != "vxlan" or link.vni != spec.segment):
            links.absent(name)
            link = None
        self._guard_far_end(name, spec)
        if link is None:
            side = "vxlan_local6" if ip_address(underlay.address).version == 6 else "vxlan_local"
            link = links.add(
                name,
                "vxlan",
                vxlan_id=spec.segment,
                vxlan_port=underlay.vxlan_port,
                vxlan_learning=False,
                vxlan_ttl=_VXLAN_TTL,
                **{side: underlay.address},
            )
        self._plug(links, link, bridge, spec, "tunnel")
        links.shape_bridge_port(link, learning=0, neigh_suppress=1)
        return link

    def _ensure_provider(self, links: Links, spec: NetworkSpec, bridge: Link) -> None:
        physical = self._settings.physical_networks.get(spec.physical_network or "")
        if physical is None:
            raise Unfit(f"this host has no physical network {spec.physical_network}")
        name, peer = names.provider_leg(spec.id), names.provider_peer(spec.id)
        link = links.find(name)
        if link is not None and (link.kind, link.vlan) != ("veth" if spec.vlan is None else "vlan", spec.vlan):
            links.absent(name)
            link = None
        self._guard_far_end(name, spec)
        outside = links.get(physical.bridge)
        if spec.vlan is not None:
            try:
                link = link or links.add(name, "vlan", link=outside.index, vlan_id=spec.vlan)
            except Failed as cause:
                raise Unfit(f"VLAN {spec.vlan} cannot be made on this host: {cause}") from cause
        else:
            link = link or links.add(name, "veth", peer={"ifname": peer})
            netns.write_sysctl(None, f"net.ipv6.conf.{peer}.disable_ipv6", "1")
            links.shape(links.get(peer), mtu=spec.mtu, master=outside.index, state="up")
        self._plug(links, link, bridge, spec, "provider")

    def _guard_far_end(self, name: str, spec: NetworkSpec) -> None:
        table = host_tables.fabric_table_name(self._tag)
        self._element("add", table, "far", f'"{name}"')
        if spec.dhcp is not None:
            self._element("add", table, host_tables.OURS, f'"{name}" . {mac_address(spec.dhcp.mac)}')

    def _plug(self, links: Links, link: Link, bridge: Link, spec: NetworkSpec, noun: str) -> None:
        netns.write_sysctl(None, f"net.ipv6.conf.{link.name}.disable_ipv6", "1")
        links.mark(link, self._alias(noun, spec.id, UNFINISHED))
        links.shape(link, mtu=spec.mtu, master=bridge.index, state="up")

    def _ensure_namespace(self, spec: NetworkSpec) -> None:
        assert spec.dhcp is not None, "the caller looked"
        namespace, outer = self.namespace(spec.id), names.dhcp_leg(spec.id)
        netns.ensure(namespace)
        netns.call(namespace, _close_doors)
        ensure_veth(outer, namespace, names.DHCP_INNER)
        netns.call(namespace, lambda: _shape_inside(spec))
        with opened() as links:
            leg = links.get(outer)
            self._plug(links, leg, links.get(names.bridge(spec.id)), spec, "dhcp")
            links.ensure_static_macs(leg, [mac_address(spec.dhcp.mac)])

    # -- ports

    def ensure_port(self, spec: PortSpec, network: NetworkSpec) -> str:
        """See Fabric."""
        name = names.tap(spec.id)
        with opened() as links:
            bridge = links.find(names.bridge(network.id))
            if bridge is None:
                raise Failed(f"network {network.id} of port {spec.id} is not on this host")
            link = links.find(name)
            if link is None:
                link = links.add(name, "tuntap", mode="tap")
                links.mark(link, self._alias("port", spec.id, UNFINISHED))
            netns.write_sysctl(None, f"net.ipv6.conf.{name}.disable_ipv6", "1")
            links.shape(link, mtu=network.mtu, master=bridge.index)
            links.shape(link, state="up" if spec.is_up else "down")
            links.mark(link, self._alias("port", spec.id, spec.generation))
        return name

    def absent_port(self, port_id: str) -> None:
        """See Fabric."""
        with opened() as links:
            links.absent(names.tap(port_id))

    # -- routers

    def ensure_router(self, spec: RouterSpec, networks: dict[str, NetworkSpec]) -> None:
        """See Fabric."""
        with opened() as links:
            legs = [*spec.legs, *((spec.gateway,) if spec.gateway else ())]
            missing = [leg.network_id for leg in legs if links.find(names.bridge(leg.network_id)) is None]
        if missing:
            raise Failed(f"router {spec.id} has legs in networks that are not on this host: {', '.join(missing)}")
        for leg in spec.legs:
            self._guard_leg(leg)
        self._routers.ensure(spec, networks)

    def _guard_leg(self, leg: LegSpec) -> None:
        """The leg's MAC is every host's: it stays on this one, and travels as another one that is this host's."""
        table, own = host_tables.fabric_table_name(self._tag), mac_address(leg.mac)
        far = f'"{names.vxlan(leg.network_id)}"'
        self._element("add", table, host_tables.OURS, f"{far} . {own}")
        if self._settings.underlay is not None:
            outer = tunnel_mac(leg.port_id, self._settings.underlay.address)
            self._element("add", table, host_tables.DEPARTING, f"{far} . {own} : {outer}")
            self._element("add", table, host_tables.ARRIVING, f"{far} . {outer} : {own}")

    def absent_router(self, router_id: str) -> None:
        """See Fabric."""
        self._routers.absent(router_id)

    # -- the end

    def purge(self) -> None:
        """Remove everything of this cloud from this host's network, found by its tag alone, also after a crash.

        Without a host part in the settings: namespaces of all hosts of this cloud that share /run/netns.
        """
        folder = Path(self._settings.folder)
        for child in folder.iterdir() if folder.is_dir() else ():
            if child.name.startswith(("dhcp-", "ra-")):
                dnsmasq.remove(child)
        with opened() as links:
            for link in links.all():
                if link.mark(self._tag) is not None:
                    links.absent(link.name)
        for name in netns.listed():
            if name.startswith(self._names.prefix()):
                dnsmasq.stop_inside(name)
                netns.absent(name)
        self._ruleset.drop_table("inet", host_tables.host_table_name(self._tag))
        self._ruleset.drop_table("bridge", host_tables.fabric_table_name(self._tag))

    def _alias(self, noun: str, object_id: str, generation: Generation) -> Alias:
        return Alias(tag=self._tag, noun=noun, id=object_id, generation=generation)


def _far_ends(network_id: str) -> tuple[str, str]:
    return names.vxlan(network_id), names.provider_leg(network_id)


def _keyed(element: Any) -> tuple[tuple[str, str], str]:
    """An element of a set, or of a map, as nft's JSON has it."""
    key, value = element if isinstance(element, list) else (element, "")
    port, mac = key["concat"]
    return (port, mac), value


def _let_ipv6_neighbours(bridge: str) -> None:
    """The kernel keeps IPv6 neighbours only of links that have IPv6. No address follows, nor any answer to a guest."""
    for key, value in (("addr_gen_mode", "1"), ("accept_ra", "0"), ("disable_ipv6", "0")):
        netns.write_sysctl(None, f"net.ipv6.conf.{bridge}.{key}", value)


_BRIDGE_OPTIONS: Final = {"br_forward_delay": 0, "br_stp_state": 0, "br_mcast_snooping": 0}


def _knob(key: str) -> Path:
    return Path("/proc/sys") / key.replace(".", "/")


def _close_doors() -> None:
    """Inside a network's namespace, before it has a leg."""
    for key, value in _KNOBS.items():
        netns.write_sysctl(None, key, value)
    table, ruleset = host_tables.network_table(), Ruleset()
    if not ruleset.has_table(table.family, table.name):
        ruleset.run(replace(table))


_KNOBS: Final = {
    # The DHCP port is on every host with the same addresses.
    "net.ipv6.conf.all.accept_dad": "0",
    "net.ipv6.conf.default.accept_dad": "0",
    "net.ipv6.conf.all.accept_ra": "0",
    "net.ipv6.conf.default.accept_ra": "0",
    "net.ipv4.conf.all.accept_redirects": "0",
    "net.ipv6.conf.all.accept_redirects": "0",
    "net.ipv6.conf.default.accept_redirects": "0",
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
    "net.ipv4.conf.all.arp_ignore": "1",
    "net.ipv4.conf.all.arp_announce": "2",
    "net.ipv4.conf.all.promote_secondaries": "1",
    "net.ipv4.conf.default.promote_secondaries": "1",
}


def _shape_inside(spec: NetworkSpec) -> None:
    """The leg with the DHCP port's MAC and addresses, metadata's addresses, and every subnet on the link."""
    assert spec.dhcp is not None, "the caller looked"
    prefixes = {subnet.id: ip_prefix(subnet.cidr) for subnet in spec.subnets}
    addresses = [f"{METADATA_V4}/32"]
    for subnet_id, address in spec.dhcp.addresses:
        parsed = ip_address(address)
        prefix = prefixes.get(subnet_id)
        addresses.append(f"{parsed}/{prefix.prefixlen if prefix else parsed.max_prefixlen}")
    if any(prefix.version == 6 for prefix in prefixes.values()):
        addresses.append(f"{METADATA_V6}/64")
    with opened() as links:
        link = links.get(names.DHCP_INNER)
        links.shape(link, mtu=spec.mtu, address=mac_address(spec.dhcp.mac))
        links.shape(link, state="up")
        links.ensure_addresses(link, addresses)
        served = {subnet_id for subnet_id, _ in spec.dhcp.addresses}
        links.ensure_routes(
            Route(str(prefix), None, link.index) for subnet_id, prefix in prefixes.items() if subnet_id not in served
        )
