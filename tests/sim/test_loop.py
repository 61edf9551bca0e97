"""The simulation's own ground: virtual time, and crashes that nothing can soften."""

import asyncio
import contextvars

from tests.sim.loop import LIFE, Life, SimLoop


def _in_life(loop: SimLoop, life: Life, coro: object) -> asyncio.Task[None]:
    context = contextvars.copy_context()
    context.run(LIFE.set, life)
    return loop.create_task(coro, context=context)  # type: ignore[arg-type]


def test_time_jumps_instead_of_passing() -> None:
    loop = SimLoop()

    async def sleep_long() -> float:
        await asyncio.sleep(3600)
        return loop.time()

    assert 3600 <= loop.run_until_complete(sleep_long()) < 3600.01
    loop.close()


def test_a_severed_life_runs_no_finally() -> None:
    loop, life, seen = SimLoop(), Life("a"), []

    async def victim() -> None:
        try:
            await asyncio.sleep(1)
            await asyncio.sleep(1)
        finally:
            seen.append("repaired")

    async def main() -> None:
        task = _in_life(loop, life, victim())
        await asyncio.sleep(1.5)
        life.sever()
        await asyncio.sleep(10)
        assert not task.done()

    loop.run_until_complete(main())
    assert seen == []


def test_children_of_a_life_die_with_it() -> None:
    loop, life, seen = SimLoop(), Life("a"), []

    async def child() -> None:
        await asyncio.sleep(2)
        seen.append("child")

    async def parent() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(child())

    async def main() -> None:
        _in_life(loop, life, parent())
        await asyncio.sleep(1)
        life.sever()
        await asyncio.sleep(5)

    loop.run_until_complete(main())
    assert seen == []


def test_a_paused_life_catches_up_when_it_goes_on() -> None:
    loop, life, seen = SimLoop(), Life("a"), []

    async def work() -> None:
        try:
            async with asyncio.timeout(2):
                await asyncio.sleep(1)
            seen.append(("in time", loop.time()))
        except TimeoutError:
            seen.append(("late", loop.time()))
        async with asyncio.timeout(5):
            await asyncio.sleep(1)
        seen.append(("again", loop.time()))

    async def main() -> None:
        task = _in_life(loop, life, work())
        await asyncio.sleep(0.5)
        life.pause()
        await asyncio.sleep(10)
        assert seen == []
        life.resume(loop)
        await task

    loop.run_until_complete(main())
    assert [(what, round(at, 3)) for what, at in seen] == [("late", 10.5), ("again", 11.5)]
    loop.close()
