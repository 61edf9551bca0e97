"""SQL of messages: why something failed, kept for its user."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from controller.context import Context
from controller.db.tables.volume import volume_message
from controller.db.tx import Tx
from controller.errors import NotFound
from controller.http.paging import Page, constant, keyset
from controller.volume.model import Message

OF_PROJECT = constant(volume_message.c.project_id == sa.bindparam("project_id"))


def insert(tx: Tx, new: Message) -> None:
    """A message's row; repeated, the first one stands."""
    known = sa.select(volume_message.c.id).where(volume_message.c.id == new.id)
    if tx.execute(known).first() is None:
        tx.execute(sa.insert(volume_message), {field: getattr(new, field) for field in Message.__struct_fields__})


def get(tx: Tx, ctx: Context, message_id: str) -> Message:
    """A message that this caller may see. Raises NotFound."""
    row = tx.execute(sa.select(volume_message).where(volume_message.c.id == message_id)).first()
    if row is None or not (ctx.is_admin or row.project_id == ctx.project_id):
        raise NotFound(f"Message {message_id} could not be found.")
    return Message(*row)


def page(tx: Tx, where: Sequence[sa.ColumnElement[bool]], wanted: Page, project_id: str | None) -> list[Message]:
    """A page of whole rows."""
    params = {"project_id": project_id}
    rows: list[Any] = keyset(tx, sa.select(volume_message), wanted, volume_message, where=where, params=params)
    return [Message(*row) for row in rows]


def drop(tx: Tx, message_id: str) -> None:
    """Forget a message."""
    tx.execute(sa.delete(volume_message).where(volume_message.c.id == message_id))


def purge(tx: Tx, now: float, limit: int) -> int:
    """Forget messages whose time is up; how many."""
    old = sa.select(volume_message.c.id).where(volume_message.c.kept_until < now).limit(limit)
    ids = list(tx.execute(old).scalars())
    tx.execute(sa.delete(volume_message).where(volume_message.c.id.in_(ids)))
    return len(ids)
