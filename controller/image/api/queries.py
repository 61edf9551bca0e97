"""What GET /images may be filtered and sorted by. A key that is nothing else is a property."""

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from controller.db.tables.image import image
from controller.errors import Invalid
from controller.http.filters import boolean, integer
from controller.http.op import Query
from controller.image import store
from controller.image.model import MemberStatus, Visibility

SORTABLE: Final = {
    key: key
    for key in ("name", "status", "container_format", "disk_format", "size", "id", "created_at", "updated_at", "owner")
}

_PLAIN: Final = {"id", "name", "status", "container_format", "disk_format", "owner"}
_HASHES: Final = {"checksum": "md5", "os_hash_value": "sha256"}
_NUMBERS: Final = {"min_disk", "min_ram", "size", "virtual_size"}
_PAGING: Final = {"limit", "marker", "sort", "sort_key", "sort_dir", "visibility", "member_status"}
FILTERS_MAX: Final = 100
"""Each is a condition of its own, and SQLite gives up at some hundreds."""

_COMPARE: Final[dict[str, Callable[[Any, Any], sa.ColumnElement[bool]]]] = {
    "eq": lambda column, value: column == value,
    "neq": lambda column, value: column != value,
    "gt": lambda column, value: column > value,
    "gte": lambda column, value: column >= value,
    "lt": lambda column, value: column < value,
    "lte": lambda column, value: column <= value,
}


def visibility(query: Query) -> str | None:
    """Which visibility is asked for; None: what a list shows by itself. Raises Invalid."""
    asked = query.get("visibility")
    if asked is not None and asked not in (*Visibility, "all"):
        raise Invalid(f"Invalid visibility value: {asked}")
    return asked


def member_status(query: Query) -> str:
    """Which shared images are meant. Raises Invalid."""
    asked = query.get("member_status") or MemberStatus.ACCEPTED
    if asked not in (*MemberStatus, "all"):
        raise Invalid(f"Invalid status: {asked}")
    return asked


def conditions(query: Query) -> list[sa.ColumnElement[bool]]:
    """All other filters. Raises Invalid."""
    asked = [(key, value) for key, value in query.pairs if key not in _PAGING]
    if len(asked) > FILTERS_MAX:
        raise Invalid(f"A list of images takes at most {FILTERS_MAX} filters.")
    found = [_condition(key, value) for key, value in asked]
    if "os_hidden" not in query:
        found.append(store.NOT_HIDDEN)
    return found


def _condition(key: str, value: str) -> sa.ColumnElement[bool]:
    if key in _PLAIN:
        return _text(image.c[key], value)
    if key in ("protected", "os_hidden"):
        return image.c[key].is_(boolean(key, value))
    if key in ("size_min", "size_max"):
        return _COMPARE["gte" if key == "size_min" else "lte"](image.c.size, integer(key, value))
    if key in _HASHES:
        return _text(image.c[_HASHES[key]], value.lower())
    if key in _NUMBERS:
        wanted = integer(key, value)
        is_possible = abs(wanted) < 1 << 31 or isinstance(image.c[key].type, sa.BigInteger)
        return _COMPARE["eq"](image.c[key], wanted) if is_possible else sa.false()
    if key in ("created_at", "updated_at"):
        operator, _, moment = value.partition(":")
        if operator not in _COMPARE:
            operator, moment = "eq", value
        return _COMPARE[operator](image.c[key], _seconds(key, moment))
    if key == "tag":
        # Tags are a sorted JSON list; a text is in it as a whole item only between its quotes.
        return sa.cast(image.c.tags, sa.String).contains(json.dumps(value), autoescape=True)
    return _COMPARE["eq"](image.c.properties[key].as_string(), value)


def _text(column: sa.ColumnElement[Any], value: str) -> sa.ColumnElement[bool]:
    if value.startswith("in:"):
        return column.in_([part.strip('"') for part in value[3:].split(",")])
    return column == value


def _seconds(key: str, moment: str) -> float:
    try:
        return datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()
    except ValueError as error:
        raise Invalid(f"Invalid time in '{key}': {moment}") from error
