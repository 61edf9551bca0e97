"""PostgreSQL, for more than one controller: SERIALIZABLE transactions that are run again when they lose a race.

At the default isolation concurrent creates pass a quota that each of them counted before the others' rows were
visible. Under SERIALIZABLE one of two such transactions fails with 40001 (or 40P01, a deadlock) and its function
runs again from the start, on what is true now. Runs are bounded. The first run of every transaction is free to
collide; later runs of one process queue behind each other, because fifty losers that start again at once produce
forty-nine losers.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import msgspec
import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from agent.wire.world import Entropy
from controller.db.tx import DatabaseDown, Tx
from controller.errors import Unavailable

P = ParamSpec("P")
T = TypeVar("T")
log = structlog.get_logger()

RUNS_MAX: Final = 25
"""How often one transaction is tried. Lower: a burst on one row turns into 503s; higher: a hot row hides a bug."""

POOL_MAX: Final = 16
"""Connections of one controller. Higher: more collisions; the server's own limit is 100 by default."""

_WAIT_S: Final = 10.0
"""How long a transaction waits for a free connection before it is a 503."""

_STATEMENT_MS: Final = 30_000
"""No statement of ours is slower on purpose; one that is holds locks that everybody waits for."""

_COLLISIONS: Final = frozenset({"40001", "40P01"})
_UNIQUE: Final = "23505"
_GONE: Final = ("08", "57P", "53")
"""Classes of SQLSTATE: connection failure, shutdown by the administrator, out of resources."""


class _Collision(Exception):
    """Run it again."""


class PostgresDatabase:
    """One PostgreSQL database. `url` as SQLAlchemy's, with or without `+asyncpg`."""

    dialect = "postgresql"

    def __init__(self, url: str, entropy: Entropy, *, pool_max: int = POOL_MAX) -> None:
        self._entropy = entropy
        self._engine = _engine(url, pool_max)
        self._writes = self._engine.execution_options(isolation_level="SERIALIZABLE")
        self._reads = self._engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self._again = asyncio.Lock()
        self.reruns = 0

    async def read(self, fn: Callable[Concatenate[Tx, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """See Database: one snapshot, which never collides."""

        def call(tx: Tx) -> T:
            return fn(tx, *args, **kwargs)

        for _ in range(2):  # The second time on a fresh connection, if the pool's had died meanwhile.
            with contextlib.suppress(_Collision):
                return await self._once(self._reads, call)
        raise DatabaseDown("The database cannot be reached at the moment; try again later.")

    async def write(self, fn: Callable[Concatenate[Tx, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """See Database: serializable, run again when it collides."""

        def call(tx: Tx) -> T:
            return fn(tx, *args, **kwargs)

        with contextlib.suppress(_Collision):
            return await self._once(self._writes, call)
        async with self._again:
            for run in range(2, RUNS_MAX + 1):
                self.reruns += 1
                await asyncio.sleep(self._entropy.uniform(0, min(0.001 * 2**run, 0.1)))
                with contextlib.suppress(_Collision):
                    return await self._once(self._writes, call)
        log.error("a transaction lost every race", runs=RUNS_MAX, function=fn.__qualname__)
        raise DatabaseDown("Too many changes of the same objects at once; try again later.")

    async def read_aside(
        self, timeout_s: float, fn: Callable[Concatenate[Tx, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """See Database: the server itself stops the statement."""

        def call(tx: Tx) -> T:
            tx.exec_driver_sql(f"SET LOCAL statement_timeout = {int(timeout_s * 1000)}")
            return fn(tx, *args, **kwargs)

        try:
            return await self._once(self._reads, call)
        except _Collision as error:
            raise DatabaseDown("The database cannot be reached at the moment; try again later.") from error
        except sa.exc.DBAPIError as error:
            if _sqlstate(error) == "57014":
                raise Unavailable("This list takes too long to compute; ask for less.") from error
            raise

    async def administer(self, fn: Callable[[sa.Connection], T]) -> T:
        """Change the schema, one controller at a time."""
        async with self._engine.begin() as connection:
            await connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7246101)")  # An arbitrary, fixed number.
            return await connection.run_sync(fn)

    def shortage(self) -> str:
        """See Database: the server's disk is the server's business."""
        return ""

    async def close(self) -> None:
        """See Database."""
        await self._engine.dispose()

    async def _once(self, engine: AsyncEngine, call: Callable[[Tx], T]) -> T:
        try:
            async with engine.connect() as connection:
                return await _transact(connection, call)
        except sa.exc.DBAPIError as error:
            state = _sqlstate(error)
            if state in _COLLISIONS or error.connection_invalidated:
                raise _Collision from error
            if state.startswith(_GONE) and state != "57014":
                raise DatabaseDown("The database cannot be reached at the moment; try again later.") from error
            raise
        except (OSError, sa.exc.TimeoutError) as error:
            raise DatabaseDown("The database cannot be reached at the moment; try again later.") from error


async def _transact(connection: AsyncConnection, call: Callable[[Tx], T]) -> T:
    transaction = await connection.begin()
    try:
        result = await connection.run_sync(call)
    except BaseException:
        with contextlib.suppress(sa.exc.DBAPIError):  # A dead connection has nothing to roll back.
            await transaction.rollback()
        raise
    try:
        await transaction.commit()
    except sa.exc.DBAPIError as error:
        if _sqlstate(error) in _COLLISIONS or _sqlstate(error).startswith("23"):
            raise
        # Running it again could do it twice: whether it was committed is not known.
        raise DatabaseDown("The database went away while it committed.") from error
    return result


def _sqlstate(error: sa.exc.DBAPIError) -> str:
    return str(getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None) or "")


def _engine(url: str, pool_max: int) -> AsyncEngine:
    parsed = sa.make_url(url).set(drivername="postgresql+asyncpg")
    settings = {
        "application_name": "hostler-controller",
        "statement_timeout": str(_STATEMENT_MS),
        "idle_in_transaction_session_timeout": str(_STATEMENT_MS),
        "timezone": "UTC",
        "jit": "off",  # Our statements are short: compiling them costs more than running them.
    }
    return create_async_engine(
        parsed,
        pool_size=pool_max,
        max_overflow=0,
        pool_timeout=_WAIT_S,
        connect_args={"server_settings": settings, "timeout": _WAIT_S},
        json_serializer=lambda value: msgspec.json.encode(value).decode(),
        json_deserializer=msgspec.json.Decoder(type=Any).decode,
    )
