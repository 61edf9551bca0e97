"""SQL of flavors and keypairs. Flavors belong to the cloud, keypairs to a user."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from controller.compute.model import Flavor, Keypair
from controller.context import Context
from controller.db.tables.compute import flavor, flavor_access, keypair
from controller.db.tx import Tx
from controller.errors import Conflict, Invalid, NotFound
from controller.http.paging import Page, constant, keyset

_GET = sa.select(flavor).where(flavor.c.id == sa.bindparam("id"))
_MINE = sa.select(flavor_access.c.flavor_id).where(
    flavor_access.c.flavor_id == sa.bindparam("id"), flavor_access.c.project_id == sa.bindparam("project_id")
)
_FLAVORS = constant(sa.select(flavor))
_GIVEN = sa.exists().where(
    flavor_access.c.flavor_id == flavor.c.id, flavor_access.c.project_id == sa.bindparam("project_id")
)
_USABLE = constant(sa.or_(flavor.c.is_public.is_(True), _GIVEN))
_PRIVATE = constant(flavor.c.is_public.is_(False))
ENABLED = constant(flavor.c.is_disabled.is_(False))
_KEY = sa.select(keypair).where(keypair.c.user_id == sa.bindparam("user_id"), keypair.c.name == sa.bindparam("name"))


def get_flavor(tx: Tx, ctx: Context, flavor_id: str) -> Flavor:
    """A flavor that this caller may use: a public one, one given to the project, or any for an admin."""
    row = tx.execute(_GET, {"id": flavor_id}).first()
    found = None if row is None else Flavor(*row)
    if found is None or not (found.is_public or ctx.is_admin or _has_access(tx, ctx, flavor_id)):
        raise NotFound(f"Flavor {flavor_id} could not be found.")
    return found


def _has_access(tx: Tx, ctx: Context, flavor_id: str) -> bool:
    return tx.execute(_MINE, {"id": flavor_id, "project_id": ctx.project_id}).first() is not None


def list_flavors(
    tx: Tx, ctx: Context, page: Page, where: Sequence[sa.ColumnElement[bool]], is_public: bool | None
) -> list[Flavor]:
    """A page. `is_public` None: all kinds. A project's own private flavors come with the public ones."""
    kinds = () if is_public is None else (_USABLE if is_public else _PRIVATE,)
    rows: list[Any] = keyset(
        tx, _FLAVORS, page, flavor, where=(*where, *kinds), params={"project_id": ctx.project_id or ""}
    )
    return [Flavor(*row) for row in rows]


def insert_flavor(tx: Tx, new: Flavor) -> Flavor:
    """Add one. Name and id are unique in the cloud."""
    if tx.execute(sa.select(flavor.c.id).where(flavor.c.name == new.name)).first() is not None:
        raise Conflict(f"Flavor with name {new.name} already exists.")
    if tx.execute(_GET, {"id": new.id}).first() is not None:
        raise Conflict(f"Flavor with ID {new.id} already exists.")
    tx.execute(sa.insert(flavor).values({field: getattr(new, field) for field in Flavor.__struct_fields__}))
    return new


def change_flavor(tx: Tx, flavor_id: str, now: float, values: Mapping[str, Any]) -> None:
    """Set columns of one. Raises NotFound."""
    changed = sa.update(flavor).where(flavor.c.id == flavor_id).values(updated_at=now, **values)
    if not tx.execute(changed).rowcount:
        raise NotFound(f"Flavor {flavor_id} could not be found.")


def delete_flavor(tx: Tx, flavor_id: str) -> None:
    """Remove one. Servers keep their copy. Raises NotFound."""
    tx.execute(sa.delete(flavor_access).where(flavor_access.c.flavor_id == flavor_id))
    if not tx.execute(sa.delete(flavor).where(flavor.c.id == flavor_id)).rowcount:
        raise NotFound(f"Flavor {flavor_id} could not be found.")


def list_access(tx: Tx, flavor_id: str) -> list[str]:
    """Projects that were given a private flavor."""
    given = sa.select(flavor_access.c.project_id).where(flavor_access.c.flavor_id == flavor_id)
    return list(tx.execute(given.order_by(flavor_access.c.project_id)).scalars())


def add_access(tx: Tx, flavor_id: str, project_id: str) -> None:
    """Give it to a project. Raises Conflict when it has it."""
    if project_id in list_access(tx, flavor_id):
        raise Conflict(f"Flavor access already exists for flavor {flavor_id} and project {project_id} combination.")
    tx.execute(sa.insert(flavor_access).values(flavor_id=flavor_id, project_id=project_id))


def remove_access(tx: Tx, flavor_id: str, project_id: str) -> None:
    """Take it from a project. Raises NotFound when it has it not."""
    mine = (flavor_access.c.flavor_id == flavor_id, flavor_access.c.project_id == project_id)
    if not tx.execute(sa.delete(flavor_access).where(*mine)).rowcount:
        raise NotFound(f"Flavor access not found for {flavor_id} / {project_id} combination.")


def find_keypair(tx: Tx, user_id: str, name: str) -> Keypair | None:
    """A user's keypair by name."""
    row = tx.execute(_KEY, {"user_id": user_id, "name": name}).first()
    return None if row is None else Keypair(*row)


def get_keypair(tx: Tx, user_id: str, name: str) -> Keypair:
    """A user's keypair by name. Raises NotFound."""
    found = find_keypair(tx, user_id, name)
    if found is None:
        raise NotFound(f"Keypair {name} not found for user {user_id}")
    return found


def list_keypairs(tx: Tx, user_id: str, limit: int, marker: str | None) -> list[Keypair]:
    """A user's keypairs by name, after the marker's name. Raises Invalid for a marker that is none of them."""
    stmt = sa.select(keypair).where(keypair.c.user_id == user_id)
    if marker is not None:
        if find_keypair(tx, user_id, marker) is None:
            raise Invalid(f"Marker {marker} could not be found.")
        stmt = stmt.where(keypair.c.name > marker)
    return [Keypair(*row) for row in tx.execute(stmt.order_by(keypair.c.name).limit(limit))]


def keypairs_used(tx: Tx, user_id: str) -> dict[str, int]:
    """How many keypairs a user has: their quota is counted by user, as in Nova."""
    count = sa.select(sa.func.count()).select_from(keypair).where(keypair.c.user_id == user_id)
    return {"key_pairs": int(tx.execute(count).scalar_one())}


def insert_keypair(tx: Tx, values: Mapping[str, Any]) -> Keypair:
    """Add one. Raises Conflict when the user has one of that name."""
    if find_keypair(tx, values["user_id"], values["name"]) is not None:
        raise Conflict(f"Key pair '{values['name']}' already exists.")
    tx.execute(sa.insert(keypair).values(**values))
    return get_keypair(tx, values["user_id"], values["name"])


def delete_keypair(tx: Tx, user_id: str, name: str) -> None:
    """Remove one. Raises NotFound."""
    mine = (keypair.c.user_id == user_id, keypair.c.name == name)
    if not tx.execute(sa.delete(keypair).where(*mine)).rowcount:
        raise NotFound(f"Keypair {name} not found for user {user_id}")
