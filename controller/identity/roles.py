"""Rules of roles, what they imply, and who is given them. Transaction functions: ids and times are arguments."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from controller.db.tables.identity import implied_role, role_assignment
from controller.db.tx import Tx
from controller.errors import Forbidden, NotFound
from controller.identity import store
from controller.identity.model import Actor, ActorKind, Domain, Group, Project, Role, Target, TargetKind, User


def create(tx: Tx, made: Role) -> Role:
    """Raises Conflict when the name is taken."""
    if store.find_named(tx, Role, made.name) is not None:
        raise store.taken(Role, made.name)
    return store.insert(tx, Role, made)


def update(tx: Tx, role_id: str, values: Mapping[str, Any]) -> Role:
    """Raises NotFound, Conflict."""
    return store.update(tx, Role, role_id, values)


def delete(tx: Tx, role_id: str) -> None:
    """With everything that was given or implied by it. Raises NotFound."""
    store.delete(tx, Role, role_id)
    store.forget_assignments(tx, role_assignment.c.role_id == role_id)
    either = sa.or_(implied_role.c.prior_role_id == role_id, implied_role.c.implied_role_id == role_id)
    store.forget_implications(tx, either)


def imply(tx: Tx, prior_role_id: str, implied_role_id: str) -> tuple[Role, Role]:
    """Whoever has the prior role has the implied one. Raises NotFound; Forbidden for admin, never a by-product."""
    prior, implied = store.get(tx, Role, prior_role_id), store.get(tx, Role, implied_role_id)
    if implied.name.casefold() == "admin":
        raise Forbidden(f"{implied.id} cannot be an implied role.")
    store.imply(tx, prior.id, implied.id)
    return prior, implied


def stop_implying(tx: Tx, prior_role_id: str, implied_role_id: str) -> None:
    """Raises NotFound."""
    pair = (implied_role.c.prior_role_id == prior_role_id, implied_role.c.implied_role_id == implied_role_id)
    if not store.forget_implications(tx, *pair):
        raise not_implied(prior_role_id, implied_role_id)


def implied_by(tx: Tx, prior_role_id: str) -> tuple[Role, list[Role]]:
    """A role and those it implies directly. Raises NotFound."""
    prior = store.get(tx, Role, prior_role_id)
    stmt = sa.select(implied_role.c.implied_role_id).where(implied_role.c.prior_role_id == prior_role_id)
    return prior, [store.get(tx, Role, implied) for implied in tx.execute(stmt).scalars().all()]


def inferences(tx: Tx) -> list[tuple[Role, list[Role]]]:
    """Every role that implies another, with those."""
    stmt = sa.select(implied_role.c.prior_role_id).distinct().order_by(implied_role.c.prior_role_id)
    return [implied_by(tx, prior) for prior in tx.execute(stmt).scalars().all()]


def not_implied(prior_role_id: str, implied_role_id: str) -> NotFound:
    """The failure of an implication that is not there."""
    return NotFound(f"Role {prior_role_id} does not imply {implied_role_id}.")


def grant(tx: Tx, assignment_id: str, actor: Actor, target: Target, role_id: str) -> None:
    """Give a role. Raises NotFound for any of the three."""
    _check(tx, actor, target, role_id)
    store.grant(tx, assignment_id, actor, target, role_id)


def revoke(tx: Tx, actor: Actor, target: Target, role_id: str) -> None:
    """Take it away. Raises NotFound."""
    if not store.revoke(tx, actor, target, role_id):
        _check(tx, actor, target, role_id)
        raise not_granted(actor, target, role_id)


def check_grant(tx: Tx, actor: Actor, target: Target, role_id: str) -> None:
    """Raises NotFound unless this very grant exists."""
    _check(tx, actor, target, role_id)
    if not store.is_granted(tx, actor, target, role_id):
        raise not_granted(actor, target, role_id)


def granted(tx: Tx, actor: Actor, target: Target) -> list[Role]:
    """The roles given directly. Raises NotFound."""
    _check(tx, actor, target, None)
    return store.granted(tx, actor, target)


def not_granted(actor: Actor, target: Target, role_id: str) -> NotFound:
    """The failure of a grant that is not there."""
    return NotFound(
        f"Could not find role assignment with role: {role_id}, "
        f"{actor.kind.value}: {actor.id}, {target.kind.value}: {target.id}."
    )


def _check(tx: Tx, actor: Actor, target: Target, role_id: str | None) -> None:
    if role_id is not None:
        store.get(tx, Role, role_id)
    if actor.kind is ActorKind.USER:
        store.get(tx, User, actor.id)
    else:
        store.get(tx, Group, actor.id)
    if target.kind is TargetKind.PROJECT:
        store.get(tx, Project, target.id)
    elif target.kind is TargetKind.DOMAIN:
        store.get(tx, Domain, target.id)
