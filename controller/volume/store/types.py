"""SQL of volume types, who may use them, and which one is meant by nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from controller.context import Context
from controller.db.tables.volume import volume, volume_type, volume_type_access, volume_type_default
from controller.db.tx import Tx
from controller.errors import NotFound
from controller.http.paging import Page, keyset
from controller.volume.model import VolumeType

PUBLIC = volume_type.c.is_public.is_(True)


def granted(project_id: str | None) -> sa.ColumnElement[bool]:
    """Types that are this project's although they are not public."""
    mine = sa.select(volume_type_access.c.type_id).where(volume_type_access.c.project_id == (project_id or ""))
    return volume_type.c.id.in_(mine)


def find(tx: Tx, type_id: str) -> VolumeType | None:
    """A type."""
    row = tx.execute(sa.select(volume_type).where(volume_type.c.id == type_id)).first()
    return None if row is None else VolumeType(*row)


def find_named(tx: Tx, name: str) -> VolumeType | None:
    """A type by its name."""
    row = tx.execute(sa.select(volume_type).where(volume_type.c.name == name)).first()
    return None if row is None else VolumeType(*row)


def may_use(tx: Tx, ctx: Context, found: VolumeType) -> bool:
    """Whether the caller may see and use it."""
    if found.is_public or ctx.is_admin:
        return True
    return ctx.project_id in grants(tx, found.id)


def get(tx: Tx, ctx: Context, type_id: str) -> VolumeType:
    """A type that this caller may see. Raises NotFound."""
    found = find(tx, type_id)
    if found is None or not may_use(tx, ctx, found):
        raise NotFound(f"Volume type {type_id} could not be found.")
    return found


def page(tx: Tx, where: Sequence[sa.ColumnElement[bool]], wanted: Page) -> list[VolumeType]:
    """A page of whole rows."""
    rows: list[Any] = keyset(tx, sa.select(volume_type), wanted, volume_type, where=where)
    return [VolumeType(*row) for row in rows]


def names(tx: Tx) -> dict[str, str]:
    """Type id → name. There are few types."""
    return {row.id: row.name for row in tx.execute(sa.select(volume_type.c.id, volume_type.c.name))}


def insert(tx: Tx, new: VolumeType) -> None:
    """A type's row."""
    tx.execute(sa.insert(volume_type), {field: getattr(new, field) for field in VolumeType.__struct_fields__})


def change(tx: Tx, type_id: str, values: Mapping[str, Any]) -> None:
    """Set columns."""
    tx.execute(sa.update(volume_type).where(volume_type.c.id == type_id).values(**values))


def is_used(tx: Tx, type_id: str) -> bool:
    """Whether a volume has it."""
    return tx.execute(sa.select(volume.c.id).where(volume.c.type_id == type_id).limit(1)).first() is not None


def is_default(tx: Tx, type_id: str) -> bool:
    """Whether a project has it for its own default."""
    mine = volume_type_default.c.type_id == type_id
    return tx.execute(sa.select(volume_type_default.c.project_id).where(mine).limit(1)).first() is not None


def drop(tx: Tx, type_id: str) -> None:
    """Forget a type."""
    tx.execute(sa.delete(volume_type_access).where(volume_type_access.c.type_id == type_id))
    tx.execute(sa.delete(volume_type).where(volume_type.c.id == type_id))


def grants(tx: Tx, type_id: str) -> list[str]:
    """Projects that may use a private type."""
    mine = sa.select(volume_type_access.c.project_id).where(volume_type_access.c.type_id == type_id)
    return list(tx.execute(mine.order_by(volume_type_access.c.project_id)).scalars())


def grant(tx: Tx, type_id: str, project_id: str) -> None:
    """Let a project use a private type. It has not been let before."""
    tx.execute(sa.insert(volume_type_access).values(type_id=type_id, project_id=project_id))


def revoke(tx: Tx, type_id: str, project_id: str) -> bool:
    """Take it back; says whether it was let."""
    mine = (volume_type_access.c.type_id == type_id, volume_type_access.c.project_id == project_id)
    return bool(tx.execute(sa.delete(volume_type_access).where(*mine)).rowcount)


def default_of(tx: Tx, project_id: str) -> str | None:
    """The project's own default: a type's id."""
    mine = sa.select(volume_type_default.c.type_id).where(volume_type_default.c.project_id == project_id)
    found: str | None = tx.execute(mine).scalar_one_or_none()
    return found


def defaults(tx: Tx) -> list[tuple[str, str]]:
    """(project, type) of every project that has a default of its own."""
    found = sa.select(volume_type_default.c.project_id, volume_type_default.c.type_id)
    return [(row[0], row[1]) for row in tx.execute(found.order_by(volume_type_default.c.project_id))]


def set_default(tx: Tx, project_id: str, type_id: str) -> None:
    """Give a project a default of its own."""
    drop_default(tx, project_id)
    tx.execute(sa.insert(volume_type_default).values(project_id=project_id, type_id=type_id))


def drop_default(tx: Tx, project_id: str) -> bool:
    """Back to the cloud's; says whether it had one."""
    return bool(
        tx.execute(sa.delete(volume_type_default).where(volume_type_default.c.project_id == project_id)).rowcount
    )
