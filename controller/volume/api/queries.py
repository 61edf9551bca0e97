"""What the query strings of lists mean: whose, which, in which order, and which page.

Cinder's habits: who is no admin and asks for all projects gets their own; unknown filters are ignored until 3.30, and a
400 from there on; a marker that names nothing is a 404.
"""

import ast
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from controller.db.tables.volume import attachment, snapshot, volume, volume_message, volume_type
from controller.errors import Invalid
from controller.http.filters import boolean, integer
from controller.http.op import Call
from controller.http.paging import Page, UnknownMarkerNotFound, page_of

STRICT: Final = (3, 31)

_PAGING: Final = frozenset(
    {
        "limit", "marker", "offset", "sort", "sort_key", "sort_dir", "all_tenants", "project_id", "with_count",
        "user_id",
    }
)  # fmt: skip

DICT_MAX: Final = 4096
"""Characters of a filter that is a dict."""

OFFSET_MAX: Final = 100_000

Condition = sa.ColumnElement[bool]


class Asked(msgspec.Struct, frozen=True):
    """Which rows, whose, and which page of them. `offset` rows of the page are skipped."""

    where: tuple[Any, ...]
    project_id: str | None
    page: Page
    offset: int = 0

    def cut(self, rows: Sequence[Any]) -> Sequence[Any]:
        """The rows behind the offset."""
        return rows[self.offset :]


def _text(column: Any) -> Callable[[str, str], Condition]:
    return lambda key, value: column == value


def _number(column: Any) -> Callable[[str, str], Condition]:
    def condition(key: str, value: str) -> Condition:
        wanted = integer(key, value)
        found: Condition = column == wanted if abs(wanted) < 1 << 31 else sa.false()
        return found

    return condition


def _flag(column: Any) -> Callable[[str, str], Condition]:
    def condition(key: str, value: str) -> Condition:
        found: Condition = column.is_(boolean(key, value))
        return found

    return condition


def _dict(column: Any) -> Callable[[str, str], Condition]:
    """`{'key': 'value'}`, as Python or as JSON writes it."""

    def condition(key: str, value: str) -> Condition:
        wanted = _mapping(key, value)
        return sa.and_(sa.true(), *(column[name].as_string() == text for name, text in wanted.items()))

    return condition


def _mapping(key: str, value: str) -> dict[str, str]:
    if len(value) > DICT_MAX:
        raise Invalid(f"Invalid input for '{key}': more than {DICT_MAX} characters.")
    try:
        found = ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError) as error:
        raise Invalid(f"Invalid input for '{key}': it is not a dict.") from error
    if not isinstance(found, dict) or not all(isinstance(one, str) for pair in found.items() for one in pair):
        raise Invalid(f"Invalid input for '{key}': it is not a dict of strings.")
    return found


def _moment(column: Any) -> Callable[[str, str], Condition]:
    """`gt:2026-11-22T16:02:01`, several of them with commas between (3.60)."""

    def condition(key: str, value: str) -> Condition:
        found: list[Condition] = []
        for part in value.split(",")[:8]:
            operator, _, text = part.partition(":")
            if operator not in _COMPARE:
                operator, text = "eq", part
            found.append(_COMPARE[operator](column, _seconds(key, text)))
        return sa.and_(*found)

    return condition


_COMPARE: Final[dict[str, Callable[[Any, float], Condition]]] = {
    "gt": lambda column, value: column > value,
    "gte": lambda column, value: column >= value,
    "eq": lambda column, value: sa.and_(column >= value, column < value + 1.0),
    "neq": lambda column, value: sa.or_(column < value, column >= value + 1.0),
    "lt": lambda column, value: column < value,
    "lte": lambda column, value: column <= value,
}


def _seconds(key: str, text: str) -> float:
    try:
        found = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError as error:
        raise Invalid(f"Invalid time in '{key}': {text}") from error
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()


def _nothing(key: str, value: str) -> Condition:
    """Of what no row has here."""
    return sa.false()


def _everything(key: str, value: str) -> Condition:
    return sa.true()


_BY_TYPE: Final = sa.select(volume_type.c.id)


def _type(key: str, value: str) -> Condition:
    named = _BY_TYPE.where(sa.or_(volume_type.c.id == value, volume_type.c.name == value))
    found: Condition = volume.c.type_id.in_(named)
    return found


Filters = Mapping[str, tuple[Callable[[str, str], Condition], tuple[int, int]]]

VOLUMES: Final[Filters] = {
    "id": (_text(volume.c.id), (3, 0)),
    "name": (_text(volume.c.name), (3, 0)),
    "display_name": (_text(volume.c.name), (3, 0)),
    "description": (_text(volume.c.description), (3, 0)),
    "status": (_text(volume.c.status), (3, 0)),
    "availability_zone": (_text(volume.c.zone), (3, 0)),
    "bootable": (_flag(volume.c.is_bootable), (3, 0)),
    "multiattach": (_flag(volume.c.is_multiattach), (3, 0)),
    "size": (_number(volume.c.size_gib), (3, 0)),
    "metadata": (_dict(volume.c.meta), (3, 0)),
    "snapshot_id": (lambda key, value: sa.and_(volume.c.source == "snapshot", volume.c.source_id == value), (3, 0)),
    "source_volid": (lambda key, value: sa.and_(volume.c.source == "volume", volume.c.source_id == value), (3, 0)),
    "volume_type": (_type, (3, 0)),
    "volume_type_id": (_type, (3, 0)),
    "migration_status": (_nothing, (3, 0)),
    "glance_metadata": (_dict(volume.c.image_meta), (3, 4)),
    "group_id": (_nothing, (3, 10)),
    "created_at": (_moment(volume.c.created_at), (3, 60)),
    "updated_at": (_moment(volume.c.updated_at), (3, 60)),
    "consumes_quota": (_everything, (3, 65)),
}

SNAPSHOTS: Final[Filters] = {
    "id": (_text(snapshot.c.id), (3, 0)),
    "name": (_text(snapshot.c.name), (3, 0)),
    "display_name": (_text(snapshot.c.name), (3, 0)),
    "description": (_text(snapshot.c.description), (3, 0)),
    "status": (_text(snapshot.c.status), (3, 0)),
    "volume_id": (_text(snapshot.c.volume_id), (3, 0)),
    "volume_size": (_number(snapshot.c.size_gib), (3, 0)),
    "metadata": (_dict(snapshot.c.meta), (3, 22)),
    "availability_zone": (_everything, (3, 0)),
    "consumes_quota": (_everything, (3, 65)),
}

ATTACHMENTS: Final[Filters] = {
    "volume_id": (_text(attachment.c.volume_id), (3, 27)),
    "instance_id": (_text(attachment.c.server_id), (3, 27)),
    "instance_uuid": (_text(attachment.c.server_id), (3, 27)),
    "attach_status": (_text(attachment.c.status), (3, 27)),
    "status": (_text(attachment.c.status), (3, 27)),
}

MESSAGES: Final[Filters] = {
    "id": (_text(volume_message.c.id), (3, 3)),
    "event_id": (_text(volume_message.c.event_id), (3, 5)),
    "resource_uuid": (_text(volume_message.c.resource_id), (3, 5)),
    "resource_type": (_text(volume_message.c.resource_type), (3, 5)),
    "request_id": (_text(volume_message.c.request_id), (3, 5)),
    "message_level": (_text(volume_message.c.level), (3, 5)),
}

_LIKE: Final[Mapping[int, Mapping[str, Any]]] = {
    id(VOLUMES): {"name": volume.c.name, "display_name": volume.c.name, "description": volume.c.description,
                  "status": volume.c.status},
    id(SNAPSHOTS): {"name": snapshot.c.name, "display_name": snapshot.c.name, "description": snapshot.c.description,
                    "status": snapshot.c.status},
}  # fmt: skip

VOLUME_SORTS: Final = {
    "id": "id", "name": "name", "display_name": "name", "status": "status", "size": "size_gib",
    "availability_zone": "zone", "bootable": "is_bootable", "created_at": "created_at", "updated_at": "updated_at",
    "host": "host_name", "project_id": "project_id", "volume_type_id": "type_id",
}  # fmt: skip

SNAPSHOT_SORTS: Final = {
    "id": "id", "name": "name", "display_name": "name", "status": "status", "volume_id": "volume_id",
    "volume_size": "size_gib", "created_at": "created_at", "updated_at": "updated_at", "project_id": "project_id",
}  # fmt: skip

ATTACHMENT_SORTS: Final = {"id": "id", "attach_status": "status", "status": "status", "created_at": "created_at",
                           "volume_id": "volume_id", "instance_uuid": "server_id"}  # fmt: skip

MESSAGE_SORTS: Final = {"id": "id", "event_id": "event_id", "resource_uuid": "resource_id", "created_at": "created_at",
                        "resource_type": "resource_type", "request_id": "request_id",
                        "message_level": "level"}  # fmt: skip

TYPE_SORTS: Final = {"id": "id", "name": "name", "is_public": "is_public", "created_at": "created_at"}

NEWEST_FIRST: Final = (("created_at", True),)


def asked(call: Call, table: sa.Table, filters: Filters, sortable: Mapping[str, str], own: Condition) -> Asked:
    """What a list asks for. `own`: the condition on the caller's project, with its bind parameter."""
    page, offset = paged(call, sortable)
    where, project_id = scope(call, table, own)
    found = [*where, *conditions(call, filters)]
    if "user_id" in call.query and call.ctx.is_admin and "user_id" in table.c:
        found.append(table.c.user_id == call.query.get("user_id"))
    return Asked(tuple(found), project_id, page, offset)


def paged(call: Call, sortable: Mapping[str, str]) -> tuple[Page, int]:
    """(the page, how many of its rows to skip)."""
    page = page_of(call, sortable, NEWEST_FIRST, unknown_marker=UnknownMarkerNotFound)
    offset = integer("offset", call.query.get("offset") or "0")
    if not 0 <= offset <= OFFSET_MAX:
        raise Invalid(f"Invalid input for 'offset': it must be from 0 to {OFFSET_MAX}.")
    if not offset:
        return page, 0
    return Page(page.limit + offset, page.marker, page.sort, page.is_asked, page.unknown_marker), offset


def scope(call: Call, table: sa.Table, own: Condition) -> tuple[list[Condition], str | None]:
    """Whose: the caller's project's, or, asked for by an admin, everyone's."""
    wanted = call.query.get("all_tenants")
    if wanted is not None and call.ctx.is_admin and (wanted == "" or boolean("all_tenants", wanted)):
        project_id = call.query.get("project_id")
        return ([] if not project_id else [table.c.project_id == project_id]), None
    return [own], call.ctx.project_id


def conditions(call: Call, filters: Filters) -> list[Condition]:
    """The filters of a query."""
    found: list[Condition] = []
    wrong: list[str] = []
    like = _LIKE.get(id(filters), {})
    for key in call.query.keys():  # noqa: SIM118 - a Query is not a dict
        if key in _PAGING:
            continue
        value = call.query.get(key) or ""
        row = filters.get(key)
        if row is not None and call.version >= row[1]:
            found.append(row[0](key, value))
        elif key.endswith("~") and key[:-1] in like and call.version >= STRICT:
            found.append(like[key[:-1]].icontains(value, autoescape=True))
        else:
            wrong.append(key)
    if wrong and call.version >= STRICT:
        raise Invalid(f"Invalid filters {', '.join(sorted(wrong))} are found in query options.")
    return found


def of_dict(column: Any, key: str, value: str) -> Condition:
    """A column of JSON that has all of these keys with these values."""
    return _dict(column)(key, value)


def wants_count(call: Call) -> bool:
    """`with_count` (3.45)."""
    value = call.query.get("with_count")
    return value is not None and call.version >= (3, 45) and boolean("with_count", value)


def known(filters: Filters) -> Iterable[str]:
    """Names of filters, for who asks which there are."""
    return sorted(filters)
