"""SQL of subnets and of the addresses given out of them."""

import ipaddress
from collections.abc import Iterable

import sqlalchemy as sa

from controller.db.tables.network import ip_allocation, subnet
from controller.db.tx import Tx
from controller.network.addresses import number
from controller.network.model import Subnet, from_row

_GET = sa.select(subnet).where(subnet.c.id == sa.bindparam("id"))
_OF_NETWORKS = (
    sa.select(subnet)
    .where(subnet.c.network_id.in_(sa.bindparam("ids", expanding=True)))
    .order_by(subnet.c.created_at, subnet.c.id)
)
_HOLDER = sa.select(ip_allocation.c.port_id).where(
    ip_allocation.c.subnet_id == sa.bindparam("subnet_id"), ip_allocation.c.address == sa.bindparam("address")
)


def find(tx: Tx, subnet_id: str) -> Subnet | None:
    """One subnet, whoever owns it."""
    row = tx.execute(_GET, {"id": subnet_id}).one_or_none()
    return from_row(Subnet, row) if row is not None else None


def of_networks(tx: Tx, network_ids: Iterable[str]) -> list[Subnet]:
    """The subnets of some networks, oldest first."""
    return [from_row(Subnet, row) for row in tx.execute(_OF_NETWORKS, {"ids": list(network_ids)})]


def holder(tx: Tx, subnet_id: str, address: str) -> str | None:
    """The port that has an address, or None."""
    return tx.execute(_HOLDER, {"subnet_id": subnet_id, "address": address}).scalar()


def give(tx: Tx, one: Subnet, address: str, port_id: str) -> None:
    """Give an address to a port. The primary key refuses a second holder."""
    values = {"subnet_id": one.id, "network_id": one.network_id, "address": address, "port_id": port_id}
    tx.execute(sa.insert(ip_allocation).values(number=number(ipaddress.ip_address(address)), **values))


def take(tx: Tx, port_id: str, subnet_id: str | None = None) -> None:
    """Take back a port's addresses, all or those of one subnet."""
    query = sa.delete(ip_allocation).where(ip_allocation.c.port_id == port_id)
    tx.execute(query if subnet_id is None else query.where(ip_allocation.c.subnet_id == subnet_id))
