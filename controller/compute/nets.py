"""Servers and the network: what a request asks for, and what GET shows of ports, addresses and groups.

The network service owns ports and groups; here is only what Nova's API makes of them.
"""

from collections.abc import Iterable, Sequence

import msgspec
import sqlalchemy as sa

from controller.compute import store
from controller.compute.model import Server
from controller.context import Context
from controller.db.tables.compute import server as server_table
from controller.db.tables.compute import server_nic
from controller.db.tables.network import (
    floating_ip,
    ip_allocation,
    network,
    port,
    port_security_group,
    security_group,
)
from controller.db.tx import Tx
from controller.errors import Conflict, Invalid, NotFound
from controller.network import guest as network_guest
from controller.network import ports as network_ports
from controller.network.model import Group
from controller.network.store import groups as group_store
from controller.network.store import members
from controller.network.store import ports as port_store


class Address(msgspec.Struct, frozen=True):
    """One address of a port. `floating` are those in front of it."""

    address: str
    subnet_id: str
    floating: tuple[str, ...]


class PortShown(msgspec.Struct, frozen=True):
    """A server's port as the compute API shows it."""

    port_id: str
    network_id: str
    network_name: str
    mac: str
    status: str
    addresses: tuple[Address, ...]


class Shown(msgspec.Struct, frozen=True):
    """What GET shows of a server's network."""

    ports: tuple[PortShown, ...] = ()
    groups: tuple[str, ...] = ()


NOTHING = Shown()

_GIVEN = sa.exists().where(
    server_nic.c.port_id == port.c.id, server_nic.c.server_id == port.c.device_id, server_nic.c.mac.is_not(None)
)
_BOUND = sa.or_(port.c.host_id != "", _GIVEN)
"""Anyone may write any device id into a port of theirs; what makes one a server's is that it is bound to a host, or,
while the server is on none, that the server was given it."""

_PORTS = (
    sa.select(
        port.c.device_id,
        port.c.id,
        port.c.network_id,
        network.c.name,
        port.c.mac_address,
        port.c.status,
        ip_allocation.c.address,
        ip_allocation.c.subnet_id,
        floating_ip.c.address.label("floating"),
    )
    .select_from(
        port.join(network, network.c.id == port.c.network_id)
        .outerjoin(ip_allocation, ip_allocation.c.port_id == port.c.id)
        .outerjoin(
            floating_ip,
            sa.and_(floating_ip.c.port_id == port.c.id, floating_ip.c.fixed_address == ip_allocation.c.address),
        )
    )
    .where(port.c.device_id.in_(sa.bindparam("ids", expanding=True)), _BOUND)
    .order_by(port.c.created_at, port.c.id, ip_allocation.c.number, floating_ip.c.address)
)
_GROUPS = (
    sa.select(port.c.device_id, security_group.c.name)
    .select_from(
        port.join(port_security_group, port_security_group.c.port_id == port.c.id).join(
            security_group, security_group.c.id == port_security_group.c.group_id
        )
    )
    .where(port.c.device_id.in_(sa.bindparam("ids", expanding=True)), _BOUND)
    .order_by(security_group.c.name)
    .distinct()
)


def shown(tx: Tx, server_ids: Sequence[str]) -> dict[str, Shown]:
    """The network of many servers: two queries, however many there are."""
    if not server_ids:
        return {}
    ids = {"ids": list(server_ids)}
    made: dict[str, dict[str, PortShown]] = {}
    for device, port_id, network_id, name, mac, status, address, subnet_id, floating in tx.execute(_PORTS, ids).all():
        known = made.setdefault(device, {})
        before = known.get(port_id) or PortShown(port_id, network_id, name, mac, status, ())
        known[port_id] = _with(before, address, subnet_id, floating)
    groups: dict[str, list[str]] = {}
    for device, name in tx.execute(_GROUPS, ids).all():
        groups.setdefault(device, []).append(name)
    return {device: Shown(tuple(found.values()), tuple(groups.get(device, ()))) for device, found in made.items()}


def _with(before: PortShown, address: str | None, subnet_id: str | None, floating: str | None) -> PortShown:
    if address is None or subnet_id is None:
        return before
    fronts = () if floating is None else (floating,)
    last = before.addresses[-1] if before.addresses else None
    if last is not None and last.address == address:
        addresses = (*before.addresses[:-1], Address(address, subnet_id, (*last.floating, *fronts)))
    else:
        addresses = (*before.addresses, Address(address, subnet_id, fronts))
    return PortShown(before.port_id, before.network_id, before.network_name, before.mac, before.status, addresses)


def note_network(tx: Tx, server_id: str) -> None:
    """Keep what the guest is told of its network, as of now: part of a transaction that raises the generation."""
    for found in shown(tx, [server_id]).get(server_id, NOTHING).ports:
        addresses = [one.address for one in found.addresses]
        store.set_nic(tx, found.port_id, server_id, {"addresses": addresses})
    plugged = {nic.port_id for nic in store.nics(tx, server_id) if nic.mac is not None}
    document = network_guest.network_data(tx, server_id, plugged)
    store.set_network_data(tx, server_id, msgspec.json.encode(document, order="sorted").decode())


_IS_LOST = sa.and_(
    server_nic.c.mac.is_not(None),  # It was bound once.
    sa.not_(sa.exists().where(port.c.id == server_nic.c.port_id)),
)
_BEREFT = (
    sa.select(server_nic.c.server_id)
    .join(server_table, server_table.c.id == server_nic.c.server_id)
    .where(_IS_LOST, store.LIVE, server_table.c.is_deleting.is_(False), server_table.c.launched_at.is_not(None))
    .distinct()
    .order_by(server_nic.c.server_id)
    .limit(sa.bindparam("limit"))
)


def find_bereft(tx: Tx, limit: int) -> list[str]:
    """Servers that are defined with a port which is there no more. (One that was never made fails by itself.)"""
    return list(tx.execute(_BEREFT, {"limit": limit}).scalars())


def drop_lost(tx: Tx, server_id: str) -> None:
    """The server goes on without the ports that are gone, at a new generation; nothing if none is."""
    gone = sa.delete(server_nic).where(server_nic.c.server_id == server_id, _IS_LOST)
    if tx.execute(gone).rowcount:
        store.bump(tx, server_id)
        note_network(tx, server_id)


def group_ids(tx: Tx, ctx: Context, names: Iterable[str], now: float) -> list[str]:
    """The project's security groups by name or id. Raises Invalid for unknown ones, Conflict for a name of two."""
    found: list[str] = []
    for name in dict.fromkeys(names):
        if name == "default":
            found.append(group_store.ensure_default(tx, ctx.project, now))
            continue
        found.append(_group_id(tx, ctx.project, name))
    return list(dict.fromkeys(found))


def _group_id(tx: Tx, project_id: str, name: str) -> str:
    mine = security_group.c.project_id == project_id
    named = sa.or_(security_group.c.id == name, security_group.c.name == name)
    ids: list[str] = list(tx.execute(sa.select(security_group.c.id).where(mine, named)).scalars())
    if name in ids:
        return name
    if not ids:
        raise Invalid(f"Security group {name} not found for project {project_id}.")
    if len(ids) > 1:
        raise Conflict(f"Multiple security groups found matching '{name}'. Use an ID to be more specific.")
    return ids[0]


def groups_of(tx: Tx, server_id: str) -> list[Group]:
    """The security groups of a server's ports, with their rules, by name."""
    ids = {group_id for one in network_ports.of_servers(tx, [server_id]) for group_id in one.security_groups}
    return sorted(group_store.some(tx, ids), key=lambda group: (group.project_id, group.name))


def named_groups(tx: Tx, group_ids: Iterable[str]) -> dict[str, Group]:
    """Groups that rules refer to, by id."""
    return {group.id: group for group in group_store.some(tx, group_ids)}


def add_group(tx: Tx, server: Server, name: str, now: float) -> None:
    """Put a group on every port of the server. Raises NotFound, or Conflict when there is no port."""
    group_id = _group_of(tx, server, name)
    changed = False
    for one in network_ports.of_servers(tx, [server.id]):
        if one.port_security_enabled and group_id not in one.security_groups:
            _regroup(tx, one.id, [*one.security_groups, group_id], [group_id], now)
            changed = True
    if not changed and not shown(tx, [server.id]):
        raise Conflict(f"instance_id {server.id} could not be found as device id on any ports")


def remove_group(tx: Tx, server: Server, name: str, now: float) -> None:
    """Take a group off every port of the server. Raises NotFound when none has it."""
    group_id = _group_of(tx, server, name)
    having = [one for one in network_ports.of_servers(tx, [server.id]) if group_id in one.security_groups]
    if not having:
        raise NotFound(f"Security group {name} not associated with the instance {server.id}")
    for one in having:
        left = [other for other in one.security_groups if other != group_id]
        _regroup(tx, one.id, left, [group_id], now)


def _group_of(tx: Tx, server: Server, name: str) -> str:
    try:
        return _group_id(tx, server.project_id, name)
    except Invalid as error:
        raise NotFound(error.message) from error


def _regroup(tx: Tx, port_id: str, group_ids: list[str], moved: list[str], now: float) -> None:
    port_store.set_groups(tx, port_id, group_ids)
    port_store.update(tx, port_id, now)
    members.changed(tx, moved, port_id)
