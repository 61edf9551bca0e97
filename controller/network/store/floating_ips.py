"""SQL of floating IPs."""

from collections import defaultdict
from collections.abc import Iterable

import sqlalchemy as sa

from controller.db.tables.network import floating_ip, router
from controller.db.tx import Tx
from controller.network.model import FloatingIp, Status, from_row

_OF_PORTS = (
    sa.select(floating_ip.c.port_id, floating_ip.c.address)
    .where(floating_ip.c.port_id.in_(sa.bindparam("ids", expanding=True)))
    .order_by(floating_ip.c.created_at, floating_ip.c.id)
)


def find(tx: Tx, floating_ip_id: str) -> FloatingIp | None:
    """One floating IP, whoever owns it."""
    row = tx.execute(sa.select(floating_ip).where(floating_ip.c.id == floating_ip_id)).one_or_none()
    return from_row(FloatingIp, row) if row is not None else None


def of_ports(tx: Tx, port_ids: Iterable[str]) -> dict[str, list[str]]:
    """The floating addresses in front of each port."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for row in tx.execute(_OF_PORTS, {"ids": list(port_ids)}):
        found[row.port_id].append(row.address)
    return dict(found)


def dissociate(tx: Tx, port_id: str, now: float) -> None:
    """Take every floating IP off a port; their routers' hosts must learn of it."""
    fronting = sa.select(floating_ip.c.router_id).where(floating_ip.c.port_id == port_id)
    raised = {"generation": router.c.generation + 1}
    tx.execute(sa.update(router).where(router.c.id.in_(fronting)).values(raised))
    cleared = {"port_id": None, "fixed_address": None, "router_id": None, "status": Status.DOWN.value}
    revised = {"revision": floating_ip.c.revision + 1, "updated_at": now}
    tx.execute(sa.update(floating_ip).where(floating_ip.c.port_id == port_id).values({**cleared, **revised}))
