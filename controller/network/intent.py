"""What a host's network should be, read from rows: pure queries and rendering, no messages.

A network is on a host if a port is; a router if one of its networks is (so that each host routes for its own guests),
and then its other networks too; a group if a port on the host has it; a group's member addresses if a rule of such a
group names it as remote. The gateway of a router is on one host only, which has that router and its networks for it.
What is behind a network's tunnels is for hosts that share the network with others.
"""

import ipaddress
from collections.abc import Iterable
from typing import Any

import msgspec
import sqlalchemy as sa

from agent.wire.forwarding import ForwardingSpec
from agent.wire.group import AddressesSpec, GroupSpec, RuleSpec
from agent.wire.lifecycle import Generation
from agent.wire.network import DhcpPort, NetworkSpec, SubnetSpec
from agent.wire.port import AddressPair, FixedIp, PortSpec
from agent.wire.router import FloatingSpec, GatewaySpec, LegSpec, RouterSpec
from controller.db.tables.fleet import host
from controller.db.tables.network import (
    floating_ip,
    forwarding,
    host_object,
    network,
    port,
    router,
    security_group,
)
from controller.db.tx import Tx
from controller.network.groups import normalized_cidr, protocol_number
from controller.network.model import (
    DHCP_OWNER,
    GATEWAY_OWNER,
    INFRASTRUCTURE_OWNERS,
    ROUTER_OWNER,
    Group,
    Network,
    Port,
    Router,
    Subnet,
    from_row,
)
from controller.network.store import forwarding as forwarding_store
from controller.network.store import groups, members, networks, ports, subnets
from controller.network.store.host_objects import Key

NETWORK, FORWARDING = "network", "forwarding"
GROUP, ADDRESSES, ROUTER, PORT = "group", "addresses", "router", "port"

UNSET = Generation(0, 0)
"""Replaced when the host's generation of the object is known."""


_MEMBERS = sa.select(security_group.c.id, security_group.c.members_generation).where(
    security_group.c.id.in_(sa.bindparam("ids", expanding=True))
)
_LEGS = sa.select(port.c.device_id).where(
    port.c.network_id.in_(sa.bindparam("networks", expanding=True)), port.c.device_owner == ROUTER_OWNER
)
_ROUTERS_OF = sa.select(router).where(router.c.id.in_(_LEGS), router.c.id.not_in(sa.bindparam("seen", expanding=True)))
_JOINED = sa.select(port.c.device_id, port.c.network_id).where(
    port.c.device_id.in_(sa.bindparam("routers", expanding=True)), port.c.device_owner == ROUTER_OWNER
)
_BEHIND_GATEWAYS = (
    sa.select(port.c.network_id)
    .join(router, router.c.id == port.c.device_id)
    .where(
        router.c.gateway_host_id == sa.bindparam("host_id"),
        router.c.gateway_network_id.is_not(None),
        port.c.device_owner == ROUTER_OWNER,
    )
)
_WITH_GUESTS = (
    sa.select(port.c.network_id)
    .where(
        port.c.network_id.in_(sa.bindparam("networks", expanding=True)),
        port.c.host_id != "",
        port.c.device_owner.not_in(sorted(INFRASTRUCTURE_OWNERS)),
    )
    .distinct()
)


def needs(tx: Tx, host_id: str, some: Iterable[Port], *, is_all: bool = True) -> dict[Key, int]:
    """The shared objects that these ports need on their host, with each object's own generation.

    With `is_all` they are all of the host's, and what it needs besides (gateways) is added.
    """
    guests = [one for one in some if one.device_owner not in INFRASTRUCTURE_OWNERS]
    beginning = {one.network_id for one in guests}
    if is_all:
        beginning |= _behind_gateways(tx, host_id)
    joined = _closure(tx, host_id, beginning)
    found = networks.some(tx, joined.networks)
    versions: dict[Key, int] = {(NETWORK, one.id): one.generation for one in found}
    shared = forwarding_store.shared(tx, host_id, {one.id for one in found if one.network_type == "vxlan"})
    versions |= {(FORWARDING, one): version for one, version in forwarding_store.versions(tx, shared).items()}
    used = groups.some(tx, {group_id for one in guests for group_id in one.security_groups})
    versions |= {(GROUP, one.id): one.generation for one in used}
    remotes = {rule.remote_group_id for group in used for rule in group.rules if rule.remote_group_id}
    members = tx.execute(_MEMBERS, {"ids": sorted(remotes)})
    versions |= {(ADDRESSES, row.id): row.members_generation for row in members}
    return versions | {(ROUTER, one.id): one.generation for one in joined.routers}


class _Joined(msgspec.Struct, frozen=True):
    """Networks and routers that belong together."""

    networks: set[str]
    routers: list[Router]
    legs: dict[str, set[str]]  # Networks by router.


def _closure(tx: Tx, host_id: str, network_ids: set[str]) -> _Joined:
    """Networks and routers that belong together with these networks, through any chain of routers."""
    seen: dict[str, Router] = {}
    legs: dict[str, set[str]] = {}
    reached = set(network_ids)
    frontier = set(network_ids)
    while frontier:
        found = tx.execute(_ROUTERS_OF, {"networks": sorted(frontier), "seen": sorted(seen)})
        fresh = [from_row(Router, row) for row in found]
        seen |= {one.id: one for one in fresh}
        for router_id, network_id in tx.execute(_JOINED, {"routers": [one.id for one in fresh]}) if fresh else ():
            legs.setdefault(router_id, set()).add(network_id)
        beyond = {network_id for one in fresh for network_id in legs.get(one.id, ())}
        # Through an external network everybody would be joined with everybody: it is reached, but not passed.
        gateways = {one.gateway_network_id for one in fresh if one.gateway_network_id}
        here = {one.gateway_network_id for one in fresh if one.gateway_network_id and one.gateway_host_id == host_id}
        frontier = beyond - reached - gateways
        reached |= beyond | here
    return _Joined(reached, list(seen.values()), legs)


def _behind_gateways(tx: Tx, host_id: str) -> set[str]:
    """Networks that a host needs for the gateways it has: those whose routers have a guest anywhere."""
    own = set(tx.execute(_BEHIND_GATEWAYS, {"host_id": host_id}).scalars())
    if not own:
        return own
    joined = _closure(tx, host_id, own)
    alive = set(tx.execute(_WITH_GUESTS, {"networks": sorted(joined.networks)}).scalars())
    before = -1
    while len(alive) != before:
        before = len(alive)
        for some in joined.legs.values():
            if some & alive:
                alive |= some
    return own & alive


def version(tx: Tx, key: Key) -> int | None:
    """One shared object's own generation; None if its row is gone."""
    noun, object_id = key
    if noun == FORWARDING:
        return forwarding_store.versions(tx, [object_id]).get(object_id)
    column = security_group.c.members_generation if noun == ADDRESSES else _TABLES[noun].c.generation
    return tx.execute(sa.select(column).where(_TABLES[noun].c.id == object_id)).scalar()


def spec(tx: Tx, host_id: str, key: Key) -> Any | None:
    """The wire spec of one shared object for one host, with generation UNSET; None if its row is gone."""
    noun, object_id = key
    if noun == FORWARDING:
        return forwarding_spec(tx, host_id, object_id)
    if noun == ROUTER:
        return router_spec(tx, host_id, object_id)
    return _RENDER[noun](tx, object_id)


def existing(tx: Tx, keys: Iterable[Key]) -> set[Key]:
    """Those of the objects whose rows are there."""
    ids: dict[str, list[str]] = {}
    for noun, object_id in keys:
        ids.setdefault(noun, []).append(object_id)
    found: set[Key] = set()
    for noun, some in ids.items():
        column = forwarding.c.network_id if noun == FORWARDING else _TABLES[noun].c.id
        found |= {(noun, one) for one in tx.execute(sa.select(column).where(column.in_(some))).scalars()}
    return found


def network_spec(tx: Tx, network_id: str) -> NetworkSpec | None:
    """A network with its subnets and DHCP port."""
    found = networks.find(tx, network_id)
    if found is None:
        return None
    query = sa.select(port).where(port.c.network_id == network_id, port.c.device_owner == DHCP_OWNER)
    served = ports.complete(tx, tx.execute(query).all())
    return render_network(found, subnets.of_networks(tx, [network_id]), served[0] if served else None)


def render_network(one: Network, parts: Iterable[Subnet], dhcp: Port | None) -> NetworkSpec:
    """Pure."""
    leg = None
    if dhcp is not None:
        addresses = tuple((fixed.subnet_id, fixed.ip_address) for fixed in dhcp.fixed_ips)
        leg = DhcpPort(port_id=dhcp.id, mac=dhcp.mac_address, addresses=addresses)
    return NetworkSpec(
        id=one.id,
        generation=UNSET,
        segment=one.segment,
        mtu=one.mtu,
        physical_network=one.physical_network,
        vlan=one.segment if one.network_type == "vlan" else None,
        subnets=tuple(
            SubnetSpec(
                id=part.id,
                cidr=part.cidr,
                ip_version=part.ip_version,
                gateway=part.gateway_ip,
                dhcp=part.enable_dhcp and one.admin_state_up,
                dns_nameservers=part.dns_nameservers,
                host_routes=tuple((route.destination, route.nexthop) for route in part.host_routes),
                ipv6_ra_mode=part.ipv6_ra_mode,
                ipv6_address_mode=part.ipv6_address_mode,
            )
            for part in parts
        ),
        dhcp=leg,
    )


def forwarding_spec(tx: Tx, host_id: str, network_id: str) -> ForwardingSpec | None:
    """Everything that a host should know of a network's ports on other hosts."""
    if network_id not in forwarding_store.versions(tx, [network_id]):
        return None
    found = forwarding_store.peers(tx, network_id, host_id)
    return ForwardingSpec(id=network_id, generation=UNSET, peers=tuple(found))


def group_spec(tx: Tx, group_id: str) -> GroupSpec | None:
    """A group with its rules."""
    found = groups.find(tx, group_id)
    return render_group(found) if found is not None else None


def render_group(group: Group) -> GroupSpec:
    """Pure."""
    rules = tuple(
        RuleSpec(
            id=rule.id,
            direction=rule.direction,
            ethertype=rule.ethertype,
            protocol="ipv6-icmp" if protocol_number(rule.protocol, rule.ethertype) == 58 else rule.protocol,
            port_min=rule.port_min,
            port_max=rule.port_max,
            remote_cidr=normalized_cidr(rule.remote_ip_prefix),
            remote_group=rule.remote_group_id,
        )
        for rule in group.rules
    )
    return GroupSpec(id=group.id, generation=UNSET, rules=rules)


def addresses_spec(tx: Tx, group_id: str) -> AddressesSpec | None:
    """Every address of every port that has the group, and the address pairs those ports may use."""
    return AddressesSpec(id=group_id, generation=UNSET, addresses=members.of_group(tx, group_id))


def router_spec(tx: Tx, host_id: str, router_id: str) -> RouterSpec | None:
    """A router with its legs; on its gateway's host with its gateway and the floating IPs behind it."""
    row = tx.execute(sa.select(router).where(router.c.id == router_id)).one_or_none()
    if row is None:
        return None
    found: Router = from_row(Router, row)
    attached = [one for one in ports.of_devices(tx, [router_id]) if one.device_owner in (ROUTER_OWNER, GATEWAY_OWNER)]
    by_id = {one.id: one for one in subnets.of_networks(tx, {leg.network_id for leg in attached})}
    floating = tx.execute(sa.select(floating_ip).where(floating_ip.c.router_id == router_id).order_by(floating_ip.c.id))
    gateway = next((leg for leg in attached if leg.device_owner == GATEWAY_OWNER), None)
    is_here = found.gateway_host_id == host_id
    return RouterSpec(
        id=found.id,
        generation=UNSET,
        legs=tuple(
            LegSpec(port_id=leg.id, network_id=leg.network_id, mac=leg.mac_address, addresses=_prefixed(leg, by_id))
            for leg in attached
            if leg.device_owner == ROUTER_OWNER
        ),
        gateway=_gateway(found, gateway, by_id) if gateway is not None and is_here else None,
        gateway_end="" if gateway is None or is_here else _end(tx, found.gateway_host_id),
        floating=tuple(
            FloatingSpec(id=one.id, address=one.address, fixed=one.fixed_address)
            for one in floating
            if one.fixed_address is not None and is_here
        ),
        routes=tuple((route.destination, route.nexthop) for route in found.routes),
        is_up=found.admin_state_up,
    )


def _end(tx: Tx, host_id: str) -> str:
    return tx.execute(sa.select(host.c.underlay_address).where(host.c.id == host_id)).scalar() or ""


def _gateway(found: Router, leg: Port, parts: dict[str, Subnet]) -> GatewaySpec:
    hops = {parts[fixed.subnet_id].gateway_ip for fixed in leg.fixed_ips}
    return GatewaySpec(
        port_id=leg.id,
        network_id=leg.network_id,
        mac=leg.mac_address,
        addresses=_prefixed(leg, parts),
        next_hops=tuple(sorted(hop for hop in hops if hop)),
        snat=found.enable_snat,
    )


def _prefixed(leg: Port, parts: dict[str, Subnet]) -> tuple[str, ...]:
    return tuple(
        f"{fixed.ip_address}/{ipaddress.ip_network(parts[fixed.subnet_id].cidr).prefixlen}" for fixed in leg.fixed_ips
    )


def port_spec(one: Port, epoch: int) -> PortSpec:
    """A bound port as its host should have it; its generation is its row's. Pure."""
    return PortSpec(
        id=one.id,
        generation=Generation(epoch, one.generation),
        network_id=one.network_id,
        domain_id=one.device_id,
        mac=one.mac_address,
        fixed_ips=tuple(FixedIp(subnet_id=fixed.subnet_id, address=fixed.ip_address) for fixed in one.fixed_ips),
        hostname=one.hostname,
        groups=one.security_groups,
        port_security=one.port_security_enabled,
        allowed_pairs=tuple(
            AddressPair(cidr=pair.ip_address, mac=pair.mac_address) for pair in one.allowed_address_pairs
        ),
        is_up=one.admin_state_up,
    )


def hosts_with_ports(tx: Tx) -> list[str]:
    """Every host that has a port bound or a gateway, or has, or had, a shared object."""
    queries = (
        sa.select(port.c.host_id).where(port.c.host_id != "").distinct(),
        sa.select(port.c.moving_to).where(port.c.moving_to != "").distinct(),
        sa.select(router.c.gateway_host_id).where(router.c.gateway_host_id != "").distinct(),
        sa.select(host_object.c.host_id).distinct(),
    )
    return sorted({host_id for query in queries for host_id in tx.execute(query).scalars()})


_RENDER = {NETWORK: network_spec, GROUP: group_spec, ADDRESSES: addresses_spec}
_TABLES = {NETWORK: network, GROUP: security_group, ADDRESSES: security_group, ROUTER: router, PORT: port}
