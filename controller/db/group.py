"""Group commit: transactions that wait at the same moment share one commit, a savepoint each.

Theory of operation. One connection writes. A group is BEGIN IMMEDIATE, then for every transaction SAVEPOINT, the
function, RELEASE, and at the end one COMMIT. A function that raises is rolled back to its savepoint and costs the
others nothing. Nobody is answered before COMMIT has returned. What ends the outer transaction (a full disk, an I/O
error: SQLite then rolls back everything by itself) fails every transaction of the group, also those that had
finished. Constraints are never deferred: they would fail the group at COMMIT for one member's fault.

Which thread runs a group is decided elsewhere (`sqlite`): a writer thread, or the event loop in the simulation.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, cast

import sqlalchemy as sa
import structlog

from controller.db.tx import DatabaseDown, Tx

log = structlog.get_logger()

_STORAGE: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOTADB,
    }
)
"""Primary result codes that speak of the file or the disk, never of the statement."""


@dataclass(slots=True)
class Job:
    """One waiting transaction: what to run, whom to answer."""

    call: Callable[[Tx], Any]
    loop: asyncio.AbstractEventLoop
    answer: "asyncio.Future[Any]"
    result: Any = None
    error: BaseException | None = None
    done: bool = field(default=False)

    def deliver(self) -> None:
        """Answer the caller, unless it has gone."""
        if self.answer.done():
            return
        if self.error is not None:
            self.answer.set_exception(self.error)
        else:
            self.answer.set_result(self.result)


class GroupBroken(Exception):
    """The outer transaction is gone."""


def is_storage_failure(error: BaseException, *, reading: bool = False) -> bool:
    """Whether SQLite complained about the disk or the file. A reader that tries to write is a bug, not that."""
    original = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    code = getattr(original, "sqlite_errorcode", None)
    if not isinstance(code, int) or (reading and code & 0xFF == sqlite3.SQLITE_READONLY):
        return False
    return code & 0xFF in _STORAGE


def down(error: BaseException) -> DatabaseDown:
    """What callers get for a failure of storage."""
    failure = DatabaseDown("The database cannot be written at the moment. Nothing was changed; try again later.")
    failure.__cause__ = error
    return failure


def run_group(connection: sa.Connection, jobs: Iterable[Job]) -> None:
    """Run jobs in one transaction and note each one's outcome. Never raises; the connection is clean afterwards."""
    wanted = [job for job in jobs if not job.answer.cancelled()]
    try:
        outer = connection.begin()
        try:
            for job in wanted:
                _run_one(connection, job)
            outer.commit()
        except BaseException:
            _roll_back(connection, outer)
            raise
    except BaseException as error:
        log.error("group commit failed", jobs=len(wanted), error=str(error))
        for job in wanted:
            job.result, job.error = None, down(error)


def _run_one(connection: sa.Connection, job: Job) -> None:
    savepoint = connection.begin_nested()
    try:
        job.result = job.call(connection)
        savepoint.commit()
    except BaseException as error:
        if not in_transaction(connection):
            raise GroupBroken(str(error)) from error
        savepoint.rollback()
        job.error = down(error) if is_storage_failure(error) else error


def in_transaction(connection: sa.Connection) -> bool:
    """Whether SQLite itself still has the transaction open."""
    return cast("sqlite3.Connection", connection.connection.dbapi_connection).in_transaction


def _roll_back(connection: sa.Connection, outer: sa.RootTransaction) -> None:
    try:
        outer.rollback()
    except sa.exc.DBAPIError:
        log.warning("rollback failed, as SQLite had rolled back by itself", exc_info=True)
    if in_transaction(connection):
        connection.connection.rollback()
