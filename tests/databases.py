"""Databases for tests: every kind that the controller runs on, with the real tables, and a PostgreSQL of our own.

The fixtures are in `conftest`: `database` runs a test once on SQLite and once on PostgreSQL, `sqlite_database` and
`postgres_database` give one of them. The server is Debian's, started once a session in a directory of its own with
a Unix socket only, and stopped by its process id.
"""

import asyncio
import contextlib
import ctypes
import functools
import os
import pwd
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import sqlalchemy as sa

from agent.wire.world import SystemEntropy
from controller.db.migrations import complete_metadata
from controller.db.postgres import PostgresDatabase
from controller.db.sqlite import SqliteDatabase

T = TypeVar("T")

AnyDatabase = SqliteDatabase | PostgresDatabase


def memory_database(now: Callable[[], float] = time.time) -> SqliteDatabase:
    """SQLite in memory, without a thread, with all tables: the quickest, for tests that are not about the database."""
    database = SqliteDatabase(None, threaded=False, now=now)
    raw_connection(database).deserialize(_empty_tables())
    return database


@functools.cache
def _empty_tables() -> bytes:
    database = SqliteDatabase(None, threaded=False)
    database.build(complete_metadata().create_all)
    return raw_connection(database).serialize()


def raw_connection(database: SqliteDatabase) -> sqlite3.Connection:
    """SQLite's own connection, to copy a memory from or into."""
    return cast("sqlite3.Connection", database._writer.connection.dbapi_connection)


@contextlib.asynccontextmanager
async def file_database(directory: Path, **options: Any) -> AsyncIterator[SqliteDatabase]:
    """SQLite as the controller runs it: a file, a writer thread."""
    database = SqliteDatabase(directory / "controller.db", **options)
    try:
        await database.administer(complete_metadata().create_all)
        yield database
    finally:
        await database.close()


@contextlib.asynccontextmanager
async def postgres_database(server: str, *, pool_max: int = 16, empty: bool = False) -> AsyncIterator[PostgresDatabase]:
    """A fresh database on the session's server, with or without tables; dropped afterwards."""
    name = f"test_{uuid.uuid4().hex}"
    await _administer(server, f"CREATE DATABASE {name}")
    database = PostgresDatabase(server.replace("/postgres?", f"/{name}?"), SystemEntropy(), pool_max=pool_max)
    try:
        if not empty:
            await database.administer(complete_metadata().create_all)
        yield database
    finally:
        await database.close()
        await _administer(server, f"DROP DATABASE {name} WITH (FORCE)")


@contextlib.contextmanager
def fresh_database(server: str) -> Iterator[str]:
    """The URL of an empty database on the session's server, for processes; dropped afterwards."""
    name = f"test_{uuid.uuid4().hex}"
    asyncio.run(_administer(server, f"CREATE DATABASE {name}"))
    try:
        yield server.replace("/postgres?", f"/{name}?")
    finally:
        asyncio.run(_administer(server, f"DROP DATABASE {name} WITH (FORCE)"))


async def _administer(server: str, statement: str) -> None:
    import asyncpg

    connection = await asyncpg.connect(server.replace("+asyncpg", ""))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def find_postgres() -> Path | None:
    """Where Debian puts the server's programs, which are not on PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return found[-1].parent if found else None


@contextlib.contextmanager
def postgres_server() -> Iterator[str]:
    """Start a server; yields its URL. PostgreSQL refuses to run as root, so root lends it another user."""
    programs = find_postgres()
    assert programs is not None, "install Debian's package `postgresql`"
    home = Path(tempfile.mkdtemp(prefix="hostler-postgres-"))
    user = _unprivileged()
    home.chmod(0o711)  # Controllers that gave up root reach its socket.
    if user is not None:
        shutil.chown(home, user, pwd.getpwnam(user).pw_gid)
    identity: dict[str, Any] = {"cwd": home} if user is None else {"cwd": home, "user": user, "group": _group(user)}
    identity["env"] = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": str(home)}
    try:
        initdb: list[str | Path] = [
            programs / "initdb",
            "-D",
            home / "data",
            "-U",
            "hostler",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-sync",
        ]
        subprocess.run(initdb, check=True, capture_output=True, timeout=60, **identity)
        yield from _serve(programs, home, identity)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _serve(programs: Path, home: Path, identity: dict[str, Any]) -> Iterator[str]:
    options = {
        "listen_addresses": "",
        "unix_socket_directories": str(home),
        "fsync": "off",  # The machine's crash is not what these tests are about.
        "max_connections": "60",
        "shared_buffers": "32MB",
    }
    argv: list[str | Path] = [programs / "postgres", "-D", home / "data"]
    argv += [f"--{key}={value}" for key, value in options.items()]
    with (home / "log").open("wb") as log:
        server = subprocess.Popen(argv, stdout=log, stderr=log, preexec_fn=_die_with_parent, **identity)
    try:
        _await_ready(programs, home, server)
        yield f"postgresql+asyncpg://hostler@/postgres?host={home}"
    finally:
        server.send_signal(signal.SIGINT)  # Fast shutdown: clients are disconnected.
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _die_with_parent() -> None:
    """In the child: a server does not outlive tests that were killed."""
    ctypes.CDLL(None).prctl(1, signal.SIGINT)  # PR_SET_PDEATHSIG


def _await_ready(programs: Path, home: Path, server: "subprocess.Popen[bytes]") -> None:
    asked: list[str | Path] = [programs / "pg_isready", "-q", "-h", home, "-t", "1"]
    for _ in range(300):
        assert server.poll() is None, (home / "log").read_text()
        if subprocess.run(asked, check=False).returncode == 0:
            return
        time.sleep(0.1)
    raise AssertionError(f"PostgreSQL did not start:\n{(home / 'log').read_text()}")


def _unprivileged() -> str | None:
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _group(user: str) -> int:
    return pwd.getpwnam(user).pw_gid


async def race(count: int, attempt: Callable[[int], Awaitable[T]]) -> list[T | Exception]:
    """Start `count` attempts at once; what each came to. `attempt(i)` is what one caller does.

    For claims on something scarce: `outcomes = await race(16, lambda i: db.write(claim, ids[i]))`, then count.
    """

    async def one(number: int) -> T | Exception:
        await gate.wait()
        try:
            return await attempt(number)
        except Exception as error:
            return error

    gate = asyncio.Event()
    tasks = [asyncio.create_task(one(number)) for number in range(count)]
    await asyncio.sleep(0)
    gate.set()
    return list(await asyncio.gather(*tasks))


def rows(tx: sa.Connection, table: sa.Table) -> int:
    """How many rows a table has."""
    return tx.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
