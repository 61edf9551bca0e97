"""Any saga at all: random steps, random failures, crashes and cancellations; every one comes to rest clean."""

import asyncio
from dataclasses import dataclass
from typing import Any

import msgspec
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.wire.world import World
from controller.db.tx import Tx
from controller.errors import Unavailable
from controller.saga.engine import Engine, Pace, request_cancel, start, trace
from controller.saga.model import Commit, Run, Saga, State, Step, Transient
from controller.saga.registry import Registry
from tests.databases import memory_database
from tests.sagas.harness import Effects
from tests.virtual import run_virtual

thing = sa.Table("thing", sa.MetaData(), sa.Column("name", sa.String(16), primary_key=True))


@dataclass(frozen=True)
class Plan:
    """One step of a random saga, and what goes wrong in it."""

    writes: bool  # A row, in the transaction of its event; else something on the far side.
    deferred: bool
    silences: int  # Transient failures, every second one after the effect.
    refusal: str  # "", "before" or "after" the effect.
    undo_silences: int


class Params(msgspec.Struct, frozen=True):
    pass


plans = st.builds(
    Plan,
    writes=st.booleans(),
    deferred=st.booleans(),
    silences=st.integers(0, 2),
    refusal=st.sampled_from(["", "", "", "", "before", "after"]),
    undo_silences=st.integers(0, 2),
)


class Far:
    """The far side of random sagas, with the history of its effects."""

    def __init__(self, steps: list[Plan]) -> None:
        self.steps = steps
        self.things: set[str] = set()
        self.history: list[tuple[str, int]] = []
        self.silences: dict[tuple[str, int], int] = {}

    def is_silent(self, what: str, number: int, limit: int) -> bool:
        """The first `limit` times."""
        self.silences[what, number] = self.silences.get((what, number), 0) + 1
        return self.silences[what, number] <= limit

    async def ensure(self, number: int) -> None:
        self.history.append(("do", number))
        self.things.add(f"t{number}")

    async def absent(self, number: int) -> None:
        self.history.append(("undo", number))
        self.things.discard(f"t{number}")


def saga_of(far: Far) -> Saga[Params]:
    """The saga that these plans make."""

    def step(number: int, plan: Plan) -> Step[Params]:
        async def do(run: Run[Params]) -> Any:
            silent = far.is_silent("do", number, plan.silences)
            if silent and far.silences["do", number] % 2:
                raise Transient("silence")
            if plan.refusal == "before":
                raise Unavailable("no")
            await run.deps.ensure(number)
            if silent:
                raise Transient("silence, but done")
            if plan.refusal == "after":
                raise Unavailable("no, but done")
            return Commit(insert, (f"t{number}",)) if plan.writes else None

        async def undo(run: Run[Params]) -> Any:
            silent = far.is_silent("undo", number, plan.undo_silences)
            if silent and far.silences["undo", number] % 2:
                raise Transient("silence")
            await run.deps.absent(number)
            if silent:
                raise Transient("silence, but done")
            return Commit(delete, (f"t{number}",)) if plan.writes else None

        return Step(f"step{number}", do, undo, deferred=plan.deferred and not plan.writes)

    return Saga("any", 1, Params, steps=tuple(step(number, plan) for number, plan in enumerate(far.steps)))


def insert(tx: Tx, name: str) -> None:
    tx.execute(sa.insert(thing).values(name=name))


def delete(tx: Tx, name: str) -> None:
    tx.execute(sa.delete(thing).where(thing.c.name == name))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    steps=st.lists(plans, min_size=1, max_size=6),
    crashes=st.lists(st.integers(1, 40), max_size=4),
    cancel_after_s=st.none() | st.floats(0, 20),
    seed=st.integers(0, 1000),
)
def test_any_saga_comes_to_rest_clean(
    steps: list[Plan], crashes: list[int], cancel_after_s: float | None, seed: int
) -> None:
    async def play(world: World) -> None:
        far, db = Far(steps), memory_database(world.clock.now)
        db.build(thing.create)
        saga = saga_of(far)
        now = world.clock.now()
        await db.write(start, saga, saga_id="s", params=Params(), target="t", request_id="r", now=now)

        async def cancel(after_s: float) -> None:
            await asyncio.sleep(after_s)
            await db.write(request_cancel, "t", 1.0)

        canceller = asyncio.create_task(cancel(cancel_after_s)) if cancel_after_s is not None else None

        state = await live(world, db, saga, far)
        if canceller is not None:
            await canceller
        names = set(await db.read(lambda tx: tx.execute(sa.select(thing.c.name)).scalars().all()))
        story = await db.read(trace, target="t")
        written = {f"t{number}" for number, plan in enumerate(steps) if plan.writes}
        if state == State.DONE:
            assert far.things == {f"t{number}" for number in range(len(steps))}, story
            assert names == written, story
        else:
            assert state == State.UNDONE
            assert (far.things, names) == (set(), set()), story
        check_order(far.history)
        if not any(plan.refusal for plan in steps) and cancel_after_s is None:
            assert state == State.DONE

    async def live(world: World, db: Any, saga: Saga[Params], far: Far) -> State:
        """One controller after another, each until it crashes; the last one lives."""
        dropped = []
        for crash_at in crashes:
            effects = Effects(crash_at)
            engine = Engine(effects.through(db), world, Registry(saga), effects.through(far), owner_id="c", pace=Pace())
            dropped.append(asyncio.create_task(engine.run()))
            rests = asyncio.create_task(engine_rest(db))
            crashed = asyncio.create_task(effects.crashed.wait())
            await asyncio.wait({rests, crashed}, return_when=asyncio.FIRST_COMPLETED)
            crashed.cancel()
            if rests.done():
                return rests.result()
            rests.cancel()
        async with Engine(db, world, Registry(saga), far, owner_id="c") as engine:
            return await engine.rest("s", 10_000)

    run_virtual(play, seed)


async def engine_rest(db: Any) -> State:
    from controller.saga.record import ACTIVE, state_of

    while (state := await db.read(state_of, "s")).value in ACTIVE:
        await asyncio.sleep(0.05)
    result: State = state
    return result


def check_order(history: list[tuple[str, int]]) -> None:
    """Nothing is done once undoing has begun, and undoing goes from the end to the beginning."""
    first_undo = next((i for i, (what, _) in enumerate(history) if what == "undo"), len(history))
    undone = [number for _, number in history[first_undo:]]
    assert all(what == "undo" for what, _ in history[first_undo:]), history
    assert undone == sorted(undone, reverse=True), history
