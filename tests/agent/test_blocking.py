"""Blocking calls: bounded in time, never two for one object, and a dead driver is left alone for a while."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from agent import blocking
from agent.blocking import TIMEOUTS_MAX, Blocking
from agent.coalesce import Coalesced
from agent.wire.errors import Busy, Failed, NotFound
from agent.wire.world import PoolThreads


@pytest.fixture
def threads() -> Iterator[PoolThreads]:
    pool = PoolThreads(2, "test")
    yield pool
    pool.close()


async def test_a_call_that_hangs_keeps_its_object_until_it_is_back(threads: PoolThreads) -> None:
    calls, gate, done = Blocking(threads), threading.Event(), []

    def hang() -> None:
        gate.wait(10)
        done.append("start")

    with pytest.raises(Failed, match="did not answer"):
        await calls.run("hypervisor", "a", hang, timeout_s=0.05)
    with pytest.raises(Busy):
        await calls.run("hypervisor", "a", done.append, "destroy", timeout_s=1)
    await calls.run("hypervisor", "b", done.append, "other", timeout_s=1)
    gate.set()
    async with asyncio.timeout(5):
        while "start" not in done:
            await asyncio.sleep(0.01)
        while True:
            try:
                await calls.run("hypervisor", "a", done.append, "destroy", timeout_s=1)
                break
            except Busy:
                await asyncio.sleep(0.01)
    assert done == ["other", "start", "destroy"]


async def test_a_call_that_never_got_a_thread_is_never_made(threads: PoolThreads) -> None:
    calls, gate, done = Blocking(threads), threading.Event(), []
    hanging = [asyncio.create_task(calls.run("x", n, gate.wait, 10, timeout_s=20)) for n in range(2)]
    await asyncio.sleep(0.05)
    with pytest.raises(Failed):
        await calls.run("x", "late", done.append, 1, timeout_s=0.05)
    gate.set()
    await asyncio.gather(*hanging)
    await calls.run("x", "late", done.append, 2, timeout_s=5)
    assert done == [2]


async def test_a_driver_that_does_not_answer_is_left_alone_for_a_while(
    threads: PoolThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocking, "OPEN_S", 0.2)
    pool = PoolThreads(TIMEOUTS_MAX + 1, "test")
    calls, gate = Blocking(pool), threading.Event()
    for n in range(TIMEOUTS_MAX):
        with pytest.raises(Failed):
            await calls.run("hypervisor", n, gate.wait, 10, timeout_s=0.02)
    with pytest.raises(Busy):
        await calls.run("hypervisor", "new", int, timeout_s=1)
    await calls.run("network", "new", int, timeout_s=1)
    await asyncio.sleep(0.3)
    assert await calls.run("hypervisor", "new", int, timeout_s=1) == 0
    assert calls.breakers["hypervisor"].timeouts == 0
    gate.set()
    pool.close()


async def test_errors_pass_through_and_close_the_breaker(threads: PoolThreads) -> None:
    calls = Blocking(threads)

    def refuse(error: Exception) -> None:
        raise error

    with pytest.raises(NotFound):
        await calls.run("x", "a", refuse, NotFound("no"), timeout_s=1)
    with pytest.raises(Failed, match="socket"):
        await calls.run("x", "a", refuse, TimeoutError("the socket"), timeout_s=1)
    assert calls.breakers["x"].timeouts == 0
    assert await calls.run("x", "a", int, timeout_s=1) == 0


async def test_one_run_serves_all_who_asked_before_it_began() -> None:
    seen: list[int] = []
    state = 0

    async def work() -> None:
        value = state
        await asyncio.sleep(0.01)
        seen.append(value)

    once = Coalesced(work)
    asks = []
    for n in range(5):
        state = n
        asks.append(asyncio.create_task(once()))
    await asyncio.sleep(0.005)
    state = 9
    await once()
    await asyncio.gather(*asks)
    assert seen == [4, 9]


async def test_a_run_that_fails_fails_for_all_it_served_and_no_more() -> None:
    runs = 0

    async def work() -> None:
        nonlocal runs
        runs += 1
        await asyncio.sleep(0.01)
        if runs == 2:
            raise Failed("no")

    once = Coalesced(work)
    first = asyncio.create_task(once())
    while runs == 0:
        await asyncio.sleep(0)
    results = await asyncio.gather(once(), once(), return_exceptions=True)  # They need a run that begins now.
    assert await first is None
    assert [type(one) for one in results] == [Failed, Failed]
    assert runs == 2
    await once()
    assert runs == 3
