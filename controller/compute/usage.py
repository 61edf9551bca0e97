"""What servers have used: the seconds in which they were ACTIVE, times what they were sold as.

Every change of a server's `vm_state` goes through the lifecycle, and in the same transaction a row of `server_usage` is
opened (it became ACTIVE) or closed (it is something else now). So usage is what the record of actions says, and what
hosts report of guests that go down by themselves. A server that is off, paused, suspended, shelved or in ERROR uses
nothing; one that was resized begins anew with its new size.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import msgspec
import sqlalchemy as sa

from controller.compute.model import VmState
from controller.db.tables.compute import server
from controller.db.tables.usage import server_usage
from controller.db.tx import Tx
from controller.errors import Invalid

_OPEN: Final = sa.select(sa.literal(1)).where(
    server_usage.c.server_id == sa.bindparam("the_server"), server_usage.c.ended_at.is_(None)
)
_BEGIN: Final = sa.insert(server_usage).from_select(
    ["server_id", "began_at", "ended_at", "vcpus", "memory_mib", "disk_gib"],
    sa.select(
        server.c.id,
        sa.bindparam("now", type_=sa.Float),
        sa.null(),
        server.c.vcpus,
        server.c.memory_mib,
        server.c.root_gib + server.c.ephemeral_gib,
    ).where(server.c.id == sa.bindparam("the_server"), ~sa.exists(_OPEN)),
)
_END: Final = (
    sa.update(server_usage)
    .where(server_usage.c.server_id == sa.bindparam("the_server"), server_usage.c.ended_at.is_(None))
    .values(ended_at=sa.bindparam("now"))
)


class Period(msgspec.Struct, frozen=True):
    """From `start` until `stop`."""

    start: float
    stop: float


class Totals(msgspec.Struct):
    """Hours, and hours times size."""

    hours: float = 0.0
    vcpus: float = 0.0
    memory_mib: float = 0.0
    disk_gib: float = 0.0

    def add(self, other: "Totals") -> None:
        """Both together."""
        self.hours += other.hours
        self.vcpus += other.vcpus
        self.memory_mib += other.memory_mib
        self.disk_gib += other.disk_gib


class Used(msgspec.Struct, frozen=True):
    """A server that lived in the period, and what it used in it."""

    id: str
    project_id: str
    name: str
    vm_state: str
    flavor_name: str
    vcpus: int
    memory_mib: int
    disk_gib: int
    launched_at: float
    terminated_at: float | None
    totals: Totals


_FIELDS: Final = Used.__struct_fields__[:-1]


def note(tx: Tx, server_id: str, vm_state: VmState | None, now: float) -> None:
    """The server's state became this one; None: it stayed."""
    if vm_state is not None:
        tx.execute(_BEGIN if vm_state is VmState.ACTIVE else _END, {"the_server": server_id, "now": now})


def page(tx: Tx, project_id: str | None, period: Period, now: float, limit: int, marker: str | None) -> list[Used]:
    """Servers that lived in the period (of one project, or of all), by id, behind the marker. Raises Invalid for one
    that names no server."""
    where = [
        server.c.launched_at <= period.stop,
        sa.or_(server.c.terminated_at.is_(None), server.c.terminated_at >= period.start),
    ]
    if project_id is not None:
        where.append(server.c.project_id == project_id)
    if marker is not None:
        if tx.execute(sa.select(server.c.id).where(server.c.id == marker)).first() is None:
            raise Invalid(f"marker [{marker}] not found")
        where.append(server.c.id > marker)
    columns = (
        server.c.id,
        server.c.project_id,
        server.c.name,
        server.c.vm_state,
        server.c.flavor_name,
        server.c.vcpus,
        server.c.memory_mib,
        (server.c.root_gib + server.c.ephemeral_gib).label("disk_gib"),
        server.c.launched_at,
        server.c.terminated_at,
    )
    rows = tx.execute(sa.select(*columns).where(*where).order_by(server.c.id).limit(limit)).all()
    spent = _totals(tx, [row.id for row in rows], period, now)
    return [Used(**dict(zip(_FIELDS, row, strict=True)), totals=spent[row.id]) for row in rows]


def _totals(tx: Tx, server_ids: Sequence[str], period: Period, now: float) -> dict[str, Totals]:
    stop = min(period.stop, now)
    times = (
        server_usage.c.server_id.in_(server_ids),
        server_usage.c.began_at < stop,
        sa.or_(server_usage.c.ended_at.is_(None), server_usage.c.ended_at > period.start),
    )
    found: defaultdict[str, Totals] = defaultdict(Totals)
    for row in tx.execute(sa.select(server_usage).where(*times)):
        seconds = min(stop, stop if row.ended_at is None else row.ended_at) - max(period.start, row.began_at)
        hours = max(0.0, seconds) / 3600.0
        spent = Totals(hours, hours * row.vcpus, hours * row.memory_mib, hours * row.disk_gib)
        found[row.server_id].add(spent)
    return found
