"""SQL of servers: rows, their ports as given, what the guest reads, tags, and the record of actions.

Whoever changes a server's states goes through `take` (a request: refused with 409 where the lifecycle does not
allow it) or `report` (a saga or a host: ignored where it came too late).
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from controller.compute import model, usage
from controller.compute.model import Event, Nic, PowerState, Server, VmState
from controller.context import Context
from controller.db.tables.compute import (
    server,
    server_action,
    server_group_member,
    server_guest,
    server_nic,
    server_resize,
    server_tag,
)
from controller.db.tables.usage import server_usage
from controller.db.tx import Tx
from controller.errors import Conflict, NotFound
from controller.http.paging import Page, constant, keyset

LIVE = constant(server.c.deleted_at.is_(None))
OF_PROJECT = constant(server.c.project_id == sa.bindparam("project_id"))
OF_USER = constant(server.c.user_id == sa.bindparam("user_id"))

_GET = sa.select(server).where(server.c.id == sa.bindparam("id"))
_SERVERS = constant(sa.select(server))
_NAMES = constant(sa.select(server.c.id, server.c.name))
_NICS = sa.select(server_nic).where(server_nic.c.server_id == sa.bindparam("server_id")).order_by(server_nic.c.position)
_TAGS = (
    sa.select(server_tag.c.tag).where(server_tag.c.server_id == sa.bindparam("server_id")).order_by(server_tag.c.tag)
)
# Values are given to `execute`: a statement that is built with sixty values costs ten times what it takes to run it.
_INSERT, _INSERT_NIC, _INSERT_GUEST = sa.insert(server), sa.insert(server_nic), sa.insert(server_guest)
_INSERT_ACTION = sa.insert(server_action)
_CHANGE = sa.update(server).where(server.c.id == sa.bindparam("the_id"))
_SET_NIC = sa.update(server_nic).where(
    server_nic.c.server_id == sa.bindparam("the_server"), server_nic.c.port_id == sa.bindparam("the_port")
)
_END_ACTION = sa.update(server_action).where(
    server_action.c.server_id == sa.bindparam("the_server"), server_action.c.request_id == sa.bindparam("the_request")
)
_KNOWN_ACTION = sa.select(server_action.c.action).where(
    server_action.c.server_id == sa.bindparam("the_server"), server_action.c.request_id == sa.bindparam("the_request")
)
_TAGS_OF = (
    sa.select(server_tag.c.server_id, server_tag.c.tag)
    .where(server_tag.c.server_id.in_(sa.bindparam("ids", expanding=True)))
    .order_by(server_tag.c.tag)
)
_USER_DATA_OF = sa.select(server_guest.c.server_id, server_guest.c.user_data).where(
    server_guest.c.server_id.in_(sa.bindparam("ids", expanding=True))
)
_USED = sa.select(
    sa.func.count(),
    sa.func.coalesce(sa.func.sum(server.c.vcpus), 0),
    sa.func.coalesce(sa.func.sum(server.c.memory_mib), 0),
).where(server.c.project_id == sa.bindparam("project_id"), LIVE)
_RESERVED = sa.select(
    sa.func.coalesce(sa.func.sum(server_resize.c.extra_vcpus), 0),
    sa.func.coalesce(sa.func.sum(server_resize.c.extra_memory_mib), 0),
).where(server_resize.c.project_id == sa.bindparam("project_id"))
_BUMP = (
    sa.update(server)
    .where(server.c.id == sa.bindparam("server_id"))
    .values(generation=server.c.generation + 1)
    .returning(server.c.generation)
)


class Guest(msgspec.Struct, frozen=True):
    """What the guest reads that is not in the server's row."""

    user_data: str | None
    network_data: str | None


class Action(msgspec.Struct, frozen=True):
    """One thing that was done to a server, in the order of the table's columns."""

    server_id: str
    request_id: str
    action: str
    user_id: str | None
    project_id: str | None
    saga_id: str | None
    started_at: float
    updated_at: float
    message: str | None


def find(tx: Tx, server_id: str) -> Server | None:
    """A server, deleted or not, whoever's."""
    row = tx.execute(_GET, {"id": server_id}).first()
    return None if row is None else Server(*row)


def get(tx: Tx, ctx: Context, server_id: str, *, deleted: bool = False) -> Server:
    """A server that this caller may see. Raises NotFound. `deleted`: those deleted lately, too."""
    found = find(tx, server_id)
    is_hidden = found is None or not (ctx.is_admin or found.project_id == ctx.project_id)
    if found is None or is_hidden or (found.deleted_at is not None and not deleted):
        raise NotFound(f"Instance {server_id} could not be found.")
    return found


def insert(tx: Tx, new: Server, nics: Sequence[Nic], guest: Guest, tags: Sequence[str]) -> None:
    """Add a server with all that belongs to it."""
    tx.execute(_INSERT, {field: getattr(new, field) for field in Server.__struct_fields__})
    tx.execute(_INSERT_GUEST, {"server_id": new.id, "user_data": guest.user_data, "network_data": guest.network_data})
    if nics:
        tx.execute(_INSERT_NIC, [{f: getattr(nic, f) for f in Nic.__struct_fields__} for nic in nics])
    set_tags(tx, new.id, tags)


def page(
    tx: Tx, where: Sequence[sa.ColumnElement[bool]], wanted: Page, params: Mapping[str, Any] | None = None
) -> list[Server]:
    """A page of whole rows."""
    rows: list[Any] = keyset(tx, _SERVERS, wanted, server, where=where, params=params)
    return [Server(*row) for row in rows]


def page_names(
    tx: Tx, where: Sequence[sa.ColumnElement[bool]], wanted: Page, params: Mapping[str, Any] | None = None
) -> list[Any]:
    """A page of (id, name)."""
    return keyset(tx, _NAMES, wanted, server, where=where, params=params)


def of_host(tx: Tx, host_ids: Sequence[str]) -> dict[str, list[tuple[str, str]]]:
    """(id, name) of every live server, by host."""
    stmt = sa.select(server.c.host_id, server.c.id, server.c.name).where(server.c.host_id.in_(host_ids), LIVE)
    found: dict[str, list[tuple[str, str]]] = {host_id: [] for host_id in host_ids}
    for row in tx.execute(stmt.order_by(server.c.created_at, server.c.id)):
        found[row.host_id].append((row.id, row.name))
    return found


def hosts_holding(tx: Tx, project_id: str, server_ids: Sequence[str]) -> tuple[str, ...]:
    """The hosts that hold these servers of the project."""
    mine = (server.c.id.in_(server_ids), server.c.project_id == project_id, LIVE, server.c.host_id.is_not(None))
    return tuple(sorted(set(tx.execute(sa.select(server.c.host_id).where(*mine)).scalars())))


def used(tx: Tx, project_id: str) -> dict[str, int]:
    """What a project's servers count against its quota: rows that live, whatever their state.

    One that changes its size counts as the larger one until that is settled.
    """
    count, vcpus, memory_mib = tx.execute(_USED, {"project_id": project_id}).one()
    more_vcpus, more_memory_mib = tx.execute(_RESERVED, {"project_id": project_id}).one()
    return {
        "instances": int(count),
        "cores": int(vcpus) + int(more_vcpus),
        "ram": int(memory_mib) + int(more_memory_mib),
    }


def take(tx: Tx, before: Server, event: Event, now: float, **values: Any) -> Server:
    """Change a server by a user's request; the whole row as it is then. Raises Conflict where the state forbids it.

    The row is not asked as `before` showed it but as it is now, so a request that lost a race is refused.
    """
    row: Any = _run(tx, _taking(event), {"the_id": before.id}, _changes(event, now, values)).first()
    if row is not None:
        usage.note(tx, before.id, model.LIFECYCLE[event].vm_state, now)
        return Server(*row)
    now_is = find(tx, before.id)
    if now_is is None or now_is.deleted_at is not None:
        raise NotFound(f"Instance {before.id} could not be found.")
    if now_is.is_deleting:
        raise Conflict(
            f"Cannot '{model.LIFECYCLE[event].verb}' instance {before.id} while it is in task_state deleting"
        )
    raise model.refusal(event, before.id, now_is.vm_state, now_is.task_state)


def report(tx: Tx, server_id: str, event: Event, now: float, **values: Any) -> bool:
    """Change a server by what a saga or a host says; False when the server has moved on and it is too late."""
    if not _run(tx, _reporting(event), {"the_id": server_id}, _changes(event, now, values)).rowcount:
        return False
    usage.note(tx, server_id, model.LIFECYCLE[event].vm_state, now)
    return True


@functools.cache
def _reporting(event: Event) -> sa.Update:
    """The conditional update that a rule stands for. While a delete is under way only its own saga may write."""
    rule = model.LIFECYCLE[event]
    where: list[sa.ColumnElement[bool]] = [LIVE]
    if rule.vm_states is not None:
        where.append(server.c.vm_state.in_(sorted(rule.vm_states)))
    if rule.task_states is not None:
        named = sorted(state for state in rule.task_states if state is not None)
        is_named = server.c.task_state.in_(named)
        where.append(sa.or_(server.c.task_state.is_(None), is_named) if None in rule.task_states else is_named)
        where.append(server.c.is_deleting.is_(False))
    return _CHANGE.where(*where)


@functools.cache
def _taking(event: Event) -> sa.Update:
    return _reporting(event).returning(*server.c)


def _changes(event: Event, now: float, values: Mapping[str, Any]) -> dict[str, Any]:
    rule = model.LIFECYCLE[event]
    changes: dict[str, Any] = {"task_state": rule.task_state, "updated_at": now, **values}
    if rule.vm_state is not None:
        changes["vm_state"] = rule.vm_state
    if rule.power_state is not None:
        changes["power_state"] = int(rule.power_state)
    return changes


def _run(tx: Tx, stmt: sa.Update, which: Mapping[str, Any], values: Mapping[str, Any]) -> sa.CursorResult[Any]:
    """An update of these columns; a value may be an expression."""
    expressions = {name: value for name, value in values.items() if isinstance(value, sa.ColumnElement)}
    if expressions:
        stmt = stmt.values(expressions)
    plain = {name: value for name, value in values.items() if name not in expressions}
    return tx.execute(stmt, {**which, **plain})


def change(tx: Tx, server_id: str, values: Mapping[str, Any]) -> None:
    """Set columns that no lifecycle guards."""
    _run(tx, _CHANGE, {"the_id": server_id}, values)


def intend(tx: Tx, server_id: str, values: Mapping[str, Any]) -> bool:
    """A saga's new intent, at a new generation; False, and nothing written, for a server that is being deleted."""
    wanted = _CHANGE.where(LIVE, server.c.is_deleting.is_(False))
    return bool(_run(tx, wanted, {"the_id": server_id}, {**values, "generation": NEXT_GENERATION}).rowcount)


def bump(tx: Tx, server_id: str) -> int:
    """Raise the generation, so that what is sent from now on wins over what was sent before."""
    return int(tx.execute(_BUMP, {"server_id": server_id}).scalar_one())


NEXT_GENERATION = server.c.generation + 1
"""For `take(…, generation=NEXT_GENERATION)`."""


def pushed(tx: Tx, server_id: str, generation: int) -> None:
    """Its host confirmed this generation."""
    older = (server.c.id == server_id, server.c.pushed_generation < generation)
    tx.execute(sa.update(server).where(*older).values(pushed_generation=generation))


def unpushed(tx: Tx, host_ids: Sequence[str], limit: int) -> list[str]:
    """Idle servers on these hosts whose newest intent their host has not confirmed."""
    stmt = (
        sa.select(server.c.id)
        .where(
            LIVE,
            server.c.host_id.is_not(None),
            server.c.pushed_generation < server.c.generation,
            server.c.host_id.in_(host_ids),
            server.c.task_state.is_(None),
            server.c.vm_state.in_(model.SETTLED),
        )
        .order_by(server.c.id)
        .limit(limit)
    )
    return list(tx.execute(stmt).scalars())


def differing(tx: Tx, power_states: Mapping[str, int], host_id: str | None = None) -> list[str]:
    """Idle servers (of a host) whose power state is not the given one, or whose state denies it."""
    idle = [LIVE, server.c.task_state.is_(None), server.c.is_deleting.is_(False)]
    mine = server.c.id.in_(list(power_states)) if host_id is None else server.c.host_id == host_id
    columns = (server.c.id, server.c.power_state, server.c.vm_state)
    rows = tx.execute(sa.select(*columns).where(mine, *idle).order_by(server.c.id))
    return [row.id for row in rows if row.id in power_states and _differs(row, power_states[row.id])]


def _differs(row: Any, power_state: int) -> bool:
    return bool(power_state != row.power_state or power_state in _DENIED.get(row.vm_state, ()))


_OFF = (PowerState.SHUTDOWN, PowerState.CRASHED)
_DENIED = {VmState.ACTIVE: _OFF, VmState.PAUSED: _OFF, VmState.STOPPED: (PowerState.RUNNING,)}
"""Power states that a server in this state cannot have: a saga that ended on older news may say so even so."""


def settled_on(tx: Tx, host_id: str) -> list[Server]:
    """Servers of a host that stand as they are: nobody works on them, and the host knew them once."""
    mine = (LIVE, server.c.host_id == host_id, server.c.task_state.is_(None), server.c.pushed_generation > 0)
    states = server.c.vm_state.in_(model.SETTLED)
    return [Server(*row) for row in tx.execute(sa.select(server).where(*mine, states).order_by(server.c.id)).all()]


def unknown_on(tx: Tx, host_id: str, server_ids: Sequence[str]) -> list[str]:
    """Those of these ids that no living row places on this host. Rows in the making and in removal count as living."""
    mine = (LIVE, server.c.id.in_(server_ids), sa.or_(server.c.host_id == host_id, server.c.host_id.is_(None)))
    known = set(tx.execute(sa.select(server.c.id).where(*mine)).scalars())
    return [server_id for server_id in server_ids if server_id not in known]


def purge(tx: Tx, before: float, limit: int) -> int:
    """Forget servers that were deleted before that time, with all that belongs to them; how many."""
    old = sa.select(server.c.id).where(server.c.deleted_at < before).order_by(server.c.deleted_at).limit(limit)
    ids = list(tx.execute(old).scalars())
    for table in (
        server_nic,
        server_guest,
        server_tag,
        server_action,
        server_group_member,
        server_resize,
        server_usage,
    ):
        tx.execute(sa.delete(table).where(table.c.server_id.in_(ids)))
    tx.execute(sa.delete(server).where(server.c.id.in_(ids)))
    return len(ids)


def nics(tx: Tx, server_id: str) -> list[Nic]:
    """A server's ports as given, in order."""
    return [Nic(*row) for row in tx.execute(_NICS, {"server_id": server_id})]


def set_nic(tx: Tx, port_id: str, server_id: str, values: Mapping[str, Any]) -> None:
    """Note what a port turned out to be."""
    tx.execute(_SET_NIC, {"the_server": server_id, "the_port": port_id, **values})


def insert_nic(tx: Tx, new: Nic) -> None:
    """One more port."""
    tx.execute(_INSERT_NIC, {field: getattr(new, field) for field in Nic.__struct_fields__})


def drop_nic(tx: Tx, server_id: str, port_id: str) -> None:
    """Forget one port."""
    mine = (server_nic.c.server_id == server_id, server_nic.c.port_id == port_id)
    tx.execute(sa.delete(server_nic).where(*mine))


def drop_nics(tx: Tx, server_id: str) -> None:
    """Forget a server's ports."""
    tx.execute(sa.delete(server_nic).where(server_nic.c.server_id == server_id))


def guest(tx: Tx, server_id: str) -> Guest:
    """What the guest reads beyond the row."""
    stmt = sa.select(server_guest.c.user_data, server_guest.c.network_data).where(server_guest.c.server_id == server_id)
    row = tx.execute(stmt).first()
    return Guest(None, None) if row is None else Guest(*row)


def user_data_of(tx: Tx, server_ids: Sequence[str]) -> dict[str, str | None]:
    """The user data of some servers."""
    if not server_ids:
        return {}
    return {row.server_id: row.user_data for row in tx.execute(_USER_DATA_OF, {"ids": list(server_ids)})}


def set_user_data(tx: Tx, server_id: str, user_data: str | None) -> None:
    """Give the guest other user data: part of a transaction that raises the generation."""
    tx.execute(sa.update(server_guest).where(server_guest.c.server_id == server_id).values(user_data=user_data))


def set_network_data(tx: Tx, server_id: str, text: str) -> None:
    """Keep network_data.json as of the present generation."""
    tx.execute(sa.update(server_guest).where(server_guest.c.server_id == server_id).values(network_data=text))


def drop_guest(tx: Tx, server_id: str) -> None:
    """Forget user data with the server: it may hold secrets."""
    tx.execute(sa.delete(server_guest).where(server_guest.c.server_id == server_id))


def tags(tx: Tx, server_id: str) -> list[str]:
    """A server's tags."""
    return list(tx.execute(_TAGS, {"server_id": server_id}).scalars())


def tags_of(tx: Tx, server_ids: Sequence[str]) -> dict[str, list[str]]:
    """The tags of many servers in one query."""
    found: dict[str, list[str]] = {}
    for server_id, tag in tx.execute(_TAGS_OF, {"ids": list(server_ids)}):
        found.setdefault(server_id, []).append(tag)
    return found


def set_tags(tx: Tx, server_id: str, wanted: Iterable[str]) -> None:
    """Replace all tags."""
    tx.execute(sa.delete(server_tag).where(server_tag.c.server_id == server_id))
    rows = [{"server_id": server_id, "tag": tag} for tag in dict.fromkeys(wanted)]
    if rows:
        tx.execute(sa.insert(server_tag), rows)


def insert_action(tx: Tx, new: Action) -> None:
    """Record what is being done; repeated by the same request, the first record stands."""
    known = {"the_server": new.server_id, "the_request": new.request_id}
    if tx.execute(_KNOWN_ACTION, known).first() is None:
        tx.execute(_INSERT_ACTION, {field: getattr(new, field) for field in Action.__struct_fields__})


def end_action(tx: Tx, server_id: str, request_id: str, now: float, *, is_error: bool) -> None:
    """Note how it ended."""
    mine = {"the_server": server_id, "the_request": request_id}
    tx.execute(_END_ACTION, {**mine, "updated_at": now, "message": "Error" if is_error else None})


def actions(
    tx: Tx, server_id: str, where: Sequence[sa.ColumnElement[bool]], limit: int, marker: str | None
) -> list[Action] | None:
    """What was done, newest first, after the action of the marker's request; None when there is no such action."""
    stmt = sa.select(server_action).where(server_action.c.server_id == server_id, *where)
    key = sa.tuple_(server_action.c.started_at, server_action.c.request_id)
    if marker is not None:
        known = find_action(tx, server_id, marker)
        if known is None:
            return None
        stmt = stmt.where(key < sa.tuple_(sa.literal(known.started_at), sa.literal(known.request_id)))
    newest = stmt.order_by(server_action.c.started_at.desc(), server_action.c.request_id.desc())
    return [Action(*row) for row in tx.execute(newest.limit(limit))]


def find_action(tx: Tx, server_id: str, request_id: str) -> Action | None:
    """What one request did to a server."""
    mine = (server_action.c.server_id == server_id, server_action.c.request_id == request_id)
    row = tx.execute(sa.select(server_action).where(*mine)).first()
    return None if row is None else Action(*row)
