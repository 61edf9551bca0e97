"""PostgreSQL's own promises: what loses a race is run again, a lost server is a 503."""

import asyncio

import pytest
import sqlalchemy as sa

from controller.db.postgres import PostgresDatabase
from controller.db.tables.quota import quota as quota_table
from controller.db.tx import DatabaseDown, Tx
from controller.errors import Unavailable
from tests.controller.db.test_both import insert, resources
from tests.databases import race

pytestmark = pytest.mark.postgres


async def test_a_transaction_that_lost_a_race_runs_again_on_what_is_true_now(
    postgres_database: PostgresDatabase,
) -> None:
    await postgres_database.write(insert, "counter", 0)

    def add_one(tx: Tx) -> int:
        value = tx.execute(sa.select(quota_table.c.limit_max)).scalar_one()
        tx.execute(sa.update(quota_table).values(limit_max=value + 1))
        return int(value) + 1

    outcomes = await race(12, lambda _: postgres_database.write(add_one))
    assert sorted(outcomes) == list(range(1, 13))  # type: ignore[type-var]
    assert postgres_database.reruns > 0


async def test_write_skew_is_refused(postgres_database: PostgresDatabase) -> None:
    """Two that each read what the other writes: at snapshot isolation both would win."""

    def only_if_alone(tx: Tx, name: str) -> bool:
        alone = not resources(tx)
        if alone:
            insert(tx, name)
        return alone

    outcomes = await race(8, lambda number: postgres_database.write(only_if_alone, f"row{number}"))
    assert outcomes.count(True) == 1
    assert outcomes.count(False) == 7


async def test_a_slow_statement_is_stopped_by_the_server(postgres_database: PostgresDatabase) -> None:
    with pytest.raises(Unavailable, match="too long"):
        await postgres_database.read_aside(0.05, lambda tx: tx.exec_driver_sql("SELECT pg_sleep(20)").scalar())
    assert await postgres_database.read(resources) == []


async def test_connections_that_the_server_dropped_are_replaced(postgres_database: PostgresDatabase) -> None:
    await asyncio.gather(*(postgres_database.read(resources) for _ in range(4)))
    await postgres_database.write(
        lambda tx: tx.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).all()
    )
    assert await postgres_database.read(resources) == []
    assert await postgres_database.write(insert, "a") == "a"


async def test_no_server_is_a_503() -> None:
    from agent.wire.world import SystemEntropy

    database = PostgresDatabase("postgresql://nobody@/nowhere?host=/nonexistent", SystemEntropy())
    with pytest.raises(DatabaseDown):
        await database.read(resources)
    with pytest.raises(DatabaseDown):
        await database.write(insert, "a")
    await database.close()
