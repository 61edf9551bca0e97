"""The engine itself: cancellation, deadlines, what gets stuck, and how few commits it needs."""

import asyncio
import dataclasses
from typing import Any

import sqlalchemy as sa

from agent.wire.world import World
from controller.db.tables.saga import saga as saga_table
from controller.db.tx import DatabaseDown, Tx
from controller.saga import log as saga_log
from controller.saga.engine import Pace, abandon, request_cancel, retry, settled, start, trace
from controller.saga.model import Cause, Run, Saga, State, Step, Transient
from tests.sagas import toys
from tests.sagas.site import Site, scenario, with_step
from tests.sagas.toys import BUILD, HOUSE_ID, RAZE
from tests.virtual import run_virtual


@scenario
async def test_a_kicked_saga_runs_to_its_end_and_tells_its_story(site: Site) -> None:
    async with site.engine(BUILD) as engine:
        await site.start(BUILD)
        engine.kick("s1")
        assert await engine.rest("s1") == State.DONE
    assert (await site.row()).state == "ACTIVE"
    story = await site.db.read(trace, request_id="req-s1")
    assert [(line.event, line.step) for line in story] == [
        ("started", ""),
        ("done", "claim"),
        ("done", "floor"),
        ("done", "door[0]"),
        ("done", "door[1]"),
        ("done", "paint"),
        ("done", "roof"),
        ("done", "finish"),
    ]
    assert story[2].notes == {"host": "host-1"}


@scenario
async def test_a_kick_while_the_engine_stops_is_left_to_its_successor(site: Site) -> None:
    engine = site.engine(BUILD)
    runner = asyncio.create_task(engine.run())
    await site.start(BUILD)
    await asyncio.sleep(0.01)
    runner.cancel()
    while not runner.done():
        await asyncio.sleep(0)
        engine.kick("s1")
    async with site.engine(BUILD) as successor:
        assert await successor.rest("s1") == State.DONE


@scenario
async def test_a_step_costs_one_commit_and_a_deferred_one_none(site: Site) -> None:
    writes = 0
    plain = site.db.write

    async def counting(*args: Any, **kwargs: Any) -> Any:
        nonlocal writes
        writes += 1
        return await plain(*args, **kwargs)

    site.db.write = counting  # type: ignore[method-assign]
    async with site.engine(BUILD) as engine:
        await site.start(BUILD)
        engine.kick("s1")
        await engine.rest("s1")
    assert writes == 1 + 5  # The start; claim, two doors, roof, finish. No adoption, no "started".


@scenario
async def test_a_lost_kick_costs_time_only(site: Site) -> None:
    await site.start(BUILD)
    async with site.engine(BUILD) as engine:
        assert await engine.rest("s1") == State.DONE


@scenario
async def test_deferred_steps_whose_ends_went_with_another_event_are_not_repeated(site: Site) -> None:
    """A deferred step's failure is noted in the log, and with it the end of the deferred step before."""
    begun: list[str] = []

    async def first(run: Run[Any]) -> None:
        begun.append("first")

    async def second(run: Run[Any]) -> None:
        begun.append("second")
        if run.attempt < 3:
            raise Transient("not yet")

    async def last(run: Run[Any]) -> None:
        begun.append("last")

    saga = Saga(
        "two",
        1,
        toys.Params,
        steps=(Step("a", first, deferred=True), Step("b", second, deferred=True), Step("c", last)),
    )
    async with site.engine(saga) as engine:
        await site.start(saga)
        engine.kick("s1")
        await engine.rest("s1")
    assert begun == ["first", "second", "second", "second", "last"]


@scenario
async def test_cancelled_sagas_unwind_at_the_next_boundary_and_settle(site: Site) -> None:
    site.host.is_silent = True
    async with site.engine(BUILD) as engine:
        await site.start(BUILD)
        engine.kick("s1")
        await asyncio.sleep(5)
        assert not await site.db.read(settled, HOUSE_ID)
        assert await site.db.read(settled, HOUSE_ID, "s1")
        ids = await site.db.write(request_cancel, HOUSE_ID, 1.0)
        assert ids == ["s1"]
        site.host.is_silent = False
        before = site.world.clock.now()
        engine.kick("s1")
        assert await engine.rest("s1") == State.UNDONE
        assert site.world.clock.now() - before < 1  # The kick ends the pause between two tries.
        assert await site.db.read(settled, HOUSE_ID)
    assert (await site.row()).fault == "It was cancelled on request."


@scenario
async def test_a_silent_host_ends_in_a_cause_after_the_deadline_and_unwinding_waits_for_it(site: Site) -> None:
    site.host.is_silent = True
    async with site.engine(BUILD) as engine:
        await site.start(BUILD)
        engine.kick("s1")
        await asyncio.sleep(99)
        assert (await site.row()).state == "BUILD"
        await asyncio.sleep(60)  # The deadline, the grace, one pause.
        row = await site.row()
        assert (row.state, await site.state()) == ("ERROR", State.UNWINDING)
        assert row.fault == "It did not finish within 100 seconds; step floor: the host is silent"
        assert row.site == "site-1"  # What the lost host may still use is not given away.
        await asyncio.sleep(20_000)
        assert await site.state() == State.UNWINDING
        site.host.is_silent = False
        assert await engine.rest("s1", 1000) == State.UNDONE
        assert (await site.row()).site is None
    events = await site.db.read(trace, target=HOUSE_ID)
    assert len(events) < 60, "a silent host must not fill the log"


@scenario
async def test_a_forward_only_saga_is_overdue_once_and_goes_on(site: Site) -> None:
    site.host.is_silent = True
    told = 0

    def overdue(tx: Tx, params: Any, cause: Cause, now: float) -> None:
        nonlocal told
        told += 1
        toys.mark_error(tx, params, cause, now)

    raze = dataclasses.replace(RAZE, overdue=overdue)
    async with site.engine(raze) as engine:
        await site.start(raze)
        engine.kick("s1")
        await asyncio.sleep(1000)
        assert (await site.row()).fault == "the host is silent"
        assert await site.db.write(request_cancel, HOUSE_ID, 1.0) == []
        site.host.is_silent = False
        assert await engine.rest("s1", 1000) == State.DONE
        assert await site.row() is None
    assert told == 1


@scenario
async def test_an_undo_that_is_refused_again_and_again_is_an_operators(site: Site) -> None:
    is_broken = True

    async def refuse(run: Run[Any]) -> None:
        raise toys.Unavailable("no roof today")

    async def undo(run: Run[Any]) -> None:
        if is_broken:
            raise RuntimeError("a bug")
        await toys.remove_door(run)

    saga = with_step(with_step(BUILD, "roof", do=refuse), "door", undo=undo)
    async with site.engine(saga) as engine:
        await site.start(saga)
        engine.kick("s1")
        assert await engine.rest("s1") == State.STUCK
        row = await site.row()
        assert (row.state, row.fault) == ("ERROR", "no roof today")
        [stuck] = await site.db.read(saga_log.summaries, (State.STUCK,))
        assert stuck.step == "door[1]"
        assert "a bug" in stuck.reason
        assert "a bug" not in str(await site.db.read(trace, target=HOUSE_ID)), "tracebacks are not for users"
        is_broken = False
        assert await site.db.write(retry, "s1", site.world.clock.now())
        engine.kick("s1")
        assert await engine.rest("s1") == State.UNDONE
        assert not await site.db.write(retry, "s1", 1.0)
    assert site.host.things == {}


@scenario
async def test_an_abandoned_saga_is_left_alone(site: Site) -> None:
    site.host.is_silent = True
    async with site.engine(BUILD) as engine:
        await site.start(BUILD)
        engine.kick("s1")
        await asyncio.sleep(5)
        assert await site.db.write(abandon, "s1", "the host burnt down", site.world.clock.now())
        engine.kick("s1")
        await asyncio.sleep(60)
        assert engine.running == 0
    assert await site.state() == State.ABANDONED
    assert (await site.db.read(trace, target=HOUSE_ID))[-1].error == "the host burnt down"


@scenario
async def test_stored_params_that_no_longer_fit_are_an_operators(site: Site) -> None:
    await site.start(BUILD)
    await site.db.write(lambda tx: tx.execute(sa.update(saga_table).values(params="{}")).rowcount)
    async with site.engine(BUILD) as engine:
        assert await engine.rest("s1") == State.STUCK


@scenario
async def test_a_database_that_goes_away_delays_and_nothing_else(site: Site) -> None:
    plain, fails = site.db.write, 0

    async def flaky(*args: Any, **kwargs: Any) -> Any:
        """Every second write fails: half of those after they happened."""
        nonlocal fails
        fails += 1
        if fails % 4 == 2:
            raise DatabaseDown("gone")
        result = await plain(*args, **kwargs)
        if fails % 4 == 0:
            raise DatabaseDown("gone, but it happened")
        return result

    async with site.engine(BUILD) as engine:
        await site.start(BUILD)
        site.db.write = flaky  # type: ignore[method-assign]
        engine.kick("s1")
        assert await engine.rest("s1", 1000) == State.DONE
    assert (await site.row()).state == "ACTIVE"
    assert site.host.broken == []


@scenario
async def test_a_saga_started_by_another_ones_end_begins_at_once(site: Site) -> None:
    def begin_next(tx: Tx, params: Any, cause: Cause, now: float) -> None:
        start(tx, BUILD, saga_id="s2", params=params, target=HOUSE_ID, request_id="req-s1", now=now)

    async def refuse(run: Run[Any]) -> None:
        raise toys.Unavailable("not on this host")

    first = dataclasses.replace(with_step(BUILD, "floor", do=refuse), kind="first", undone=begin_next)
    async with site.engine(first, BUILD) as engine:
        await site.start(first)
        engine.kick("s1")
        await engine.rest_all(9)  # Sooner than any recovery could find it.
    assert (await site.state("s1"), await site.state("s2")) == (State.UNDONE, State.DONE)


@scenario
async def test_no_more_effects_than_allowed_are_at_work_and_pauses_do_not_count(site: Site) -> None:
    at_work = most = 0

    async def work(run: Run[Any]) -> None:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await asyncio.sleep(0.1)
        at_work -= 1
        if run.attempt < 3:
            raise Transient("not yet")

    busy = Saga("busy", 1, toys.Params, steps=(Step("work", work),))
    async with site.engine(busy, pace=Pace(attempts_max=4)) as engine:
        for number in range(40):
            await site.start(busy, f"s{number}", f"t{number}")
            engine.kick(f"s{number}")
        await engine.rest_all()
    assert most == 4


@scenario
async def test_one_saga_whose_code_breaks_the_engine_does_not_stop_others(site: Site) -> None:
    class Broken(toys.Params, frozen=True):
        def __post_init__(self) -> None:
            raise MemoryError("a bug")

    broken = Saga("broken", 1, Broken, steps=(Step("never", toys.finish),))
    as_stored: Saga[Any] = dataclasses.replace(broken, params=toys.Params)  # type: ignore[arg-type]
    async with site.engine(broken, BUILD) as engine:
        await site.start(as_stored, "s1", "t1")
        await site.start(BUILD, "s2")
        engine.kick("s1")
        engine.kick("s2")
        assert await engine.rest("s2") == State.DONE


@scenario
async def test_old_sagas_are_forgotten_with_their_events(site: Site) -> None:
    async with site.engine(BUILD) as engine:
        await site.start(BUILD)
        engine.kick("s1")
        await engine.rest("s1")
    later = site.world.clock.now() + 1
    assert await site.db.write(saga_log.purge, later - 1000) == 0
    assert await site.db.write(saga_log.purge, later) == 1
    assert await site.db.read(trace, target=HOUSE_ID) == []


def test_the_same_seed_takes_the_same_turns_twice() -> None:
    async def play(world: World) -> list[tuple[float, str, str]]:
        site = Site(world)
        site.host.is_silent = True
        async with site.engine(BUILD) as engine:
            await site.start(BUILD)
            engine.kick("s1")
            await asyncio.sleep(30)
            site.host.is_silent = False
            await engine.rest("s1")
        return [(line.at, line.event, line.step) for line in await site.db.read(trace, target=HOUSE_ID)]

    assert run_virtual(play, seed=7) == run_virtual(play, seed=7)
    assert run_virtual(play, seed=7) != run_virtual(play, seed=8)
