"""SQL of hosts' image caches: what each should have, when it was asked for last, and what may go."""

from collections.abc import Collection

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from controller.db.tables.fleet import host
from controller.db.tables.image import cached_image, image
from controller.db.tx import Tx
from controller.http.paging import constant

_ROW = constant(
    sa.select(cached_image).where(
        cached_image.c.host_id == sa.bindparam("host_id"), cached_image.c.sha256 == sa.bindparam("sha256")
    )
)


class CachedImage(msgspec.Struct, frozen=True, kw_only=True):
    """One image in one host's cache. `generation` is that of the host's object, without the epoch."""

    host_id: str
    sha256: str
    generation: int
    is_wanted: bool
    size: int
    used_at: float


def find(tx: Tx, host_id: str, sha256: str) -> CachedImage | None:
    """What is known of an image on a host."""
    row = tx.execute(_ROW, {"host_id": host_id, "sha256": sha256}).mappings().one_or_none()
    return None if row is None else _cached(row)


def want(tx: Tx, host_id: str, sha256: str, size: int, now: float) -> CachedImage:
    """The host should have it: somebody needs it there now."""
    known = find(tx, host_id, sha256)
    if known is None:
        fresh = CachedImage(host_id=host_id, sha256=sha256, generation=1, is_wanted=True, size=size, used_at=now)
        _insert(tx, fresh)
        return fresh
    generation = known.generation if known.is_wanted else known.generation + 1
    after = msgspec.structs.replace(known, generation=generation, is_wanted=True, used_at=now)
    _write(tx, after)
    return after


def unwant(tx: Tx, host_id: str, sha256: str, size: int, generation: int, now: float) -> CachedImage:
    """The host should not have it any more. `generation` is what the host says that it has."""
    known = find(tx, host_id, sha256)
    if known is not None and not known.is_wanted and known.generation > generation:
        return known
    newer = max(generation, 0 if known is None else known.generation) + 1
    gone = CachedImage(host_id=host_id, sha256=sha256, generation=newer, is_wanted=False, size=size, used_at=now)
    if known is None:
        _insert(tx, gone)
    else:
        _write(tx, gone)
    return gone


def holders(tx: Tx, sha256: str) -> list[CachedImage]:
    """Every host that should have it."""
    wanted = (cached_image.c.sha256 == sha256, cached_image.c.is_wanted.is_(True))
    rows = tx.execute(sa.select(cached_image).where(*wanted).order_by(cached_image.c.host_id)).mappings()
    return [_cached(row) for row in rows]


def of_host(tx: Tx, host_id: str) -> dict[str, CachedImage]:
    """Everything known of a host's cache, by sha256."""
    rows = tx.execute(sa.select(cached_image).where(cached_image.c.host_id == host_id)).mappings()
    return {row["sha256"]: _cached(row) for row in rows}


def names(tx: Tx, sha256s: Collection[str]) -> dict[str, list[str]]:
    """The living images with these bytes: sha256 → their names, or ids."""
    living = (image.c.sha256.in_(sha256s), image.c.deleted_at.is_(None))
    found: dict[str, list[str]] = {}
    for row in tx.execute(sa.select(image.c.sha256, image.c.name, image.c.id).where(*living).order_by(image.c.id)):
        found.setdefault(row.sha256, []).append(row.name or row.id)
    return found


def contents(tx: Tx, image_ids: Collection[str]) -> set[str]:
    """What is in these images, deleted ones too: their sha256."""
    query = sa.select(image.c.sha256).where(image.c.id.in_(image_ids), image.c.sha256.is_not(None))
    return set(tx.execute(query).scalars())


def forget(tx: Tx, before: float) -> int:
    """Remove rows of hosts that are gone, and of what was evicted before that time; how many there were."""
    return tx.execute(sa.delete(cached_image).where(_forgettable(before))).rowcount


def forgettable(tx: Tx, before: float) -> bool:
    """Whether there are such rows."""
    return tx.execute(sa.select(cached_image.c.sha256).where(_forgettable(before)).limit(1)).first() is not None


def _forgettable(before: float) -> sa.ColumnElement[bool]:
    enrolled = sa.select(host.c.id).where(host.c.state == "enrolled")
    old = sa.and_(cached_image.c.is_wanted.is_(False), cached_image.c.used_at < before)
    return sa.or_(cached_image.c.host_id.not_in(enrolled), old)


def _insert(tx: Tx, row: CachedImage) -> None:
    """Of two who insert at once one runs again: PostgreSQL calls that a collision only if a conflict is foreseen."""
    values = msgspec.structs.asdict(row)
    if tx.dialect.name == "postgresql":
        tx.execute(postgresql.insert(cached_image).values(values).on_conflict_do_nothing())
    else:
        tx.execute(sa.insert(cached_image).values(values))


def _write(tx: Tx, row: CachedImage) -> None:
    here = (cached_image.c.host_id == row.host_id, cached_image.c.sha256 == row.sha256)
    tx.execute(sa.update(cached_image).where(*here).values(msgspec.structs.asdict(row)))


def _cached(row: sa.RowMapping) -> CachedImage:
    return msgspec.convert({field: row[field] for field in CachedImage.__struct_fields__}, CachedImage)
