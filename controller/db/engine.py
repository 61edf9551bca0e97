"""Opening the database of a controller: which one, and its schema brought to the newest revision."""

from pathlib import Path

import sqlalchemy as sa

from agent.wire.world import World
from controller.db import migrations
from controller.db.postgres import PostgresDatabase
from controller.db.sqlite import SqliteDatabase

__all__ = ["PostgresDatabase", "SqliteDatabase", "open_database"]

FILE = "controller.db"


async def open_database(url: str, state: Path, world: World) -> SqliteDatabase | PostgresDatabase:
    """The database of this URL (empty: SQLite in the state directory), migrated.

    Raises `sqlite.Locked` when another controller works there, `sqlite.Damaged` when the file is.
    """
    database = _open(url, state, world)
    await database.administer(migrations.upgrade)
    return database


def _open(url: str, state: Path, world: World) -> SqliteDatabase | PostgresDatabase:
    if not url:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        return SqliteDatabase(state / FILE, now=world.clock.now)
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "postgresql":
        return PostgresDatabase(url, world.entropy)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        return SqliteDatabase(Path(parsed.database), now=world.clock.now)
    raise ValueError(f"the database must be SQLite or PostgreSQL, not {parsed.get_backend_name()}")
