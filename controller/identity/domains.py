"""Rules of domains. Transaction functions: ids and times are arguments."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from controller.db.tables.identity import membership, project, role_assignment, user, user_group
from controller.db.tx import Tx
from controller.errors import Forbidden
from controller.identity import store
from controller.identity.model import ActorKind, Domain, TargetKind


def create(tx: Tx, made: Domain) -> Domain:
    """Raises Conflict when the name is taken."""
    if store.find_named(tx, Domain, made.name) is not None:
        raise store.taken(Domain, made.name)
    return store.insert(tx, Domain, made)


def update(tx: Tx, domain_id: str, values: Mapping[str, Any]) -> Domain:
    """Disabling a domain ends the tokens of its users, and of everybody in its projects."""
    before = store.get(tx, Domain, domain_id)
    is_disabled = before.enabled and values.get("enabled") is False
    return store.update(tx, Domain, domain_id, values, ends_tokens=is_disabled)


def delete(tx: Tx, domain_id: str) -> None:
    """With all that lives in it. Raises Forbidden while it is enabled: nobody loses a domain by a slip."""
    if store.get(tx, Domain, domain_id).enabled:
        raise Forbidden("Cannot delete a domain that is enabled, please disable it first.")
    projects, users, groups = (_inside(table, domain_id) for table in (project, user, user_group))
    given = role_assignment.c
    store.forget_assignments(tx, given.actor_kind == ActorKind.USER.value, given.actor_id.in_(users))
    store.forget_assignments(tx, given.actor_kind == ActorKind.GROUP.value, given.actor_id.in_(groups))
    store.forget_assignments(tx, given.target_kind == TargetKind.PROJECT.value, given.target_id.in_(projects))
    store.forget_assignments(tx, given.target_kind == TargetKind.DOMAIN.value, given.target_id == domain_id)
    store.leave(tx, sa.or_(membership.c.user_id.in_(users), membership.c.group_id.in_(groups)))
    for table in (project, user, user_group):
        tx.execute(sa.delete(table).where(table.c.domain_id == domain_id))
    store.delete(tx, Domain, domain_id)


def _inside(table: sa.Table, domain_id: str) -> sa.Select[tuple[str]]:
    return sa.select(table.c.id).where(table.c.domain_id == domain_id)
