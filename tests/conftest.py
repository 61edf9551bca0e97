"""Fixtures that any test may ask for."""

import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog

from controller.db.postgres import PostgresDatabase
from controller.db.sqlite import SqliteDatabase
from tests import databases
from tests.databases import AnyDatabase

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--seed N` replays one seed of the simulation (tests/sim)."""
    parser.addoption("--seed", type=int, default=None, help="replay one seed of the simulation")


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL server for this session."""
    if databases.find_postgres() is None:
        pytest.fail("PostgreSQL is missing: apt-get install postgresql")
    with databases.postgres_server() as url:
        yield url


@pytest.fixture
async def sqlite_database(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    """SQLite as the controller runs it."""
    async with databases.file_database(tmp_path) as database:
        yield database


@pytest.fixture
async def postgres_database(postgres_url: str) -> AsyncIterator[PostgresDatabase]:
    """A fresh PostgreSQL database."""
    async with databases.postgres_database(postgres_url) as database:
        yield database


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AnyDatabase]:
    """Each kind in turn: what is true of one must be true of the other."""
    if request.param == "sqlite":
        async with databases.file_database(tmp_path) as sqlite:
            yield sqlite
    else:
        async with databases.postgres_database(request.getfixturevalue("postgres_url")) as postgres:
            yield postgres
