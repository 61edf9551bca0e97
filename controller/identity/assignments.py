"""Who has which role where: the list that auditors read, plain or with everything that follows from it.

Pages run over the stored assignments; what follows from each (members of a group, implied roles) is added to its page.
"""

from collections.abc import Iterable

import msgspec
import sqlalchemy as sa

from controller.db.tables.identity import role_assignment
from controller.db.tx import Tx
from controller.errors import Invalid
from controller.http.paging import Page
from controller.identity import projects, store
from controller.identity.model import (
    Actor,
    ActorKind,
    Assignment,
    Domain,
    Group,
    Named,
    Project,
    Role,
    Target,
    TargetKind,
    User,
)
from controller.identity.standing import closure, implications


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Filters of the list."""

    user_id: str | None = None
    group_id: str | None = None
    role_id: str | None = None
    target: Target | None = None
    is_effective: bool = False
    has_subtree: bool = False  # Also the projects below the target.
    domain_id: str | None = None  # Only what a reader of this domain may see.


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the list: an assignment, or what follows from one."""

    actor: Actor
    target: Target
    role_id: str
    source: Assignment
    prior_role_id: str | None = None  # The role that implies this one.


class Names(msgspec.Struct, frozen=True, kw_only=True):
    """Names of everything that a page speaks of, by id."""

    actors: dict[str, Named]
    targets: dict[str, Named]
    roles: dict[str, str]


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One page."""

    effects: list[Effect]
    names: Names
    last_id: str | None  # The marker of the next page, if this one is full.


def listed(tx: Tx, wanted: Wanted, page: Page) -> Found:
    """A page. Raises Invalid for filters that contradict each other."""
    if wanted.user_id and wanted.group_id:
        raise Invalid("Specify a user or group, not both.")
    if wanted.is_effective and wanted.group_id:
        raise Invalid("Combining effective and group filter will always result in an empty list.")
    implied = implications(tx)
    rows = store.assignments(tx, _conditions(tx, wanted, implied), page)
    effects = _effects(tx, rows, implied, wanted) if wanted.is_effective else [_plain(row) for row in rows]
    last_id = rows[-1].id if rows and len(rows) == page.limit else None
    return Found(effects=effects, names=_names(tx, effects), last_id=last_id)


def _conditions(tx: Tx, wanted: Wanted, implied: dict[str, list[str]]) -> list[sa.ColumnElement[bool]]:
    given = role_assignment.c
    found: list[sa.ColumnElement[bool]] = []
    if wanted.user_id and wanted.is_effective:
        found.append(store.held_by_user(wanted.user_id))
    elif wanted.user_id:
        found.append(sa.and_(given.actor_kind == ActorKind.USER.value, given.actor_id == wanted.user_id))
    if wanted.group_id:
        found.append(sa.and_(given.actor_kind == ActorKind.GROUP.value, given.actor_id == wanted.group_id))
    if wanted.role_id and wanted.is_effective:
        every = {*implied, *(role for roles in implied.values() for role in roles), wanted.role_id}
        found.append(given.role_id.in_([role for role in every if wanted.role_id in closure([role], implied)]))
    elif wanted.role_id:
        found.append(given.role_id == wanted.role_id)
    if wanted.target is not None:
        ids = [wanted.target.id]
        if wanted.has_subtree and wanted.target.kind is TargetKind.PROJECT:
            ids += projects.descendants(tx, wanted.target.id)
        found.append(sa.and_(given.target_kind == wanted.target.kind.value, given.target_id.in_(ids)))
    if wanted.domain_id is not None:
        found.append(_in_domain(wanted.domain_id))
    return found


def _in_domain(domain_id: str) -> sa.ColumnElement[bool]:
    project = store.TABLES[Project]
    inside = sa.select(project.c.id).where(project.c.domain_id == domain_id)
    given = role_assignment.c
    return sa.or_(
        sa.and_(given.target_kind == TargetKind.DOMAIN.value, given.target_id == domain_id),
        sa.and_(given.target_kind == TargetKind.PROJECT.value, given.target_id.in_(inside)),
    )


def _plain(row: Assignment) -> Effect:
    actor, target = Actor(row.actor_kind, row.actor_id), Target(row.target_kind, row.target_id)
    return Effect(actor=actor, target=target, role_id=row.role_id, source=row)


def _effects(tx: Tx, rows: list[Assignment], implied: dict[str, list[str]], wanted: Wanted) -> list[Effect]:
    groups = [row.actor_id for row in rows if row.actor_kind is ActorKind.GROUP]
    members = store.members(tx, groups)
    found: list[Effect] = []
    for row in rows:
        users = [row.actor_id] if row.actor_kind is ActorKind.USER else members[row.actor_id]
        held = sorted(closure([row.role_id], implied))
        for user_id in users:
            if wanted.user_id in (None, user_id):
                found += [_effect(row, user_id, role_id) for role_id in held if wanted.role_id in (None, role_id)]
    return found


def _effect(row: Assignment, user_id: str, role_id: str) -> Effect:
    return Effect(
        actor=Actor(ActorKind.USER, user_id),
        target=Target(row.target_kind, row.target_id),
        role_id=role_id,
        source=row,
        prior_role_id=None if role_id == row.role_id else row.role_id,
    )


def _names(tx: Tx, effects: Iterable[Effect]) -> Names:
    domains: dict[str, str] = {}
    actors: dict[str, Named] = {}
    targets: dict[str, Named] = {}
    roles: dict[str, str] = {}
    for effect in effects:
        if effect.actor.id not in actors:
            actors[effect.actor.id] = _named(tx, store.find_actor(tx, effect.actor), domains)
        if effect.target.kind is TargetKind.PROJECT and effect.target.id not in targets:
            targets[effect.target.id] = _named(tx, store.find(tx, Project, effect.target.id), domains)
        elif effect.target.kind is TargetKind.DOMAIN and effect.target.id not in targets:
            targets[effect.target.id] = Named(id=effect.target.id, name=_domain_name(tx, effect.target.id, domains))
        if effect.role_id not in roles:
            role = store.find(tx, Role, effect.role_id)
            roles[effect.role_id] = "" if role is None else role.name
    return Names(actors=actors, targets=targets, roles=roles)


def _named(tx: Tx, found: User | Group | Project | None, domains: dict[str, str]) -> Named:
    if found is None:
        return Named(id="", name="")
    domain_name = _domain_name(tx, found.domain_id, domains)
    return Named(id=found.id, name=found.name, domain_id=found.domain_id, domain_name=domain_name)


def _domain_name(tx: Tx, domain_id: str, domains: dict[str, str]) -> str:
    if domain_id not in domains:
        found = store.find(tx, Domain, domain_id)
        domains[domain_id] = "" if found is None else found.name
    return domains[domain_id]
