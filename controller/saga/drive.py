"""One saga on its way to rest, in one engine.

Theory of operation. Memory follows the rows, never the other way: a decision counts when it is written. A crash
at any await loses memory only, and whoever adopts the saga starts again from its row, so `do` of the step at
`position` (and of deferred steps behind it) runs again. Nothing here may rely on `finally`: kill -9 runs none.

Where unwinding begins: at the furthest step that may have begun, which is the first one whose end is not written,
or, if deferred steps follow from there, the first one behind them. Steps that never began are undone as well:
`undo` is `absent`.

What may go wrong with the database: `Fenced` ends the drive, the saga is another's now; `DatabaseDown` leaves
open whether a write has happened, so the drive ends too and starts again from the row (`engine` does both).
"""

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import structlog

from agent.wire.world import World
from controller.db.tx import Database, DatabaseDown
from controller.errors import CloudError
from controller.saga import record as rows
from controller.saga.model import Cause, Commit, Json, Run, Saga, State, Step, Transient
from controller.saga.record import Change, Event, Fenced, Hold, Record

log = structlog.get_logger()

CANCELLED: Final = Cause(message="It was cancelled on request.", status=409, cancelled=True)


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """Times and bounds of an engine."""

    lease_s: float = 30.0  # Longer: sagas of a dead controller wait longer. Shorter: a slow database looks like death.
    recovery_s: float = 10.0  # Between looks for lapsed leases.
    attempts_max: int = 64  # Effects at once. Higher: one burst floods the hosts; lower: sagas queue.
    sagas_max: int = 2048  # In memory at once; more wait in the database.
    undo_s: float = 60.0  # One try of an undo, or of a forward-only step past its deadline.
    failures_max: int = 5  # Refusals of an undo (not silence) before an operator is asked.
    overdue_grace_s: float = 30.0  # Unwinding that began at the deadline may take so long before the user is told.
    backoff_first_s: float = 0.2
    backoff_max_s: float = 15.0
    backoff_overdue_s: float = 60.0


@dataclass(slots=True)
class Setting:
    """What all drives of an engine share."""

    db: Database
    world: World
    deps: Any
    pace: Pace
    slots: asyncio.Semaphore


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a try did not succeed."""

    cause: Cause
    is_transient: bool


@dataclass(slots=True)
class Drive:
    """Runs one saga. `nudge` is set by a kick: there may be news (a cancellation, a host that came back)."""

    setting: Setting
    saga: Saga[Any]
    record: Record
    hold: Hold
    params: Any
    nudge: asyncio.Event = field(default_factory=asyncio.Event)
    lease_ends: float = 0.0  # Loop time, counted from when the renewal was sent.
    deadline: float = 0.0  # Loop time.
    _ends: list[Event] = field(default_factory=list)  # Of deferred steps, not yet written.
    _writing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        now = asyncio.get_running_loop().time()
        self.lease_ends = now + self.record.lease_left_s
        self.deadline = now + self.record.deadline_left_s

    async def run(self) -> State:
        """Until it rests (or is stuck). Raises Fenced and DatabaseDown."""
        while True:
            if self.record.state == State.RUNNING:
                await self._go_forward()
            elif self.record.state == State.UNWINDING:
                await self._go_back()
            else:
                return self.record.state

    async def renew(self) -> None:
        """Keep the lease during a long step; raises Fenced when it is lost."""
        await self._write(None, [])

    # Forward.

    async def _go_forward(self) -> None:
        """One step, until its end is written or the saga turns."""
        at = self.record.position + len(self._ends)
        name = self.record.steps[at]
        step, index = self.saga.step(name)
        began, attempt = self._time(), 0
        if self._ends:  # The last boundary was not written, so nothing has told us of a cancellation yet.
            self.record.is_cancelled |= await self.setting.db.read(rows.is_cancelled, self.record.id)
        while True:
            if self.record.is_cancelled and not self.record.forward_only:
                return await self._turn(at, CANCELLED, began)
            attempt += 1
            run = self._run(index, attempt, self._until(self.deadline))
            failure = await self._try_step(step, at, run, began)
            if failure is None:
                return None
            if not self.record.forward_only and not failure.is_transient:
                return await self._turn(at, failure.cause, began, run)
            if not self.record.forward_only and self._time() >= self.deadline:
                return await self._turn(at, self._late(name, failure.cause), began, run)
            await self._again(name, run, failure, began)

    async def _try_step(self, step: Step[Any], at: int, run: Run[Any], began: float) -> Failure | None:
        result, failure = await self._try(step.do, run, self._until(self.deadline))
        if failure is not None:
            return failure
        is_last = at + 1 == len(self.record.steps)
        end = self._event(at, "done", run, began)
        if step.deferred and result is None and not is_last:
            self._ends.append(end)
            return None
        change = Change(state=State.DONE if is_last else State.RUNNING, position=at + 1)
        return await self._settle(change, end, result)

    async def _turn(self, at: int, cause: Cause, began: float, run: Run[Any] | None = None) -> None:
        """From running to unwinding: every step that may have begun is undone."""
        furthest = at
        while self.saga.step(self.record.steps[furthest])[0].deferred and furthest + 1 < len(self.record.steps):
            furthest += 1
        failed = self._event(at, "failed", run, began, error=cause.message)
        log.info("saga unwinds", step=failed.step, cause=cause.message, detail=cause.detail)
        change = Change(state=State.UNWINDING, position=self._undoable(furthest), cause=cause)
        await self._write(change, [*self._ends, failed])

    def _late(self, name: str, cause: Cause) -> Cause:
        message = f"It did not finish within {self.saga.deadline_s:g} seconds; step {name}: {cause.message}"
        return msgspec.structs.replace(cause, message=message)

    # Back.

    async def _go_back(self) -> None:
        """Undo one step, or, when all are undone, write the saga's end."""
        at = self._undoable(self.record.position)
        began, attempt, failures = self._time(), 0, 0
        while True:
            attempt += 1
            run = self._run(0, attempt, self._time() + self.setting.pace.undo_s)
            failure = await (self._try_undo(at, run, began) if at >= 0 else self._try_finish(run, began))
            if failure is None:
                return None
            failures += not failure.is_transient
            if failures >= self.setting.pace.failures_max:
                return await self._give_up(at, run, failure, began)
            await self._again(self._name(at), run, failure, began)

    async def _try_undo(self, at: int, run: Run[Any], began: float) -> Failure | None:
        step, run.index = self.saga.step(self.record.steps[at])
        assert step.undo is not None, "positions of an unwinding saga have an undo"
        result, failure = await self._try(step.undo, run, self._time() + self.setting.pace.undo_s)
        if failure is not None:
            return failure
        change = msgspec.structs.replace(self._here(), position=self._undoable(at - 1))
        return await self._settle(change, self._event(at, "undone", run, began), result)

    async def _try_finish(self, run: Run[Any], began: float) -> Failure | None:
        change = Change(state=State.UNDONE, position=-1, cause=self.record.cause)
        return await self._settle(change, self._event(-1, "undone", run, began), self._hook(self.saga.undone))

    async def _give_up(self, at: int, run: Run[Any], failure: Failure, began: float) -> None:
        """Stuck: an operator decides. The user is told, unless telling is what fails."""
        reason = f"undo of {self._name(at) or 'the whole'}: {failure.cause.detail or failure.cause.message}"
        log.error("saga is stuck", step=self._name(at), reason=reason)
        event = self._event(at, "stuck", run, began, error=failure.cause.message)
        change = msgspec.structs.replace(self._here(), state=State.STUCK, position=at, reason=reason, is_overdue=True)
        if not self.record.is_overdue and await self._settle(change, event, self._hook(self.saga.overdue)) is None:
            return
        await self._write(change, [event])

    # Both.

    async def _try(
        self, effect: Callable[[Run[Any]], Awaitable[Json | Commit | None]], run: Run[Any], until: float
    ) -> tuple[Json | Commit | None, Failure | None]:
        """One effect, bounded in time; whatever it raises is a Failure."""
        async with self.setting.slots:
            if self._time() > self.lease_ends:
                raise Fenced(self.record.id)
            scope = asyncio.timeout_at(until)
            try:
                async with scope:
                    return await effect(run), None
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                return None, Failure(Cause(message="What it waited for was cancelled."), is_transient=True)
            except TimeoutError as error:
                if scope.expired():
                    return None, Failure(Cause(message="It takes too long."), is_transient=True)
                return None, self._judge(error)
            except Exception as error:
                return None, self._judge(error)

    async def _settle(self, change: Change, event: Event, result: Json | Commit | None) -> Failure | None:
        """Write an end; a Commit may refuse, and then nothing is written."""
        commit = result if isinstance(result, Commit) else None
        if commit is None:
            event = msgspec.structs.replace(event, output=result)
        try:
            await self._write(change, [*self._ends, event], commit)
        except (Fenced, DatabaseDown):
            raise
        except Exception as error:
            return self._judge(error)
        return None

    def _judge(self, error: Exception) -> Failure:
        if isinstance(error, Transient | DatabaseDown):
            return Failure(Cause(message=str(error)), is_transient=True)
        if isinstance(error, CloudError):
            return Failure(Cause(message=error.message, status=error.status, why=error.why), is_transient=False)
        detail = "".join(traceback.format_exception(error))
        log.error("a saga's step failed unexpectedly", saga=self.record.name, detail=detail)
        return Failure(Cause(message="Internal error.", detail=detail), is_transient=False)

    async def _again(self, name: str, run: Run[Any], failure: Failure, began: float) -> None:
        """Note the failure in the log (ever more rarely), tell the user when it is overdue, wait, look for news."""
        await self._tell_overdue(failure)
        if run.attempt & (run.attempt - 1) == 0:
            what = "undo-failed" if not failure.is_transient and not self.record.forward_only else "retried"
            line = self._line(name, what, run, began, failure.cause.message)
            await self._write(self._here(), [*self._ends, line])
        await self._pause(run.attempt)
        self.record.is_cancelled |= await self.setting.db.read(rows.is_cancelled, self.record.id)

    async def _tell_overdue(self, failure: Failure) -> None:
        grace_s = 0.0 if self.record.forward_only else self.setting.pace.overdue_grace_s
        if self.record.is_overdue or self.saga.overdue is None or self._time() < self.deadline + grace_s:
            return
        change = msgspec.structs.replace(self._here(), is_overdue=True)
        event = Event(step="", event="overdue", at=self.setting.world.clock.now(), error=failure.cause.message)
        hook = self._hook(self.saga.overdue, self.record.cause or failure.cause)
        refused = await self._settle(change, event, hook)
        if refused is not None:
            log.error("the user could not be told of an overdue saga", cause=refused.cause.message)

    async def _pause(self, attempt: int) -> None:
        pace, late = self.setting.pace, self._time() >= self.deadline
        longest = pace.backoff_overdue_s if late else pace.backoff_max_s
        delay = min(longest, pace.backoff_first_s * 2.0 ** min(attempt - 1, 16))
        delay *= self.setting.world.entropy.uniform(0.5, 1.0)
        if not late:
            delay = min(delay, self.deadline - self._time())
        try:
            async with asyncio.timeout(delay):
                await self.nudge.wait()
        except TimeoutError:
            return
        self.nudge.clear()

    async def _write(self, change: Change | None, events: list[Event], commit: Commit | None = None) -> None:
        """Write, then follow in memory. One at a time: a renewal and a step's end both turn the hold.

        A renewal changes nothing (None), so what it writes is what memory says when its turn has come.
        """
        async with self._writing:
            row = self.record
            change = change or Change(state=row.state, position=row.position, cause=row.cause)
            sent = self._time()
            written = await self.setting.db.write(
                rows.write,
                row.id,
                self.hold,
                change=change,
                events=events,
                commit=commit,
                lease_s=self.setting.pace.lease_s,
                now=self.setting.world.clock.now(),
            )
            self.hold, self.lease_ends = self.hold.kept(), sent + self.setting.pace.lease_s
            row.state, row.position, row.cause = change.state, change.position, change.cause
            row.is_overdue |= change.is_overdue
            row.is_cancelled |= written.is_cancelled
            if events:
                self._ends.clear()
                done = {line.step: line.output for line in events if line.event == "done"}
                if commit is not None and events[-1].event == "done":
                    done[events[-1].step] = written.output
                row.outputs.update(done)

    def _here(self) -> Change:
        """Where the saga stands, once the ends of deferred steps are written too (they go with every event)."""
        row = self.record
        return Change(state=row.state, position=row.position + len(self._ends), cause=row.cause)

    def _undoable(self, at: int) -> int:
        """The nearest step at or before `at` that has an undo; -1 if none has."""
        while at >= 0 and self.saga.step(self.record.steps[at])[0].undo is None:
            at -= 1
        return at

    def _hook(self, hook: Callable[..., None] | None, cause: Cause | None = None) -> Commit | None:
        if hook is None:
            return None
        why = cause or self.record.cause or Cause(message="It failed.")
        return Commit(hook, (self.params, why, self.setting.world.clock.now()))

    def _run(self, index: int, attempt: int, until: float) -> Run[Any]:
        return Run(
            saga_id=self.record.id,
            params=self.params,
            outputs=self.record.outputs,
            index=index,
            deps=self.setting.deps,
            attempt=attempt,
            deadline=self.setting.world.clock.now() + until - self._time(),
            request_id=self.record.request_id,
            cause=self.record.cause,
        )

    def _until(self, deadline: float) -> float:
        """When a try ends: at the deadline; past it (forward-only) after one more slice of time."""
        if self.record.forward_only:
            return max(deadline, self._time() + self.setting.pace.undo_s)
        return deadline

    def _name(self, at: int) -> str:
        return self.record.steps[at] if at >= 0 else ""

    def _event(self, at: int, what: str, run: Run[Any] | None, began: float, error: str = "") -> Event:
        return self._line(self._name(at), what, run, began, error)

    def _line(self, name: str, what: str, run: Run[Any] | None, began: float, error: str) -> Event:
        return Event(
            step=name,
            event=what,
            at=self.setting.world.clock.now(),
            attempt=run.attempt if run is not None else 1,
            error=error,
            notes=dict(run.notes) if run is not None else {},
            ms=round((self._time() - began) * 1000, 3),
        )

    @staticmethod
    def _time() -> float:
        return asyncio.get_running_loop().time()
