"""Handlers of the network's quotas."""

from typing import Any

import sqlalchemy as sa

from controller import quota
from controller.db.tables.quota import quota as quota_table
from controller.db.tx import Tx
from controller.http.op import Call
from controller.http.policy import forbidden
from controller.network import usage
from controller.network.api.bodies import given, number
from controller.network.errors import bad_value

_LIMIT_MAX = 2**31 - 1


async def index(call: Call) -> dict[str, Any]:
    """GET /quotas: every project that has limits of its own."""
    found = await call.cloud.db.read(_all)
    return {"quotas": [{**limits, "tenant_id": owner, "project_id": owner} for owner, limits in found.items()]}


async def whose(call: Call) -> dict[str, Any]:
    """GET /quotas/tenant and /quotas/project: whose quotas the caller's are."""
    return {"tenant": {"tenant_id": call.ctx.project_id, "project_id": call.ctx.project_id}}


async def show(call: Call) -> dict[str, Any]:
    """GET /quotas/{project}."""
    return {"quota": await call.cloud.db.read(quota.limits, _project(call), usage.SERVICE)}


async def default(call: Call) -> dict[str, Any]:
    """GET /quotas/{project}/default."""
    _project(call)
    return {"quota": dict(quota.DEFAULTS[usage.SERVICE])}


async def details(call: Call) -> dict[str, Any]:
    """GET /quotas/{project}/details."""
    return {"quota": await call.cloud.db.read(_details, _project(call))}


async def update(call: Call) -> dict[str, Any]:
    """PUT /quotas/{project}. Below what is used is allowed, unless that is to be checked: no more can be made then."""
    sent = given(call.body.quota)
    is_checked = call.body.quota.check_limit and not call.body.quota.force
    changed = {name: number(name, value) for name, value in sent.items() if name in quota.DEFAULTS[usage.SERVICE]}
    for name, value in changed.items():
        if not -1 <= value <= _LIMIT_MAX:
            raise bad_value(name, f"'{value}' is not in the range of -1 to {_LIMIT_MAX}")
    return {"quota": await call.cloud.db.write(_set, call.params["project_id"], changed, is_checked=is_checked)}


async def delete(call: Call) -> None:
    """DELETE /quotas/{project}: back to the defaults."""
    await call.cloud.db.write(quota.reset, call.params["project_id"], usage.SERVICE)


def _project(call: Call) -> str:
    project_id = call.params["project_id"]
    if project_id != call.ctx.project_id and not call.ctx.is_admin:
        raise forbidden("get_quota")
    return project_id


def _details(tx: Tx, project_id: str) -> dict[str, dict[str, int]]:
    limits, used = quota.limits(tx, project_id, usage.SERVICE), usage.used(tx, project_id)
    return {name: {"limit": limit, "used": used[name], "reserved": 0} for name, limit in limits.items()}


def _set(tx: Tx, project_id: str, changed: dict[str, int], *, is_checked: bool) -> dict[str, int]:
    used = usage.used(tx, project_id) if is_checked else {}
    for name, limit in changed.items():
        if limit != quota.UNLIMITED and used.get(name, 0) > limit:
            raise bad_value(name, f"{used[name]} are used, which is more than {limit}")
    quota.set_limits(tx, project_id, usage.SERVICE, changed)
    return quota.limits(tx, project_id, usage.SERVICE)


def _all(tx: Tx) -> dict[str, dict[str, int]]:
    query = sa.select(quota_table.c.project_id).where(quota_table.c.service == usage.SERVICE).distinct()
    owners = tx.execute(query.order_by(quota_table.c.project_id)).scalars().all()
    return {owner: quota.limits(tx, owner, usage.SERVICE) for owner in owners}
