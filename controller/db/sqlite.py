"""SQLite, the embedded default: reads inline on a reader connection, writes grouped on one writer thread.

Theory of operation. The file is in WAL mode with synchronous=FULL, so a reader sees the last committed snapshot
and never waits, and what was answered survives a power cut. pysqlite must not manage transactions: with its
defaults the first RELEASE commits and a group of savepoints is not atomic. So `isolation_level` is None and a
`begin` event says BEGIN IMMEDIATE (writer) or BEGIN (readers).

Reads run on the event loop itself: 15 µs for a prebuilt statement, where a hop to a thread costs more than the
read. What may take long goes through `read_aside`. With `threaded=False` no thread exists: writes that are queued
in one turn of the loop become one group in the next, so a simulation runs the same code in a repeatable order.

One process owns the file: an exclusive lock beside it is held for as long as the database is open. An operator's
tool that must write at the same time opens it with `exclusive=False`.
"""

import asyncio
import contextlib
import contextvars
import fcntl
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Concatenate, Final, ParamSpec, TypeVar, cast

import msgspec
import sqlalchemy as sa
import structlog
from sqlalchemy.engine.cursor import _DEFAULT_FETCH, FullyBufferedCursorFetchStrategy

from controller.db.clock import SQLITE_FUNCTION
from controller.db.group import Job, down, is_storage_failure, run_group
from controller.db.space import Reserve
from controller.db.tx import DatabaseDown, Tx
from controller.errors import Unavailable

P = ParamSpec("P")
T = TypeVar("T")
log = structlog.get_logger()

QUEUE_MAX: Final = 4096
"""Writes that may wait; more are refused with 503. Higher: a slow disk answers callers that have long gone."""

GROUP_MAX: Final = 256
"""Transactions of one commit. Higher: the first of a group waits longer for its answer; lower: more fsyncs."""

BUSY_MS: Final = 5000
"""How long a write waits for another process's (an operator's tool, a backup)."""

ASIDE_WORKERS: Final = 2
"""Slow reads at once. They compete with the loop for the interpreter, so few."""

_PROGRESS_INSTRUCTIONS: Final = 20_000
"""How often a slow read looks at its deadline: about every millisecond."""


class Locked(Exception):
    """Another process holds this state directory."""


class Damaged(Exception):
    """`PRAGMA quick_check` found something."""


class SqliteDatabase:
    """One SQLite file (or, with `path=None`, a memory that dies with it: for tests and the simulation)."""

    dialect = "sqlite"

    def __init__(
        self,
        path: Path | None,
        *,
        now: Callable[[], float] = time.time,
        threaded: bool = True,
        exclusive: bool = True,
        synchronous: str = "FULL",
    ) -> None:
        assert path is not None or not threaded, "a memory has one connection, which the loop must own"
        self._path, self._now, self._synchronous = path, now, synchronous
        self._lock = _lock(path) if path is not None and exclusive else None
        self._writer = self._connect("BEGIN IMMEDIATE")
        self._reader = self._connect("BEGIN", "PRAGMA query_only=ON") if path is not None else self._writer
        self._reserve = Reserve(path.parent) if path is not None else None
        _check(self._writer)
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._aside: ThreadPoolExecutor | None = None
        self._flushing = False
        self._closed = False
        self._thread: threading.Thread | None = None
        if threaded:
            self._thread = threading.Thread(target=self._serve, name="database-writer", daemon=True)
            self._thread.start()

    async def read(self, fn: Callable[Concatenate[Tx, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """See Database: inline, on the loop."""
        return self._read(self._reader, lambda tx: fn(tx, *args, **kwargs))

    async def write(self, fn: Callable[Concatenate[Tx, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """See Database: queued, in a savepoint of the next group; returns after its COMMIT."""
        if self._closed:
            raise DatabaseDown("The database is closed.")
        if self._jobs.qsize() >= QUEUE_MAX:
            raise DatabaseDown("Too many changes are waiting to be written; try again later.")
        loop = asyncio.get_running_loop()
        job = Job(lambda tx: fn(tx, *args, **kwargs), loop, loop.create_future())
        self._jobs.put(job)
        if self._thread is None and not self._flushing:
            self._flushing = True
            # In no caller's context: a simulated party that is severed now must not take the others' writes with it.
            loop.call_soon(self._flush, context=contextvars.Context())
        result: T = await job.answer
        return result

    async def read_aside(
        self, timeout_s: float, fn: Callable[Concatenate[Tx, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """See Database: in a thread with a connection of its own, interrupted at its deadline."""
        if self._thread is None:
            return await self.read(fn, *args, **kwargs)
        if self._aside is None:
            self._aside = ThreadPoolExecutor(ASIDE_WORKERS, thread_name_prefix="database-aside")
        deadline = time.monotonic() + timeout_s
        work = self._aside.submit(self._read_until, deadline, lambda tx: fn(tx, *args, **kwargs))
        try:
            return await asyncio.wait_for(asyncio.wrap_future(work), timeout_s)
        except TimeoutError:
            raise Unavailable("This list takes too long to compute; ask for less.") from None

    async def administer(self, fn: Callable[[sa.Connection], T]) -> T:
        """Change the schema: `fn` in one exclusive transaction without foreign keys; they are checked at its end."""
        if self._path is None:
            return await self.write(fn)
        connection = self._connect("BEGIN IMMEDIATE", "PRAGMA foreign_keys=OFF")
        try:
            with connection.begin():
                result = fn(connection)
                orphans = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
                if orphans:
                    raise Damaged(f"rows without their parents after a migration: {orphans[:5]}")
            return result
        finally:
            _close(connection)

    def back_up(self, path: Path) -> None:
        """A compact copy of one snapshot, durable when this returns. Blocks, beside readers and the writer.

        Raises FileExistsError, and DatabaseDown when it could not be written; no file is left then.
        """
        path.touch(mode=0o600, exist_ok=False)
        try:
            with contextlib.closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True)) as source:
                source.execute("VACUUM INTO ?", (str(path),)).close()
            _sync(path)
        except (sqlite3.Error, OSError) as error:
            path.unlink()
            raise DatabaseDown(f"The backup could not be written: {error}") from error

    def build(self, fn: Callable[[sa.Connection], T]) -> T:
        """Like `administer`, at once, before the first write: for a memory that has no loop yet."""
        with self._writer.begin():
            return fn(self._writer)

    def shortage(self) -> str:
        """See Database."""
        return self._reserve.shortage() if self._reserve is not None else ""

    async def close(self) -> None:
        """See Database."""
        if self._closed:
            return
        self._closed = True
        if self._thread is not None:
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join)
        if self._aside is not None:
            await asyncio.to_thread(self._aside.shutdown)
        for connection in {self._reader, self._writer}:
            _close(connection)
        if self._lock is not None:
            os.close(self._lock)

    def _serve(self) -> None:
        """The writer thread: one group after another, until the None of `close`."""
        while True:
            group, last = self._take()
            if group:
                self._run(group)
                loops = {job.loop for job in group}
                for loop in loops:
                    with contextlib.suppress(RuntimeError):  # That loop is closed: nobody waits any more.
                        loop.call_soon_threadsafe(_deliver, [job for job in group if job.loop is loop])
            if last:
                return

    def _take(self) -> tuple[list[Job], bool]:
        group: list[Job] = []
        job = self._jobs.get()
        while job is not None:
            group.append(job)
            if len(group) == GROUP_MAX:
                return group, False
            try:
                job = self._jobs.get_nowait()
            except Empty:
                return group, False
        return group, True

    def _flush(self) -> None:
        """Without a thread: everything queued since the last turn of the loop, as one group."""
        self._flushing = False
        group = [job for job in iter(self._pop, None) if job is not None]
        self._run(group)
        _deliver(group)

    def _pop(self) -> Job | None:
        try:
            return self._jobs.get_nowait()
        except Empty:
            return None

    def _run(self, group: list[Job]) -> None:
        run_group(self._writer, group)
        if self._reserve is not None and any(isinstance(job.error, DatabaseDown) for job in group):
            self._reserve.release()

    def _read(self, connection: sa.Connection, call: Callable[[Tx], T]) -> T:
        try:
            with connection.begin() as transaction:
                result = call(connection)
                transaction.rollback()
                return result
        except sa.exc.DBAPIError as error:
            if is_storage_failure(error, reading=True):
                raise down(error) from error
            raise

    def _read_until(self, deadline: float, call: Callable[[Tx], T]) -> T:
        connection = self._connect("BEGIN", "PRAGMA query_only=ON")
        raw = cast("sqlite3.Connection", connection.connection.dbapi_connection)
        raw.set_progress_handler(lambda: time.monotonic() > deadline, _PROGRESS_INSTRUCTIONS)
        try:
            return self._read(connection, call)
        except sa.exc.OperationalError as error:
            if getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
                raise TimeoutError from error
            raise
        finally:
            _close(connection)

    def _connect(self, begin: str, *pragmas: str) -> sa.Connection:
        url = sa.URL.create("sqlite", database=":memory:" if self._path is None else str(self._path))
        engine = sa.create_engine(
            url,
            poolclass=sa.NullPool if self._path is not None else sa.StaticPool,
            connect_args={"check_same_thread": False, "isolation_level": None, "timeout": BUSY_MS / 1000},
            json_serializer=lambda value: msgspec.json.encode(value).decode(),
            json_deserializer=msgspec.json.Decoder(type=Any).decode,
        )
        settings = (
            "PRAGMA journal_mode=WAL",
            f"PRAGMA synchronous={self._synchronous}",
            "PRAGMA foreign_keys=ON",
            "PRAGMA temp_store=MEMORY",
            *pragmas,
        )

        @sa.event.listens_for(engine, "connect")
        def set_up(raw: sqlite3.Connection, _: object) -> None:
            for pragma in settings:
                raw.execute(pragma).close()
            raw.create_function(SQLITE_FUNCTION, 0, self._now)

        @sa.event.listens_for(engine, "begin")
        def begin_explicitly(connection: sa.Connection) -> None:
            cast("sqlite3.Connection", connection.connection.dbapi_connection).execute(begin).close()

        sa.event.listen(engine, "after_cursor_execute", _fetch_returning)
        return engine.connect()


def _fetch_returning(
    _connection: sa.Connection, cursor: Any, _statement: str, _parameters: Any, context: Any, _many: bool
) -> None:
    """Fetch the rows of RETURNING at once: a change in progress (a result that a raised exception keeps alive is
    enough) would forbid the next savepoint, and so one function's exception would fail its whole group."""
    changes = context is not None and (context.isinsert or context.isupdate or context.isdelete)
    if changes and cursor.description is not None and context.cursor_fetch_strategy is _DEFAULT_FETCH:
        rows = deque(cursor.fetchall())
        context.cursor_fetch_strategy = FullyBufferedCursorFetchStrategy(cursor, cursor.description, rows)


def _deliver(group: list[Job]) -> None:
    for job in group:
        job.deliver()


def _close(connection: sa.Connection) -> None:
    engine = connection.engine
    connection.close()
    engine.dispose()


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _check(connection: sa.Connection) -> None:
    with connection.begin():
        found = connection.exec_driver_sql("PRAGMA quick_check(5)").scalars().all()
    if found != ["ok"]:
        raise Damaged(f"the database is damaged; restore a backup: {'; '.join(map(str, found))}")


def _lock(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise Locked(f"another controller works in {path.parent}") from None
    return fd
