"""SQL of migrations: a row for each move and each change of size that was asked for, whatever became of it."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from controller.compute.model import Server
from controller.db.tables.migration import migration as table
from controller.db.tables.saga import saga
from controller.db.tx import Tx
from controller.errors import Invalid

MIGRATION, RESIZE, LIVE, EVACUATION = "migration", "resize", "live-migration", "evacuation"
_OPEN: Final = ("accepted", "preparing", "running")

_HOST_CHARS: Final = 27
"""A target has 64 characters, of which a server's id and the sign between take 37."""


class Migration(msgspec.Struct, frozen=True):
    """A row, in the order of the table's columns."""

    id: int
    uuid: str
    server_id: str
    project_id: str
    user_id: str
    kind: str
    status: str
    source_host_id: str
    source_host_name: str
    target_host_id: str | None
    target_host_name: str | None
    flavor_id: str
    created_at: float
    updated_at: float
    new_flavor_id: str | None

    @property
    def is_open(self) -> bool:
        """A live migration that goes on."""
        return self.kind == LIVE and self.status in _OPEN


def insert(tx: Tx, server: Server, uuid: str, kind: str, user_id: str, now: float, **values: Any) -> None:
    """Begin one, from where the server is; its number is the table's to give."""
    begun = {
        "uuid": uuid,
        "server_id": server.id,
        "project_id": server.project_id,
        "user_id": user_id,
        "kind": kind,
        "status": "accepted",
        "source_host_id": server.host_id,
        "source_host_name": server.host_name,
        "flavor_id": server.flavor_id,
        "created_at": now,
        "updated_at": now,
    }
    tx.execute(sa.insert(table).values(**{**begun, **values}))


def change(tx: Tx, uuid: str, now: float, **values: Any) -> None:
    """Note how far it is."""
    tx.execute(sa.update(table).where(table.c.uuid == uuid).values(**values, updated_at=now))


_EQUAL: Final = {
    "instance_uuid": table.c.server_id,
    "migration_type": table.c.kind,
    "source_compute": table.c.source_host_name,
    "status": table.c.status,
    "user_id": table.c.user_id,
    "project_id": table.c.project_id,
}


def page(tx: Tx, wanted: Mapping[str, str], marker: str | None, limit: int) -> list[Migration]:
    """Newest first, from behind the one whose uuid is `marker`; `wanted` by the API's names. Raises Invalid."""
    query = sa.select(table).order_by(table.c.created_at.desc(), table.c.id.desc()).limit(limit)
    for key, value in wanted.items():
        if key == "host":
            query = query.where(sa.or_(table.c.source_host_name == value, table.c.target_host_name == value))
        else:
            query = query.where(_EQUAL[key] == value)
    if marker is not None:
        after = find(tx, marker)
        if after is None:
            raise Invalid(f"Marker {marker} could not be found.")
        older = sa.and_(table.c.created_at == after.created_at, table.c.id < after.id)
        query = query.where(sa.or_(table.c.created_at < after.created_at, older))
    return [Migration(*row) for row in tx.execute(query)]


def open_of(tx: Tx, server_id: str) -> list[Migration]:
    """The live migrations of a server that go on: one, or none."""
    mine = (table.c.server_id == server_id, table.c.kind == LIVE, table.c.status.in_(_OPEN))
    return [Migration(*row) for row in tx.execute(sa.select(table).where(*mine).order_by(table.c.id))]


def find_open(tx: Tx, server_id: str, number: str | None = None) -> Migration | None:
    """One of them, by its number."""
    return next((one for one in open_of(tx, server_id) if number is None or str(one.id) == number), None)


def find(tx: Tx, uuid: str) -> Migration | None:
    """One of them."""
    row = tx.execute(sa.select(table).where(table.c.uuid == uuid)).first()
    return None if row is None else Migration(*row)


class _Left(msgspec.Struct, frozen=True):
    """Of the params of that saga."""

    host_id: str


def leaving(server_id: str, host_id: str) -> str:
    """The target of the saga that removes what a server has left on a host: as much of both ids as a target holds."""
    return f"{server_id}@{host_id[:_HOST_CHARS]}"


def hosts_left_behind(tx: Tx, server_id: str) -> tuple[str, ...]:
    """The hosts that still have something of a server that is elsewhere: what lies there is old, and must go first."""
    waiting = sa.select(saga.c.params).where(
        saga.c.target.startswith(leaving(server_id, "")), saga.c.state.in_(("running", "unwinding", "stuck"))
    )
    lefts = (msgspec.json.decode(params, type=_Left) for params in tx.execute(waiting).scalars())
    return tuple(sorted({left.host_id for left in lefts}))
