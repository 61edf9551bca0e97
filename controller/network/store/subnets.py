"""SQL of subnets and of the addresses given out of them."""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from controller.context import Context
from controller.db.tables.network import ip_allocation, network, subnet
from controller.db.tx import Tx
from controller.http.paging import Visible, constant
from controller.network.addresses import number
from controller.network.errors import SubnetNotFound
from controller.network.model import Subnet, from_row
from controller.network.store import networks, rows

_GET = sa.select(subnet).where(subnet.c.id == sa.bindparam("id"))
_OF_NETWORKS = (
    sa.select(subnet)
    .where(subnet.c.network_id.in_(sa.bindparam("ids", expanding=True)))
    .order_by(subnet.c.created_at, subnet.c.id)
)
_HOLDER = sa.select(ip_allocation.c.port_id).where(
    ip_allocation.c.subnet_id == sa.bindparam("subnet_id"), ip_allocation.c.address == sa.bindparam("address")
)


_VISIBLE = (
    constant(subnet.c.project_id == sa.bindparam("project_id")),
    constant(subnet.c.network_id.in_(sa.select(network.c.id).where(network.c.shared))),
)


def visible(ctx: Context) -> Visible:
    """What the caller may see: everything for admins, else their own and those of shared networks.

    Subnets of an external network that is not shared are the operator's business, as in Neutron.
    """
    return () if ctx.is_admin else _VISIBLE


def find(tx: Tx, subnet_id: str) -> Subnet | None:
    """One subnet, whoever owns it."""
    row = tx.execute(_GET, {"id": subnet_id}).one_or_none()
    return from_row(Subnet, row) if row is not None else None


def get(tx: Tx, ctx: Context, subnet_id: str) -> Subnet:
    """One subnet, if the caller may see it. Raises SubnetNotFound."""
    found = find(tx, subnet_id)
    if found is None:
        raise SubnetNotFound(subnet_id)
    if not (ctx.is_admin or found.project_id == ctx.project_id):
        around = networks.find(tx, found.network_id)
        if around is None or not (around.shared or around.project_id == ctx.project_id):
            raise SubnetNotFound(subnet_id)
    return found


def of_networks(tx: Tx, network_ids: Iterable[str]) -> list[Subnet]:
    """The subnets of some networks, oldest first."""
    return [from_row(Subnet, row) for row in tx.execute(_OF_NETWORKS, {"ids": list(network_ids)})]


def complete(tx: Tx, found: Sequence[Any]) -> list[Subnet]:
    """Rows of `subnet`."""
    return [from_row(Subnet, row) for row in found]


def insert(tx: Tx, new: Subnet) -> None:
    """A subnet's row."""
    rows.insert(tx, subnet, new)


def revise(tx: Tx, subnet_id: str, now: float, changes: Mapping[str, Any]) -> None:
    """Change columns; users see a new revision. The caller raises the network's generation."""
    rows.revise(tx, subnet, subnet_id, now, changes)


def delete(tx: Tx, subnet_id: str) -> None:
    """The row. No address of it may be given any more."""
    tx.execute(sa.delete(subnet).where(subnet.c.id == subnet_id))


def holder(tx: Tx, subnet_id: str, address: str) -> str | None:
    """The port that has an address, or None."""
    return tx.execute(_HOLDER, {"subnet_id": subnet_id, "address": address}).scalar()


def give(tx: Tx, one: Subnet, address: str, port_id: str) -> None:
    """Give an address to a port. The primary key refuses a second holder."""
    values = {"subnet_id": one.id, "network_id": one.network_id, "address": address, "port_id": port_id}
    tx.execute(sa.insert(ip_allocation), {**values, "number": number(ipaddress.ip_address(address))})


def take(tx: Tx, port_id: str, address: str | None = None) -> None:
    """Take back a port's addresses, all or one."""
    query = sa.delete(ip_allocation).where(ip_allocation.c.port_id == port_id)
    tx.execute(query if address is None else query.where(ip_allocation.c.address == address))
