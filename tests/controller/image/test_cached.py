"""Rows of hosts' image caches in both databases: generations rise, also when many want and evict at once."""

import asyncio
from typing import Any

import pytest

from controller.db.tx import Tx
from controller.image import cached
from controller.image.cached import CachedImage
from tests.controller.compute import rows
from tests.databases import AnyDatabase

pytestmark = pytest.mark.timeout(120)

SHA = "ab" * 32


async def test_generations_rise_with_every_change_of_mind(database: AnyDatabase) -> None:
    async def want(now: float = 1.0) -> CachedImage:
        return await database.write(cached.want, "h1", SHA, 5, now)

    assert (await want()).generation == (await want(2.0)).generation == 1
    gone = await database.write(cached.unwant, "h1", SHA, 5, 1, 3.0)
    assert (gone.generation, gone.is_wanted) == (2, False)
    assert await database.write(cached.unwant, "h1", SHA, 5, 1, 4.0) == gone, "it was given up already"
    again = await want(5.0)
    assert (again.generation, again.is_wanted, again.used_at) == (3, True, 5.0)
    assert await database.read(cached.holders, SHA) == [again]


async def test_what_a_host_had_before_there_were_rows_is_evicted_under_a_newer_generation(
    database: AnyDatabase,
) -> None:
    gone = await database.write(cached.unwant, "h1", SHA, 5, 7, 1.0)
    assert gone.generation == 8
    assert (await database.write(cached.want, "h1", SHA, 5, 2.0)).generation == 9


async def test_many_who_want_it_at_once_want_one_thing(database: AnyDatabase) -> None:
    wants = [database.write(cached.want, "h1", SHA, 5, 1.0 + n) for n in range(20)]
    assert {one.generation for one in await asyncio.gather(*wants)} == {1}


async def test_wanting_and_evicting_at_once_never_give_one_generation_two_meanings(database: AnyDatabase) -> None:
    async def act(n: int) -> CachedImage:
        if n % 2:
            return await database.write(cached.want, "h1", SHA, 5, float(n))
        return await database.write(cached.unwant, "h1", SHA, 5, 1, float(n))

    said = await asyncio.gather(*(act(n) for n in range(30)))
    meanings: dict[int, set[bool]] = {}
    for one in said:
        meanings.setdefault(one.generation, set()).add(one.is_wanted)
    assert all(len(meant) == 1 for meant in meanings.values()), meanings


async def test_rows_go_with_their_host_and_long_after_an_eviction(database: AnyDatabase) -> None:
    def furnish(tx: Tx) -> Any:
        rows.insert_host(tx, "h1")
        cached.want(tx, "h1", SHA, 5, 1.0)
        cached.want(tx, "h1", "cd" * 32, 5, 1.0)
        cached.unwant(tx, "h1", "cd" * 32, 5, 1, 10.0)
        cached.want(tx, "nobody", SHA, 5, 1.0)

    await database.write(furnish)
    assert await database.read(cached.forgettable, 5.0)
    assert await database.write(cached.forget, 5.0) == 1
    assert not await database.read(cached.forgettable, 10.0)
    assert await database.write(cached.forget, 11.0) == 1
    assert set(await database.read(cached.of_host, "h1")) == {SHA}
