"""SQL of routers."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from controller.context import Context
from controller.db.tables.network import ip_allocation, port, router
from controller.db.tx import Tx
from controller.http.paging import Visible, constant
from controller.network.errors import RouterNotFound
from controller.network.model import ROUTER_OWNER, Fixed, Router, from_row
from controller.network.store import rows

_GET = sa.select(router).where(router.c.id == sa.bindparam("id"))
_GATEWAY_ADDRESSES = (
    sa.select(ip_allocation.c.port_id, ip_allocation.c.subnet_id, ip_allocation.c.address)
    .where(ip_allocation.c.port_id.in_(sa.bindparam("ids", expanding=True)))
    .order_by(ip_allocation.c.port_id, ip_allocation.c.number)
)
_JOINING = (
    sa.select(router, ip_allocation.c.address)
    .join(port, port.c.device_id == router.c.id)
    .join(ip_allocation, ip_allocation.c.port_id == port.c.id)
    .where(
        port.c.device_owner == ROUTER_OWNER,
        ip_allocation.c.subnet_id == sa.bindparam("subnet_id"),
        router.c.gateway_network_id == sa.bindparam("network_id"),
    )
    .order_by(router.c.id)
)


_VISIBLE = (constant(router.c.project_id == sa.bindparam("project_id")),)


def visible(ctx: Context) -> Visible:
    """What the caller may see: everything for admins, else their own."""
    return () if ctx.is_admin else _VISIBLE


def find(tx: Tx, router_id: str) -> Router | None:
    """One router with its gateway's addresses, whoever owns it."""
    found = complete(tx, tx.execute(_GET, {"id": router_id}).all())
    return found[0] if found else None


def get(tx: Tx, ctx: Context, router_id: str) -> Router:
    """One router, if the caller may see it. Raises RouterNotFound."""
    found = find(tx, router_id)
    if found is None or not (ctx.is_admin or found.project_id == ctx.project_id):
        raise RouterNotFound(router_id)
    return found


def complete(tx: Tx, found: Sequence[Any]) -> list[Router]:
    """Rows of `router` with their gateways' addresses: one more query, however many rows."""
    gateways = [row.gateway_port_id for row in found if row.gateway_port_id]
    addresses: defaultdict[str, list[Fixed]] = defaultdict(list)
    if gateways:
        for one in tx.execute(_GATEWAY_ADDRESSES, {"ids": gateways}):
            addresses[one.port_id].append(Fixed(subnet_id=one.subnet_id, ip_address=one.address))
    return [from_row(Router, row, gateway_fixed_ips=tuple(addresses[row.gateway_port_id])) for row in found]


def insert(tx: Tx, new: Router) -> None:
    """A router's row."""
    rows.insert(tx, router, new)


def revise(tx: Tx, router_id: str, now: float, changes: Mapping[str, Any]) -> None:
    """Change columns; users see a new revision, hosts a new generation."""
    rows.revise(tx, router, router_id, now, changes)
    raise_generations(tx, [router_id])


def delete(tx: Tx, router_id: str) -> None:
    """The row. Its ports must have gone."""
    tx.execute(sa.delete(router).where(router.c.id == router_id))


def raise_generations(tx: Tx, router_ids: Iterable[str]) -> None:
    """Hosts must learn these routers anew."""
    ids = sorted(set(router_ids))
    if ids:
        tx.execute(sa.update(router).where(router.c.id.in_(ids)).values(generation=router.c.generation + 1))


def with_gateway_on(tx: Tx, network_id: str) -> list[str]:
    """The routers whose gateway is on this external network."""
    query = sa.select(router.c.id).where(router.c.gateway_network_id == network_id).order_by(router.c.id)
    return list(tx.execute(query).scalars())


def joining(tx: Tx, subnet_id: str, external_id: str, preferred: str | None) -> str | None:
    """The router that joins a subnet with an external network; the one with the address `preferred` if there is."""
    found = tx.execute(_JOINING, {"subnet_id": subnet_id, "network_id": external_id}).all()
    first = next((row.id for row in found if row.address == preferred), None)
    return first or (found[0].id if found else None)
