"""The rows of one saga as an engine reads and writes them. Every write is fenced.

Fencing. A saga's row names its owner and an adoption generation. An engine's every write demands the pair that it
holds, and takes part in the same transaction as whatever the step commits; adoption raises the generation, so
what a former owner still tries to write is refused (`Fenced`) together with its effects on other tables. A saga
that nobody has owned yet is claimed by its first write, which saves a commit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import sqlalchemy as sa

from controller.db.clock import database_now
from controller.db.tables.saga import saga as table
from controller.db.tables.saga import saga_event
from controller.db.tx import Tx
from controller.saga.model import Cause, Commit, Json, State

ACTIVE: Final = (State.RUNNING.value, State.UNWINDING.value)


class Fenced(Exception):
    """Another engine has adopted this saga, or it rests: what we hold is void."""


@dataclass(frozen=True, slots=True)
class Hold:
    """What the row must say, and what it says after our next write."""

    owner: str
    generation: int
    next_owner: str
    next_generation: int

    def kept(self) -> "Hold":
        """After a write."""
        return Hold(self.next_owner, self.next_generation, self.next_owner, self.next_generation)


class Record(msgspec.Struct, kw_only=True):
    """A saga in memory, in step with its row."""

    id: str
    name: str
    steps: tuple[str, ...]
    params: str
    state: State
    position: int
    forward_only: bool
    target: str
    request_id: str
    owner: str
    generation: int
    is_cancelled: bool
    is_overdue: bool
    cause: Cause | None
    outputs: dict[str, Json]
    lease_left_s: float
    deadline_left_s: float


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the log."""

    step: str
    event: str
    at: float
    attempt: int = 1
    output: Json = None
    error: str = ""
    notes: dict[str, str] = {}
    ms: float = 0.0


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What the row says after a write."""

    state: State
    position: int
    cause: Cause | None = None
    reason: str | None = None
    is_overdue: bool = False


class Written(msgspec.Struct, frozen=True):
    """What a write found out."""

    output: Json
    is_cancelled: bool


_GET = sa.select(table, database_now().label("now")).where(table.c.id == sa.bindparam("id"))
_OUTPUTS = sa.select(saga_event.c.step, saga_event.c.output).where(
    saga_event.c.saga_id == sa.bindparam("id"), saga_event.c.event == "done"
)
_WRITE = (
    sa.update(table)
    .where(
        table.c.id == sa.bindparam("b_id"),
        table.c.owner == sa.bindparam("b_owner"),
        table.c.adopt_generation == sa.bindparam("b_generation"),
        table.c.state.in_(ACTIVE),
    )
    .values(
        owner=sa.bindparam("b_next_owner"),
        adopt_generation=sa.bindparam("b_next_generation"),
        lease_until=database_now() + sa.bindparam("b_lease_s", type_=sa.Float()),
        seq=table.c.seq + sa.bindparam("b_events"),
        state=sa.bindparam("b_state"),
        position=sa.bindparam("b_position"),
        cause=sa.bindparam("b_cause"),
        reason=sa.bindparam("b_reason"),
        overdue_at=sa.func.coalesce(table.c.overdue_at, sa.bindparam("b_overdue_at", type_=sa.Float())),
        ended_at=sa.bindparam("b_ended_at"),
        updated_at=sa.bindparam("b_now"),
    )
    .returning(table.c.seq, table.c.cancel_at)
)
_APPEND = sa.insert(saga_event)
_CANCELLED = sa.select(table.c.cancel_at).where(table.c.id == sa.bindparam("id"))
_STATE = sa.select(table.c.state).where(table.c.id == sa.bindparam("id"))
_RESTS: Final = frozenset({State.DONE, State.UNDONE, State.ABANDONED})


def load(tx: Tx, saga_id: str) -> Record | None:
    """A saga that is not at rest."""
    row = tx.execute(_GET, {"id": saga_id}).first()
    if row is None or row.state not in ACTIVE:
        return None
    return Record(
        id=row.id,
        name=f"{row.kind}/{row.version}",
        steps=tuple(row.steps),
        params=row.params,
        state=State(row.state),
        position=row.position,
        forward_only=row.forward_only,
        target=row.target,
        request_id=row.request_id,
        owner=row.owner,
        generation=row.adopt_generation,
        is_cancelled=row.cancel_at is not None,
        is_overdue=row.overdue_at is not None,
        cause=None if row.cause is None else msgspec.convert(row.cause, Cause),
        outputs={event.step: event.output for event in tx.execute(_OUTPUTS, {"id": saga_id})},
        lease_left_s=row.lease_until - row.now,
        deadline_left_s=row.deadline_at - row.now,
    )


def adopt(tx: Tx, saga_id: str, owner: str, *, lease_s: float, by_force: bool, now: float) -> Record | None:
    """Take a saga over if its lease has lapsed or it is our own; `by_force`: whoever has it. None if not to be had.

    Read after the write, in its transaction: the former owner may have written until this very moment.
    """
    free = sa.or_(table.c.lease_until < database_now(), table.c.owner == owner, sa.literal(by_force))
    taken = sa.update(table).where(table.c.id == saga_id, table.c.state.in_(ACTIVE), free)
    taken = taken.values(
        owner=owner,
        adopt_generation=table.c.adopt_generation + 1,
        lease_until=database_now() + lease_s,
        updated_at=now,
    )
    return load(tx, saga_id) if tx.execute(taken).rowcount else None


def write(
    tx: Tx,
    saga_id: str,
    hold: Hold,
    *,
    change: Change,
    events: Sequence[Event],
    commit: Commit | None,
    lease_s: float,
    now: float,
) -> Written:
    """Change the row, append events, and run a step's commit: all or nothing. Its output goes to the last event."""
    row = tx.execute(
        _WRITE,
        {
            "b_id": saga_id,
            "b_owner": hold.owner,
            "b_generation": hold.generation,
            "b_next_owner": hold.next_owner,
            "b_next_generation": hold.next_generation,
            "b_lease_s": lease_s,
            "b_events": len(events),
            "b_state": change.state.value,
            "b_position": change.position,
            "b_cause": None if change.cause is None else msgspec.to_builtins(change.cause),
            "b_reason": change.reason,
            "b_overdue_at": now if change.is_overdue else None,
            "b_ended_at": now if change.state in _RESTS else None,
            "b_now": now,
        },
    ).first()
    if row is None:
        raise Fenced(saga_id)
    output = commit.fn(tx, *commit.args) if commit is not None else None
    first = row.seq - len(events)
    lines = [{"saga_id": saga_id, "seq": first + i, **msgspec.structs.asdict(line)} for i, line in enumerate(events)]
    if commit is not None and lines:
        lines[-1]["output"] = output
    if lines:
        tx.execute(_APPEND, lines)
    return Written(output, row.cancel_at is not None)


def is_cancelled(tx: Tx, saga_id: str) -> bool:
    """Whether someone asked this saga to stop."""
    return tx.execute(_CANCELLED, {"id": saga_id}).scalar_one_or_none() is not None


def state_of(tx: Tx, saga_id: str) -> State | None:
    """Its state; None if there is no such saga."""
    found = tx.execute(_STATE, {"id": saga_id}).scalar_one_or_none()
    return None if found is None else State(found)


def active(tx: Tx) -> list[str]:
    """Everything that is not at rest, oldest first."""
    return list(
        tx.execute(sa.select(table.c.id).where(table.c.state.in_(ACTIVE)).order_by(table.c.created_at)).scalars()
    )


def unowned(tx: Tx, target: str) -> list[str]:
    """New sagas of this target that nobody has begun."""
    new = sa.select(table.c.id).where(table.c.target == target, table.c.owner == "", table.c.state.in_(ACTIVE))
    return list(tx.execute(new.order_by(table.c.created_at, table.c.id)).scalars())


class Waiting(msgspec.Struct, frozen=True):
    """A saga that nobody works on."""

    id: str
    name: str


def lapsed(tx: Tx, *, owner: str | None, everyones: bool, limit: int) -> list[Waiting]:
    """Sagas whose lease has lapsed, oldest lease first; with `owner` also those of that name; or `everyones`."""
    free: sa.ColumnElement[bool] = table.c.lease_until < database_now()
    if everyones:
        free = sa.true()
    elif owner is not None:
        free = sa.or_(free, table.c.owner == owner)
    found = sa.select(table.c.id, table.c.kind, table.c.version).where(table.c.state.in_(ACTIVE), free)
    return [
        Waiting(row.id, f"{row.kind}/{row.version}")
        for row in tx.execute(found.order_by(table.c.lease_until, table.c.id).limit(limit))
    ]


def count_stuck(tx: Tx) -> int:
    """How many wait for an operator."""
    stuck = sa.select(sa.func.count()).select_from(table).where(table.c.state == State.STUCK.value)
    return tx.execute(stuck).scalar_one()
