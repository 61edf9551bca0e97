"""Quotas: limits per project and service, charged by counting rows in the transaction that inserts them.

There is no usage counter to drift: `used` counts the very rows. A charging transaction first writes its
(project, service) lock row: on PostgreSQL concurrent charges of one project then meet at once, before they have read
anything, and run again one after the other.
"""

from collections.abc import Callable, Mapping
from typing import Final

import sqlalchemy as sa

from controller.db.tables.quota import quota, quota_lock
from controller.db.tx import Tx
from controller.errors import OverQuota

UNLIMITED: Final = -1

DEFAULTS: Final[Mapping[str, Mapping[str, int]]] = {
    "compute": {
        "instances": 100,
        "cores": 200,
        "ram": 512 * 1024,
        "key_pairs": 100,
        "metadata_items": 128,
        "server_groups": 10,
        "server_group_members": 10,
    },
    "network": {
        "network": 100,
        "subnet": 100,
        "port": 500,
        "router": 20,
        "floatingip": 50,
        "security_group": 20,
        "security_group_rule": 200,
    },
    "image": {"image_count_total": 1000, "image_size_total": 1024 * 1024},  # count, MiB
    "volume": {
        "volumes": 100,
        "snapshots": 100,
        "gigabytes": 10_000,
        "per_volume_gigabytes": UNLIMITED,
        "backups": 10,  # These three can be limited, as clients expect; there is nothing yet that they would limit.
        "backup_gigabytes": 1000,
        "groups": 10,
    },
}

Used = Callable[[Tx, str], Mapping[str, int]]
"""(tx, project id) → how much of each resource the project's rows use now."""

_LIMITS = sa.select(quota.c.resource, quota.c.limit_max).where(
    quota.c.project_id == sa.bindparam("project_id"), quota.c.service == sa.bindparam("service")
)
_LOCK = (
    sa.update(quota_lock)
    .where(quota_lock.c.project_id == sa.bindparam("p"), quota_lock.c.service == sa.bindparam("s"))
    .values(charges=quota_lock.c.charges + 1)
)


def limits(tx: Tx, project_id: str, service: str) -> dict[str, int]:
    """Every resource's limit; UNLIMITED is -1."""
    own = {row.resource: row.limit_max for row in tx.execute(_LIMITS, {"project_id": project_id, "service": service})}
    return {**DEFAULTS[service], **own}


def set_limits(tx: Tx, project_id: str, service: str, changed: Mapping[str, int]) -> None:
    """Give a project limits of its own for some resources."""
    for resource, limit_max in changed.items():
        key = (quota.c.project_id == project_id, quota.c.service == service, quota.c.resource == resource)
        if not tx.execute(sa.update(quota).where(*key).values(limit_max=limit_max)).rowcount:
            row = {"project_id": project_id, "service": service, "resource": resource, "limit_max": limit_max}
            tx.execute(sa.insert(quota).values(row))


def reset(tx: Tx, project_id: str, service: str) -> None:
    """Back to the defaults."""
    tx.execute(sa.delete(quota).where(quota.c.project_id == project_id, quota.c.service == service))


def charge(tx: Tx, project_id: str, service: str, requested: Mapping[str, int], used: Used) -> None:
    """Check that `requested` more fits: before the insert, in its transaction. Raises OverQuota with the numbers.

    A resource that has no default (volumes of one type) is unlimited unless it was limited.
    """
    _queue(tx, project_id, service)
    bounds = limits(tx, project_id, service)
    now = used(tx, project_id)
    over = [
        name
        for name, more in requested.items()
        if more > 0 and _passes(bounds.get(name, UNLIMITED), now.get(name, 0), more)
    ]
    if over:
        numbers = {
            name: {"limit": bounds[name], "used": now.get(name, 0), "requested": requested[name]} for name in over
        }
        raise OverQuota(
            f"Quota exceeded for {', '.join(over)}: "
            + "; ".join(
                f"requested {n['requested']}, but already used {n['used']} of {n['limit']}" for n in numbers.values()
            )
            + ".",
            why={"quota": numbers},
        )


def _passes(bound: int, used: int, more: int) -> bool:
    return bound != UNLIMITED and used + more > bound


def _queue(tx: Tx, project_id: str, service: str) -> None:
    if not tx.execute(_LOCK, {"p": project_id, "s": service}).rowcount:
        tx.execute(sa.insert(quota_lock).values(project_id=project_id, service=service, charges=1))
