"""The engine itself: leases, fencing, cancellation, deadlines, what gets stuck, and how few commits it needs."""

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from agent.wire.world import World
from controller.db.tables.saga import saga as saga_table
from controller.db.tx import DatabaseDown, Tx
from controller.saga import log as saga_log
from controller.saga.engine import Engine, Pace, abandon, request_cancel, retry, settled, start, trace
from controller.saga.model import Cause, Commit, Run, Saga, State, Step, Transient
from controller.saga.registry import Registry
from tests.databases import memory_database
from tests.sagas import toys
from tests.sagas.harness import Effects
from tests.sagas.toys import BUILD, HOUSE_ID, PARAMS, RAZE, Host, house
from tests.virtual import run_virtual


class Site:
    """A database with a house in it, a host, and engines by name."""

    def __init__(self, world: World) -> None:
        self.world, self.host = world, Host()
        self.db = memory_database(world.clock.now)
        self.db.build(toys.furnish)

    def engine(self, *sagas: Saga[Any], owner: str = "c1", effects: Effects | None = None, **options: Any) -> Engine:
        effects = effects or Effects()
        db = effects.through(self.db)
        deps = toys.Deps(effects.through(self.host), db)
        return Engine(db, self.world, Registry(*sagas), deps, owner_id=owner, **options)

    async def start(self, saga: Saga[Any], saga_id: str = "s1", target: str = HOUSE_ID) -> None:
        now = self.world.clock.now()
        await self.db.write(
            start, saga, saga_id=saga_id, params=PARAMS, target=target, request_id=f"req-{saga_id}", now=now
        )

    async def state(self, saga_id: str = "s1") -> str:
        stored = sa.select(saga_table.c.state).where(saga_table.c.id == saga_id)
        return str(await self.db.read(lambda tx: tx.execute(stored).scalar_one()))

    async def row(self) -> Any:
        return await self.db.read(lambda tx: tx.execute(sa.select(house)).one_or_none())


def with_step(saga: Saga[Any], name: str, **changes: Any) -> Saga[Any]:
    """The saga with one step's functions exchanged."""
    steps = [dataclasses.replace(step, **changes) if step.name == name else step for step in saga.steps]
    return dataclasses.replace(saga, steps=tuple(steps))


def scenario(fn: Callable[[Site], Any]) -> Callable[[], None]:
    """A test on virtual time: `async def test(site)`."""

    def test() -> None:
        run_virtual(lambda world: fn(Site(world)))

    test.__name__, test.__doc__ = fn.__name__, fn.__doc__
    return test


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
async def test_sagas_without_code_are_left_to_other_engines(site: Site) -> None:
    newer = dataclasses.replace(BUILD, version=2)
    await site.start(newer)
    async with site.engine(BUILD, owner="old") as old:
        await asyncio.sleep(60)
        assert old.recovery.unknown == 1
        assert await site.state() == State.RUNNING
        async with site.engine(newer, owner="new") as new:
            assert await new.rest("s1") == State.DONE


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
