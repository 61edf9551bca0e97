"""SQL of networks, and who may see them."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from controller.context import Context
from controller.db.tables.network import network, subnet
from controller.db.tx import Tx
from controller.http.paging import Visible, constant
from controller.network.errors import NetworkNotFound
from controller.network.model import Network, from_row
from controller.network.store import forwarding, rows

_GET = sa.select(network).where(network.c.id == sa.bindparam("id"))
_SUBNETS = (
    sa.select(subnet.c.network_id, subnet.c.id)
    .where(subnet.c.network_id.in_(sa.bindparam("ids", expanding=True)))
    .order_by(subnet.c.created_at, subnet.c.id)
)
_HIGHEST_SEGMENT = (
    sa.select(network.c.segment)
    .where(network.c.network_type == "vxlan", network.c.physical_network.is_(None))
    .order_by(network.c.segment.desc())
    .limit(1)
)
"""Says what goes without saying, that there is no physical network: so it is the last entry of the unique index."""


_SOME = sa.select(network).where(network.c.id.in_(sa.bindparam("ids", expanding=True))).order_by(network.c.id)
_VISIBLE = (
    constant(network.c.project_id == sa.bindparam("project_id")),
    constant(network.c.shared),
    constant(network.c.external),
)


def visible(ctx: Context) -> Visible:
    """What the caller may see: everything for admins, else their own, shared and external networks."""
    return () if ctx.is_admin else _VISIBLE


def find(tx: Tx, network_id: str) -> Network | None:
    """One network, whoever owns it."""
    row = tx.execute(_GET, {"id": network_id}).one_or_none()
    return from_row(Network, row) if row is not None else None


def find_visible(tx: Tx, ctx: Context, network_id: str) -> Network | None:
    """One network, if the caller may see it."""
    found = find(tx, network_id)
    return found if found is not None and _is_visible(ctx, found) else None


def _is_visible(ctx: Context, found: Network) -> bool:
    return ctx.is_admin or found.shared or found.external or found.project_id == ctx.project_id


def get(tx: Tx, ctx: Context, network_id: str) -> Network:
    """One network with its subnets' ids, if the caller may see it. Raises NetworkNotFound."""
    found = complete(tx, tx.execute(_GET, {"id": network_id}).all())
    if not found or not _is_visible(ctx, found[0]):
        raise NetworkNotFound(network_id)
    return found[0]


def complete(tx: Tx, found: Sequence[Any]) -> list[Network]:
    """Rows of `network` with the ids of their subnets: one more query, however many rows."""
    if not found:
        return []
    parts: defaultdict[str, list[str]] = defaultdict(list)
    for row in tx.execute(_SUBNETS, {"ids": [row.id for row in found]}):
        parts[row.network_id].append(row.id)
    return [from_row(Network, row, subnet_ids=tuple(parts[row.id])) for row in found]


def usable(tx: Tx, ctx: Context) -> list[Network]:
    """Networks that servers may be attached to without naming one: the project's own, else shared ones."""
    own = sa.select(network).where(network.c.project_id == ctx.project_id, ~network.c.external)
    shared = sa.select(network).where(network.c.shared, ~network.c.external)
    for query in (own, shared):
        found = tx.execute(query.order_by(network.c.created_at, network.c.id)).all()
        if found:
            return [from_row(Network, row) for row in found]
    return []


def insert(tx: Tx, new: Network) -> None:
    """A network's row."""
    rows.insert(tx, network, new)
    forwarding.begin(tx, new.id)


def revise(tx: Tx, network_id: str, now: float, changes: Mapping[str, Any]) -> None:
    """Change columns; users see a new revision, hosts a new generation."""
    rows.revise(tx, network, network_id, now, changes)
    raise_generation(tx, network_id)


def delete(tx: Tx, network_id: str) -> None:
    """The row. Nothing may refer to it any more."""
    forwarding.end(tx, network_id)
    tx.execute(sa.delete(network).where(network.c.id == network_id))


def raise_generation(tx: Tx, network_id: str) -> None:
    """Hosts must learn this network anew."""
    tx.execute(sa.update(network).where(network.c.id == network_id).values(generation=network.c.generation + 1))


def some(tx: Tx, network_ids: Iterable[str]) -> list[Network]:
    """Networks by id; unknown ids are passed over."""
    return [from_row(Network, row) for row in tx.execute(_SOME, {"ids": sorted(network_ids)})]


def on_segment(tx: Tx, network_type: str, physical_network: str | None, segment: int) -> bool:
    """Whether a network has this segment."""
    query = sa.select(network.c.id).where(network.c.network_type == network_type, network.c.segment == segment)
    if physical_network is not None:
        query = query.where(network.c.physical_network == physical_network)
    return tx.execute(query.limit(1)).first() is not None


def highest_segment(tx: Tx) -> int:
    """The highest VXLAN identifier in use; 0 if there is none."""
    return tx.execute(_HIGHEST_SEGMENT).scalar() or 0


def free_segment(tx: Tx) -> int | None:
    """The lowest VXLAN identifier behind which the next one is free: for when the highest has reached the end."""
    used = network.alias()
    taken = sa.exists().where(used.c.network_type == "vxlan", used.c.segment == network.c.segment + 1)
    query = sa.select(sa.func.min(network.c.segment + 1)).where(network.c.network_type == "vxlan", ~taken)
    return tx.execute(query).scalar()
