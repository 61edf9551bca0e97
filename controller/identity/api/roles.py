"""/roles and what they imply."""

from typing import Any

from controller.db.tables.identity import role
from controller.http.op import Call
from controller.identity import roles, store
from controller.identity.api import asking, views
from controller.identity.api.bodies import RoleCreate, RoleUpdate, given, opened
from controller.identity.model import Role

FILTERS = asking.named(role)


async def index(call: Call) -> dict[str, Any]:
    """GET /roles. Roles of one domain are not offered, so asking for some finds none."""
    if call.query.get("domain_id"):
        return {"roles": [], "links": views.links(call)}
    return await asking.page_of_all(call, Role, "roles", FILTERS)


async def create(call: Call) -> dict[str, Any]:
    """POST /roles."""
    wanted, extra = opened(RoleCreate, call.body.role, "role")
    made = Role(
        id=asking.new_id(call),
        name=wanted.name,
        description=wanted.description or "",
        extra=extra,
        created_at=call.cloud.world.clock.now(),
    )
    return {"role": views.view(call, await asking.write(call, roles.create, made))}


async def show(call: Call) -> dict[str, Any]:
    """GET /roles/{role_id}."""
    return {"role": views.view(call, await asking.seen(call, Role, call.params["role_id"], "identity:get_role"))}


async def update(call: Call) -> dict[str, Any]:
    """PATCH /roles/{role_id}."""
    changes, extra = opened(RoleUpdate, call.body.role, "role")
    found = await asking.seen(call, Role, call.params["role_id"], "identity:update_role")
    sent = given(changes)
    sent.pop("domain_id", None)
    values = asking.changed_columns(found, sent, extra)
    return {"role": views.view(call, await asking.write(call, roles.update, found.id, values))}


async def delete(call: Call) -> None:
    """DELETE /roles/{role_id}."""
    found = await asking.seen(call, Role, call.params["role_id"], "identity:delete_role")
    await asking.write(call, roles.delete, found.id)


async def implied(call: Call) -> dict[str, Any]:
    """GET /roles/{prior_role_id}/implies."""
    prior, implied_roles = await call.cloud.db.read(roles.implied_by, call.params["prior_role_id"])
    return {"role_inference": views.implication(call, prior, implied_roles), "links": views.links(call)}


async def _one(call: Call, prior: Role, implied_role: Role) -> dict[str, Any]:
    shown = views.implication(call, prior, [implied_role])
    return {"role_inference": {**shown, "implies": shown["implies"][0]}, "links": views.links(call)}


async def implication(call: Call) -> dict[str, Any]:
    """GET /roles/{prior_role_id}/implies/{implied_role_id}."""
    prior_id, implied_id = call.params["prior_role_id"], call.params["implied_role_id"]
    prior = await call.cloud.db.read(store.get, Role, prior_id)
    implied_role = await call.cloud.db.read(store.get, Role, implied_id)
    if not await call.cloud.db.read(store.is_implied, prior_id, implied_id):
        raise roles.not_implied(prior_id, implied_id)
    return await _one(call, prior, implied_role)


async def check(call: Call) -> None:
    """HEAD /roles/{prior_role_id}/implies/{implied_role_id}."""
    await implication(call)


async def imply(call: Call) -> dict[str, Any]:
    """PUT /roles/{prior_role_id}/implies/{implied_role_id}."""
    pair = await asking.write(call, roles.imply, call.params["prior_role_id"], call.params["implied_role_id"])
    return await _one(call, *pair)


async def stop_implying(call: Call) -> None:
    """DELETE /roles/{prior_role_id}/implies/{implied_role_id}."""
    await asking.write(call, roles.stop_implying, call.params["prior_role_id"], call.params["implied_role_id"])


async def inferences(call: Call) -> dict[str, Any]:
    """GET /role_inferences."""
    found = await call.cloud.db.read(roles.inferences)
    shown = [views.implication(call, prior, implied_roles) for prior, implied_roles in found]
    return {"role_inferences": shown, "links": views.links(call)}
