"""SQL of ports: rows, their addresses and groups, always read together and in a constant number of queries."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from controller.db.tables.network import ip_allocation, port, port_security_group, security_group
from controller.db.tx import Tx
from controller.network.model import Fixed, Port, from_row

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
_BY_HOST = sa.select(port).where(port.c.host_id == sa.bindparam("host_id")).order_by(port.c.id)


def find(tx: Tx, port_id: str) -> Port | None:
    """One port, whoever owns it."""
    found = complete(tx, tx.execute(_GET, {"id": port_id}).all())
    return found[0] if found else None


def of_devices(tx: Tx, device_ids: Iterable[str]) -> list[Port]:
    """The ports of some devices, oldest first."""
    return complete(tx, tx.execute(_BY_DEVICES, {"ids": list(device_ids)}).all())


def on_host(tx: Tx, host_id: str) -> list[Port]:
    """The ports bound to a host."""
    return complete(tx, tx.execute(_BY_HOST, {"host_id": host_id}).all())


def complete(tx: Tx, rows: Sequence[Any]) -> list[Port]:
    """Rows of `port` with their addresses and groups: two more queries, however many rows."""
    if not rows:
        return []
    ids = {"ids": [row.id for row in rows]}
    addresses: defaultdict[str, list[Fixed]] = defaultdict(list)
    for one in tx.execute(_ADDRESSES, ids):
        addresses[one.port_id].append(Fixed(subnet_id=one.subnet_id, ip_address=one.address))
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for member in tx.execute(_GROUPS, ids):
        groups[member.port_id].append(member.group_id)
    return [
        from_row(Port, row, fixed_ips=tuple(addresses[row.id]), security_groups=tuple(groups[row.id])) for row in rows
    ]


def insert(tx: Tx, new: Port) -> None:
    """A port's row. Its addresses and groups have functions of their own."""
    values = {column.name: getattr(new, column.name) for column in port.columns}
    values["allowed_address_pairs"] = [
        {"ip_address": pair.ip_address, "mac_address": pair.mac_address} for pair in new.allowed_address_pairs
    ]
    tx.execute(sa.insert(port).values(values))


def update(tx: Tx, port_id: str, now: float, **values: Any) -> None:
    """Change columns; the revision users see and the generation hosts see rise with it."""
    raised = {"revision": port.c.revision + 1, "generation": port.c.generation + 1, "updated_at": now}
    tx.execute(sa.update(port).where(port.c.id == port_id).values({**raised, **values}))


def delete(tx: Tx, port_id: str) -> None:
    """A port with its addresses and memberships."""
    for table in (ip_allocation, port_security_group):
        tx.execute(sa.delete(table).where(table.c.port_id == port_id))
    tx.execute(sa.delete(port).where(port.c.id == port_id))


def set_groups(tx: Tx, port_id: str, group_ids: Iterable[str]) -> None:
    """The groups of a port, all at once."""
    tx.execute(sa.delete(port_security_group).where(port_security_group.c.port_id == port_id))
    rows = [{"port_id": port_id, "group_id": group_id} for group_id in dict.fromkeys(group_ids)]
    if rows:
        tx.execute(sa.insert(port_security_group), rows)


def members_changed(tx: Tx, group_ids: Iterable[str]) -> None:
    """Hosts must learn anew which addresses belong to these groups."""
    ids = sorted(set(group_ids))
    if ids:
        raised = {"members_generation": security_group.c.members_generation + 1}
        tx.execute(sa.update(security_group).where(security_group.c.id.in_(ids)).values(raised))
