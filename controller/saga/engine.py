"""The engine: which sagas this process drives, and who takes over those that nobody drives.

    engine = Engine(db, world, REGISTRY, deps=cloud, owner_id="controller-1")
    async with engine:
        await db.write(start, CREATE, saga_id=…, …)   # Together with the user's row.
        engine.kick(saga_id)

A kick is a hint: one that is lost (a crash between the write and the kick) costs time only, because the recovery
looks for sagas whose lease has lapsed. At its start an engine takes back its own at once; with SQLite, where one
process owns the file, everything there is. An engine leaves alone what it has no code for.
"""

import asyncio
import contextlib
from collections import deque
from types import TracebackType
from typing import Any

import msgspec
import structlog

from agent.wire.world import World
from controller.db.tx import Database, DatabaseDown
from controller.saga import record as rows
from controller.saga.drive import Drive, Pace, Setting
from controller.saga.log import abandon, request_cancel, retry, settled, start, trace
from controller.saga.model import State
from controller.saga.record import Change, Event, Fenced, Hold, Record
from controller.saga.registry import Registry

__all__ = ["Engine", "Pace", "abandon", "request_cancel", "retry", "settled", "start", "trace"]

log = structlog.get_logger()


class Recovery(msgspec.Struct, frozen=True, kw_only=True):
    """What the last look for forsaken sagas found."""

    at: float = 0.0
    adopted: int = 0
    unknown: int = 0  # Of kinds or versions that this engine has no code for.
    stuck: int = 0  # Waiting for an operator.
    error: str = ""


class Engine:
    """Drives sagas. `owner_id` is stable over restarts; two living engines never share one.

    `sole`: nobody else drives sagas of this database, so leases of others are void at the start. By default so
    on SQLite. `deps` reaches the steps as `run.deps`, and may be set after construction, before the start.
    """

    def __init__(
        self,
        db: Database,
        world: World,
        registry: Registry,
        deps: Any,
        *,
        owner_id: str,
        pace: Pace | None = None,
        sole: bool | None = None,
    ) -> None:
        pace = pace or Pace()
        self._setting = Setting(db, world, deps, pace, asyncio.Semaphore(pace.attempts_max))
        self._registry, self._owner_id = registry, owner_id
        self._sole = db.dialect == "sqlite" if sole is None else sole
        self._group: asyncio.TaskGroup | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._drives: dict[str, Drive] = {}
        self._pending: deque[tuple[str, bool]] = deque()  # (saga, by force)
        self._again: set[str] = set()
        self._ended: dict[str, asyncio.Event] = {}
        self._runner: asyncio.Task[None] | None = None
        self.recovery = Recovery()

    @property
    def deps(self) -> Any:
        """What steps get."""
        return self._setting.deps

    @deps.setter
    def deps(self, deps: Any) -> None:
        self._setting.deps = deps

    @property
    def running(self) -> int:
        """How many sagas are in memory."""
        return len(self._tasks)

    async def __aenter__(self) -> "Engine":
        self._runner = asyncio.create_task(self.run(), name="sagas")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None, "entered"
        self._runner.cancel()
        await asyncio.gather(self._runner, return_exceptions=True)

    async def run(self) -> None:
        """Drive sagas until cancelled. Cancellation leaves them as a crash would: where their rows say."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                self._fill()
                group.create_task(self._recover_for_ever(), name="saga-recovery")
                await group.create_task(self._renew_for_ever(), name="saga-leases")
            finally:
                self._group = None  # Before the group stops: it takes no more tasks then, and requests still kick.

    def kick(self, saga_id: str) -> None:
        """There is a new saga, or news for one. Cheap, never raises, may be repeated."""
        self._take_up(saga_id, by_force=False)

    async def rest(self, saga_id: str, timeout_s: float = 60.0) -> State:
        """Wait until a saga rests or is stuck; its state. TimeoutError past the time, KeyError if there is none."""
        async with asyncio.timeout(timeout_s):
            while True:
                state = await self._setting.db.read(rows.state_of, saga_id)
                if state is None:
                    raise KeyError(saga_id)
                if state.value not in rows.ACTIVE:
                    return state
                ended = self._ended.setdefault(saga_id, asyncio.Event())
                with contextlib.suppress(TimeoutError):  # Another controller may be the one who ends it.
                    async with asyncio.timeout(0.5):
                        await ended.wait()

    async def rest_all(self, timeout_s: float = 60.0) -> None:
        """Wait until every saga of the database rests or is stuck, also those started meanwhile."""
        async with asyncio.timeout(timeout_s):
            while left := await self._setting.db.read(rows.active):
                for saga_id in left:
                    self.kick(saga_id)
                await self.rest(left[0], timeout_s)

    async def recover(self, *, at_start: bool = False) -> Recovery:
        """Adopt what nobody drives. Idempotent; runs by itself, and may be asked for."""
        db, owner = self._setting.db, self._owner_id if at_start else None
        everyones = at_start and self._sole
        limit = self._setting.pace.sagas_max
        found = await db.read(rows.lapsed, owner=owner, everyones=everyones, limit=limit)
        known = [saga for saga in found if saga.name in self._registry]
        adopted = [saga.id for saga in known if saga.id not in self._tasks]
        for saga_id in adopted:
            self._take_up(saga_id, by_force=everyones)
        self.recovery = Recovery(
            at=self._setting.world.clock.now(),
            adopted=len(adopted),
            unknown=len(found) - len(known),
            stuck=await db.read(rows.count_stuck),
        )
        return self.recovery

    # Which sagas are driven.

    def _take_up(self, saga_id: str, *, by_force: bool) -> None:
        if saga_id in self._tasks:
            self._again.add(saga_id)
            if saga_id in self._drives:
                self._drives[saga_id].nudge.set()
            return
        self._pending.append((saga_id, by_force))
        self._fill()

    def _fill(self) -> None:
        """Start tasks for what waits, as many as may be in memory."""
        while self._group is not None and self._pending and len(self._tasks) < self._setting.pace.sagas_max:
            saga_id, by_force = self._pending.popleft()
            if saga_id not in self._tasks:
                self._tasks[saga_id] = self._group.create_task(self._care(saga_id, by_force), name=f"saga {saga_id}")

    async def _care(self, saga_id: str, by_force: bool) -> None:
        """Drive one saga, again from its row whenever the database was away."""
        structlog.contextvars.bind_contextvars(saga_id=saga_id)
        attempt = 0
        while True:
            self._again.discard(saga_id)
            try:
                await self._drive_once(saga_id, by_force)
            except DatabaseDown as error:
                attempt += 1
                log.warning("the database is away; the saga waits", error=str(error))
                await asyncio.sleep(
                    min(10.0, 0.2 * 2.0 ** min(attempt, 8)) * self._setting.world.entropy.uniform(0.5, 1)
                )
                continue
            except Fenced:
                log.warning("the saga is another engine's now")
            except Exception:
                log.exception("a saga could not be driven; its lease will lapse")  # A bug of ours: nobody else suffers.
            if saga_id not in self._again:
                break
        self._let_go(saga_id)

    def _let_go(self, saga_id: str) -> None:
        self._drives.pop(saga_id, None)
        self._tasks.pop(saga_id, None)
        if saga_id in self._ended:
            self._ended.pop(saga_id).set()
        self._fill()

    async def _drive_once(self, saga_id: str, by_force: bool) -> None:
        taken = await self._take(saga_id, by_force)
        if taken is None:
            return
        record, hold = taken
        structlog.contextvars.bind_contextvars(request_id=record.request_id, saga=record.name)
        saga = self._registry[record.name]
        try:
            params = msgspec.json.decode(record.params, type=saga.params)
            for name in record.steps:
                saga.step(name)
        except (msgspec.DecodeError, KeyError) as error:
            await self._refuse(record, hold, f"its stored form does not fit its code: {error!r}")
            return
        drive = self._drives[saga_id] = Drive(self._setting, saga, record, hold, params)
        state = await drive.run()
        log.info("saga rests", state=state.value)
        if saga.rested is not None:
            saga.rested(self.deps, state)
        for successor in await self._setting.db.read(rows.unowned, record.target):
            self.kick(successor)  # Started by a step or by `undone` (the next host): those cannot kick.

    async def _take(self, saga_id: str, by_force: bool) -> tuple[Record, Hold] | None:
        """The saga, if it is to be had: a new one is claimed by its first write, any other one now."""
        db, me = self._setting.db, self._owner_id
        record = await db.read(rows.load, saga_id)
        if record is None or record.name not in self._registry:
            return None
        if not record.owner and record.lease_left_s > 0:
            return record, Hold("", record.generation, me, record.generation + 1)
        lease_s, now = self._setting.pace.lease_s, self._setting.world.clock.now()
        record = await db.write(rows.adopt, saga_id, me, lease_s=lease_s, by_force=by_force, now=now)
        return None if record is None else (record, Hold(me, record.generation, me, record.generation))

    async def _refuse(self, record: Record, hold: Hold, reason: str) -> None:
        log.error("saga is stuck", reason=reason)
        change = Change(state=State.STUCK, position=record.position, cause=record.cause, reason=reason)
        now = self._setting.world.clock.now()
        event = Event(step="", event="stuck", at=now, error=reason)
        write = self._setting.db.write
        await write(rows.write, record.id, hold, change=change, events=[event], commit=None, lease_s=0.0, now=now)

    # What runs beside the sagas.

    async def _recover_for_ever(self) -> None:
        at_start = True
        while True:
            try:
                await self.recover(at_start=at_start)
                at_start = False
            except DatabaseDown as error:
                self.recovery = msgspec.structs.replace(self.recovery, error=str(error))
            await asyncio.sleep(self._setting.pace.recovery_s * self._setting.world.entropy.uniform(0.8, 1.2))

    async def _renew_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._setting.pace.lease_s / 6)
            due = asyncio.get_running_loop().time() + self._setting.pace.lease_s * 2 / 3
            for saga_id, drive in list(self._drives.items()):
                if drive.lease_ends < due:
                    await self._renew(saga_id, drive)

    async def _renew(self, saga_id: str, drive: Drive) -> None:
        try:
            await drive.renew()
        except DatabaseDown as error:
            log.warning("a lease could not be renewed", saga_id=saga_id, error=str(error))
        except Fenced:
            if self._drives.get(saga_id) is drive and drive.record.state.value in rows.ACTIVE:
                log.warning("a lease is lost: the saga is another engine's now", saga_id=saga_id)
                self._tasks[saga_id].cancel()
                self._let_go(saga_id)
