"""Filters of lists as tables: query key → what it means in SQL. A key that occurs twice means either value."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from controller.errors import Invalid
from controller.http.op import Query

_BOOLEANS: Final = {
    **dict.fromkeys(("1", "t", "true", "on", "y", "yes"), True),
    **dict.fromkeys(("0", "f", "false", "off", "n", "no"), False),
}


def text(key: str, value: str) -> str:
    """As it came; longer than any column is a value that nothing equals."""
    return value


def integer(key: str, value: str) -> int:
    """A whole number that a database can hold."""
    try:
        number = int(value)
    except ValueError as error:
        raise Invalid(f"Invalid input for '{key}': '{value}' is not an integer.") from error
    if abs(number) >= 1 << 63:
        raise Invalid(f"Invalid input for '{key}': '{value}' is out of range.")
    return number


def boolean(key: str, value: str) -> bool:
    """True and false in the spellings of the OpenStack services (oslo's strict bool_from_string)."""
    found = _BOOLEANS.get(value.strip().lower())
    if found is None:
        raise Invalid(f"Invalid input for '{key}': '{value}' is not a boolean.")
    return found


@dataclass(frozen=True, slots=True)
class Filter:
    """One filterable key. `where` replaces the plain comparison: (column, values) → condition."""

    column: sa.ColumnElement[Any]
    parse: Callable[[str, str], Any] = text
    where: Callable[[sa.ColumnElement[Any], list[Any]], sa.ColumnElement[bool]] | None = None


def conditions(query: Query, filters: Mapping[str, Filter]) -> list[sa.ColumnElement[bool]]:
    """What the query asks for, as conditions for `stmt.where(*…)`. Keys that no filter has are left to the caller."""
    found: list[sa.ColumnElement[bool]] = []
    for key in query.keys():  # noqa: SIM118 - a Query is not a dict
        row = filters.get(key)
        if row is None:
            continue
        values = [row.parse(key, value) for value in query.all(key)]
        if row.where is not None:
            found.append(row.where(row.column, values))
        else:
            found.append(row.column == values[0] if len(values) == 1 else row.column.in_(values))
    return found


def contains(column: sa.ColumnElement[Any], values: list[Any]) -> sa.ColumnElement[bool]:
    """A part of the text, in any case; wildcards in the value are plain characters."""
    return sa.or_(*(column.icontains(value, autoescape=True) for value in values))


def folded(column: sa.ColumnElement[Any], values: list[Any]) -> sa.ColumnElement[bool]:
    """The whole text, in any case, over a column that holds case-folded text."""
    return column.in_([value.casefold() for value in values])
