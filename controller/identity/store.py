"""SQL of identity. One set of functions serves the nouns that are alike; what is special has a function of its own."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias, TypeVar

import msgspec
import sqlalchemy as sa

from controller.db.tables.identity import (
    catalog_endpoint,
    catalog_region,
    catalog_service,
    domain,
    implied_role,
    membership,
    project,
    revoked_token,
    role,
    role_assignment,
    user,
    user_group,
)
from controller.db.tx import Tx
from controller.errors import Conflict, NotFound
from controller.http.paging import Page, keyset
from controller.identity.model import (
    Actor,
    ActorKind,
    Assignment,
    CatalogService,
    Domain,
    Endpoint,
    Group,
    Project,
    Region,
    Role,
    Target,
    TargetKind,
    User,
)
from controller.identity.standing import changed

Noun = TypeVar("Noun", Domain, Project, User, Group, Role, Region, CatalogService, Endpoint)
AnyNoun: TypeAlias = Domain | Project | User | Group | Role | Region | CatalogService | Endpoint
Condition: TypeAlias = sa.ColumnElement[bool]

TABLES: Final[Mapping[type[AnyNoun], sa.Table]] = {
    Domain: domain,
    Project: project,
    User: user,
    Group: user_group,
    Role: role,
    Region: catalog_region,
    CatalogService: catalog_service,
    Endpoint: catalog_endpoint,
}

NOUNS: Final[Mapping[type[AnyNoun], str]] = {
    Domain: "domain",
    Project: "project",
    User: "user",
    Group: "group",
    Role: "role",
    Region: "region",
    CatalogService: "service",
    Endpoint: "endpoint",
}

_SELECT: Final = {
    kind: sa.select(*(table.c[field.name] for field in msgspec.structs.fields(kind))) for kind, table in TABLES.items()
}
_GET: Final = {kind: _SELECT[kind].where(table.c.id == sa.bindparam("id")) for kind, table in TABLES.items()}


def missing(kind: type[AnyNoun], id: str) -> NotFound:
    """The failure of a noun that is not there."""
    return NotFound(f"Could not find {NOUNS[kind]}: {id}.")


def find(tx: Tx, kind: type[Noun], id: str) -> Noun | None:
    """By id."""
    row = tx.execute(_GET[kind], {"id": id}).first()
    return None if row is None else kind(**row._mapping)


def get(tx: Tx, kind: type[Noun], id: str) -> Noun:
    """By id. Raises NotFound."""
    found = find(tx, kind, id)
    if found is None:
        raise missing(kind, id)
    return found


def find_named(tx: Tx, kind: type[Noun], name: str, domain_id: str | None = None) -> Noun | None:
    """By name, without case; `domain_id` for nouns that live in a domain."""
    table = TABLES[kind]
    stmt = _SELECT[kind].where(table.c.name_key == name.casefold())
    row = tx.execute(stmt if domain_id is None else stmt.where(table.c.domain_id == domain_id)).first()
    return None if row is None else kind(**row._mapping)


def page(tx: Tx, kind: type[Noun], conditions: Iterable[Condition], page: Page) -> list[Noun]:
    """A page of those that meet all conditions."""
    rows = keyset(tx, _SELECT[kind].where(*conditions), page, TABLES[kind])
    return [kind(**row._mapping) for row in rows]


def insert(tx: Tx, kind: type[Noun], made: Noun, **hidden: Any) -> Noun:
    """A new one. Raises Conflict when the name is taken."""
    values = {**msgspec.structs.asdict(made), **hidden}
    if "name_key" in TABLES[kind].c:
        values["name_key"] = str(values["name"]).casefold()
    try:
        tx.execute(sa.insert(TABLES[kind]).values(values))
    except sa.exc.IntegrityError as error:
        raise taken(kind, str(values.get("name", made.id))) from error
    changed(tx)
    return made


def taken(kind: type[AnyNoun], name: str) -> Conflict:
    """The failure of a name that exists already."""
    noun = NOUNS[kind]
    return Conflict(f"Conflict occurred attempting to store {noun} - Duplicate entry found with name {name}.")


def update(tx: Tx, kind: type[Noun], id: str, values: Mapping[str, Any], *, ends_tokens: bool = False) -> Noun:
    """Change columns; `ends_tokens` raises the auth generation. Raises NotFound, Conflict when the name is taken."""
    table = TABLES[kind]
    columns = dict(values)
    if "name" in columns and "name_key" in table.c:
        columns["name_key"] = str(columns["name"]).casefold()
    if ends_tokens:
        columns["auth_generation"] = table.c.auth_generation + 1
    if columns:
        try:
            tx.execute(sa.update(table).where(table.c.id == id).values(columns))
        except sa.exc.IntegrityError as error:
            raise taken(kind, str(columns.get("name", id))) from error
        changed(tx)
    return get(tx, kind, id)


def delete(tx: Tx, kind: type[AnyNoun], id: str) -> None:
    """Remove one row. Raises NotFound. What hangs on it is the caller's business."""
    table = TABLES[kind]
    if not tx.execute(sa.delete(table).where(table.c.id == id)).rowcount:
        raise missing(kind, id)
    changed(tx)


def exists(tx: Tx, kind: type[AnyNoun], *conditions: Condition) -> bool:
    """Whether any row meets all conditions."""
    return (
        tx.execute(sa.select(sa.literal(1)).select_from(TABLES[kind]).where(*conditions).limit(1)).first() is not None
    )


def find_actor(tx: Tx, actor: Actor) -> User | Group | None:
    """A user or a group."""
    return find(tx, User, actor.id) if actor.kind is ActorKind.USER else find(tx, Group, actor.id)


# Passwords.


def password_of(tx: Tx, user_id: str) -> str | None:
    """The stored hash."""
    return tx.execute(sa.select(user.c.password_hash).where(user.c.id == user_id)).scalar_one_or_none()


def set_password(tx: Tx, user_id: str, password_hash: str) -> None:
    """Store a new hash and end the user's tokens. Raises NotFound."""
    values = {"password_hash": password_hash, "auth_generation": user.c.auth_generation + 1}
    if not tx.execute(sa.update(user).where(user.c.id == user_id).values(values)).rowcount:
        raise missing(User, user_id)
    changed(tx)


# Tokens.


def revoke_token(tx: Tx, audit_id: str, expires_at: float, now: float) -> None:
    """Refuse one token from now on; those that expired meanwhile need no row any more."""
    tx.execute(sa.delete(revoked_token).where(revoked_token.c.expires_at < now))
    known = sa.select(revoked_token.c.audit_id).where(revoked_token.c.audit_id == audit_id)
    if tx.execute(known).first() is None:
        tx.execute(sa.insert(revoked_token).values(audit_id=audit_id, expires_at=expires_at))
    changed(tx)


# Groups.


def members(tx: Tx, group_ids: Sequence[str]) -> dict[str, list[str]]:
    """Group id → user ids."""
    found: dict[str, list[str]] = {group_id: [] for group_id in group_ids}
    stmt = sa.select(membership).where(membership.c.group_id.in_(group_ids)).order_by(membership.c.user_id)
    for row in tx.execute(stmt):
        found[row.group_id].append(row.user_id)
    return found


def is_member(tx: Tx, group_id: str, user_id: str) -> bool:
    """Whether the user is in the group."""
    stmt = sa.select(membership).where(membership.c.group_id == group_id, membership.c.user_id == user_id)
    return tx.execute(stmt).first() is not None


def join(tx: Tx, group_id: str, user_id: str) -> None:
    """Put a user into a group; twice is once."""
    if not is_member(tx, group_id, user_id):
        tx.execute(sa.insert(membership).values(group_id=group_id, user_id=user_id))
        changed(tx)


def leave(tx: Tx, *conditions: Condition) -> int:
    """Remove memberships; returns how many."""
    count = tx.execute(sa.delete(membership).where(*conditions)).rowcount
    changed(tx)
    return int(count)


# Assignments.


def _is(actor: Actor, target: Target) -> tuple[Condition, ...]:
    return (
        role_assignment.c.actor_kind == actor.kind.value,
        role_assignment.c.actor_id == actor.id,
        role_assignment.c.target_kind == target.kind.value,
        role_assignment.c.target_id == target.id,
    )


def granted(tx: Tx, actor: Actor, target: Target) -> list[Role]:
    """The roles given directly, by name."""
    stmt = (
        _SELECT[Role]
        .join(role_assignment, role_assignment.c.role_id == role.c.id)
        .where(*_is(actor, target))
        .order_by(role.c.name_key)
    )
    return [Role(**row._mapping) for row in tx.execute(stmt)]


def is_granted(tx: Tx, actor: Actor, target: Target, role_id: str) -> bool:
    """Whether this very grant exists."""
    stmt = sa.select(role_assignment.c.id).where(*_is(actor, target), role_assignment.c.role_id == role_id)
    return tx.execute(stmt).first() is not None


def grant(tx: Tx, assignment_id: str, actor: Actor, target: Target, role_id: str) -> None:
    """Give a role; twice is once."""
    if is_granted(tx, actor, target, role_id):
        return
    values = {
        "id": assignment_id,
        "actor_kind": actor.kind.value,
        "actor_id": actor.id,
        "target_kind": target.kind.value,
        "target_id": target.id,
        "role_id": role_id,
    }
    tx.execute(sa.insert(role_assignment).values(values))
    changed(tx)


def revoke(tx: Tx, actor: Actor, target: Target, role_id: str) -> bool:
    """Take a role away; False if it was not given."""
    stmt = sa.delete(role_assignment).where(*_is(actor, target), role_assignment.c.role_id == role_id)
    changed(tx)
    return bool(tx.execute(stmt).rowcount)


def forget_assignments(tx: Tx, *conditions: Condition) -> None:
    """Remove assignments."""
    tx.execute(sa.delete(role_assignment).where(*conditions))
    changed(tx)


def assignments(tx: Tx, conditions: Iterable[Condition], page: Page) -> list[Assignment]:
    """A page of assignments, by their id."""
    rows = keyset(tx, sa.select(role_assignment).where(*conditions), page, role_assignment)
    return [
        Assignment(
            id=row.id,
            actor_kind=ActorKind(row.actor_kind),
            actor_id=row.actor_id,
            target_kind=TargetKind(row.target_kind),
            target_id=row.target_id,
            role_id=row.role_id,
        )
        for row in rows
    ]


def held_by_user(user_id: str) -> Condition:
    """Assignments that count for a user: own ones and those of the user's groups."""
    groups = sa.select(membership.c.group_id).where(membership.c.user_id == user_id)
    return sa.or_(
        sa.and_(role_assignment.c.actor_kind == ActorKind.USER.value, role_assignment.c.actor_id == user_id),
        sa.and_(role_assignment.c.actor_kind == ActorKind.GROUP.value, role_assignment.c.actor_id.in_(groups)),
    )


def reachable(user_id: str, kind: TargetKind) -> Condition:
    """Projects or domains on which the user has a role, for `page`."""
    table = project if kind is TargetKind.PROJECT else domain
    targets = sa.select(role_assignment.c.target_id).where(
        role_assignment.c.target_kind == kind.value, held_by_user(user_id)
    )
    return table.c.id.in_(targets)


def has_system_role(tx: Tx, user_id: str) -> bool:
    """Whether the user may have a system-scoped token."""
    stmt = sa.select(role_assignment.c.id).where(
        role_assignment.c.target_kind == TargetKind.SYSTEM.value, held_by_user(user_id)
    )
    return tx.execute(stmt.limit(1)).first() is not None


def roles_held(tx: Tx, actor: Actor) -> set[str]:
    """Ids of all roles that an actor has anywhere, without the implied ones."""
    held = (
        held_by_user(actor.id)
        if actor.kind is ActorKind.USER
        else sa.and_(role_assignment.c.actor_kind == actor.kind.value, role_assignment.c.actor_id == actor.id)
    )
    return {row.role_id for row in tx.execute(sa.select(role_assignment.c.role_id).where(held).distinct())}


# Implied roles.


def imply(tx: Tx, prior_role_id: str, implied_role_id: str) -> None:
    """Make one role imply another; twice is once."""
    if not is_implied(tx, prior_role_id, implied_role_id):
        tx.execute(sa.insert(implied_role).values(prior_role_id=prior_role_id, implied_role_id=implied_role_id))
        changed(tx)


def is_implied(tx: Tx, prior_role_id: str, implied_role_id: str) -> bool:
    """Whether one role implies another directly."""
    stmt = sa.select(implied_role).where(
        implied_role.c.prior_role_id == prior_role_id, implied_role.c.implied_role_id == implied_role_id
    )
    return tx.execute(stmt).first() is not None


def forget_implications(tx: Tx, *conditions: Condition) -> int:
    """Remove implications; returns how many."""
    changed(tx)
    return int(tx.execute(sa.delete(implied_role).where(*conditions)).rowcount)


# The catalog.


def catalog(tx: Tx) -> list[tuple[CatalogService, list[Endpoint]]]:
    """Enabled services that have enabled endpoints, by type."""
    services = tx.execute(
        _SELECT[CatalogService].where(catalog_service.c.enabled).order_by(catalog_service.c.type, catalog_service.c.id)
    )
    endpoints: dict[str, list[Endpoint]] = {}
    stmt = _SELECT[Endpoint].where(catalog_endpoint.c.enabled)
    for row in tx.execute(stmt.order_by(catalog_endpoint.c.interface, catalog_endpoint.c.id)):
        endpoints.setdefault(row.service_id, []).append(Endpoint(**row._mapping))
    found = [CatalogService(**row._mapping) for row in services]
    return [(service, endpoints[service.id]) for service in found if service.id in endpoints]
