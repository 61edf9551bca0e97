"""SQL of networks, and who may see them."""

import sqlalchemy as sa

from controller.context import Context
from controller.db.tables.network import network
from controller.db.tx import Tx
from controller.network.model import Network, from_row

_GET = sa.select(network).where(network.c.id == sa.bindparam("id"))


def visible(ctx: Context) -> sa.ColumnElement[bool]:
    """What the caller may see: everything for admins, else their own, shared and external networks."""
    if ctx.is_admin:
        return sa.true()
    return sa.or_(network.c.project_id == ctx.project_id, network.c.shared, network.c.external)


def find(tx: Tx, network_id: str) -> Network | None:
    """One network, whoever owns it."""
    row = tx.execute(_GET, {"id": network_id}).one_or_none()
    return from_row(Network, row) if row is not None else None


def find_visible(tx: Tx, ctx: Context, network_id: str) -> Network | None:
    """One network, if the caller may see it."""
    row = tx.execute(_GET.where(visible(ctx)), {"id": network_id}).one_or_none()
    return from_row(Network, row) if row is not None else None


def usable(tx: Tx, ctx: Context) -> list[Network]:
    """Networks that servers may be attached to without naming one: the project's own, else shared ones."""
    own = sa.select(network).where(network.c.project_id == ctx.project_id, ~network.c.external)
    shared = sa.select(network).where(network.c.shared, ~network.c.external)
    for query in (own, shared):
        found = tx.execute(query.order_by(network.c.created_at, network.c.id)).all()
        if found:
            return [from_row(Network, row) for row in found]
    return []


def raise_generation(tx: Tx, network_id: str) -> None:
    """Hosts must learn this network anew."""
    tx.execute(sa.update(network).where(network.c.id == network_id).values(generation=network.c.generation + 1))


def some(tx: Tx, network_ids: set[str]) -> list[Network]:
    """Networks by id; unknown ids are passed over."""
    query = sa.select(network).where(network.c.id.in_(sorted(network_ids))).order_by(network.c.id)
    return [from_row(Network, row) for row in tx.execute(query)]
