"""Handlers of /messages (3.3): why something failed."""

from typing import Any

from controller.context import Context
from controller.db.tables.volume import volume_message as table
from controller.db.tx import Tx
from controller.http.op import Call
from controller.http.paging import next_links
from controller.volume.api import queries, views
from controller.volume.store import messages as store


async def index(call: Call) -> dict[str, Any]:
    """GET /messages"""
    asked = queries.asked(call, table, queries.MESSAGES, queries.MESSAGE_SORTS, store.OF_PROJECT)
    rows = asked.cut(await call.cloud.db.read(store.page, asked.where, asked.page, asked.project_id))
    shown = [views.message(call, row) for row in rows]
    return {"messages": shown, **next_links(call, "messages", rows, asked.page)}


async def show(call: Call) -> dict[str, Any]:
    """GET /messages/{message_id}"""
    return {"message": views.message(call, await call.cloud.db.read(store.get, call.ctx, call.params["message_id"]))}


async def delete(call: Call) -> None:
    """DELETE /messages/{message_id}"""
    await call.cloud.db.write(_delete, call.ctx, call.params["message_id"])


def _delete(tx: Tx, ctx: Context, message_id: str) -> None:
    store.drop(tx, store.get(tx, ctx, message_id).id)
