"""Copies of the database are whole, few, and never what fills the disk."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from agent.wire.world import World, system_world
from controller.db.sqlite import SqliteDatabase
from controller.db.tables.metadata import metadata
from controller.db.tables.quota import quota
from controller.db.tx import DatabaseDown
from controller.tasks import backup
from controller.tasks.backup import KEPT, PERIOD_S
from tests.api.clouds import SettableClock


@pytest.fixture
def world() -> World:
    made = system_world(1, "backup-test")
    return World(clock=SettableClock(), entropy=made.entropy, threads=made.threads)


async def database(tmp_path: Path) -> SqliteDatabase:
    made = SqliteDatabase(tmp_path / "controller.db")
    await made.administer(metadata.create_all)
    await made.write(insert, "a")
    return made


def insert(tx: Any, name: str) -> None:
    tx.execute(sa.insert(quota).values(project_id="p", service="compute", resource=name, limit_max=1))


def resources(path: Path) -> list[str]:
    with sqlite3.connect(path) as connection:
        return [row[0] for row in connection.execute("SELECT resource FROM quota ORDER BY resource")]


async def test_a_copy_is_a_whole_database_of_its_moment(tmp_path: Path, world: World) -> None:
    made = await database(tmp_path)
    await backup.task(made, tmp_path / "backups", world).run()
    await made.write(insert, "b")
    (copy,) = (tmp_path / "backups").iterdir()
    assert copy.stat().st_mode & 0o777 == 0o600
    assert resources(copy) == ["a"]
    again = SqliteDatabase(copy)
    await again.write(insert, "c")
    await again.close()
    await made.close()


async def test_the_newest_of_a_day_are_kept_and_a_restart_writes_none(tmp_path: Path, world: World) -> None:
    made, folder = await database(tmp_path), tmp_path / "backups"
    task, clock = backup.task(made, folder, world), world.clock
    assert isinstance(clock, SettableClock)
    for _ in range(KEPT + 2):
        await task.run()
        clock.time += PERIOD_S
    names = sorted(one.name for one in folder.iterdir())
    assert len(names) == KEPT
    clock.time += 10.0 - PERIOD_S
    assert await task.run() == {"kept": KEPT}
    assert sorted(one.name for one in folder.iterdir()) == names
    await made.close()


async def test_no_copy_is_written_where_little_room_is_left(
    tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await database(tmp_path)
    monkeypatch.setattr(made, "shortage", lambda: "full")
    assert await backup.task(made, tmp_path / "backups", world).run() == {"kept": 0, "skipped": "full"}
    assert not (tmp_path / "backups").exists()
    await made.close()


async def test_a_copy_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, copy = await database(tmp_path), tmp_path / "copy"
    monkeypatch.setattr(made, "_path", tmp_path)  # A folder is no database.
    with pytest.raises(DatabaseDown):
        made.back_up(copy)
    assert not copy.exists()
    monkeypatch.undo()
    copy.write_text("somebody's")
    with pytest.raises(FileExistsError):
        made.back_up(copy)
    assert copy.read_text() == "somebody's"
    await made.close()
