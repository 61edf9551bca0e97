"""SQL of snapshots."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from controller.context import Context
from controller.db.tables.volume import snapshot
from controller.db.tx import Tx
from controller.errors import NotFound
from controller.http.paging import Page, constant, keyset
from controller.volume.model import Snapshot

OF_PROJECT = constant(snapshot.c.project_id == sa.bindparam("project_id"))

_GET = sa.select(snapshot).where(snapshot.c.id == sa.bindparam("id"))
_SNAPSHOTS = constant(sa.select(snapshot))
_BUMP = (
    sa.update(snapshot)
    .where(snapshot.c.id == sa.bindparam("snapshot_id"))
    .values(generation=snapshot.c.generation + 1)
    .returning(snapshot.c.generation)
)


def find(tx: Tx, snapshot_id: str) -> Snapshot | None:
    """A snapshot, whoever's."""
    row = tx.execute(_GET, {"id": snapshot_id}).first()
    return None if row is None else Snapshot(*row)


def get(tx: Tx, ctx: Context, snapshot_id: str) -> Snapshot:
    """A snapshot that this caller may see. Raises NotFound."""
    found = find(tx, snapshot_id)
    if found is None or not (ctx.is_admin or found.project_id == ctx.project_id):
        raise NotFound(f"Snapshot {snapshot_id} could not be found.")
    return found


def insert(tx: Tx, new: Snapshot) -> None:
    """A snapshot's row."""
    tx.execute(sa.insert(snapshot), {field: getattr(new, field) for field in Snapshot.__struct_fields__})


def page(tx: Tx, where: Sequence[sa.ColumnElement[bool]], wanted: Page, project_id: str | None) -> list[Snapshot]:
    """A page of whole rows."""
    rows: list[Any] = keyset(tx, _SNAPSHOTS, wanted, snapshot, where=where, params={"project_id": project_id})
    return [Snapshot(*row) for row in rows]


def count(tx: Tx, where: Sequence[sa.ColumnElement[bool]], project_id: str | None) -> int:
    """How many such snapshots there are."""
    query = sa.select(sa.func.count()).select_from(snapshot).where(*where)
    return int(tx.execute(query, {"project_id": project_id}).scalar_one())


def of_volume(tx: Tx, volume_id: str) -> list[Snapshot]:
    """A volume's snapshots."""
    mine = sa.select(snapshot).where(snapshot.c.volume_id == volume_id)
    return [Snapshot(*row) for row in tx.execute(mine.order_by(snapshot.c.created_at, snapshot.c.id))]


def move(tx: Tx, snapshot_id: str, before: Sequence[str], after: str, now: float, **values: Any) -> bool:
    """Change the status if it is still one of `before`; says whether it was."""
    here = (snapshot.c.id == snapshot_id, snapshot.c.status.in_(before))
    return bool(tx.execute(sa.update(snapshot).where(*here).values(status=after, updated_at=now, **values)).rowcount)


def change(tx: Tx, snapshot_id: str, values: Mapping[str, Any]) -> None:
    """Set columns that no status guards."""
    tx.execute(sa.update(snapshot).where(snapshot.c.id == snapshot_id).values(**values))


def bump(tx: Tx, snapshot_id: str) -> int:
    """Raise the generation, so that what is sent from now on wins over what was sent before."""
    return int(tx.execute(_BUMP, {"snapshot_id": snapshot_id}).scalar_one())


def drop(tx: Tx, snapshot_id: str) -> None:
    """Forget a snapshot."""
    tx.execute(sa.delete(snapshot).where(snapshot.c.id == snapshot_id))


def on_host(tx: Tx, host_id: str) -> list[Snapshot]:
    """Every snapshot that lies there and stays."""
    mine = (snapshot.c.host_id == host_id, snapshot.c.is_deleting.is_(False))
    return [Snapshot(*row) for row in tx.execute(sa.select(snapshot).where(*mine).order_by(snapshot.c.id))]
