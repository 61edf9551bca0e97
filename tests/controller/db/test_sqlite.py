"""SQLite's own promises: groups are atomic, storage failures fail all of a group, one process owns the file."""

import asyncio
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa

from controller.db.space import Reserve
from controller.db.sqlite import Damaged, Locked, SqliteDatabase
from controller.db.tables.quota import quota as quota_table
from controller.db.tx import DatabaseDown, Tx
from controller.errors import Conflict, Unavailable
from tests.controller.db.test_both import insert, resources
from tests.databases import file_database, memory_database


def commits(path: Path) -> int:
    """The file change counter of a WAL file: frames that end a transaction."""
    wal = path.with_name(f"{path.name}-wal").read_bytes()
    page = int.from_bytes(wal[8:12], "big")
    frames = range(32, len(wal), page + 24)
    return sum(int.from_bytes(wal[at + 4 : at + 8], "big") > 0 for at in frames)


async def test_writes_that_wait_together_share_one_commit(sqlite_database: SqliteDatabase, tmp_path: Path) -> None:
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hold(tx: Tx) -> None:
        """Keep the writer busy until the others are queued."""
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(5)

    held = asyncio.create_task(sqlite_database.write(hold))
    await asyncio.sleep(0.01)
    tasks = [asyncio.create_task(sqlite_database.write(insert, f"row{number}")) for number in range(20)]
    await asyncio.sleep(0)
    before = commits(tmp_path / "controller.db")
    release.set()
    await asyncio.gather(held, *tasks)
    assert commits(tmp_path / "controller.db") - before == 1


async def test_nobody_is_answered_before_the_commit() -> None:
    """Without a thread the group runs in the next turn of the loop: all its members are answered in one."""
    database = memory_database()
    first = asyncio.create_task(database.write(insert, "a"))
    second = asyncio.create_task(database.write(insert, "b"))
    await asyncio.sleep(0)
    assert not first.done()
    await asyncio.gather(first, second)
    assert await database.read(resources) == ["a", "b"]
    await database.close()


def break_outer(tx: Tx) -> None:
    """What SQLite does by itself on some failures of storage: the whole transaction is gone."""
    tx.connection.dbapi_connection.execute("ROLLBACK")  # type: ignore[union-attr]
    raise OSError("the disk went away")


async def test_what_ends_the_outer_transaction_fails_the_whole_group(sqlite_database: SqliteDatabase) -> None:
    work = [sqlite_database.write(insert, "before"), sqlite_database.write(break_outer)]
    outcomes = await asyncio.gather(*work, sqlite_database.write(insert, "after"), return_exceptions=True)
    kept = await sqlite_database.read(resources)
    for name, outcome in (("before", outcomes[0]), ("after", outcomes[2])):
        assert (name in kept) == (outcome == name)  # Another group, if the writer was quick; never half an answer.
        assert outcome == name or isinstance(outcome, DatabaseDown)
    assert isinstance(outcomes[1], DatabaseDown)
    assert await sqlite_database.write(insert, "later") == "later"


async def test_group_of_a_broken_transaction_is_atomic_without_a_thread() -> None:
    database = memory_database()
    work = [database.write(insert, "before"), database.write(break_outer), database.write(insert, "after")]
    outcomes = await asyncio.gather(*work, return_exceptions=True)
    assert all(isinstance(outcome, DatabaseDown) for outcome in outcomes)
    assert await database.read(resources) == []
    assert await database.write(insert, "later") == "later"
    await database.close()


async def test_a_full_disk_fails_the_callers_and_spares_the_file(tmp_path: Path) -> None:
    async with file_database(tmp_path) as database:
        await database.write(lambda tx: tx.exec_driver_sql("PRAGMA max_page_count = 1").scalar())

        def insert_much(tx: Tx, number: int) -> None:
            insert(tx, f"{number}" * 40_000)

        work = [database.write(insert_much, number) for number in range(4)]
        outcomes = await asyncio.gather(*work, return_exceptions=True)
        assert any(isinstance(outcome, DatabaseDown) for outcome in outcomes)
        kept = await database.read(resources)
        assert len(kept) == sum(outcome is None for outcome in outcomes)
        await database.write(lambda tx: tx.exec_driver_sql("PRAGMA max_page_count = 100000").scalar())
        assert await database.write(insert, "small") == "small"


async def test_readers_keep_their_snapshot_while_others_write(sqlite_database: SqliteDatabase) -> None:
    await sqlite_database.write(insert, "a")
    loop = asyncio.get_running_loop()

    def count_twice(tx: Tx) -> tuple[int, int]:
        before = len(resources(tx))
        asyncio.run_coroutine_threadsafe(sqlite_database.write(insert, "b"), loop).result(5)
        return before, len(resources(tx))

    assert await sqlite_database.read_aside(10.0, count_twice) == (1, 1)
    assert await sqlite_database.read(resources) == ["a", "b"]


async def test_a_slow_read_is_stopped_at_its_deadline(sqlite_database: SqliteDatabase) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(Unavailable, match="too long"):
        await sqlite_database.read_aside(0.05, lambda tx: tx.exec_driver_sql(endless).scalar())
    assert await sqlite_database.read_aside(5.0, resources) == []


async def test_a_second_process_is_kept_out(sqlite_database: SqliteDatabase, tmp_path: Path) -> None:
    with pytest.raises(Locked):
        SqliteDatabase(tmp_path / "controller.db")
    tool = SqliteDatabase(tmp_path / "controller.db", exclusive=False)
    assert await tool.write(insert, "by hand") == "by hand"
    await tool.close()
    assert await sqlite_database.read(resources) == ["by hand"]


async def test_a_damaged_file_is_not_opened(tmp_path: Path) -> None:
    async with file_database(tmp_path) as database:
        for number in range(200):
            await database.write(insert, f"row{number:04}" * 20)
    path = tmp_path / "controller.db"
    raw = bytearray(path.read_bytes())
    raw[8192 : len(raw) - 4096] = b"\xa5" * (len(raw) - 4096 - 8192)
    path.write_bytes(raw)
    with pytest.raises((Damaged, sa.exc.DatabaseError)):
        SqliteDatabase(path, exclusive=False)


async def test_committed_rows_survive_without_a_clean_close(tmp_path: Path) -> None:
    async with file_database(tmp_path) as database:
        await database.write(insert, "a")
        copy = tmp_path / "copy"
        copy.mkdir()
        for file in tmp_path.glob("controller.db*"):
            (copy / file.name).write_bytes(file.read_bytes())
    with sqlite3.connect(copy / "controller.db") as raw:
        assert raw.execute(f"SELECT resource FROM {quota_table.name}").fetchall() == [("a",)]
    raw.close()


async def test_foreign_keys_hold(sqlite_database: SqliteDatabase) -> None:
    assert await sqlite_database.write(lambda tx: tx.exec_driver_sql("PRAGMA foreign_keys").scalar()) == 1


async def test_a_closed_database_refuses(tmp_path: Path) -> None:
    async with file_database(tmp_path) as database:
        pass
    with pytest.raises(DatabaseDown):
        await database.write(insert, "a")


async def test_an_exception_in_one_function_is_not_seen_by_its_group() -> None:
    database = memory_database()

    def refuse(tx: Tx) -> None:
        insert(tx, "half")
        raise Conflict("no")

    outcomes = await asyncio.gather(
        database.write(insert, "a"), database.write(refuse), database.write(insert, "b"), return_exceptions=True
    )
    assert outcomes[0] == "a"
    assert isinstance(outcomes[1], Conflict)
    assert outcomes[2] == "b"
    assert await database.read(resources) == ["a", "b"]
    await database.close()


def test_a_full_disk_gives_the_reserve_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reserve = Reserve(tmp_path)
    assert (tmp_path / "reserve").stat().st_blocks * 512 >= 16 << 20
    monkeypatch.setattr("controller.db.space.FREE_BYTES_MIN", 1 << 62)
    monkeypatch.setattr("controller.db.space.FREE_SHARE_MIN", 1.0)
    reserve.release()
    assert "nearly full" in reserve.shortage()
    assert not (tmp_path / "reserve").exists()


async def test_an_exception_amid_the_rows_of_a_change_fails_only_its_own_function() -> None:
    """The exception keeps its frame, the frame its result, the result its statement: still in progress for SQLite."""
    database = memory_database()
    for number in range(500):
        await database.write(insert, f"row{number:03}")

    def change_and_refuse(tx: Tx) -> None:
        changed = tx.execute(sa.update(quota_table).values(limit_max=7).returning(quota_table.c.resource))
        for row in changed:
            raise Conflict(row.resource)

    outcomes = await asyncio.gather(
        database.write(insert, "a"),
        database.write(change_and_refuse),
        database.write(insert, "b"),
        return_exceptions=True,
    )
    assert (outcomes[0], outcomes[2]) == ("a", "b")
    assert isinstance(outcomes[1], Conflict)
    touched = sa.select(sa.func.count()).where(quota_table.c.limit_max == 7)
    assert await database.read(lambda tx: tx.execute(touched).scalar_one()) == 0
    await database.close()
