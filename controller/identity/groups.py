"""Rules of groups. Transaction functions: ids and times are arguments."""

from collections.abc import Mapping
from typing import Any

from controller.db.tables.identity import membership, role_assignment
from controller.db.tx import Tx
from controller.errors import Invalid, NotFound
from controller.identity import store
from controller.identity.model import ActorKind, Domain, Group, User


def create(tx: Tx, made: Group) -> Group:
    """Raises NotFound for the domain, Conflict when the name is taken there."""
    store.get(tx, Domain, made.domain_id)
    if store.find_named(tx, Group, made.name, made.domain_id) is not None:
        raise store.taken(Group, made.name)
    return store.insert(tx, Group, made)


def update(tx: Tx, group_id: str, values: Mapping[str, Any]) -> Group:
    """Raises NotFound, Conflict, Invalid."""
    before = store.get(tx, Group, group_id)
    if values.get("domain_id", before.domain_id) != before.domain_id:
        raise Invalid("The domain_id of a group cannot be changed.")
    return store.update(tx, Group, group_id, values)


def delete(tx: Tx, group_id: str) -> None:
    """With memberships and assignments. Raises NotFound."""
    store.delete(tx, Group, group_id)
    store.leave(tx, membership.c.group_id == group_id)
    store.forget_assignments(
        tx, role_assignment.c.actor_kind == ActorKind.GROUP.value, role_assignment.c.actor_id == group_id
    )


def add(tx: Tx, group_id: str, user_id: str) -> None:
    """Put a user into a group. Raises NotFound."""
    store.get(tx, Group, group_id)
    store.get(tx, User, user_id)
    store.join(tx, group_id, user_id)


def remove(tx: Tx, group_id: str, user_id: str) -> None:
    """Take a user out. Raises NotFound."""
    store.get(tx, Group, group_id)
    store.get(tx, User, user_id)
    if not store.leave(tx, membership.c.group_id == group_id, membership.c.user_id == user_id):
        raise not_member(group_id, user_id)


def not_member(group_id: str, user_id: str) -> NotFound:
    """The failure of a membership that is not there."""
    return NotFound(f"User '{user_id}' not found in group '{group_id}'.")
