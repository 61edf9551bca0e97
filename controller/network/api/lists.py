"""Lists as Neutron has them: exact filters that repeat, `fields`, sort keys, pages forwards and backwards, links.

A filter with an unknown key is a 400 (extension filter-validation). `fields` chooses keys of what is shown anyway.
Pages are linked when a limit was given, or when ours cut the list off: `next` and `previous`, by the rules of
Neutron's own paginator, which clients of both directions depend on.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, urlencode

import sqlalchemy as sa

from controller.context import Context
from controller.db.tx import Tx
from controller.errors import Invalid
from controller.http.filters import Filter, boolean, conditions, integer
from controller.http.op import Call
from controller.http.paging import Page, UnknownMarkerNotFound, Visible, constant, keyset, page_of

_PAGING: Final = frozenset({"limit", "marker", "page_reverse", "sort_key", "sort_dir", "fields", "changed_since"})

SLOW_S: Final = 5.0
"""Filters over everybody's rows have no index to help them: off the loop, and not for longer than this."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One collection.

    `visible`: the parts of what a caller may see; none means everything. They are constants, and the parameter
    `project_id` stands for the caller's. `hidden`: filters that only administrators'
    requests may use; others' are dropped silently.
    """

    collection: str
    table: sa.Table
    filters: Mapping[str, Filter]
    sortable: Mapping[str, str]
    visible: Callable[[Context], Visible]
    complete: Callable[[Tx, Sequence[Any]], list[Any]]
    hidden: frozenset[str] = frozenset()


async def listed(call: Call, what: Listed, view: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """The page that the query asks for, with its links."""
    found, page, is_reverse = await fetched(call, what)
    return shown(call, what, [view(one) for one in found], page, is_reverse=is_reverse)


async def fetched(call: Call, what: Listed) -> tuple[list[Any], Page, bool]:
    """(the objects of the page, the page, whether it was asked for backwards)."""
    unknown = [key for key in call.query.keys() if key not in what.filters and key not in _PAGING]  # noqa: SIM118
    if unknown:
        raise Invalid(f"{unknown} is invalid attribute for filtering")
    is_reverse = boolean("page_reverse", call.query.get("page_reverse") or "false")
    page = page_of(call, what.sortable, (), is_zero_all=True, unknown_marker=UnknownMarkerNotFound)
    usable = {k: v for k, v in what.filters.items() if call.ctx.is_admin or k not in what.hidden}
    wanted = conditions(call.query, usable) + _changed_since(call, what.table)
    params = {"project_id": call.ctx.project_id or ""}

    def read(tx: Tx) -> list[Any]:
        ordered = _reversed(page) if is_reverse else page
        rows = keyset(
            tx, _all(what.table), ordered, what.table, where=wanted, visible=what.visible(call.ctx), params=params
        )
        return what.complete(tx, rows[::-1] if is_reverse else rows)

    if call.ctx.is_admin and wanted:
        found = await call.cloud.db.read_aside(SLOW_S, read)
    else:
        found = await call.cloud.db.read(read)
    return found, page, is_reverse


@functools.cache
def _all(table: sa.Table) -> sa.Select[Any]:
    return constant(sa.select(table))


def shown(call: Call, what: Listed, views: list[dict[str, Any]], page: Page, *, is_reverse: bool) -> dict[str, Any]:
    """The body of the answer."""
    body: dict[str, Any] = {what.collection: [chosen(call, view) for view in views]}
    links = _links(call, [view["id"] for view in views], page, is_reverse=is_reverse)
    return {**body, f"{what.collection}_links": links} if links else body


def chosen(call: Call, view: dict[str, Any]) -> dict[str, Any]:
    """The keys that `fields` asks for; without it all. Unknown ones are passed over, as in Neutron."""
    wanted = {name for name in call.query.all("fields") if name}
    return {key: value for key, value in view.items() if key in wanted} if wanted else view


def _reversed(page: Page) -> Page:
    """The same order, read backwards from the marker."""
    sort = page.sort if any(name == "id" for name, _ in page.sort) else (*page.sort, ("id", _last_direction(page)))
    return replace(page, sort=tuple((name, not is_down) for name, is_down in sort))


def _last_direction(page: Page) -> bool:
    return page.sort[-1][1] if page.sort else False


def _changed_since(call: Call, table: sa.Table) -> list[sa.ColumnElement[bool]]:
    text = call.query.get("changed_since")
    if text is None:
        return []
    try:
        since = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise Invalid(
            f"The input changed_since must be in the following format: YYYY-MM-DDTHH:MM:SSZ, not {text}"
        ) from None
    return [table.c.updated_at >= since]


def _links(call: Call, ids: list[str], page: Page, *, is_reverse: bool) -> list[dict[str, str]]:
    is_full = len(ids) >= page.limit
    if not (page.is_asked or is_full) or call.query.get("limit") == "0":
        return []
    links = []
    if is_full or is_reverse:
        links.append({"rel": "next", "href": _href(call, ids[-1:], [])})
    if is_full or not is_reverse:
        links.append({"rel": "previous", "href": _href(call, ids[:1], [("page_reverse", "True")])})
    return links


def _href(call: Call, marker: list[str], extra: list[tuple[str, str]]) -> str:
    kept = [(key, value) for key, value in call.query.pairs if key not in ("marker", "page_reverse")]
    pairs = [*kept, *(("marker", one) for one in marker), *extra]
    return f"{call.base_url}{call.path}?{urlencode(pairs, quote_via=quote)}"


# Filters that several collections have.


def standard_filters(table: sa.Table, *names: str) -> dict[str, Filter]:
    """By the attributes that every resource has, and by further columns of their own name."""
    columns = ("id", "name", "description", "project_id", *names)
    found = {name: Filter(table.c[name]) for name in columns}
    return {**found, "tenant_id": Filter(table.c.project_id), "revision_number": Filter(table.c.revision, number)}


def standard_sortable(*names: str) -> dict[str, str]:
    """By the attributes that every resource has, and by further columns of their own name."""
    same = {name: name for name in ("id", "name", "project_id", "created_at", "updated_at", *names)}
    return {**same, "tenant_id": "project_id", "revision_number": "revision"}


def number(key: str, value: str) -> int:
    """A number that fits the columns that are compared with it."""
    found = integer(key, value)
    if abs(found) >= 1 << 31:
        raise Invalid(f"Invalid input for '{key}': '{value}' is out of range.")
    return found


def flag(column: sa.ColumnElement[Any]) -> Filter:
    """True or false."""
    return Filter(column, boolean)
