"""What both databases promise: the same tests on SQLite and on PostgreSQL."""

import asyncio

import pytest
import sqlalchemy as sa

from controller import quota
from controller.db.clock import database_now
from controller.db.tables.quota import quota as quota_table
from controller.db.tx import Tx
from controller.errors import Conflict, OverQuota
from tests.databases import AnyDatabase, race, rows

PROJECT = "0" * 32


def insert(tx: Tx, resource: str, limit_max: int = 1) -> str:
    """Write one row of the only table that any version of the schema has."""
    tx.execute(sa.insert(quota_table).values(project_id=PROJECT, service="t", resource=resource, limit_max=limit_max))
    return resource


def resources(tx: Tx) -> list[str]:
    return list(tx.execute(sa.select(quota_table.c.resource).order_by(quota_table.c.resource)).scalars())


async def test_what_is_written_is_read_back(database: AnyDatabase) -> None:
    assert await database.write(insert, "a") == "a"
    assert await database.read(resources) == ["a"]


async def test_a_function_that_raises_leaves_nothing_and_its_own_exception_arrives(database: AnyDatabase) -> None:
    def insert_and_refuse(tx: Tx) -> None:
        insert(tx, "half")
        raise Conflict("no")

    with pytest.raises(Conflict, match="no"):
        await database.write(insert_and_refuse)
    assert await database.read(resources) == []


async def test_one_failure_among_many_costs_the_others_nothing(database: AnyDatabase) -> None:
    await database.write(insert, "taken")

    async def one(number: int) -> str:
        return await database.write(insert, "taken" if number % 4 == 0 else f"row{number}")

    outcomes = await race(16, one)
    refused = [outcome for outcome in outcomes if isinstance(outcome, sa.exc.IntegrityError)]
    assert len(refused) == 4
    assert len(await database.read(resources)) == 13


async def test_a_savepoint_of_the_functions_own_can_fail_alone(database: AnyDatabase) -> None:
    def insert_unless_there(tx: Tx) -> bool:
        try:
            with tx.begin_nested():
                insert(tx, "a")
        except sa.exc.IntegrityError:
            insert(tx, "b")
            return False
        return True

    assert await database.write(insert_unless_there)
    assert not await database.write(insert_unless_there)
    assert await database.read(resources) == ["a", "b"]


async def test_reads_cannot_write(database: AnyDatabase) -> None:
    with pytest.raises(sa.exc.DBAPIError):
        await database.read(insert, "a")
    assert await database.read(resources) == []


async def test_a_slow_read_sees_what_others_see(database: AnyDatabase) -> None:
    await database.write(insert, "a")
    assert await database.read_aside(5.0, resources) == ["a"]


async def test_the_database_has_a_clock(database: AnyDatabase) -> None:
    now = await database.read(lambda tx: tx.execute(sa.select(database_now())).scalar_one())
    assert now > 1.7e9


@pytest.mark.parametrize("callers", [16, 50])
async def test_room_for_three_is_given_to_three(database: AnyDatabase, callers: int) -> None:
    """Everyone counts, then inserts: only a serializable order keeps the quota."""

    def used(tx: Tx, project_id: str) -> dict[str, int]:
        return {"instances": len([name for name in resources(tx) if name.startswith("server")])}

    def create(tx: Tx, number: int) -> None:
        quota.charge(tx, PROJECT, "compute", {"instances": 1}, used)
        insert(tx, f"server{number:02}")

    await database.write(lambda tx: quota.set_limits(tx, PROJECT, "compute", {"instances": 3}))
    outcomes = await race(callers, lambda number: database.write(create, number))
    assert sum(outcome is None for outcome in outcomes) == 3
    assert sum(isinstance(outcome, OverQuota) for outcome in outcomes) == callers - 3
    assert sum(name.startswith("server") for name in await database.read(resources)) == 3


async def test_one_of_many_wins_a_conditional_update(database: AnyDatabase) -> None:
    def claim(tx: Tx, winner: int) -> bool:
        free = sa.update(quota_table).where(quota_table.c.resource == "slot", quota_table.c.limit_max == 0)
        return tx.execute(free.values(limit_max=winner)).rowcount == 1

    await database.write(insert, "slot", 0)
    outcomes = await race(16, lambda number: database.write(claim, number + 1))
    assert sorted(outcomes, key=bool) == [False] * 15 + [True]


async def test_a_caller_that_gives_up_does_not_disturb_the_others(database: AnyDatabase) -> None:
    tasks = [asyncio.create_task(database.write(insert, f"row{number}")) for number in range(8)]
    await asyncio.sleep(0)
    tasks[3].cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(outcome, str) for outcome in done) == 7
    assert await database.read(rows, quota_table) in {7, 8}
