"""The one row that says which cloud this database belongs to: its name, its tag, its epoch."""

import msgspec
import sqlalchemy as sa

from controller.db.tables.cloud import cloud
from controller.db.tx import Tx


class Founded(msgspec.Struct, frozen=True, kw_only=True):
    """A cloud's identity. `tag` marks every host object; `epoch` is the first half of every generation."""

    name: str
    tag: str
    epoch: int
    is_new: bool = False  # This very transaction has founded it.


def found(tx: Tx, *, name: str, tag: str, now: float) -> Founded:
    """The cloud of this database; founded with `name` and `tag` if the database is new."""
    row = tx.execute(sa.select(cloud).where(cloud.c.id == 1)).one_or_none()
    if row is not None:
        return Founded(name=row.name, tag=row.tag, epoch=row.epoch)
    tx.execute(sa.insert(cloud).values(id=1, name=name, tag=tag, epoch=1, created_at=now))
    return Founded(name=name, tag=tag, epoch=1, is_new=True)
