"""SQL of what each host should have of the shared objects, and of ports that must go from a host without their row."""

from collections.abc import Iterable
from typing import TypeAlias

import sqlalchemy as sa

from controller.db.tables.network import host_object
from controller.db.tx import Tx

Key: TypeAlias = tuple[str, str]
"""(noun, id) of an object on a host."""

Known: TypeAlias = dict[Key, tuple[int, int, bool]]
"""By key: the host's generation, the object's own when that was decided, whether the host should have it."""


_OF_HOST = sa.select(host_object).where(host_object.c.host_id == sa.bindparam("host_id"))
_SOME_OF_HOST = _OF_HOST.where(host_object.c.object_id.in_(sa.bindparam("ids", expanding=True)))


_CHANGE = sa.update(host_object).where(
    host_object.c.host_id == sa.bindparam("the_host"),
    host_object.c.noun == sa.bindparam("the_noun"),
    host_object.c.object_id == sa.bindparam("the_id"),
)


def of_host(tx: Tx, host_id: str, only: Iterable[Key] | None = None) -> Known:
    """What was decided for a host: of everything, or of some objects."""
    if only is None:
        found = tx.execute(_OF_HOST, {"host_id": host_id})
    else:
        found = tx.execute(_SOME_OF_HOST, {"host_id": host_id, "ids": sorted({object_id for _, object_id in only})})
    return {(row.noun, row.object_id): (row.generation, row.version, row.is_wanted) for row in found}


def write(tx: Tx, host_id: str, key: Key, *, generation: int, version: int, is_wanted: bool, exists: bool) -> None:
    """Decide."""
    values = {"generation": generation, "version": version, "is_wanted": is_wanted}
    if exists:
        tx.execute(_CHANGE, {"the_host": host_id, "the_noun": key[0], "the_id": key[1], **values})
    else:
        tx.execute(sa.insert(host_object), {"host_id": host_id, "noun": key[0], "object_id": key[1], **values})


def retire(tx: Tx, host_id: str, noun: str, object_id: str, generation: int) -> None:
    """The object's row goes away; its host must be told with a newer generation."""
    key = (noun, object_id)
    known = of_host(tx, host_id, [key])
    write(tx, host_id, key, generation=generation, version=0, is_wanted=False, exists=key in known)


def forget(tx: Tx, host_id: str, keys: Iterable[Key]) -> None:
    """These are gone from the host and will never be asked for again: their ids belong to nothing any more."""
    for noun, object_id in keys:
        where = {"host_id": host_id, "noun": noun, "object_id": object_id, "is_wanted": False}
        tx.execute(sa.delete(host_object).where(*(host_object.c[name] == value for name, value in where.items())))
