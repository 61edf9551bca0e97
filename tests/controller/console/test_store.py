"""Console tokens in both databases: one of many who come at once gets in."""

import asyncio

import pytest

from controller.console import store
from controller.console.store import ConsoleToken
from tests.databases import AnyDatabase

pytestmark = pytest.mark.timeout(120)


def a_token(name: str = "t", expires_at: float = 1600.0) -> ConsoleToken:
    return ConsoleToken(
        token_sha256=name, server_id="s1", generation=3, kind="vnc", user_id="u1", request_id="r", expires_at=expires_at
    )


async def test_a_token_is_spent_by_one_of_fifty(database: AnyDatabase) -> None:
    await database.write(store.insert, a_token(), 1000.0)
    spent = await asyncio.gather(*(database.write(store.spend, "t", 1001.0) for _ in range(50)))
    assert [one for one in spent if one is not None] == [a_token()]


async def test_a_token_has_its_time_and_is_forgotten_after_it(database: AnyDatabase) -> None:
    await database.write(store.insert, a_token("old"), 1000.0)
    assert await database.read(store.count, "s1", 1600.0) == 1
    assert await database.write(store.spend, "old", 1600.5) is None
    assert await database.read(store.count, "s1", 1600.5) == 0
    await database.write(store.insert, a_token("new", 2200.0), 1600.5)
    assert await database.write(store.spend, "old", 1000.0) is None, "it is gone"
    assert await database.write(store.spend, "new", 1601.0) is not None
    assert await database.read(store.count, "s1", 1601.0) == 0
