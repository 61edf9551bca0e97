"""Links, addresses and routes of one network namespace, brought to a wanted state over netlink (pyroute2).

`opened()` works on the namespace of the calling thread; to work on another, call through `netns.call`. Functions
compare before they write, so a second run changes nothing and disturbs no traffic.
"""

import contextlib
import ipaddress
import socket
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any, Final

import msgspec
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from agent.wire.errors import Failed
from drivers.network import names, netns
from drivers.network.forwarding import EVERYBODY
from drivers.network.names import Alias

_ALIAS_BYTES_MAX: Final = 255
_PROTO_KERNEL: Final = 2
_PROTO_STATIC: Final = 4
_TABLE_MAIN: Final = 254
_UNICAST: Final = 1
_NUD_NOARP: Final = 0x40
_NUD_PERMANENT: Final = 0x80
_NTF_MASTER: Final = 0x04


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A link as the kernel shows it."""

    index: int
    name: str
    kind: str  # "" for hardware and loopback.
    mac: str
    mtu: int
    master: int  # 0: none.
    is_up: bool
    alias: str
    vlan: int | None
    vni: int | None

    def mark(self, tag: str) -> Alias | None:
        """Our mark on it, if it is this cloud's."""
        alias = names.parse_alias(self.alias)
        return alias if alias is not None and alias.tag == tag else None


class Links:
    """The links of the namespace that the thread was in at `opened`."""

    def __init__(self, ip: IPRoute) -> None:
        self._ip = ip

    def all(self) -> list[Link]:
        """Every link."""
        return [_link(message) for message in self._ip.get_links()]

    def find(self, name: str) -> Link | None:
        """One link by name."""
        try:
            found = self._ip.link("get", ifname=name)
        except NetlinkError as cause:
            if cause.code == 19:  # ENODEV
                return None
            raise
        return _link(found[0]) if found else None

    def get(self, name: str) -> Link:
        """One link by name. Raises Failed."""
        link = self.find(name)
        if link is None:
            raise Failed(f"there is no interface {name}")
        return link

    def add(self, name: str, kind: str, **options: Any) -> Link:
        """Make a link; one that is there already is taken as it is."""
        try:
            self._ip.link("add", ifname=name, kind=kind, **options)
        except NetlinkError as cause:
            if cause.code != 17:  # EEXIST: another thread, or a crash before.
                raise
        return self.get(name)

    def absent(self, name: str) -> None:
        """Delete a link, or nothing."""
        link = self.find(name)
        if link is None:
            return
        try:
            self._ip.link("del", index=link.index)
        except NetlinkError as cause:
            if cause.code != 19:
                raise

    def shape(self, link: Link, **wanted: Any) -> None:
        """Set `mtu`, `master` (an index), `address` and `state` ("up", "down") where they differ."""
        now = {"mtu": link.mtu, "master": link.master, "address": link.mac, "state": "up" if link.is_up else "down"}
        changes = {key: value for key, value in wanted.items() if now[key] != value}
        state = changes.pop("state", None)
        if changes:
            self._ip.link("set", index=link.index, **changes)
        if state:
            self._ip.link("set", index=link.index, state=state)

    def mark(self, link: Link, alias: Alias) -> None:
        """Write our mark on a link."""
        text = alias.text()
        assert len(text) <= _ALIAS_BYTES_MAX, "an alias is as long as an id, and ids are short"
        if link.alias != text:
            self._ip.link("set", index=link.index, ifalias=text)

    def addresses(self, link: Link) -> set[str]:
        """With prefix, as text (`10.0.0.1/24`); without the link-local addresses that the kernel makes itself."""
        found = set()
        for message in self._ip.get_addr(index=link.index):
            if message["index"] != link.index:
                continue
            address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            found.add(f"{ipaddress.ip_address(address)}/{message['prefixlen']}")
        return {text for text in found if not text.startswith("fe80:")} | (found & _OWN_LINK_LOCAL)

    def ensure_addresses(self, link: Link, wanted: Iterable[str]) -> set[str]:
        """Exactly these; returns those that are new."""
        goal = {str(ipaddress.ip_interface(text)) for text in wanted}
        present = self.addresses(link)
        for verb, texts in (("add", goal - present), ("del", present - goal)):
            for text in sorted(texts):
                interface = ipaddress.ip_interface(text)
                with _tolerating(17 if verb == "add" else 99):  # EEXIST, EADDRNOTAVAIL
                    self._ip.addr(
                        verb, index=link.index, address=str(interface.ip), prefixlen=interface.network.prefixlen
                    )
        return goal - present

    def ensure_routes(self, wanted: Iterable["Route"]) -> list[str]:
        """Exactly these beside the kernel's own; returns, for those that the kernel refused, why."""
        goal, present = set(wanted), set(self._routes())
        for route in present - goal:
            with _tolerating(3):  # ESRCH
                self._ip.route("del", **route.arguments())
        refused = []
        for route in sorted(goal - present, key=str):
            try:
                with _tolerating(17):
                    self._ip.route("add", proto=_PROTO_STATIC, **route.arguments())
            except NetlinkError as cause:
                refused.append(f"route to {route.destination} via {route.gateway or route.index}: {cause.args[1]}")
        return refused

    def with_address(self, address: str) -> Link | None:
        """The link that has an address, or None."""
        for message in self._ip.get_addr():
            if (message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")) == address:
                return next((link for link in self.all() if link.index == message["index"]), None)
        return None

    def shape_bridge_port(self, link: Link, **knobs: int) -> None:
        """Set knobs of a port of a bridge (`learning`, `neigh_suppress`)."""
        self._ip.brport("set", index=link.index, **knobs)

    def tunnel_entries(self, link: Link) -> set[tuple[str, str]]:
        """(MAC, tunnel end) of everything that a tunnel knows."""
        found = ((message, message.get_attr("NDA_DST")) for message in self._forwarding(link))
        return {(message.get_attr("NDA_LLADDR"), str(ipaddress.ip_address(end))) for message, end in found if end}

    def ensure_tunnel_entries(
        self, link: Link, wanted: Iterable[tuple[str, str]], known: Set[tuple[str, str]] | None = None
    ) -> None:
        """Exactly these (MAC, tunnel end). New ones come before old ones go; a MAC that moves is never away.

        Here and in the next two, `known` is what is there; without it the kernel is asked, for all of it.
        """
        goal, present = set(wanted), self.tunnel_entries(link) if known is None else known
        for mac, end in sorted(goal - present):
            verb = "append" if mac == EVERYBODY else "replace"
            with _tolerating(17):
                self._ip.fdb(verb, ifindex=link.index, lladdr=mac, dst=end, **_TUNNELED)
        kept = {mac for mac, _ in goal if mac != EVERYBODY}
        for mac, end in sorted(present - goal):
            if mac not in kept:
                with _tolerating(2):
                    self._ip.fdb("del", ifindex=link.index, lladdr=mac, dst=end, **_TUNNELED)

    def static_macs(self, link: Link) -> set[str]:
        """The MACs that a bridge was told to be behind one of its ports."""
        return {
            message.get_attr("NDA_LLADDR")
            for message in self._forwarding(link)
            if message["state"] == _NUD_NOARP and message.get_attr("NDA_DST") is None
        }

    def ensure_static_macs(self, link: Link, wanted: Iterable[str], known: Set[str] | None = None) -> None:
        """Exactly these MACs are behind this port of a bridge, whatever it hears elsewhere."""
        goal, present = set(wanted), self.static_macs(link) if known is None else known
        where: dict[str, Any] = {"ifindex": link.index, "flags": _NTF_MASTER, "state": _NUD_NOARP}
        for mac in sorted(goal - present):
            self._ip.fdb("replace", lladdr=mac, **where)
        for mac in sorted(present - goal):
            with _tolerating(2):
                self._ip.fdb("del", lladdr=mac, **where)

    def neighbours(self, link: Link) -> dict[str, str]:
        """The permanent neighbours of a link: MACs by address."""
        return {
            str(ipaddress.ip_address(message.get_attr("NDA_DST"))): message.get_attr("NDA_LLADDR")
            for family in (socket.AF_INET, socket.AF_INET6)
            for message in self._ip.get_neighbours(family=family, ifindex=link.index)
            if message["ifindex"] == link.index and message["state"] == _NUD_PERMANENT
        }

    def ensure_neighbours(self, link: Link, wanted: Mapping[str, str], known: Mapping[str, str] | None = None) -> None:
        """Exactly these permanent neighbours: MACs by address."""
        present = self.neighbours(link) if known is None else known
        goal = {str(ipaddress.ip_address(address)): mac for address, mac in wanted.items()}
        for address, mac in sorted(goal.items()):
            if present.get(address) != mac:
                self._ip.neigh("replace", dst=address, lladdr=mac, ifindex=link.index, state=_NUD_PERMANENT)
        for address in sorted(present.keys() - goal.keys()):
            with _tolerating(2):
                self._ip.neigh("del", dst=address, ifindex=link.index)

    def _forwarding(self, link: Link) -> list[Any]:
        found = self._ip.fdb("dump", ifindex=link.index)
        return [message for message in found if message["ifindex"] == link.index]

    def ensure_table_route(self, table: int, route: "Route") -> None:
        """One route in a table of its own."""
        self._ip.route("replace", table=table, proto=_PROTO_STATIC, **route.arguments())

    def ensure_rule(self, interface: str, destination: str, table: int, priority: int) -> None:
        """Packets from `interface` to `destination` are routed by `table`."""
        if table not in self._rule_tables(priority):
            with _tolerating(17):
                self._ip.rule("add", iifname=interface, dst=destination, table=table, priority=priority)

    def keep_rules(self, priority: int, tables: set[int]) -> None:
        """Of the rules of this priority only those to these tables."""
        for table in self._rule_tables(priority) - tables:
            with _tolerating(2):  # ENOENT
                self._ip.rule("del", table=table, priority=priority)

    def _rule_tables(self, priority: int) -> set[int]:
        rules = self._ip.get_rules(family=socket.AF_INET)
        found = (rule.get_attr("FRA_TABLE") for rule in rules if rule.get_attr("FRA_PRIORITY") == priority)
        return {table for table in found if table}

    def _routes(self) -> Iterator["Route"]:
        for family in (socket.AF_INET, socket.AF_INET6):
            for message in self._ip.get_routes(family=family, table=_TABLE_MAIN):
                if message["proto"] == _PROTO_KERNEL or message["type"] != _UNICAST:
                    continue
                if (message.get_attr("RTA_TABLE") or message["table"]) != _TABLE_MAIN:
                    continue
                default = "0.0.0.0" if family == socket.AF_INET else "::"
                destination = f"{message.get_attr('RTA_DST') or default}/{message['dst_len']}"
                gateway = message.get_attr("RTA_GATEWAY")
                index = message.get_attr("RTA_OIF")
                yield Route(destination, gateway, index)


class Route(msgspec.Struct, frozen=True):
    """A route by gateway, by interface, or by both (a gateway that is on that link)."""

    destination: str
    gateway: str | None
    index: int

    def arguments(self) -> dict[str, Any]:
        """As pyroute2 takes it."""
        result: dict[str, Any] = {"dst": self.destination, "oif": self.index}
        if self.gateway:
            result["gateway"] = self.gateway
            result["flags"] = ["onlink"]
        return result


_TUNNELED: Final[dict[str, Any]] = {"flags": 0x02, "state": _NUD_NOARP | _NUD_PERMANENT}  # NTF_SELF

_OWN_LINK_LOCAL: Final = frozenset(("fe80::a9fe:a9fe/64",))


@contextlib.contextmanager
def opened() -> Iterator[Links]:
    """The links of the calling thread's namespace. Refusals of the kernel become Failed."""
    try:
        with IPRoute() as ip:
            yield Links(ip)
    except NetlinkError as cause:
        raise Failed(f"the kernel refused a change of the network: {cause.args[-1]}") from cause


def ensure_veth(outer: str, namespace: str, inner: str) -> None:
    """A pair of virtual cables: `outer` here, `inner` inside `namespace`.

    What a crash or a renewed namespace left of a pair is removed first.
    """

    def find_inner() -> Link | None:
        with opened() as links:
            return links.find(inner)

    with opened() as links:
        if links.find(outer) is not None:
            if netns.call(namespace, find_inner) is not None:
                return
            links.absent(outer)
        elif netns.call(namespace, find_inner) is not None:
            netns.call(namespace, lambda: _absent_here(inner))
        links.add(outer, "veth", peer={"ifname": inner, "net_ns_fd": str(netns.path(namespace))})


def _absent_here(name: str) -> None:
    with opened() as links:
        links.absent(name)


@contextlib.contextmanager
def _tolerating(*codes: int) -> Iterator[None]:
    try:
        yield
    except NetlinkError as cause:
        if cause.code not in codes:
            raise


def _link(message: Any) -> Link:
    info = message.get("linkinfo") or {}
    kind = info.get("kind") or ""
    data = info.get("data") or {}
    return Link(
        index=message["index"],
        name=message.get("ifname"),
        kind=kind,
        mac=message.get("address") or "",
        mtu=message.get("mtu") or 0,
        master=message.get("master") or 0,
        is_up=bool(message["flags"] & 1),
        alias=message.get("ifalias") or "",
        vlan=data.get("vlan_id") if kind == "vlan" else None,
        vni=data.get("vxlan_id") if kind == "vxlan" else None,
    )
