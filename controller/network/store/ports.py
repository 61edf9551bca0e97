"""SQL of ports: rows, their addresses and groups, always read together and in a constant number of queries."""

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from controller.context import Context
from controller.db.tables.network import ip_allocation, network, port, port_security_group
from controller.db.tx import Tx
from controller.http.paging import Visible, constant
from controller.network.errors import PortNotFound
from controller.network.model import INFRASTRUCTURE_OWNERS, Fixed, Port, from_row
from controller.network.store import forwarding, networks, rows

_GET = sa.select(port).where(port.c.id == sa.bindparam("id"))
_ADDRESSES = (
    sa.select(ip_allocation.c.port_id, ip_allocation.c.subnet_id, ip_allocation.c.address)
    .where(ip_allocation.c.port_id.in_(sa.bindparam("ids", expanding=True)))
    .order_by(ip_allocation.c.port_id, ip_allocation.c.number)
)
_GROUPS = (
    sa.select(port_security_group.c.port_id, port_security_group.c.group_id)
    .where(port_security_group.c.port_id.in_(sa.bindparam("ids", expanding=True)))
    .order_by(port_security_group.c.port_id, port_security_group.c.group_id)
)
_BY_DEVICES = (
    sa.select(port)
    .where(port.c.device_id.in_(sa.bindparam("ids", expanding=True)))
    .order_by(port.c.created_at, port.c.id)
)
_BY_HOST = (
    sa.select(port)
    .where(sa.or_(port.c.host_id == sa.bindparam("host_id"), port.c.moving_to == sa.bindparam("host_id")))
    .order_by(port.c.id)
)
_WHEREABOUTS = {"host_id", "mac_address", "device_owner"}
"""What other hosts are told of a port, besides its addresses."""


_PROJECT: sa.BindParameter[str] = sa.bindparam("project_id")
_AROUND = port.c.network_id.in_(sa.select(network.c.id).where(network.c.project_id == _PROJECT))
_VISIBLE = (
    constant(port.c.project_id == _PROJECT),
    # Others' ports on one's own networks are few: said as two ranges of the index on (network, project).
    constant(sa.and_(_AROUND, port.c.project_id < _PROJECT)),
    constant(sa.and_(_AROUND, port.c.project_id > _PROJECT)),
)


def visible(ctx: Context) -> Visible:
    """What the caller may see: everything for admins, else their own and those on their own networks."""
    return () if ctx.is_admin else _VISIBLE


def get(tx: Tx, ctx: Context, port_id: str) -> Port:
    """One port, if the caller may see it. Raises PortNotFound."""
    found = find(tx, port_id)
    if found is None:
        raise PortNotFound(port_id)
    if not (ctx.is_admin or found.project_id == ctx.project_id):
        around = networks.find(tx, found.network_id)
        if around is None or around.project_id != ctx.project_id:
            raise PortNotFound(port_id)
    return found


def find(tx: Tx, port_id: str) -> Port | None:
    """One port, whoever owns it."""
    found = complete(tx, tx.execute(_GET, {"id": port_id}).all())
    return found[0] if found else None


def of_devices(tx: Tx, device_ids: Iterable[str]) -> list[Port]:
    """The ports of some devices, oldest first."""
    return complete(tx, tx.execute(_BY_DEVICES, {"ids": list(device_ids)}).all())


def on_host(tx: Tx, host_id: str) -> list[Port]:
    """The ports bound to a host, and those that are moving there."""
    return complete(tx, tx.execute(_BY_HOST, {"host_id": host_id}).all())


def on_network(tx: Tx, network_id: str) -> list[Port]:
    """The ports of a network, oldest first."""
    query = sa.select(port).where(port.c.network_id == network_id).order_by(port.c.created_at, port.c.id)
    return complete(tx, tx.execute(query).all())


def with_mac(tx: Tx, network_id: str, mac: str) -> str | None:
    """The port of a network that has a MAC, or None."""
    query = sa.select(port.c.id).where(port.c.network_id == network_id, port.c.mac_address == mac)
    return tx.execute(query).scalar()


def free_mac(tx: Tx, network_id: str, port_id: str) -> str:
    """A MAC that follows from the port's id and that no port of the network has.

    Locally administered, under OpenStack's usual prefix: 24 bits are ours, so that two ports of a large network do
    come to the same first choice.
    """
    for attempt in itertools.count():
        text = port_id if attempt == 0 else f"{port_id}/{attempt}"
        digest = hashlib.sha256(text.encode()).hexdigest()
        mac = f"fa:16:3e:{digest[0:2]}:{digest[2:4]}:{digest[4:6]}"
        if with_mac(tx, network_id, mac) is None:
            return mac
    raise AssertionError("counting does not end")


def on_subnet(tx: Tx, subnet_id: str) -> list[Port]:
    """The ports that have an address of a subnet."""
    holders = sa.select(ip_allocation.c.port_id).where(ip_allocation.c.subnet_id == subnet_id)
    return complete(tx, tx.execute(sa.select(port).where(port.c.id.in_(holders)).order_by(port.c.id)).all())


def complete(tx: Tx, found: Sequence[Any]) -> list[Port]:
    """Rows of `port` with their addresses and groups: two more queries, however many rows."""
    if not found:
        return []
    ids = {"ids": [row.id for row in found]}
    addresses: defaultdict[str, list[Fixed]] = defaultdict(list)
    for one in tx.execute(_ADDRESSES, ids):
        addresses[one.port_id].append(Fixed(subnet_id=one.subnet_id, ip_address=one.address))
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for member in tx.execute(_GROUPS, ids):
        groups[member.port_id].append(member.group_id)
    return [
        from_row(Port, row, fixed_ips=tuple(addresses[row.id]), security_groups=tuple(groups[row.id])) for row in found
    ]


def insert(tx: Tx, new: Port) -> None:
    """A port's row. Its addresses and groups have functions of their own."""
    rows.insert(tx, port, new)
    if new.host_id and new.device_owner not in INFRASTRUCTURE_OWNERS:
        forwarding.changed(tx, new.network_id, new.id)


def update(tx: Tx, port_id: str, now: float, **values: Any) -> None:
    """Change columns; the revision users see and the generation hosts see rise with it."""
    if "host_id" in values:
        forwarding.port_changed(tx, port_id, is_leaving=True)
    rows.revise(tx, port, port_id, now, {**values, "generation": port.c.generation + 1})
    if _WHEREABOUTS & values.keys():
        forwarding.port_changed(tx, port_id)


def delete(tx: Tx, port_id: str) -> None:
    """A port with its addresses and memberships."""
    forwarding.port_changed(tx, port_id, is_leaving=True)
    for table in (ip_allocation, port_security_group):
        tx.execute(sa.delete(table).where(table.c.port_id == port_id))
    tx.execute(sa.delete(port).where(port.c.id == port_id))


def set_groups(tx: Tx, port_id: str, group_ids: Iterable[str]) -> None:
    """The groups of a port, all at once."""
    tx.execute(sa.delete(port_security_group).where(port_security_group.c.port_id == port_id))
    rows = [{"port_id": port_id, "group_id": group_id} for group_id in dict.fromkeys(group_ids)]
    if rows:
        tx.execute(sa.insert(port_security_group), rows)
