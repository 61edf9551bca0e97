"""SQL of volumes. Whoever changes a status goes through `take` (a request), `report` (a saga), or `settle`.

`settle` is for every transaction that changed an attachment: the volume's status follows from them.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from controller.context import Context
from controller.db.tables.volume import attachment, snapshot, volume, volume_type
from controller.db.tx import Tx
from controller.errors import NotFound
from controller.http.paging import Page, constant, keyset
from controller.volume import model
from controller.volume.model import BY_ATTACHMENTS, LIFECYCLE, Event, Volume

OF_PROJECT = constant(volume.c.project_id == sa.bindparam("project_id"))

_GET = sa.select(volume).where(volume.c.id == sa.bindparam("id"))
_VOLUMES = constant(sa.select(volume))
_INSERT = sa.insert(volume)
_CHANGE = sa.update(volume).where(volume.c.id == sa.bindparam("the_id"))
_STATUSES = sa.select(attachment.c.status).where(attachment.c.volume_id == sa.bindparam("id"))
_USED = (
    sa.select(
        volume_type.c.name, sa.func.count(), sa.func.coalesce(sa.func.sum(volume.c.promised_gib), 0).label("gigabytes")
    )
    .select_from(volume.outerjoin(volume_type, volume_type.c.id == volume.c.type_id))
    .where(volume.c.project_id == sa.bindparam("project_id"))
    .group_by(volume_type.c.name)
)
_USED_BY_SNAPSHOTS = (
    sa.select(
        volume_type.c.name, sa.func.count(), sa.func.coalesce(sa.func.sum(snapshot.c.size_gib), 0).label("gigabytes")
    )
    .select_from(snapshot.outerjoin(volume_type, volume_type.c.id == snapshot.c.type_id))
    .where(snapshot.c.project_id == sa.bindparam("project_id"))
    .group_by(volume_type.c.name)
)
_BUMP = (
    sa.update(volume)
    .where(volume.c.id == sa.bindparam("volume_id"))
    .values(generation=volume.c.generation + 1)
    .returning(volume.c.generation)
)

NEXT_GENERATION = volume.c.generation + 1
"""For `take(…, generation=NEXT_GENERATION)`."""


def find(tx: Tx, volume_id: str) -> Volume | None:
    """A volume, whoever's."""
    row = tx.execute(_GET, {"id": volume_id}).first()
    return None if row is None else Volume(*row)


def get(tx: Tx, ctx: Context, volume_id: str) -> Volume:
    """A volume that this caller may see. Raises NotFound."""
    found = find(tx, volume_id)
    if found is None or not (ctx.is_admin or found.project_id == ctx.project_id):
        raise NotFound(f"Volume {volume_id} could not be found.")
    return found


def insert(tx: Tx, new: Volume) -> None:
    """A volume's row."""
    tx.execute(_INSERT, {field: getattr(new, field) for field in Volume.__struct_fields__})


def page(tx: Tx, where: Sequence[sa.ColumnElement[bool]], wanted: Page, project_id: str | None) -> list[Volume]:
    """A page of whole rows."""
    params = {"project_id": project_id}
    rows: list[Any] = keyset(tx, _VOLUMES, wanted, volume, where=where, params=params)
    return [Volume(*row) for row in rows]


def count(tx: Tx, where: Sequence[sa.ColumnElement[bool]], project_id: str | None) -> tuple[int, int]:
    """How many such volumes there are, and their GiB."""
    query = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(volume.c.size_gib), 0)).where(*where)
    found, total = tx.execute(query, {"project_id": project_id}).one()
    return int(found), int(total)


def summarized(tx: Tx, where: Sequence[sa.ColumnElement[bool]], project_id: str | None) -> dict[str, list[str]]:
    """Every metadata key of these volumes with its values."""
    found: dict[str, set[str]] = {}
    for meta in tx.execute(sa.select(volume.c.meta).where(*where), {"project_id": project_id}).scalars():
        for key, value in meta.items():
            found.setdefault(key, set()).add(value)
    return {key: sorted(values) for key, values in sorted(found.items())}


def take(tx: Tx, volume_id: str, event: Event, now: float, **values: Any) -> Volume | None:
    """Change a volume by a user's request; the row as it is then, or None: its status does not allow it (any more)."""
    changed = _taking(event).values(**_after(event), **values, updated_at=now).returning(*volume.c)
    row: Any = tx.execute(changed, {"the_id": volume_id}).first()
    return None if row is None else Volume(*row)


def report(tx: Tx, volume_id: str, event: Event, now: float, **values: Any) -> bool:
    """Change a volume by what its saga says; False when it has moved on. Where no status follows, attachments say."""
    done = tx.execute(_reporting(event).values(**_after(event), **values, updated_at=now), {"the_id": volume_id})
    if done.rowcount and LIFECYCLE[event].after is None:
        follow(tx, volume_id)
    return bool(done.rowcount)


@functools.cache
def _taking(event: Event) -> sa.Update:
    before = LIFECYCLE[event].before
    if event is Event.FORCE_DELETE:
        return _CHANGE
    here = _CHANGE.where(volume.c.is_deleting.is_(False)) if event is not Event.DELETE else _CHANGE
    return here if before is None else here.where(volume.c.status.in_(sorted(before)))


@functools.cache
def _reporting(event: Event) -> sa.Update:
    before = LIFECYCLE[event].before
    return _CHANGE if before is None else _CHANGE.where(volume.c.status.in_(sorted(before)))


def _after(event: Event) -> dict[str, str]:
    after = LIFECYCLE[event].after
    return {} if after is None else {"status": after.value}


def follow(tx: Tx, volume_id: str) -> None:
    """Give the volume the status that its attachments make, whatever it was."""
    status = model.status_by(tx.execute(_STATUSES, {"id": volume_id}).scalars())
    tx.execute(sa.update(volume).where(volume.c.id == volume_id).values(status=status.value))


def settle(tx: Tx, volume_id: str, now: float) -> None:
    """An attachment has changed: the status follows, unless somebody works on the volume."""
    status = model.status_by(tx.execute(_STATUSES, {"id": volume_id}).scalars())
    mine = (volume.c.id == volume_id, volume.c.status.in_(sorted(BY_ATTACHMENTS)))
    tx.execute(sa.update(volume).where(*mine).values(status=status.value, updated_at=now))


def change(tx: Tx, volume_id: str, values: Mapping[str, Any]) -> None:
    """Set columns that no lifecycle guards."""
    tx.execute(sa.update(volume).where(volume.c.id == volume_id).values(**values))


def bump(tx: Tx, volume_id: str) -> int:
    """Raise the generation, so that what is sent from now on wins over what was sent before."""
    return int(tx.execute(_BUMP, {"volume_id": volume_id}).scalar_one())


def drop(tx: Tx, volume_id: str) -> None:
    """Forget a volume. Its attachments are gone before."""
    tx.execute(sa.delete(volume).where(volume.c.id == volume_id))


def on_host(tx: Tx, host_id: str) -> list[Volume]:
    """Every volume that lies there and stays."""
    mine = (volume.c.host_id == host_id, volume.c.is_deleting.is_(False))
    return [Volume(*row) for row in tx.execute(sa.select(volume).where(*mine).order_by(volume.c.id))]


def used(tx: Tx, project_id: str) -> dict[str, int]:
    """What a project's volumes and snapshots count against its quota, in all and by type."""
    found = {"volumes": 0, "gigabytes": 0, "snapshots": 0}
    for name, number, gigabytes in tx.execute(_USED, {"project_id": project_id}):
        _add(found, "volumes", name, int(number))
        _add(found, "gigabytes", name, int(gigabytes))
    for name, number, gigabytes in tx.execute(_USED_BY_SNAPSHOTS, {"project_id": project_id}):
        _add(found, "snapshots", name, int(number))
        _add(found, "gigabytes", name, int(gigabytes))
    return found


def _add(found: dict[str, int], resource: str, type_name: str | None, amount: int) -> None:
    found[resource] += amount
    if type_name is not None:
        key = f"{resource}_{type_name}"
        found[key] = found.get(key, 0) + amount
