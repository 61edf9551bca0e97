"""Several engines and one database: leases, adoption, fencing."""

import asyncio
import dataclasses
from typing import Any

import sqlalchemy as sa

from controller.db.tables.saga import saga as saga_table
from controller.db.tx import Tx
from controller.saga.engine import Engine, Pace, start, trace
from controller.saga.model import Commit, Run, Saga, State, Step
from controller.saga.registry import Registry
from tests.sagas import toys
from tests.sagas.harness import Effects
from tests.sagas.site import Site, scenario, with_step
from tests.sagas.toys import BUILD, HOUSE_ID, PARAMS


@scenario
async def test_an_engine_takes_its_own_back_at_once_and_others_only_when_their_lease_lapsed(site: Site) -> None:
    effects = Effects(crash_at=8)
    first = site.engine(BUILD, effects=effects, sole=False)
    dropped = asyncio.create_task(first.run())
    await site.start(BUILD)
    first.kick("s1")
    await effects.crashed.wait()
    crashed_at = site.world.clock.now()
    async with site.engine(BUILD, owner="c2", sole=False) as other:
        await asyncio.sleep(15)
        assert await site.state() == State.RUNNING
        assert await other.rest("s1") == State.DONE
    assert site.world.clock.now() - crashed_at >= 20
    assert not dropped.done()


@scenario
async def test_a_former_owner_is_fenced_off_with_everything_it_wanted_to_commit(site: Site) -> None:
    gate, asked = asyncio.Event(), 0

    async def slow_finish(run: Run[Any]) -> Commit:
        nonlocal asked
        asked += 1
        if asked == 1:
            await gate.wait()
            return Commit(toys.set_state, (HOUSE_ID, "ZOMBIE"))
        return Commit(toys.set_state, (HOUSE_ID, "ACTIVE"))

    slow = with_step(BUILD, "finish", do=slow_finish)
    frozen = site.engine(slow, owner="c1", sole=False, pace=Pace(lease_s=1e9))
    async with frozen:
        await site.start(slow)
        frozen.kick("s1")
        await asyncio.sleep(1)
        lapse = sa.update(saga_table).values(lease_until=0.0)
        await site.db.write(lambda tx: tx.execute(lapse).rowcount)
        async with site.engine(slow, owner="c2", sole=False) as other:
            assert await other.rest("s1") == State.DONE
        gate.set()
        await asyncio.sleep(1)
        assert (await site.row()).state == "ACTIVE"
        assert frozen.running == 0


@scenario
async def test_a_process_that_lingers_is_fenced_off_by_its_successor_of_the_same_name(site: Site) -> None:
    gate, asked = asyncio.Event(), 0

    async def slow_finish(run: Run[Any]) -> Commit:
        nonlocal asked
        asked += 1
        if asked == 1:
            await gate.wait()
            return Commit(toys.set_state, (HOUSE_ID, "ZOMBIE"))
        await asyncio.sleep(5)
        return Commit(toys.set_state, (HOUSE_ID, "ACTIVE"))

    slow = with_step(BUILD, "finish", do=slow_finish)
    async with site.engine(slow) as lingering:
        await site.start(slow)
        lingering.kick("s1")
        await asyncio.sleep(1)
        async with site.engine(slow) as successor:
            await asyncio.sleep(1)
            gate.set()
            await asyncio.sleep(1)
            assert (await site.row()).state == "BUILD"
            assert lingering.running == 0
            assert await successor.rest("s1") == State.DONE
    assert (await site.row()).state == "ACTIVE"


@scenario
async def test_a_renewal_during_a_steps_write_does_not_set_it_back(site: Site) -> None:
    plain = site.db.write

    async def slow_write(*args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(1)
        return await plain(*args, **kwargs)

    begun: list[int] = []

    async def counted(run: Run[Any]) -> None:
        begun.append(run.index)
        await toys.hang_door(run)

    async with site.engine(with_step(BUILD, "door", do=counted)) as engine:
        await site.start(BUILD)
        site.db.write = slow_write  # type: ignore[method-assign]
        engine.kick("s1")
        renewals, seen = [], [0]
        while await site.state() == State.RUNNING:
            await asyncio.sleep(0.3)
            seen.append(await site.db.read(lambda tx: tx.execute(sa.select(saga_table.c.position)).scalar_one()))
            renewals += [asyncio.create_task(engine._renew(*item)) for item in engine._drives.items()]
        await asyncio.gather(*renewals)
    assert seen == sorted(seen)
    assert begun == [0, 1]
    positions = [line.step for line in await site.db.read(trace, target=HOUSE_ID) if line.event == "done"]
    assert positions == list(BUILD.expanded(PARAMS))


@scenario
async def test_a_lease_is_kept_through_a_long_step(site: Site) -> None:
    async def slow(run: Run[Any]) -> None:
        await asyncio.sleep(90)

    long = with_step(BUILD, "paint", do=slow)
    long = dataclasses.replace(long, steps=(*long.steps[:3], *long.steps[3:4], *long.steps[5:]))
    async with site.engine(long, owner="c1", sole=False) as owner, site.engine(long, owner="c2", sole=False) as other:
        await site.start(long)
        owner.kick("s1")
        while await site.state() == State.RUNNING:
            await asyncio.sleep(1)
            assert other.running == 0
    assert await site.state() == State.DONE


@scenario
async def test_a_new_saga_whose_first_step_is_long_is_not_begun_twice(site: Site) -> None:
    begun = 0

    async def slow(run: Run[Any]) -> Commit:
        nonlocal begun
        begun += 1
        await asyncio.sleep(60)
        return await toys.claim(run)

    long = with_step(BUILD, "claim", do=slow)
    async with site.engine(long, owner="c1", sole=False) as owner, site.engine(long, owner="c2", sole=False):
        await site.start(long)
        owner.kick("s1")
        assert await owner.rest("s1", 1000) == State.DONE
    assert begun == 1


@scenario
async def test_sagas_without_code_are_left_to_other_engines(site: Site) -> None:
    newer = dataclasses.replace(BUILD, version=2)
    await site.start(newer)
    async with site.engine(BUILD, owner="old") as old:
        await asyncio.sleep(60)
        assert old.recovery.unknown == 1
        assert await site.state() == State.RUNNING
        async with site.engine(newer, owner="new") as new:
            assert await new.rest("s1") == State.DONE


async def test_sagas_run_on_every_database(database: Any) -> None:
    """With real time and threads, many at once, two engines."""
    from agent.wire.world import system_world

    async def claim(run: Run[Any]) -> Commit:
        return Commit(_claim_number, (run.params.house_id,))

    async def maybe(run: Run[Any]) -> None:
        if run.params.doors:
            raise toys.Unavailable("no")

    world = system_world(2, "test")
    saga = Saga(
        "numbers", 1, toys.Params, steps=(Step("claim", claim, claim), Step("maybe", maybe, maybe_undo)), deadline_s=60
    )
    engines = [Engine(database, world, Registry(saga), None, owner_id=f"c{i}", sole=False) for i in range(2)]
    async with engines[0], engines[1]:
        for number in range(20):
            params = toys.Params(f"h{number}", ("fail",) if number % 2 else ())
            await database.write(
                start, saga, saga_id=f"s{number}", params=params, target=f"t{number}", request_id="r", now=1.0
            )
            engines[0].kick(f"s{number}")
            engines[1].kick(f"s{number}")
        states = [await engines[0].rest(f"s{number}", 30) for number in range(20)]
    assert states == [State.UNDONE if number % 2 else State.DONE for number in range(20)]
    story = await database.read(trace, target="t1")
    assert [line.event for line in story] == ["started", "done", "failed", "undone", "undone", "undone"]
    world.threads.close()  # type: ignore[attr-defined]


async def maybe_undo(run: Run[Any]) -> None:
    return None


def _claim_number(tx: Tx, name: str) -> str:
    return name
