"""Rules of users. Transaction functions: ids, times and password hashes are arguments."""

from collections.abc import Mapping
from typing import Any

from controller.db.tables.identity import membership, role_assignment
from controller.db.tx import Tx
from controller.errors import Invalid
from controller.identity import store
from controller.identity.model import Actor, ActorKind, Domain, Role, User
from controller.identity.standing import closure, implications


def create(tx: Tx, made: User, password_hash: str | None) -> User:
    """Raises NotFound for the domain, Conflict when the name is taken there."""
    store.get(tx, Domain, made.domain_id)
    if store.find_named(tx, User, made.name, made.domain_id) is not None:
        raise store.taken(User, made.name)
    return store.insert(tx, User, made, password_hash=password_hash)


def update(tx: Tx, user_id: str, values: Mapping[str, Any], password_hash: str | None) -> User:
    """Disabling a user or setting a password ends the user's tokens. Raises NotFound, Conflict, Invalid."""
    before = store.get(tx, User, user_id)
    if values.get("domain_id", before.domain_id) != before.domain_id:
        raise Invalid("The domain_id of a user cannot be changed.")
    is_disabled = before.enabled and values.get("enabled") is False
    if password_hash is not None:
        store.set_password(tx, user_id, password_hash)
    return store.update(tx, User, user_id, values, ends_tokens=is_disabled)


def delete(tx: Tx, user_id: str) -> None:
    """With memberships and assignments. Raises NotFound."""
    store.delete(tx, User, user_id)
    store.leave(tx, membership.c.user_id == user_id)
    store.forget_assignments(
        tx, role_assignment.c.actor_kind == ActorKind.USER.value, role_assignment.c.actor_id == user_id
    )


def is_admin(tx: Tx, actor: Actor) -> bool:
    """Whether the actor is the cloud's admin anywhere: such users and groups are not a domain manager's to touch."""
    admin = store.find_named(tx, Role, "admin")
    return admin is not None and admin.id in closure(store.roles_held(tx, actor), implications(tx))
