"""The simulation's store on PostgreSQL: whatever its controllers read and write, both databases say the same.

A simulated cloud has one thread and its own time, and a real server has neither. So the cloud runs on SQLite as ever,
and every transaction is repeated at once on PostgreSQL, with the same arguments and the same time: what it returns, or
raises, must be the same, and so must be every row in the end. A transaction may be run again at any time, by contract,
so repeating it disturbs nobody.
"""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles

from controller.db import clock, migrations
from controller.db.clock import database_now
from controller.db.postgres import _engine
from controller.db.sqlite import SqliteDatabase
from controller.db.tx import Tx
from tests.databases import fresh_database
from tests.sim.simulation import Plan, Simulation, play
from tests.virtual import EPOCH

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(600)]

Outcome = tuple[str, Any]
"""("returned", what) or ("raised", what)."""


class Mirror:
    """A PostgreSQL that follows. Its engine lives in a thread of its own; who asks waits, so nothing else moves."""

    def __init__(self, url: str) -> None:
        self.transactions = {"read": 0, "write": 0}
        self.differences: list[str] = []
        self.is_filled = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._engine = _engine(url, 1).execution_options(isolation_level="SERIALIZABLE")
        self._do(migrations.upgrade, EPOCH)

    def copy(self, database: SqliteDatabase) -> None:
        """Begin with the same rows."""
        tables = migrations.complete_metadata().sorted_tables
        found = {table.name: _rows(database, table) for table in tables}

        def fill(tx: Tx) -> None:
            for table in reversed(tables):
                tx.execute(sa.delete(table))
            for table in tables:
                if found[table.name]:
                    tx.execute(sa.insert(table), found[table.name])
                for column in table.primary_key.columns:
                    if column.autoincrement is True:
                        last = max((row[column.name] for row in found[table.name]), default=0)
                        name = f"pg_get_serial_sequence('\"{table.name}\"', '{column.name}')"
                        tx.exec_driver_sql(f"SELECT setval({name}, {last + 1}, false)")

        self._do(fill, EPOCH)
        self.is_filled = True

    def follow(self, kind: str, call: Callable[[Tx], Any], now: float, outcome: Outcome) -> None:
        """The same once more."""
        self.transactions[kind] += 1
        try:
            mine: Outcome = ("returned", self._do(call, now, writes=kind == "write"))
        except (
            sqlite3.ProgrammingError
        ):  # The simulation's own look also reads ledgers of hosts, in its own thread only.
            return
        except Exception as error:
            mine = ("raised", error)
        if not _same(mine, outcome) and len(self.differences) < 20:
            self.differences.append(f"{kind} {call}: SQLite {outcome!r:.600}\n    PostgreSQL {mine!r:.600}")

    def rows(self, table: sa.Table) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._do(lambda tx: _all_rows(tx, table), EPOCH)
        return found

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._engine.dispose(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    def _do(self, call: Callable[[Tx], Any], now: float, *, writes: bool = True) -> Any:
        return asyncio.run_coroutine_threadsafe(self._transact(call, now, writes), self._loop).result(120)

    async def _transact(self, call: Callable[[Tx], Any], now: float, writes: bool) -> Any:
        async with self._engine.connect() as connection:
            await connection.exec_driver_sql(f"SELECT set_config('hostler.now', '{now!r}', true)")
            result = await connection.run_sync(call)
            await (connection.commit() if writes else connection.rollback())
            return result


def _all_rows(tx: Tx, table: sa.Table) -> list[dict[str, Any]]:
    rows = [{str(key): value for key, value in row._mapping.items()} for row in tx.execute(sa.select(table))]
    return sorted(rows, key=repr)


def _rows(database: SqliteDatabase, table: sa.Table) -> list[dict[str, Any]]:
    return database.build(lambda tx: _all_rows(tx, table))


def _same(mine: Outcome, theirs: Outcome) -> bool:
    if mine[0] != theirs[0]:
        return False
    if mine[0] == "raised":
        return type(mine[1]) is type(theirs[1]) and (
            isinstance(mine[1], sa.exc.DBAPIError) or str(mine[1]) == str(theirs[1])
        )
    return bool(mine[1] == theirs[1]) or repr(mine[1]) == repr(theirs[1])


@pytest.fixture
def mirror(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """A mirror of whatever SQLite the simulation uses in this test, on the simulation's time."""
    compiles(database_now, "postgresql")(lambda *_, **__: "CAST(current_setting('hostler.now') AS DOUBLE PRECISION)")
    with fresh_database(postgres_url) as url:
        found = Mirror(url)
        _patch(monkeypatch, found)
        try:
            yield found
        finally:
            found.close()
            compiles(database_now, "postgresql")(clock._on_postgresql)


def _patch(monkeypatch: pytest.MonkeyPatch, mirror: Mirror) -> None:
    read, write, build = SqliteDatabase.read, SqliteDatabase.write, SqliteDatabase.build

    async def mirrored_read(self: SqliteDatabase, fn: Any, *args: Any, **kwargs: Any) -> Any:
        def call(tx: Tx) -> Any:
            return fn(tx, *args, **kwargs)

        return await read(self, _following(mirror, "read", call, self))

    async def mirrored_write(self: SqliteDatabase, fn: Any, *args: Any, **kwargs: Any) -> Any:
        def call(tx: Tx) -> Any:
            return fn(tx, *args, **kwargs)

        return await write(self, _following(mirror, "write", call, self))

    def mirrored_build(self: SqliteDatabase, call: Callable[[Tx], Any]) -> Any:
        return build(self, _following(mirror, "write", call, self) if mirror.is_filled else call)

    monkeypatch.setattr(SqliteDatabase, "build", mirrored_build)
    monkeypatch.setattr(SqliteDatabase, "read", mirrored_read)
    monkeypatch.setattr(SqliteDatabase, "write", mirrored_write)


def _following(mirror: Mirror, kind: str, call: Callable[[Tx], Any], database: SqliteDatabase) -> Callable[[Tx], Any]:
    def both(tx: Tx) -> Any:
        now = database._now()
        try:
            result = call(tx)
        except Exception as error:
            mirror.follow(kind, call, now, ("raised", error))
            raise
        mirror.follow(kind, call, now, ("returned", result))
        return result

    return both


@pytest.mark.parametrize("seed", [3, 7])
def test_both_databases_say_the_same_of_a_whole_cloud(mirror: Mirror, seed: int) -> None:
    made: list[Simulation] = []

    def begin(simulation: Simulation) -> None:
        mirror.copy(simulation.database)
        made.append(simulation)

    played = play(seed, Plan(operations=60, controllers=2), prepare=begin)
    assert not mirror.differences, "\n".join(mirror.differences)
    assert not played.broken, played.story()
    assert mirror.transactions["write"] > 100 and mirror.transactions["read"] > 500, mirror.transactions
    for table in migrations.complete_metadata().sorted_tables:
        assert _rows(made[0].database, table) == mirror.rows(table), table.name
