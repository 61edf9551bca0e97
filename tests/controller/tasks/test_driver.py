"""Reconcilers run on time, when kicked, never twice at once, and again after a failure."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from agent.wire.world import World
from controller.tasks.driver import Driver, Task
from tests.virtual import run_virtual


def scenario(fn: Callable[[World], Any]) -> Callable[[], None]:
    def test() -> None:
        run_virtual(fn)

    return test


class Counter:
    """A reconciler that counts its runs and takes its time."""

    def __init__(self, takes_s: float = 0.0, failures: int = 0) -> None:
        self.runs = self.at_once = self.most = 0
        self.takes_s, self.failures = takes_s, failures

    async def __call__(self) -> dict[str, int]:
        self.runs += 1
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await asyncio.sleep(self.takes_s)
        self.at_once -= 1
        if self.runs <= self.failures:
            raise RuntimeError("not yet")
        return {"runs": self.runs}


@scenario
async def test_it_runs_within_its_first_seconds_and_then_every_period(world: World) -> None:
    work = Counter()
    async with Driver(world, Task("t", 100.0, work)):
        await asyncio.sleep(5)
        assert work.runs == 1
        await asyncio.sleep(1000)
    assert 9 <= work.runs <= 13


@scenario
async def test_a_kick_runs_it_now(world: World) -> None:
    work = Counter()
    async with Driver(world, Task("t", 1e6, work)) as driver:
        await asyncio.sleep(6)
        driver.kick("t")
        status = await driver.quiet("t", 1.0)
    assert (work.runs, status.runs, status.details) == (2, 2, {"runs": 2})


@scenario
async def test_many_kicks_during_a_run_are_one_more_run(world: World) -> None:
    work = Counter(takes_s=10.0)
    async with Driver(world, Task("t", 1e6, work)) as driver:
        await asyncio.sleep(6)
        assert driver.statuses()[0].is_running
        for _ in range(5):
            driver.kick("t")
        await driver.quiet("t")
        await asyncio.sleep(100)
    assert (work.runs, work.most) == (2, 1)


@scenario
async def test_a_failure_shows_and_is_tried_again_ever_more_slowly(world: World) -> None:
    work = Counter(failures=4)
    async with Driver(world, Task("t", 1e6, work)) as driver:
        await asyncio.sleep(6.5)
        assert "not yet" in driver.statuses()[0].error
        await asyncio.sleep(30)
        assert driver.statuses()[0].error == ""
        assert driver.statuses()[0].failures == 0
    assert work.runs == 5


@scenario
async def test_one_that_hangs_is_cut_off_and_disturbs_no_other(world: World) -> None:
    work = Counter()

    async def hang() -> None:
        await asyncio.get_running_loop().create_future()

    async with Driver(world, Task("hang", 10.0, hang, timeout_s=20.0), Task("t", 10.0, work)) as driver:
        await asyncio.sleep(100)
        assert "TimeoutError" in driver.statuses()[0].error
    assert work.runs > 5


@scenario
async def test_kicks_before_the_start_count_and_unknown_names_do_not_pass(world: World) -> None:
    work = Counter()
    driver = Driver(world, Task("t", 1e6, work))
    driver.kick("t")
    with pytest.raises(KeyError):
        driver.kick("typo")
    async with driver:
        await driver.quiet("t", 1.0)
    assert work.runs == 1
