"""SQL of attachments: a volume for one server, and the export that serves it. Change them through `attachments`."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from controller.context import Context
from controller.db.tables.volume import attachment, volume
from controller.db.tx import Tx
from controller.errors import NotFound
from controller.http.paging import Page, constant, keyset
from controller.volume.model import Attachment

OF_PROJECT = constant(attachment.c.project_id == sa.bindparam("project_id"))

_GET = sa.select(attachment).where(attachment.c.id == sa.bindparam("id"))
_ATTACHMENTS = constant(sa.select(attachment))
_OF_VOLUMES = (
    sa.select(attachment)
    .where(attachment.c.volume_id.in_(sa.bindparam("ids", expanding=True)))
    .order_by(attachment.c.created_at, attachment.c.id)
)


def find(tx: Tx, attachment_id: str) -> Attachment | None:
    """An attachment, whoever's."""
    row = tx.execute(_GET, {"id": attachment_id}).first()
    return None if row is None else Attachment(*row)


def get(tx: Tx, ctx: Context, attachment_id: str) -> Attachment:
    """An attachment that this caller may see. Raises NotFound."""
    found = find(tx, attachment_id)
    if found is None or not (ctx.is_admin or found.project_id == ctx.project_id):
        raise NotFound(f"Volume attachment could not be found with filter: attachment_id = {attachment_id}.")
    return found


def insert(tx: Tx, new: Attachment) -> None:
    """An attachment's row."""
    tx.execute(sa.insert(attachment), {field: getattr(new, field) for field in Attachment.__struct_fields__})


def page(tx: Tx, where: Sequence[sa.ColumnElement[bool]], wanted: Page, project_id: str | None) -> list[Attachment]:
    """A page of whole rows."""
    rows: list[Any] = keyset(tx, _ATTACHMENTS, wanted, attachment, where=where, params={"project_id": project_id})
    return [Attachment(*row) for row in rows]


def of_volumes(tx: Tx, volume_ids: Sequence[str]) -> dict[str, list[Attachment]]:
    """The attachments of many volumes in one query."""
    found: dict[str, list[Attachment]] = {}
    if volume_ids:
        for row in tx.execute(_OF_VOLUMES, {"ids": list(volume_ids)}):
            one = Attachment(*row)
            found.setdefault(one.volume_id, []).append(one)
    return found


def of_volume(tx: Tx, volume_id: str) -> list[Attachment]:
    """The attachments of one volume."""
    return of_volumes(tx, [volume_id]).get(volume_id, [])


def change(tx: Tx, attachment_id: str, values: Mapping[str, Any]) -> None:
    """Set columns."""
    tx.execute(sa.update(attachment).where(attachment.c.id == attachment_id).values(**values))


def move(tx: Tx, attachment_id: str, before: Sequence[str], after: str, **values: Any) -> bool:
    """Change the status if it is still one of `before`; says whether it was."""
    here = (attachment.c.id == attachment_id, attachment.c.status.in_(before))
    return bool(tx.execute(sa.update(attachment).where(*here).values(status=after, **values)).rowcount)


def bump(tx: Tx, attachment_id: str, *, keeps_secret: bool = False, **values: Any) -> int | None:
    """Raise the generation, with what else changes of the export; None when the attachment is gone.

    The secret is another then, unless a guest that has the old one goes on with it.
    """
    raised = sa.update(attachment).where(attachment.c.id == attachment_id)
    secret = attachment.c.secret_generation if keeps_secret else attachment.c.generation + 1
    stmt = raised.values(generation=attachment.c.generation + 1, secret_generation=secret, **values).returning(
        attachment.c.generation
    )
    found: int | None = tx.execute(stmt).scalar_one_or_none()
    return found


def drop(tx: Tx, attachment_id: str) -> None:
    """Forget an attachment."""
    tx.execute(sa.delete(attachment).where(attachment.c.id == attachment_id))


def exported_by(tx: Tx, host_id: str) -> list[Attachment]:
    """Every attachment whose export should be on this storage host."""
    mine = sa.select(*attachment.c).join(volume, volume.c.id == attachment.c.volume_id)
    found = [Attachment(*row) for row in tx.execute(mine.where(volume.c.host_id == host_id).order_by(attachment.c.id))]
    return [one for one in found if one.is_exported]
