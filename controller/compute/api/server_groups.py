"""Handlers of /os-server-groups."""

from typing import Any

from controller.compute import group_store, server_groups, texts
from controller.compute.api import queries
from controller.compute.group_store import ServerGroup
from controller.context import Context
from controller.db.tx import Tx
from controller.errors import Invalid
from controller.http.filters import integer
from controller.http.op import Call
from controller.schedule.model import Policy

_ALL = "os_compute_api:os-server-groups:index:all_projects"

Shown = tuple[ServerGroup, list[str]]


async def index(call: Call) -> dict[str, Any]:
    """GET /os-server-groups"""
    queries.check_keys(call, ("all_projects", "limit", "offset"))
    project_id: str | None = call.ctx.project
    if "all_projects" in call.query and call.ctx.is_admin:
        call.authorize(_ALL, {})
        project_id = None
    limit_max = call.cloud.settings.limits.page
    limit, offset = _number(call, "limit", limit_max), _number(call, "offset", 0)
    found: list[Shown] = await call.cloud.db.read(_listed, project_id, min(limit, limit_max), offset)
    return {"server_groups": [_view(call, *one) for one in found]}


def _number(call: Call, name: str, default: int) -> int:
    text = call.query.get(name)
    number = default if text is None else integer(name, text)
    if not 0 <= number < 1 << 31:
        raise Invalid(f"Invalid input for query parameters '{name}': it is negative, or too large.")
    return number


def _listed(tx: Tx, project_id: str | None, limit: int, offset: int) -> list[Shown]:
    groups = group_store.page(tx, project_id, limit, offset)
    members = group_store.members(tx, [group.id for group in groups])
    return [(group, members[group.id]) for group in groups]


async def show(call: Call) -> dict[str, Any]:
    """GET /os-server-groups/{group_id}"""
    group, members = await call.cloud.db.read(_one, call.ctx, call.params["group_id"])
    return {"server_group": _view(call, group, members)}


def _one(tx: Tx, ctx: Context, group_id: str) -> Shown:
    group = group_store.get(tx, ctx, group_id)
    return group, group_store.members(tx, [group.id])[group.id]


async def create(call: Call) -> dict[str, Any]:
    """POST /os-server-groups"""
    new = call.body.server_group
    name = texts.name(new.name)
    max_per_host = None
    if call.version >= (2, 64):
        policy = new.policy
        if new.rules is not None and new.rules.max_server_per_host is not None:
            max_per_host = texts.number(new.rules.max_server_per_host, "max_server_per_host", 1)
        if max_per_host is not None and policy != Policy.ANTI_AFFINITY:
            raise Invalid("Only anti-affinity policy supports rules.")
    else:
        policy = new.policies[0]
    group = await server_groups.create(call.cloud, call.ctx, name, policy, max_per_host)
    return {"server_group": _view(call, group, [])}


async def delete(call: Call) -> None:
    """DELETE /os-server-groups/{group_id}"""
    await server_groups.delete(call.cloud, call.ctx, call.params["group_id"])


def _view(call: Call, group: ServerGroup, members: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {"id": group.id, "name": group.name, "members": members}
    if call.version >= (2, 64):
        found["policy"] = group.policy
        found["rules"] = {} if group.max_per_host is None else {"max_server_per_host": group.max_per_host}
    else:
        found["policies"], found["metadata"] = [group.policy], {}
    if call.version >= (2, 13):
        found["project_id"], found["user_id"] = group.project_id, group.user_id
    return found
