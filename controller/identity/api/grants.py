"""Grants: a role for a user or group on a project, a domain or the system; and the list of all of them."""

from typing import Any

from controller.errors import Invalid
from controller.http.op import Call
from controller.http.paging import page_of
from controller.identity import assignments, roles, store, users
from controller.identity.api import asking, views
from controller.identity.model import (
    SYSTEM,
    Actor,
    ActorKind,
    Project,
    Role,
    Target,
    TargetKind,
)


def _speaks_of(call: Call) -> tuple[Actor, Target]:
    """Who and where, from the path."""
    params = call.params
    actor = (
        Actor(ActorKind.USER, params["user_id"]) if "user_id" in params else Actor(ActorKind.GROUP, params["group_id"])
    )
    if "project_id" in params:
        return actor, Target(TargetKind.PROJECT, params["project_id"])
    return actor, Target(TargetKind.DOMAIN, params["domain_id"]) if "domain_id" in params else SYSTEM


async def _authorized(call: Call) -> tuple[Actor, Target]:
    """The same, once the row's own rule allows the caller this actor, target and role."""
    actor, target = _speaks_of(call)
    if target.kind is TargetKind.SYSTEM:
        return actor, target
    db = call.cloud.db
    person = await db.read(store.find_actor, actor)
    domain_id = target.id
    if target.kind is TargetKind.PROJECT:
        project = await db.read(store.find, Project, target.id)
        domain_id = "" if project is None else project.domain_id
    facts: dict[str, Any] = {
        "domain_id": domain_id,
        "actor_domain_id": "" if person is None else person.domain_id,
        "is_privileged": await db.read(users.is_admin, actor),
    }
    if "role_id" in call.params:
        role = await db.read(store.find, Role, call.params["role_id"])
        facts["role_name"] = "" if role is None else role.name
    call.authorize(call.op.policy, facts)
    return actor, target


async def index(call: Call) -> dict[str, Any]:
    """GET …/roles."""
    actor, target = await _authorized(call)
    found = await call.cloud.db.read(roles.granted, actor, target)
    return {"roles": [views.view(call, role) for role in found], "links": views.links(call)}


async def check(call: Call) -> None:
    """HEAD and GET …/roles/{role_id}."""
    actor, target = await _authorized(call)
    await call.cloud.db.read(roles.check_grant, actor, target, call.params["role_id"])


async def grant(call: Call) -> None:
    """PUT …/roles/{role_id}."""
    actor, target = await _authorized(call)
    await asking.write(call, roles.grant, asking.new_id(call), actor, target, call.params["role_id"])


async def revoke(call: Call) -> None:
    """DELETE …/roles/{role_id}."""
    actor, target = await _authorized(call)
    await asking.write(call, roles.revoke, actor, target, call.params["role_id"])


async def assigned(call: Call) -> dict[str, Any]:
    """GET /role_assignments."""
    query, ctx = call.query, call.ctx
    wanted = assignments.Wanted(
        user_id=query.get("user.id"),
        group_id=query.get("group.id"),
        role_id=query.get("role.id"),
        target=_target(call),
        is_effective=_flag(call, "effective"),
        has_subtree=_flag(call, "include_subtree"),
        domain_id=None if ctx.is_admin or ctx.is_system else ctx.domain_id,
    )
    found = await call.cloud.db.read(assignments.listed, wanted, page_of(call, {}, ()))
    names = found.names if _flag(call, "include_names") else None
    shown = [views.assignment(call, effect, names) for effect in found.effects]
    return {"role_assignments": shown, "links": views.links(call, found.last_id)}


def _flag(call: Call, key: str) -> bool:
    value = call.query.get(key)
    return value is not None and asking.flag(key, value)


def _target(call: Call) -> Target | None:
    query = call.query
    given = [key for key in ("scope.project.id", "scope.domain.id", "scope.system") if query.get(key)]
    if len(given) > 1:
        raise Invalid("Specify one of project, domain and system, not more.")
    if project_id := query.get("scope.project.id"):
        return Target(TargetKind.PROJECT, project_id)
    if domain_id := query.get("scope.domain.id"):
        return Target(TargetKind.DOMAIN, domain_id)
    return SYSTEM if query.get("scope.system") else None
