"""Handlers of /attachments (3.27)."""

from typing import Any

from controller.db.tables.volume import attachment as table
from controller.errors import Invalid
from controller.http.op import Call
from controller.http.paging import next_links
from controller.volume import connections
from controller.volume.api import queries, views
from controller.volume.model import Attachment
from controller.volume.store import attachments as store


async def index(call: Call) -> dict[str, Any]:
    """GET /attachments: the line of each."""
    rows, links = await _page(call)
    return {"attachments": [views.attachment_line(call, row) for row in rows], **links}


async def detail(call: Call) -> dict[str, Any]:
    """GET /attachments/detail"""
    rows, links = await _page(call)
    shown = [views.attachment(call, row, views.connection(row, None)) for row in rows]
    return {"attachments": shown, **links}


async def _page(call: Call) -> tuple[Any, dict[str, Any]]:
    asked = queries.asked(call, table, queries.ATTACHMENTS, queries.ATTACHMENT_SORTS, store.OF_PROJECT)
    rows = asked.cut(await call.cloud.db.read(store.page, asked.where, asked.page, asked.project_id))
    return rows, next_links(call, "attachments", rows, asked.page)


async def show(call: Call) -> dict[str, Any]:
    """GET /attachments/{attachment_id}: everything but the secret."""
    row: Attachment = await call.cloud.db.read(store.get, call.ctx, call.params["attachment_id"])
    return {"attachment": views.attachment(call, row, views.connection(row, None))}


async def create(call: Call) -> dict[str, Any]:
    """POST /attachments"""
    body = call.body.attachment
    mode = getattr(body, "mode", None)
    new = connections.New(
        volume_id=body.volume_uuid,
        server_id=body.instance_uuid,
        mode=None if mode == "null" else mode,
    )
    made = await connections.create(call.cloud, call.ctx, new, body.connector or None)
    return _connected(call, made)


async def update(call: Call) -> dict[str, Any]:
    """PUT /attachments/{attachment_id}: who will log in."""
    connector = call.body.attachment.connector
    attachment_id = call.params["attachment_id"]
    await call.cloud.db.read(store.get, call.ctx, attachment_id)
    if not connector:
        raise Invalid("Invalid input for field/attribute connector: it is empty.")
    return _connected(call, await connections.connect(call.cloud, call.ctx, attachment_id, connector))


def _connected(call: Call, row: Attachment) -> dict[str, Any]:
    """With the secret, this once: whoever connected an initiator is the one who needs it."""
    chap = call.cloud.fence.chap(row.id, row.secret_generation)
    return {"attachment": views.attachment(call, row, views.connection(row, (chap.user, chap.secret)))}


async def delete(call: Call) -> dict[str, Any]:
    """DELETE /attachments/{attachment_id}: what is left of the volume's."""
    left = await connections.delete(call.cloud, call.ctx, call.params["attachment_id"])
    return {"attachments": [views.attachment_line(call, row) for row in left]}


async def complete(call: Call) -> None:
    """os-complete (3.44)"""
    await connections.complete(call.cloud, call.ctx, call.params["attachment_id"])
