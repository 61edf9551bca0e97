"""/groups and who is in them."""

from typing import Any

from controller.db.tables.identity import membership, user, user_group
from controller.errors import NotFound
from controller.http.op import Call
from controller.http.paging import page_of
from controller.identity import groups, store
from controller.identity.api import asking, views
from controller.identity.api.bodies import GroupCreate, GroupUpdate, given, opened
from controller.identity.model import Group, User

FILTERS = asking.named(user_group)


async def index(call: Call) -> dict[str, Any]:
    """GET /groups."""
    return await asking.page(call, Group, "groups", FILTERS)


async def of_user(call: Call) -> dict[str, Any]:
    """GET /users/{user_id}/groups."""
    found = await asking.seen(call, User, call.params["user_id"], "identity:list_groups_for_user")
    page = page_of(call, {}, ())
    inside = membership.select().with_only_columns(membership.c.group_id).where(membership.c.user_id == found.id)
    where = (user_group.c.id.in_(inside),)
    return views.listed(call, "groups", await call.cloud.db.read(store.page, Group, where, page), page)


async def create(call: Call) -> dict[str, Any]:
    """POST /groups."""
    wanted, extra = opened(GroupCreate, call.body.group, "group")
    domain_id = await asking.owning_domain(call, wanted.domain_id)
    call.authorize("identity:create_group", {"domain_id": domain_id})
    made = Group(
        id=asking.new_id(call),
        domain_id=domain_id,
        name=wanted.name,
        description=wanted.description or "",
        extra=extra,
        created_at=call.cloud.world.clock.now(),
    )
    return {"group": views.view(call, await asking.write(call, groups.create, made))}


async def show(call: Call) -> dict[str, Any]:
    """GET /groups/{group_id}."""
    found = await asking.seen(call, Group, call.params["group_id"], "identity:get_group")
    return {"group": views.view(call, found)}


async def update(call: Call) -> dict[str, Any]:
    """PATCH /groups/{group_id}."""
    changes, extra = opened(GroupUpdate, call.body.group, "group")
    found = await asking.seen(call, Group, call.params["group_id"], "identity:update_group")
    values = asking.changed_columns(found, given(changes), extra)
    return {"group": views.view(call, await asking.write(call, groups.update, found.id, values))}


async def delete(call: Call) -> None:
    """DELETE /groups/{group_id}."""
    found = await asking.seen(call, Group, call.params["group_id"], "identity:delete_group")
    await asking.write(call, groups.delete, found.id)


async def members(call: Call) -> dict[str, Any]:
    """GET /groups/{group_id}/users."""
    found = await asking.seen(call, Group, call.params["group_id"], "identity:list_users_in_group")
    page = page_of(call, {}, ())
    inside = membership.select().with_only_columns(membership.c.user_id).where(membership.c.group_id == found.id)
    where = (user.c.id.in_(inside),)
    return views.listed(call, "users", await call.cloud.db.read(store.page, User, where, page), page)


async def _pair(call: Call, rule: str) -> tuple[str, str]:
    """(group, user) of the path, if the rule allows the caller to touch both."""
    group = await asking.seen(call, Group, call.params["group_id"], rule)
    person = await call.cloud.db.read(store.find, User, call.params["user_id"])
    target = await asking.target_of(call, group.id, group)
    call.authorize(rule, {**target, "actor_domain_id": "" if person is None else person.domain_id})
    if person is None:
        raise store.missing(User, call.params["user_id"])
    return group.id, person.id


async def check(call: Call) -> None:
    """HEAD and GET /groups/{group_id}/users/{user_id}."""
    group_id, user_id = await _pair(call, "identity:check_user_in_group")
    if not await call.cloud.db.read(store.is_member, group_id, user_id):
        raise NotFound(f"User '{user_id}' not found in group '{group_id}'.")


async def add(call: Call) -> None:
    """PUT /groups/{group_id}/users/{user_id}."""
    group_id, user_id = await _pair(call, "identity:add_user_to_group")
    await asking.write(call, groups.add, group_id, user_id)


async def remove(call: Call) -> None:
    """DELETE /groups/{group_id}/users/{user_id}."""
    group_id, user_id = await _pair(call, "identity:remove_user_from_group")
    await asking.write(call, groups.remove, group_id, user_id)
