"""What the tables of all network resources have in common: how a struct becomes a row, how a row is revised."""

from collections.abc import Mapping
from typing import Any

import msgspec
import sqlalchemy as sa

from controller.db.tx import Tx
from controller.network.errors import RevisionNumberConstraintFailed


def insert(tx: Tx, table: sa.Table, new: msgspec.Struct) -> None:
    """A row from a struct whose attributes are the columns' names."""
    tx.execute(sa.insert(table), {c.name: msgspec.to_builtins(getattr(new, c.name)) for c in table.columns})


def revise(tx: Tx, table: sa.Table, object_id: str, now: float, changes: Mapping[str, Any]) -> None:
    """Change columns; the revision that users see rises with it."""
    raised = {name: value for name, value in changes.items() if isinstance(value, sa.ColumnElement)}
    plain = {name: msgspec.to_builtins(value) for name, value in changes.items() if name not in raised}
    revised = sa.update(table).where(table.c.id == object_id).values(revision=table.c.revision + 1, **raised)
    tx.execute(revised, {**plain, "updated_at": now})


def check_revision(current: int, expected: int | None) -> None:
    """Raises RevisionNumberConstraintFailed if the client's If-Match names another revision."""
    if expected is not None and expected != current:
        raise RevisionNumberConstraintFailed(expected, current)
