"""Handlers of /os-simple-tenant-usage: what projects used in a period.

Hours count while a server is ACTIVE. (Nova counts from launch to deletion, so that a server that is off costs as much
as one that runs.) From 2.40 on there are pages of servers: who wants a project's total adds the pages up, as in Nova.
"""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final

from controller.compute import texts, usage
from controller.compute.api import links, queries
from controller.compute.api.links import micros
from controller.compute.usage import Period, Totals, Used
from controller.errors import Invalid
from controller.http.op import Call
from controller.http.paging import Page

PAGED: Final = (2, 40)

READ_S: Final = 10.0
"""For one page of servers, off the loop: the period may be anything."""

_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d:\d\d(\.\d{1,6})?)")
"""UTC, as Nova takes it."""


async def index(call: Call) -> dict[str, Any]:
    """GET /os-simple-tenant-usage: every project that used something, in sum or (`detailed=1`) by server."""
    period = _period(call)
    is_detailed = (call.query.get("detailed") or "").lower() in ("1", "true")  # Nova: 1; its own client says True.
    found, following = await _servers(call, None, period, "tenant_usages")
    by_project: dict[str, list[Used]] = {}
    for one in found:
        by_project.setdefault(one.project_id, []).append(one)
    return {
        "tenant_usages": [
            _project(project_id, servers, period, call.cloud.world.clock.now(), is_detailed)
            for project_id, servers in by_project.items()
        ],
        **following,
    }


async def show(call: Call) -> dict[str, Any]:
    """GET /os-simple-tenant-usage/{tenant_id}: one project, by server; empty if it had none."""
    project_id = call.params["tenant_id"]
    call.authorize("os_compute_api:os-simple-tenant-usage:show", {"project_id": project_id})
    period = _period(call)
    found, following = await _servers(call, project_id, period, "tenant_usage")
    now = call.cloud.world.clock.now()
    return {"tenant_usage": _project(project_id, found, period, now, True) if found else {}, **following}


def _period(call: Call) -> Period:
    """`start` and `end`, both now if missing; not beyond now. Raises Invalid."""
    known = ("start", "end", "detailed", *(queries.PAGING if call.version >= PAGED else ()))
    queries.check_keys(call, known)
    now = call.cloud.world.clock.now()
    start, stop = _moment(call, "start"), _moment(call, "end")
    if start is not None and not start < (now if stop is None else stop):
        raise Invalid("Invalid start time. The start time cannot occur after the end time.")
    stop = now if stop is None else min(stop, now)
    return Period(stop if start is None else start, stop)


def _moment(call: Call, key: str) -> float | None:
    text = call.query.get(key)
    if not text:
        return None
    try:
        if _MOMENT.fullmatch(text):
            return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):
        pass
    raise Invalid(f"Invalid input for query parameters {key}. Value: {text}. '{text}' is not a time such as {_EXAMPLE}")


_EXAMPLE: Final = "2026-11-22T16:02:01"


async def _servers(call: Call, project_id: str | None, period: Period, key: str) -> tuple[list[Used], dict[str, Any]]:
    """The servers of the page that was asked for, and the link to the next one; before pages, all."""
    if call.version < PAGED:
        return [one async for one in _all(call, project_id, period)], {}
    page = queries.page_of(call)
    if page.marker is not None and not texts.is_uuid(page.marker):
        raise Invalid(f"marker [{page.marker}] not found")
    found = await _read(call, project_id, period, page)
    return found, links.next_page(call, key, links.last_id(found), len(found), page)


async def _all(call: Call, project_id: str | None, period: Period) -> AsyncIterator[Used]:
    """Page by page, so that no read holds up the others."""
    page = Page(call.cloud.settings.limits.page, None, ())
    while True:
        found = await _read(call, project_id, period, page)
        for one in found:
            yield one
        if len(found) < page.limit:
            return
        page = Page(page.limit, found[-1].id, ())


async def _read(call: Call, project_id: str | None, period: Period, page: Page) -> list[Used]:
    now = call.cloud.world.clock.now()
    return await call.cloud.db.read_aside(READ_S, usage.page, project_id, period, now, page.limit, page.marker)


def _project(project_id: str, servers: list[Used], period: Period, now: float, is_detailed: bool) -> dict[str, Any]:
    total = Totals()
    for one in servers:
        total.add(one.totals)
    found: dict[str, Any] = {
        "tenant_id": project_id,
        "start": micros(period.start),
        "stop": micros(period.stop),
        "total_hours": total.hours,
        "total_vcpus_usage": total.vcpus,
        "total_memory_mb_usage": total.memory_mib,
        "total_local_gb_usage": total.disk_gib,
    }
    if is_detailed:
        found["server_usages"] = [_server(one, now) for one in servers]
    return found


def _server(one: Used, now: float) -> dict[str, Any]:
    is_over = one.terminated_at is not None
    return {
        "instance_id": one.id,
        "name": one.name,
        "tenant_id": one.project_id,
        "flavor": one.flavor_name,
        "vcpus": one.vcpus,
        "memory_mb": one.memory_mib,
        "local_gb": one.disk_gib,
        "hours": one.totals.hours,
        "started_at": micros(one.launched_at),
        "ended_at": micros(one.terminated_at),
        "state": "terminated" if is_over else one.vm_state,
        "uptime": int((one.terminated_at if one.terminated_at is not None else now) - one.launched_at),
    }
