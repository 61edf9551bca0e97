"""SQL of floating IPs."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from controller.context import Context
from controller.db.tables.network import floating_ip
from controller.db.tx import Tx
from controller.http.paging import Visible, constant
from controller.network.errors import FloatingIPNotFound
from controller.network.model import FloatingIp, Status, from_row
from controller.network.store import routers, rows

_GET = sa.select(floating_ip).where(floating_ip.c.id == sa.bindparam("id"))
_OF_PORTS = (
    sa.select(floating_ip.c.port_id, floating_ip.c.address)
    .where(floating_ip.c.port_id.in_(sa.bindparam("ids", expanding=True)))
    .order_by(floating_ip.c.created_at, floating_ip.c.id)
)
_ON_PORT = sa.select(floating_ip).where(floating_ip.c.port_id == sa.bindparam("port_id")).order_by(floating_ip.c.id)
_IDLE = sa.select(floating_ip).where(
    floating_ip.c.network_id == sa.bindparam("network_id"), floating_ip.c.port_id.is_(None)
)
_THROUGH = sa.select(floating_ip).where(floating_ip.c.router_id == sa.bindparam("router_id"))


_VISIBLE = (constant(floating_ip.c.project_id == sa.bindparam("project_id")),)


def visible(ctx: Context) -> Visible:
    """What the caller may see: everything for admins, else their own."""
    return () if ctx.is_admin else _VISIBLE


def find(tx: Tx, floating_ip_id: str) -> FloatingIp | None:
    """One floating IP, whoever owns it."""
    row = tx.execute(_GET, {"id": floating_ip_id}).one_or_none()
    return from_row(FloatingIp, row) if row is not None else None


def get(tx: Tx, ctx: Context, floating_ip_id: str) -> FloatingIp:
    """One floating IP, if the caller may see it. Raises FloatingIPNotFound."""
    found = find(tx, floating_ip_id)
    if found is None or not (ctx.is_admin or found.project_id == ctx.project_id):
        raise FloatingIPNotFound(floating_ip_id)
    return found


def complete(tx: Tx, found: Sequence[Any]) -> list[FloatingIp]:
    """Rows of `floating_ip`."""
    return [from_row(FloatingIp, row) for row in found]


def of_ports(tx: Tx, port_ids: Iterable[str]) -> dict[str, list[str]]:
    """The floating addresses in front of each port."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for row in tx.execute(_OF_PORTS, {"ids": list(port_ids)}):
        found[row.port_id].append(row.address)
    return dict(found)


def on_port(tx: Tx, port_id: str) -> list[FloatingIp]:
    """The floating IPs in front of a port."""
    return complete(tx, tx.execute(_ON_PORT, {"port_id": port_id}).all())


def through(tx: Tx, router_id: str) -> list[FloatingIp]:
    """The floating IPs that are reached through a router."""
    return complete(tx, tx.execute(_THROUGH, {"router_id": router_id}).all())


def idle(tx: Tx, network_id: str) -> list[FloatingIp]:
    """The floating IPs of an external network that are in front of nothing."""
    return complete(tx, tx.execute(_IDLE, {"network_id": network_id}).all())


def insert(tx: Tx, new: FloatingIp) -> None:
    """A floating IP's row."""
    rows.insert(tx, floating_ip, new)


def revise(tx: Tx, floating_ip_id: str, now: float, changes: Mapping[str, Any]) -> None:
    """Change columns; users see a new revision. The caller raises the generation of the routers concerned."""
    rows.revise(tx, floating_ip, floating_ip_id, now, changes)


def delete(tx: Tx, floating_ip_id: str) -> None:
    """The row."""
    tx.execute(sa.delete(floating_ip).where(floating_ip.c.id == floating_ip_id))


def dissociate(tx: Tx, port_id: str, now: float, address: str | None = None) -> None:
    """Take floating IPs off a port (or off one address of it); their routers' hosts must learn of it."""
    for one in on_port(tx, port_id):
        if address is None or one.fixed_address == address:
            take_off(tx, one, now)


def take_off(tx: Tx, one: FloatingIp, now: float) -> None:
    """Take one floating IP off whatever it is in front of."""
    if one.router_id is not None:
        routers.raise_generations(tx, [one.router_id])
    revise(tx, one.id, now, {"port_id": None, "fixed_address": None, "router_id": None, "status": Status.DOWN})
