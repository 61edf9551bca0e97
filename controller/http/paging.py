"""Keyset pages: `limit`, `marker`, sort keys, and the statement that continues after the marker's row.

The cost of a page does not depend on what stands before it: no OFFSET. Ties end at the id, in the direction of the
last key, so that one row-value comparison serves the plain case and an index on (key, id) is used.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import quote, urlencode

import sqlalchemy as sa

from controller.db.tx import Tx
from controller.errors import Invalid, NotFound
from controller.http.filters import integer
from controller.http.op import Call

_DIRECTIONS: Final = {"asc": False, "desc": True}


Visible: TypeAlias = tuple[sa.ColumnElement[bool], ...]
"""The parts of what a caller may see, each with an index of its own; none means everything."""


class UnknownMarker(Invalid):
    """The marker names no row (Nova, Glance: 400)."""


class UnknownMarkerNotFound(NotFound):
    """The marker names no row (Cinder, Neutron: 404)."""


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list. `sort` is ((column's name, is descending), …), without the id that breaks ties."""

    limit: int
    marker: str | None = None
    sort: tuple[tuple[str, bool], ...] = ()
    is_asked: bool = False  # The client gave a limit (Neutron links pages only then).
    unknown_marker: type[UnknownMarker] | type[UnknownMarkerNotFound] = UnknownMarker


def page_of(
    call: Call,
    sortable: Mapping[str, str],
    default: Sequence[tuple[str, bool]],
    *,
    is_zero_all: bool = False,
    unknown_marker: type[UnknownMarker] | type[UnknownMarkerNotFound] = UnknownMarker,
) -> Page:
    """What the query asks for. `sortable`: public key → column's name. Raises Invalid.

    `limit=0` is an empty page for Nova and Glance, and no limit for Neutron (`is_zero_all`).
    """
    limit_max = call.cloud.settings.limits.page
    text = call.query.get("limit")
    limit = limit_max if text is None else integer("limit", text)
    if limit < 0:
        raise Invalid("Invalid input for 'limit': it must not be negative.")
    if limit == 0 and is_zero_all:
        limit = limit_max
    sort = _sort(call, sortable) or tuple(default)
    marker = call.query.get("marker")
    return Page(min(limit, limit_max), marker or None, sort, text is not None, unknown_marker)


def _sort(call: Call, sortable: Mapping[str, str]) -> tuple[tuple[str, bool], ...]:
    """`sort_key` and `sort_dir` repeat pairwise (Nova, Glance, Neutron); `sort=key:dir,…` is the newer form."""
    joined = call.query.get("sort")
    if joined:
        pairs = [part.partition(":")[::2] for part in joined.split(",")]
    else:
        keys, directions = call.query.all("sort_key"), call.query.all("sort_dir")
        if len(directions) > len(keys) > 0:
            raise Invalid("Invalid input for 'sort_dir': there are more of them than sort keys.")
        pairs = [(key, directions[i] if i < len(directions) else "") for i, key in enumerate(keys)]
    sort: dict[str, bool] = {}
    for key, direction in pairs:
        if key not in sortable:
            raise Invalid(f"Invalid input for 'sort_key': '{key}' cannot be sorted by.")
        if (direction.lower() or "asc") not in _DIRECTIONS:
            raise Invalid(f"Invalid input for 'sort_dir': '{direction}' is neither asc nor desc.")
        sort.setdefault(sortable[key], _DIRECTIONS[direction.lower() or "asc"])
    return tuple(sort.items())


C = TypeVar("C", bound=sa.ClauseElement)


def constant(clause: C) -> C:
    """A module's constant, with bind parameters for what differs: lists of only such have their statements ready."""
    _CONSTANT[id(clause)] = clause
    return clause


_CONSTANT: Final[dict[int, sa.ClauseElement]] = {}
"""By identity, and kept, so that none is ever another's."""


def keyset(
    tx: Tx,
    stmt: sa.Select[Any],
    page: Page,
    table: sa.Table,
    *,
    where: Sequence[sa.ColumnElement[bool]] = (),
    visible: Visible = (),
    params: Mapping[str, Any] | None = None,
) -> list[sa.Row[Any]]:
    """The page's rows of `stmt`, which selects from `table` (key column `id`), not yet filtered nor ordered.

    Only what is `visible` may be a marker; raises the page's unknown_marker. Of each part of it a page is read by the
    part's own index: for one condition with an `or` a planner walks through everybody's rows, or sorts all of them.
    `params` are for bind parameters of conditions.
    """
    if page.limit == 0:
        return []
    given = {**(params or {}), "page_limit": page.limit}
    if page.marker is not None:
        given |= _marker_values(tx, page, table, visible, given)
    is_ready = all(id(one) in _CONSTANT for one in (stmt, *where, *visible))
    made = (_ready if is_ready else _made)(stmt, table, page.sort, tuple(where), visible, page.marker is not None)
    return list(tx.execute(made, given).all())  # Row by row is slower.


def _made(
    stmt: sa.Select[Any],
    table: sa.Table,
    sort: tuple[tuple[str, bool], ...],
    where: tuple[sa.ColumnElement[bool], ...],
    visible: Visible,
    is_after: bool,
) -> sa.Select[Any]:
    columns, down, order = _ordered(table, sort)
    if where:
        stmt = stmt.where(*where)
    if is_after:
        stmt = stmt.where(_after(columns, down))
    limit = sa.bindparam("page_limit", type_=sa.Integer())
    if len(visible) > 1:
        ids = stmt.with_only_columns(table.c.id).order_by(*order).limit(limit)
        parts = (sa.select(ids.where(part).subquery().c.id) for part in visible)
        stmt = sa.select(*stmt.selected_columns).where(table.c.id.in_(sa.union_all(*parts)))
    elif visible:
        stmt = stmt.where(*visible)
    return stmt.order_by(*order).limit(limit)


_ready = functools.lru_cache(maxsize=512)(_made)
"""Building a statement costs several times what running it does."""


_Ordered: TypeAlias = tuple[tuple[sa.ColumnElement[Any], ...], tuple[bool, ...], tuple[sa.ColumnElement[Any], ...]]


@functools.lru_cache(maxsize=1024)
def _ordered(table: sa.Table, asked: tuple[tuple[str, bool], ...]) -> _Ordered:
    """(columns, which of them descend, the ORDER BY): built once for each order that clients use."""
    sort = _with_id(asked)
    columns = tuple(_comparable(table.c[name]) for name, _ in sort)
    order = tuple(column.desc() if down else column.asc() for column, (_, down) in zip(columns, sort, strict=True))
    return columns, tuple(down for _, down in sort), order


def _with_id(sort: tuple[tuple[str, bool], ...]) -> tuple[tuple[str, bool], ...]:
    return sort if any(name == "id" for name, _ in sort) else (*sort, ("id", sort[-1][1] if sort else False))


def _comparable(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    """NULL compares with nothing, so a nullable column sorts as its type's least value."""
    if not column.nullable:
        return column
    return sa.func.coalesce(column, "" if isinstance(column.type, sa.String) else 0)


def _marker_values(tx: Tx, page: Page, table: sa.Table, visible: Visible, given: Mapping[str, Any]) -> dict[str, Any]:
    columns, _, _ = _ordered(table, page.sort)
    stmt = sa.select(*columns).select_from(table).where(table.c.id == page.marker)
    row = tx.execute(stmt.where(sa.or_(*visible)) if visible else stmt, given).first()
    if row is None:
        raise page.unknown_marker(f"Marker {page.marker} could not be found.")
    return {_name(i): value for i, value in enumerate(row)}


def _name(i: int) -> str:
    return f"page_after_{i}"


def _after(columns: Sequence[sa.ColumnElement[Any]], down: Sequence[bool]) -> sa.ColumnElement[bool]:
    """Strictly behind the marker in the page's order."""
    values = [sa.bindparam(_name(i), type_=column.type) for i, column in enumerate(columns)]
    if len(set(down)) == 1:
        left, right = sa.tuple_(*columns), sa.tuple_(*values)
        return left < right if down[0] else left > right
    steps = []
    for i, column in enumerate(columns):
        equal = [columns[j] == values[j] for j in range(i)]
        steps.append(sa.and_(*equal, column < values[i] if down[i] else column > values[i]))
    return sa.or_(*steps)


def next_query(call: Call, marker: str) -> str:
    """The query string of the following page: the same, from another marker."""
    pairs = [(key, value) for key, value in call.query.pairs if key != "marker"]
    return urlencode([*pairs, ("marker", marker)], quote_via=quote)


def next_links(call: Call, key: str, rows: Sequence[Any], page: Page) -> dict[str, list[dict[str, str]]]:
    """Nova's and Cinder's `servers_links`: present when the page is full. Rows have an `id`."""
    if not rows or len(rows) < page.limit:
        return {}
    url = f"{call.base_url}{call.path}?{next_query(call, str(rows[-1].id))}"
    return {f"{key}_links": [{"rel": "next", "href": url}]}
