"""Handlers of /servers/{server_id}/os-instance-actions: what was done to a server, step by step, from the saga log."""

from typing import Any, Final

import msgspec

from controller.compute import store
from controller.compute.api import links, queries
from controller.compute.api.links import micros
from controller.compute.model import Server, host_digest
from controller.compute.store import Action
from controller.context import Context
from controller.db.tables.compute import server_action
from controller.db.tx import Tx
from controller.errors import Invalid, NotFound
from controller.http.op import Call
from controller.http.policy import is_allowed
from controller.saga.log import trace
from controller.saga.model import Trace

_RULE: Final = "os_compute_api:os-instance-actions:"

RESULTS: Final = {"done": "Success", "undone": "Success", "failed": "Error", "undo-failed": "Error", "stuck": "Error"}
"""Events of the log that end something, as Nova calls the result. A step at work has none yet."""


NAMES: Final = {"volume-extend:domain": "compute_extend_volume"}
"""Steps by Nova's names of events, where clients wait for one."""


class Told(msgspec.Struct, frozen=True):
    """One action with its events."""

    server: Server
    action: Action
    events: list[Trace]


async def index(call: Call) -> dict[str, Any]:
    """GET /servers/{server_id}/os-instance-actions"""
    is_paged = call.version >= (2, 58)
    limit_max = call.cloud.settings.limits.page
    page = queries.page_of(call)
    where: list[Any] = []
    if is_paged:
        known = ("limit", "marker", "changes-since", *(("changes-before",) if call.version >= (2, 66) else ()))
        queries.check_keys(call, known, (2, 58))
        where = queries.changes(call, server_action.c.updated_at)
    limit, marker = (page.limit, page.marker) if is_paged else (limit_max, None)
    rows = await call.cloud.db.read(
        _listed, call.ctx, call.params["server_id"], call.version >= (2, 21), (where, limit, marker)
    )
    found: dict[str, Any] = {"instanceActions": [_view(call, row) for row in rows]}
    if is_paged:
        last = rows[-1].request_id if rows else None
        following = links.next_page(call, "actions", last, len(rows), page)
        if following:
            found["links"] = following["actions_links"]
    return found


def _listed(
    tx: Tx, ctx: Context, server_id: str, deleted: bool, asked: tuple[list[Any], int, str | None]
) -> list[Action]:
    store.get(tx, ctx, server_id, deleted=deleted)
    where, limit, marker = asked
    found = store.actions(tx, server_id, where, limit, marker)
    if found is None:
        raise Invalid(f"Marker {marker} could not be found.")
    return found


async def show(call: Call) -> dict[str, Any]:
    """GET /servers/{server_id}/os-instance-actions/{request_id}"""
    told = await call.cloud.db.read(
        _told, call.ctx, call.params["server_id"], call.params["request_id"], call.version >= (2, 21)
    )
    found = _view(call, told.action)
    sees_all = is_allowed(call.ctx, _RULE + "events")
    if sees_all or call.version >= (2, 51):
        found["events"] = [_event(call, told.server, event, sees_all) for event in told.events]
    return {"instanceAction": found}


def _told(tx: Tx, ctx: Context, server_id: str, request_id: str, deleted: bool) -> Told:
    server = store.get(tx, ctx, server_id, deleted=deleted)
    action = store.find_action(tx, server_id, request_id)
    if action is None:
        raise NotFound(f"Action {request_id} not found")
    of_request = trace(tx, request_id=request_id)
    by_request = {one.saga_id for one in of_request}
    events = [one for one in trace(tx, target=server_id) if one.saga_id in by_request and one.step]
    # A volume that grows below its servers is the target of that saga; it is an action of theirs nevertheless.
    events += [one for one in of_request if action.action == "extend_volume" and _name(one) in NAMES.values()]
    return Told(server, action, events)


def _name(event: Trace) -> str:
    plain = f"{event.kind.partition('/')[0]}:{event.step}"
    return NAMES.get(plain, plain)


def _view(call: Call, row: Action) -> dict[str, Any]:
    found = {
        "action": row.action,
        "instance_uuid": row.server_id,
        "request_id": row.request_id,
        "user_id": row.user_id,
        "project_id": row.project_id,
        "start_time": micros(row.started_at),
        "message": row.message,
    }
    if call.version >= (2, 58):
        found["updated_at"] = micros(row.updated_at)
    return found


def _event(call: Call, server: Server, event: Trace, sees_all: bool) -> dict[str, Any]:
    """A step. Its cause is a sentence for operators; the one for users is in the server's fault."""
    is_ended = event.event in RESULTS
    host = event.notes.get("host") or server.host_name
    found: dict[str, Any] = {
        "event": _name(event),
        "start_time": micros(event.at - event.ms / 1000),
        "finish_time": micros(event.at) if is_ended else None,
        "result": RESULTS.get(event.event),
    }
    if sees_all:
        found["traceback"] = event.error or None
    if call.version >= (2, 62):
        found["hostId"] = host_digest(server.project_id, host)
        if sees_all:
            found["host"] = host
    return found
