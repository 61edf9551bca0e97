"""What a user may do in a scope, now: the one reading on which every authorisation rests.

A token says who and where; this says whether that still holds and with which roles. It is None when user, project
or one of their domains is gone or disabled, or when no role is left: a token never gives more than today's assignments.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import sqlalchemy as sa

from controller.db.tables.identity import (
    domain,
    identity_change,
    implied_role,
    membership,
    project,
    revoked_token,
    role,
    role_assignment,
    user,
)
from controller.db.tx import Tx
from controller.identity.model import ActorKind, Named, Standing, Target, TargetKind

_CHANGES: Final = sa.select(identity_change.c.counter).where(identity_change.c.id == 1)
_BUMP: Final = sa.update(identity_change).where(identity_change.c.id == 1).values(counter=identity_change.c.counter + 1)
_REVOKED: Final = sa.select(revoked_token.c.audit_id).where(revoked_token.c.audit_id == sa.bindparam("audit_id"))
_USER: Final = (
    sa.select(
        user.c.id,
        user.c.name,
        user.c.enabled,
        user.c.auth_generation,
        domain.c.id.label("domain_id"),
        domain.c.name.label("domain_name"),
        domain.c.enabled.label("domain_enabled"),
        domain.c.auth_generation.label("domain_generation"),
    )
    .join(domain, domain.c.id == user.c.domain_id)
    .where(user.c.id == sa.bindparam("user_id"))
)
_PROJECT: Final = (
    sa.select(
        project.c.id,
        project.c.name,
        project.c.enabled,
        project.c.auth_generation,
        domain.c.id.label("domain_id"),
        domain.c.name.label("domain_name"),
        domain.c.enabled.label("domain_enabled"),
        domain.c.auth_generation.label("domain_generation"),
    )
    .join(domain, domain.c.id == project.c.domain_id)
    .where(project.c.id == sa.bindparam("project_id"))
)
_DOMAIN: Final = sa.select(domain).where(domain.c.id == sa.bindparam("domain_id"))
_ASSIGNED: Final = sa.select(role_assignment.c.role_id).where(
    role_assignment.c.target_id == sa.bindparam("target_id"),
    role_assignment.c.target_kind == sa.bindparam("target_kind"),
    sa.or_(
        sa.and_(
            role_assignment.c.actor_kind == ActorKind.USER.value, role_assignment.c.actor_id == sa.bindparam("user_id")
        ),
        sa.and_(
            role_assignment.c.actor_kind == ActorKind.GROUP.value,
            role_assignment.c.actor_id.in_(
                sa.select(membership.c.group_id).where(membership.c.user_id == sa.bindparam("user_id"))
            ),
        ),
    ),
)
_ROLES: Final = sa.select(role.c.id, role.c.name)
_IMPLIED: Final = sa.select(implied_role.c.prior_role_id, implied_role.c.implied_role_id)


def changes(tx: Tx) -> int:
    """The counter of what could change an existing token's meaning."""
    return int(tx.execute(_CHANGES).scalar_one_or_none() or 0)


def changed(tx: Tx) -> None:
    """Raise it: call in every transaction that touches users, scopes, roles, assignments or the catalog."""
    if not tx.execute(_BUMP).rowcount:
        tx.execute(sa.insert(identity_change).values(id=1, counter=1))


def is_revoked(tx: Tx, audit_id: str) -> bool:
    """Whether this very token was revoked."""
    return tx.execute(_REVOKED, {"audit_id": audit_id}).first() is not None


def standing(tx: Tx, user_id: str, target: Target | None) -> Standing | None:
    """See the module."""
    person = tx.execute(_USER, {"user_id": user_id}).first()
    if person is None or not (person.enabled and person.domain_enabled):
        return None
    place = _place(tx, target)
    if place is None:
        return None
    owner, generations = place
    roles = () if target is None else effective_roles(tx, user_id, target)
    if target is not None and not roles:
        return None
    return Standing(
        user=_named(person),
        target=target,
        project=owner if target is not None and target.kind is TargetKind.PROJECT else None,
        domain=owner if target is not None and target.kind is TargetKind.DOMAIN else None,
        roles=roles,
        generations=(person.auth_generation, person.domain_generation, *generations),
    )


def _place(tx: Tx, target: Target | None) -> tuple[Named | None, tuple[int, int]] | None:
    """The scope's name and generations; None when it is gone or disabled."""
    if target is None or target.kind is TargetKind.SYSTEM:
        return None, (0, 0)
    if target.kind is TargetKind.DOMAIN:
        row = tx.execute(_DOMAIN, {"domain_id": target.id}).first()
        enabled = row is not None and row.enabled
        return (Named(id=row.id, name=row.name), (row.auth_generation, 0)) if row is not None and enabled else None
    row = tx.execute(_PROJECT, {"project_id": target.id}).first()
    if row is None or not (row.enabled and row.domain_enabled):
        return None
    return _named(row), (row.auth_generation, row.domain_generation)


def _named(row: Any) -> Named:
    return Named(id=row.id, name=row.name, domain_id=row.domain_id, domain_name=row.domain_name)


def effective_roles(tx: Tx, user_id: str, target: Target) -> tuple[tuple[str, str], ...]:
    """(id, name) of the roles a user has on a target: own, by groups, and what those imply."""
    given = {"user_id": user_id, "target_id": target.id, "target_kind": target.kind.value}
    assigned = [row.role_id for row in tx.execute(_ASSIGNED, given)]
    if not assigned:
        return ()
    names = {row.id: row.name for row in tx.execute(_ROLES)}
    held = closure(assigned, implications(tx))
    return tuple(sorted(((role_id, names[role_id]) for role_id in held if role_id in names), key=lambda pair: pair[1]))


def implications(tx: Tx) -> dict[str, list[str]]:
    """Role id → ids of the roles it implies directly."""
    found: dict[str, list[str]] = {}
    for row in tx.execute(_IMPLIED):
        found.setdefault(row.prior_role_id, []).append(row.implied_role_id)
    return found


def closure(roles: Iterable[str], implied: Mapping[str, Iterable[str]]) -> set[str]:
    """The roles with all that they imply, in any number of steps; circles do no harm."""
    held: set[str] = set()
    waiting = list(roles)
    while waiting:
        current = waiting.pop()
        if current not in held:
            held.add(current)
            waiting.extend(implied.get(current, ()))
    return held
