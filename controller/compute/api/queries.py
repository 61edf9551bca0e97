"""What the query strings of lists mean: which keys there are in which version, filters, and the page.

Nova's habits, which clients rely on: before 2.75 an unknown key is ignored, from there on it is a 400; a filter
that only admins have is dropped in silence for others; sorting goes downwards unless it is said otherwise.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa

from controller.compute import patterns, store, texts
from controller.compute.listing import Asked, contains
from controller.compute.model import VmState, states_of
from controller.db.tables.compute import server, server_tag
from controller.errors import Forbidden, Invalid
from controller.http.op import Call, Version
from controller.http.paging import Page
from controller.http.policy import is_allowed

STRICT: Final[Version] = (2, 75)
"""From here on unknown keys are refused."""

PAGING: Final = ("limit", "marker")


def check_keys(call: Call, known: Iterable[str], since: Version = STRICT) -> None:
    """Raises Invalid for a key that the route does not have, where the version is strict."""
    if call.version < since:
        return
    allowed = set(known)
    for key in call.query.keys():  # noqa: SIM118 - a Query is not a dict
        if key not in allowed:
            raise Invalid(f"Additional properties are not allowed ('{key}' was unexpected)")


def page_of(call: Call, sort: tuple[tuple[str, bool], ...] = ()) -> Page:
    """`limit` and `marker`. A limit past the maximum is the maximum; a negative one a 400."""
    limit_max = call.cloud.settings.limits.page
    limit = limit_max
    for value in call.query.all("limit"):
        limit = min(texts.number(value, "limit", 0), limit_max)
    return Page(limit, call.query.get("marker"), sort, "limit" in call.query)


def moment(call: Call, key: str) -> float | None:
    """A time in ISO 8601; without a zone it is UTC. Raises Invalid."""
    value = call.query.get(key)
    if value is None:
        return None
    try:
        found = datetime.fromisoformat(value.strip())
    except ValueError as error:
        raise Invalid(
            f"Invalid input for query parameters {key}. Value: {value}. '{value}' is not a 'date-time'"
        ) from error
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()


def changes(call: Call, column: sa.ColumnElement[Any], before_since: Version = (2, 66)) -> list[sa.ColumnElement[bool]]:
    """`changes-since` and `changes-before`, both inclusive."""
    since = moment(call, "changes-since")
    before = moment(call, "changes-before") if call.version >= before_since else None
    if since is not None and before is not None and before < since:
        raise Invalid("The value of changes-since must be less than or equal to changes-before.")
    found: list[sa.ColumnElement[bool]] = []
    if since is not None:
        found.append(column >= since)
    if before is not None:
        found.append(column < before + 1.0)  # Clients see whole seconds.
    return found


# Servers.

_EXACT: Final[Mapping[str, tuple[str, Version, bool]]] = {
    # key: (column, since when a member may use it, is it an admin's only)
    "reservation_id": ("reservation_id", (2, 1), False),
    "image": ("image_id", (2, 1), False),
    "image_ref": ("image_id", (2, 1), True),
    "flavor": ("flavor_id", (2, 1), False),
    "host": ("host_name", (2, 1), True),
    "node": ("host_name", (2, 1), True),
    "uuid": ("id", (2, 1), True),
    "user_id": ("user_id", (2, 1), True),
    "vm_state": ("vm_state", (2, 1), True),
    "task_state": ("task_state", (2, 1), True),
}

_PATTERNS: Final[Mapping[str, tuple[str, bool]]] = {
    # key: (field, is it an admin's only)
    "name": ("name", False),
    "display_name": ("name", True),
    "ip": ("ip", False),
    "ip6": ("ip6", False),
    "hostname": ("hostname", True),
    "key_name": ("key_name", True),
    "availability_zone": ("availability_zone", True),
    "description": ("description", True),
    "display_description": ("description", True),
    "access_ip_v4": ("access_ip_v4", True),
    "access_ip_v6": ("access_ip_v6", True),
}

_NUMBERS: Final = ("launch_index", "power_state", "progress")

_TAGS: Final = ("tags", "tags-any", "not-tags", "not-tags-any")

_CONSTANT: Final = (
    "kernel_id", "ramdisk_id", "root_device_name", "locked_by", "auto_disk_config", "config_drive", "launched_at",
    "terminated_at", "created_at", "soft_deleted",
)  # fmt: skip
"""Keys that clients may send and that select nothing here: accepted, without effect."""

_JOINED: Final = (
    "block_device_mapping", "services", "metadata", "system_metadata", "info_cache", "security_groups", "pci_devices",
)  # fmt: skip

_SORTABLE: Final[Mapping[str, str]] = {
    "access_ip_v4": "access_ip_v4",
    "access_ip_v6": "access_ip_v6",
    "auto_disk_config": "is_auto_disk",
    "availability_zone": "availability_zone",
    "config_drive": "config_drive",
    "created_at": "created_at",
    "display_description": "description",
    "display_name": "name",
    "host": "host_name",
    "hostname": "hostname",
    "image_ref": "image_id",
    "instance_type_id": "flavor_id",
    "key_name": "key_name",
    "launch_index": "launch_index",
    "launched_at": "launched_at",
    "locked_by": "locked_by",
    "node": "host_name",
    "power_state": "power_state",
    "progress": "progress",
    "project_id": "project_id",
    "task_state": "task_state",
    "terminated_at": "terminated_at",
    "updated_at": "updated_at",
    "user_id": "user_id",
    "uuid": "id",
    "vm_state": "vm_state",
}

_UNSORTED: Final = frozenset(
    {
        "architecture", "cell_name", "cleaned", "default_ephemeral_device", "default_swap_device", "deleted",
        "deleted_at", "disable_terminate", "ephemeral_gb", "ephemeral_key_uuid", "id", "key_data", "launched_on",
        "locked", "memory_mb", "os_type", "reservation_id", "root_gb", "shutdown_terminate", "user_data", "vcpus",
        "vm_mode", "kernel_id", "ramdisk_id", "root_device_name",
    }
)  # fmt: skip
"""Keys that were sort keys once: ignored before 2.75."""

_ADMIN_SORTS: Final = frozenset({"host", "node"})

_SERVER_KEYS: Final = frozenset(
    {
        *_EXACT, *_PATTERNS, *_NUMBERS, *_CONSTANT, *_JOINED, *PAGING, "sort_key", "sort_dir", "all_tenants",
        "project_id", "tenant_id", "deleted", "status", "changes-since",
    }
)  # fmt: skip


def server_page(call: Call) -> Page:
    """The page of a list of servers, newest first unless it is said otherwise."""
    page = page_of(call, _server_sort(call))
    if page.marker is not None and not texts.is_uuid(page.marker):
        raise Invalid(f"marker [{page.marker}] not found")
    return page


def _server_sort(call: Call) -> tuple[tuple[str, bool], ...]:
    sort: dict[str, bool] = {}
    directions = [value.strip() for value in call.query.all("sort_dir")]
    for i, key in enumerate(value.strip() for value in call.query.all("sort_key")):
        column = "locked_by" if key == "locked" and call.version >= (2, 73) else _SORTABLE.get(key)
        if column is None:
            if key in _UNSORTED and call.version < STRICT:
                continue
            raise Invalid(f"Invalid input for query parameters sort_key. Value: {key}. '{key}' is not one of the keys.")
        if key in _ADMIN_SORTS and not call.ctx.is_admin:
            raise Forbidden(f"Only administrators can sort servers by {key}")
        direction = directions[i] if i < len(directions) else (directions[0] if directions else "desc")
        if direction.lower() not in ("asc", "desc"):
            raise Invalid("Unknown sort direction, must be one of: asc, desc")
        sort.setdefault(column, direction.lower() == "desc")
    return tuple(sort.items()) or (("created_at", True),)


def servers(call: Call, rule: str) -> Asked:
    """Which servers a list asks for. `rule` lets the caller look into all projects."""
    _check_server_keys(call)
    sees_all = is_allowed(call.ctx, "os_compute_api:servers:allow_all_filters")
    where = [*_scope(call, rule), *_life(call, sees_all), *_status(call), *_exact(call, sees_all)]
    where += changes(call, server.c.updated_at)
    if call.version >= (2, 26):
        where += _tags(call)
    if call.version >= (2, 73) and "locked" in call.query:
        locked = server.c.locked_by.is_not(None)
        where.append(locked if texts.boolean(call.query.get("locked") or "", "locked") else sa.not_(locked))
    plain, searched = _patterns(call, sees_all)
    params = {"project_id": call.ctx.project_id, "user_id": call.ctx.user_id}
    return Asked(where=(*where, *plain), params=params, patterns=tuple(searched))


def _check_server_keys(call: Call) -> None:
    known = set(_SERVER_KEYS)
    if call.version >= (2, 26):
        known |= set(_TAGS)
    if call.version >= (2, 66):
        known.add("changes-before")
    if call.version >= (2, 73):
        known.add("locked")
    check_keys(call, known)
    for key in call.query.keys():  # noqa: SIM118 - a Query is not a dict
        if key in _JOINED or key.startswith("_"):
            raise Invalid(f"Invalid filter field: {key}.")


def _scope(call: Call, rule: str) -> list[sa.ColumnElement[bool]]:
    """Whose servers: the caller's project's, or, asked for and allowed, everyone's."""
    if _is_all_tenants(call):
        call.authorize(rule, {})
        wanted = call.query.get("project_id") or call.query.get("tenant_id")
        return [] if wanted is None else [server.c.project_id == wanted]
    return [store.OF_USER if call.ctx.project_id is None else store.OF_PROJECT]


def _is_all_tenants(call: Call) -> bool:
    value = call.query.get("all_tenants")
    return value is not None and (value == "" or texts.boolean(value, "all_tenants"))


def _life(call: Call, sees_all: bool) -> list[sa.ColumnElement[bool]]:
    """Living servers; deleted ones for an admin who asks for them; both where changes are asked for."""
    is_deleted_asked = sees_all and (call.query.get("deleted") or "").lower() in ("1", "true", "yes", "on", "t", "y")
    if is_deleted_asked or _asks_for_deleted(call):
        return [server.c.deleted_at.is_not(None)]
    asks_changes = "changes-since" in call.query or ("changes-before" in call.query and call.version >= (2, 66))
    if asks_changes and not (sees_all and "deleted" in call.query):
        return []
    return [store.LIVE]


def _asks_for_deleted(call: Call) -> bool:
    found = states_of(call.query.all("status")) if "status" in call.query else None
    if found is None or found.vm_states != (VmState.DELETED.value,):
        return False
    if not call.ctx.is_admin:
        raise Forbidden("Only administrators may list deleted instances")
    return True


def _status(call: Call) -> list[sa.ColumnElement[bool]]:
    if "status" not in call.query:
        return []
    found = states_of(call.query.all("status"))
    if found is None:
        if call.version >= (2, 38):
            raise Invalid("Invalid status value")
        return [sa.false()]
    where: list[sa.ColumnElement[bool]] = [server.c.vm_state.in_(found.vm_states)]
    if found.task_states is not None:
        where.append(server.c.task_state.in_(found.task_states))
    return where


def _exact(call: Call, sees_all: bool) -> list[sa.ColumnElement[bool]]:
    found: list[sa.ColumnElement[bool]] = []
    for key, (column, _, is_admins) in _EXACT.items():
        values = call.query.all(key)
        if values and (sees_all or not is_admins):
            wanted = [value.rpartition("/")[2] for value in values]  # Some clients send the whole link.
            found.append(_equal(server.c[column], wanted))
    found += [
        server.c[key].in_([texts.number(value, key, 0) for value in call.query.all(key)])
        for key in _NUMBERS
        if sees_all and key in call.query
    ]
    return found


def _equal(column: sa.Column[Any], values: list[str]) -> sa.ColumnElement[bool]:
    if column.name in ("task_state", "vm_state"):
        values = [value.lower() for value in values]
        if column.name == "task_state" and "none" in values:
            return sa.or_(column.is_(None), column.in_(values))
    return column == values[0] if len(values) == 1 else column.in_(values)


def _patterns(call: Call, sees_all: bool) -> tuple[list[sa.ColumnElement[bool]], list[tuple[str, Any]]]:
    """Conditions for SQL, and patterns for us. Of a repeated key the last one counts, as in Nova."""
    plain: list[sa.ColumnElement[bool]] = []
    searched: list[tuple[str, Any]] = []
    for key, (field, is_admins) in _PATTERNS.items():
        value = call.query.get(key)
        is_too_early = key == "ip6" and call.version < (2, 5)
        if value is None or ((is_admins or is_too_early) and not sees_all):
            continue
        pattern = patterns.compiled(value, key)
        if field not in ("ip", "ip6") and patterns.is_plain(value):
            plain.append(contains(server.c[field], value))
        else:
            searched.append((field, pattern))
    return plain, searched


def _tags(call: Call) -> list[sa.ColumnElement[bool]]:
    found: list[sa.ColumnElement[bool]] = []
    for key in _TAGS:
        wanted = {tag for value in call.query.all(key) for tag in value.split(",")}
        if not wanted:
            continue
        if len(wanted) > texts.TAGS_MAX:  # No server has more, and each is a condition of its own.
            raise Invalid(f"Invalid input for query parameters {key}: at most {texts.TAGS_MAX} tags.")
        holds_all = sa.and_(*(_has_one({tag}) for tag in sorted(wanted)))
        condition = _has_one(wanted) if key.endswith("any") else holds_all
        found.append(sa.not_(condition) if key.startswith("not") else condition)
    return found


def _has_one(wanted: set[str]) -> sa.ColumnElement[bool]:
    mine = sa.and_(server_tag.c.server_id == server.c.id, server_tag.c.tag.in_(sorted(wanted)))
    return sa.exists().where(mine)
