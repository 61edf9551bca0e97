"""/users."""

from typing import Any

from controller.db.tables.identity import user
from controller.errors import Unauthorized
from controller.http.op import Call
from controller.identity import store, users
from controller.identity.api import asking, views
from controller.identity.api.bodies import UserCreate, UserUpdate, given, opened
from controller.identity.model import User

FILTERS = asking.named(user)


async def index(call: Call) -> dict[str, Any]:
    """GET /users."""
    return await asking.page(call, User, "users", FILTERS)


async def create(call: Call) -> dict[str, Any]:
    """POST /users."""
    wanted, extra = opened(UserCreate, call.body.user, "user")
    domain_id = await asking.owning_domain(call, wanted.domain_id)
    call.authorize("identity:create_user", {"domain_id": domain_id})
    made = User(
        id=asking.new_id(call),
        domain_id=domain_id,
        name=wanted.name,
        enabled=wanted.enabled,
        default_project_id=wanted.default_project_id,
        auth_generation=1,
        extra=extra,
        created_at=call.cloud.world.clock.now(),
    )
    hashed = None if wanted.password is None else await call.cloud.passwords.hash(wanted.password)
    return {"user": views.view(call, await asking.write(call, users.create, made, hashed))}


async def show(call: Call) -> dict[str, Any]:
    """GET /users/{user_id}."""
    return {"user": views.view(call, await asking.seen(call, User, call.params["user_id"], "identity:get_user"))}


async def update(call: Call) -> dict[str, Any]:
    """PATCH /users/{user_id}."""
    changes, extra = opened(UserUpdate, call.body.user, "user")
    found = await asking.seen(call, User, call.params["user_id"], "identity:update_user")
    sent = given(changes)
    password = sent.pop("password", None)
    hashed = None if password is None else await call.cloud.passwords.hash(password)
    values = asking.changed_columns(found, sent, extra)
    return {"user": views.view(call, await asking.write(call, users.update, found.id, values, hashed))}


async def delete(call: Call) -> None:
    """DELETE /users/{user_id}."""
    found = await asking.seen(call, User, call.params["user_id"], "identity:delete_user")
    await asking.write(call, users.delete, found.id)


async def change_password(call: Call) -> None:
    """POST /users/{user_id}/password: the user's own way, which needs the old one."""
    user_id, pair = call.params["user_id"], call.body.user
    call.authorize("identity:change_password", {"user_id": user_id})
    stored = await call.cloud.db.read(store.password_of, user_id)
    if not await call.cloud.passwords.is_right(stored, pair.original_password):
        raise Unauthorized("The original password is not right.")
    await asking.write(call, store.set_password, user_id, await call.cloud.passwords.hash(pair.password))
