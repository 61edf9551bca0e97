"""The saga log as the rest of the controller uses it: start, ask to stop, ask whether it rests, read the trace.

All are transaction functions. `start` belongs into the transaction that changes the user's row, so that neither
exists without the other; the caller kicks the engine after that write has returned. The rows that an engine
writes while it runs a saga are in `record`.
"""

from typing import Any, Final, TypeVar

import msgspec
import sqlalchemy as sa

from controller.db.clock import database_now
from controller.db.tables.saga import saga as table
from controller.db.tables.saga import saga_event
from controller.db.tx import Tx
from controller.saga.model import Saga, State, Trace

P = TypeVar("P", bound=msgspec.Struct)

UNOWNED_S: Final = 10.0
"""How long a new saga waits for the kick of whoever started it, before any other controller takes it. Shorter:
two controllers may both begin a slow first step (the loser's end is fenced off). Longer: a crash between the
insert and the kick delays the saga by as much."""

_ACTIVE: Final = (State.RUNNING.value, State.UNWINDING.value)


def start(
    tx: Tx,
    saga: Saga[P],
    *,
    saga_id: str,
    params: P,
    target: str,
    request_id: str,
    now: float,
    project_id: str | None = None,
) -> None:
    """Write a new saga. `target` is the id of the object that it is about; `now` is the caller's clock."""
    steps = saga.expanded(params)
    assert steps, f"{saga.name} has no steps"
    tx.execute(
        sa.insert(table).values(
            id=saga_id,
            kind=saga.kind,
            version=saga.version,
            steps=list(steps),
            params=msgspec.json.encode(params).decode(),
            state=State.RUNNING.value,
            position=0,
            seq=0,
            forward_only=saga.forward_only,
            target=target,
            project_id=project_id,
            request_id=request_id,
            owner="",
            adopt_generation=0,
            lease_until=database_now() + UNOWNED_S,
            deadline_at=database_now() + saga.deadline_s,
            created_at=now,
            updated_at=now,
        )
    )


def request_cancel(tx: Tx, target: str, now: float) -> list[str]:
    """Turn the target's running sagas to unwinding at their next step boundary; kick the ids this returns.

    Forward-only sagas go on; sagas that unwind already do so anyway.
    """
    running = (table.c.target == target, table.c.state == State.RUNNING.value, table.c.forward_only.is_(False))
    marked = (
        sa.update(table)
        .where(*running)
        .values(cancel_at=sa.func.coalesce(table.c.cancel_at, now))
        .returning(table.c.id)
    )
    return sorted(tx.execute(marked).scalars())


def settled(tx: Tx, target: str, except_saga: str = "") -> bool:
    """Whether no other saga is at work on this target. A stuck one does nothing until an operator says so."""
    others = sa.select(table.c.id).where(
        table.c.target == target, table.c.state.in_(_ACTIVE), table.c.id != except_saga
    )
    return tx.execute(others.limit(1)).first() is None


def find_active(tx: Tx, target: str, kind: str) -> str | None:
    """The id of a saga of this kind that is at work on this target, if there is one."""
    mine = (table.c.target == target, table.c.kind == kind, table.c.state.in_(_ACTIVE))
    found: str | None = tx.execute(sa.select(table.c.id).where(*mine).order_by(table.c.id).limit(1)).scalar()
    return found


def retry(tx: Tx, saga_id: str, now: float) -> bool:
    """The operator's word: a stuck saga tries again (kick the engine, or wait for recovery). False: it is not stuck."""
    resumed = sa.case((table.c.forward_only, State.RUNNING.value), else_=State.UNWINDING.value)
    seq = _take_over(tx, saga_id, (State.STUCK,), {"state": resumed, "reason": None, "updated_at": now})
    return _tell(tx, saga_id, seq, event="resumed", error="", now=now)


def abandon(tx: Tx, saga_id: str, reason: str, now: float) -> bool:
    """The operator's word: nobody works on it any more; what it left is the operator's. False: it rests already."""
    ended = {"state": State.ABANDONED.value, "reason": reason, "updated_at": now, "ended_at": now}
    seq = _take_over(tx, saga_id, (State.STUCK, State.RUNNING, State.UNWINDING), ended)
    return _tell(tx, saga_id, seq, event="abandoned", error=reason, now=now)


def _take_over(tx: Tx, saga_id: str, states: tuple[State, ...], values: dict[str, Any]) -> int | None:
    """Fence off whoever runs it now, and change it. The number of the next event, or None: in no such state."""
    fenced = {"owner": "", "adopt_generation": table.c.adopt_generation + 1, "lease_until": 0.0}
    changed = (
        sa.update(table)
        .where(table.c.id == saga_id, table.c.state.in_([state.value for state in states]))
        .values(seq=table.c.seq + 1, **fenced, **values)
        .returning(table.c.seq)
    )
    seq = tx.execute(changed).scalar_one_or_none()
    return None if seq is None else int(seq) - 1


def _tell(tx: Tx, saga_id: str, seq: int | None, *, event: str, error: str, now: float) -> bool:
    if seq is None:
        return False
    row = {"saga_id": saga_id, "seq": seq, "step": "", "event": event, "attempt": 1, "error": error}
    tx.execute(sa.insert(saga_event).values(**row, notes={}, at=now, ms=0.0))
    return True


def trace(tx: Tx, *, request_id: str | None = None, target: str | None = None, limit: int = 1000) -> list[Trace]:
    """What happened, oldest first: all sagas of a request, or of an object. The step at work shows as started."""
    assert (request_id is None) != (target is None), "either a request or a target"
    mine = table.c.request_id == request_id if target is None else table.c.target == target
    sagas = tx.execute(sa.select(table).where(mine).order_by(table.c.created_at, table.c.id).limit(limit)).all()
    found: list[Trace] = []
    for row in sagas:
        found += _story(tx, row)
    return found[:limit]


def _story(tx: Tx, row: sa.Row[Any]) -> list[Trace]:
    name = f"{row.kind}/{row.version}"
    events = tx.execute(sa.select(saga_event).where(saga_event.c.saga_id == row.id).order_by(saga_event.c.seq)).all()
    told = [Trace(saga_id=row.id, kind=name, step="", event="started", at=row.created_at, ms=0.0)]
    told += [
        Trace(
            saga_id=row.id,
            kind=name,
            step=event.step,
            event=event.event,
            at=event.at,
            ms=event.ms,
            notes=event.notes,
            error=event.error,
        )
        for event in events
    ]
    if row.state in _ACTIVE and 0 <= row.position < len(row.steps):
        step = row.steps[row.position]
        told.append(Trace(saga_id=row.id, kind=name, step=step, event="started", at=told[-1].at, ms=0.0))
    return told


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """One saga as operators list it."""

    id: str
    kind: str
    state: str
    step: str
    target: str
    request_id: str
    owner: str
    reason: str
    created_at: float
    updated_at: float


def summaries(tx: Tx, states: tuple[State, ...], limit: int = 1000) -> list[Summary]:
    """Sagas in these states, oldest first: what `saga show` prints."""
    wanted = sa.select(table).where(table.c.state.in_([state.value for state in states]))
    return [
        Summary(
            id=row.id,
            kind=f"{row.kind}/{row.version}",
            state=row.state,
            step=row.steps[row.position] if 0 <= row.position < len(row.steps) else "",
            target=row.target,
            request_id=row.request_id,
            owner=row.owner,
            reason=row.reason or (row.cause or {}).get("message", ""),
            created_at=row.created_at,
            updated_at=row.updated_at,
        )
        for row in tx.execute(wanted.order_by(table.c.created_at, table.c.id).limit(limit))
    ]


def purge(tx: Tx, before: float, limit: int = 500) -> int:
    """Forget sagas that came to rest before that time, with their events; how many."""
    rested = (State.DONE.value, State.UNDONE.value, State.ABANDONED.value)
    old = (
        sa.select(table.c.id)
        .where(table.c.ended_at < before, table.c.state.in_(rested))
        .order_by(table.c.ended_at)
        .limit(limit)
    )
    ids = list(tx.execute(old).scalars())
    tx.execute(sa.delete(saga_event).where(saga_event.c.saga_id.in_(ids)))
    tx.execute(sa.delete(table).where(table.c.id.in_(ids)))
    return len(ids)
