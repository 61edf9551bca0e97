"""How much of each network resource a project uses: counted rows, nothing else."""

from collections.abc import Mapping
from typing import Final

import sqlalchemy as sa

from controller import quota
from controller.db.tables.network import (
    floating_ip,
    network,
    port,
    router,
    security_group,
    security_group_rule,
    subnet,
)
from controller.db.tx import Tx

SERVICE: Final = "network"

_TABLES: Final = {
    "network": network,
    "subnet": subnet,
    "port": port,
    "router": router,
    "floatingip": floating_ip,
    "security_group": security_group,
    "security_group_rule": security_group_rule,
}

_COUNTS = {
    name: sa.select(sa.func.count()).select_from(table).where(table.c.project_id == sa.bindparam("project_id"))
    for name, table in _TABLES.items()
}


def used(tx: Tx, project_id: str) -> Mapping[str, int]:
    """Rows of the project by resource, named as in the quota API."""
    return {name: tx.execute(query, {"project_id": project_id}).scalar_one() for name, query in _COUNTS.items()}


def charge(tx: Tx, project_id: str, resource: str, count: int = 1) -> None:
    """Check that `count` more fit; before the insert, in its transaction. Counts only that resource."""
    query = _COUNTS[resource]

    def counted(tx: Tx, project_id: str) -> Mapping[str, int]:
        return {resource: tx.execute(query, {"project_id": project_id}).scalar_one()}

    quota.charge(tx, project_id, SERVICE, {resource: count}, counted)
