"""What callers of `Hosts` may rely on, on virtual time."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import structlog

from agent.wire import port
from agent.wire.errors import Busy, Failed, Fault, FaultCode, Invalid, NotFound, Silent, Stale, Unfit
from agent.wire.lifecycle import Generation, Progress
from agent.wire.port import PortSpec, PortStatus
from agent.wire.specs import Absence, Ref
from agent.wire.world import World
from controller import errors
from controller.hosts import SLICE_S, Hosts
from controller.saga.model import Transient
from tests.controller.fleet.bus import MemoryBus, ScriptedHost, turns
from tests.controller.fleet.timeless import timeless


def spec(n: int = 1, id: str = "p") -> PortSpec:
    return PortSpec(
        id=id,
        generation=Generation(1, n),
        network_id="n",
        domain_id="d",
        mac="fa:16:3e:0:0:1",
        fixed_ips=(),
        hostname="x",
    )


def status(progress: Progress, n: int = 1, fault: Fault | None = None) -> PortStatus:
    return PortStatus(id="p", generation=Generation(1, n), progress=progress, fault=fault)


@contextlib.asynccontextmanager
async def one_host(world: World) -> AsyncIterator[tuple[Hosts, ScriptedHost, MemoryBus]]:
    bus = MemoryBus()
    hosts, host = Hosts(bus, world), ScriptedHost(bus, "h1")
    hosts.adopt("h1")
    await hosts.start()
    try:
        yield hosts, host, bus
    finally:
        await hosts.close()


def in_s(world: World, seconds: float) -> float:
    return world.clock.now() + seconds


def ready(pending: PortStatus) -> PortStatus:
    return status(Progress.READY, pending.generation.n)


@timeless
async def test_what_is_ready_at_once_takes_one_message(world: World) -> None:
    async with one_host(world) as (hosts, host, _):
        host.outcome = ready
        assert (await hosts.ensure("h1", port.ENSURE, spec(), in_s(world, 60))).progress is Progress.READY
        assert host.calls == ["ensure"]


@timeless
async def test_an_event_ends_the_wait_without_another_message(world: World) -> None:
    async with one_host(world) as (hosts, host, _):
        call = asyncio.create_task(hosts.ensure("h1", port.ENSURE, spec(), in_s(world, 60)))
        await turns()
        await host.tell("port", status(Progress.READY))
        assert (await call).progress is Progress.READY
        assert "get" not in host.calls


@timeless
async def test_an_event_that_overtakes_the_answer_is_not_lost(world: World) -> None:
    async with one_host(world) as (hosts, host, bus):
        answer = bus.handlers["hostler.v1.host.h1.port.ensure"]

        async def late(message):
            reply = await answer(message)
            await host.tell("port", status(Progress.READY))
            return reply

        bus.handlers["hostler.v1.host.h1.port.ensure"] = late
        before = asyncio.get_running_loop().time()
        await hosts.ensure("h1", port.ENSURE, spec(), in_s(world, 60))
        assert asyncio.get_running_loop().time() - before < 0.5


@timeless
async def test_a_lost_event_costs_time_only(world: World) -> None:
    async with one_host(world) as (hosts, host, _):
        call = asyncio.create_task(hosts.ensure("h1", port.ENSURE, spec(), in_s(world, 60)))
        await turns()
        host.ports["p"] = status(Progress.READY)
        await call
        assert host.calls == ["ensure", "get"]


@timeless
async def test_what_is_not_done_within_a_slice_is_transient_and_says_how_far_it_is(world: World) -> None:
    async with one_host(world) as (hosts, host, _):
        began = world.clock.now()
        with pytest.raises(Transient, match="pending"):
            await hosts.ensure("h1", port.ENSURE, spec(), in_s(world, 600))
        assert SLICE_S <= world.clock.now() - began <= SLICE_S + 5
        with pytest.raises(Transient):
            await hosts.ensure("h1", port.ENSURE, spec(2), in_s(world, 3))
        assert world.clock.now() - began <= SLICE_S + 12
        assert host.calls.count("ensure") == 2


@timeless
async def test_a_failure_that_the_host_tries_again_is_waited_for_and_its_reason_is_told(world: World) -> None:
    async with one_host(world) as (hosts, host, _):
        fault = Fault(code=FaultCode.FAILED, message="the network is not here yet")
        host.outcome = lambda pending: status(Progress.FAILED, fault=fault)
        with pytest.raises(Transient, match="not here yet"):
            await hosts.ensure("h1", port.ENSURE, spec(), in_s(world, 5))
        call = asyncio.create_task(hosts.ensure("h1", port.ENSURE, spec(), in_s(world, 60)))
        await turns()
        await host.tell("port", status(Progress.READY))
        await call


@timeless
async def test_what_trying_again_cannot_cure_is_an_error_for_the_user(world: World) -> None:
    async with one_host(world) as (hosts, host, _):
        host.outcome = lambda pending: status(
            Progress.FAILED, fault=Fault(code=FaultCode.UNFIT, message="no physical network x")
        )
        with pytest.raises(errors.Conflict, match="no physical network x") as caught:
            await hosts.ensure("h1", port.ENSURE, spec(), in_s(world, 60))
        assert caught.value.why == {"host": "h1", "code": "unfit"}
        for failure, kind in (
            (Stale("old"), errors.Conflict),
            (Invalid("bad"), errors.Invalid),
            (Unfit("no"), errors.Conflict),
        ):
            host.failure = failure
            with pytest.raises(kind):
                await hosts.ensure("h1", port.ENSURE, spec(), in_s(world, 60))


@timeless
async def test_a_newer_generation_on_the_host_ends_an_older_ones_wait(world: World) -> None:
    async with one_host(world) as (hosts, host, _):
        call = asyncio.create_task(hosts.ensure("h1", port.ENSURE, spec(1), in_s(world, 60)))
        await turns()
        host.outcome = ready
        await hosts.ensure("h1", port.ENSURE, spec(2), in_s(world, 60))
        with pytest.raises(errors.Conflict, match="newer"):
            await call


@timeless
async def test_news_of_an_older_generation_ends_nothing(world: World) -> None:
    async with one_host(world) as (hosts, host, _):
        call = asyncio.create_task(hosts.ensure("h1", port.ENSURE, spec(2), in_s(world, 60)))
        await turns()
        await host.tell("port", status(Progress.READY, 1))
        await turns()
        assert not call.done()
        await host.tell("port", status(Progress.READY, 2))
        await call


@timeless
async def test_a_host_that_has_forgotten_is_told_again(world: World) -> None:
    async with one_host(world) as (hosts, host, _):
        call = asyncio.create_task(hosts.ensure("h1", port.ENSURE, spec(), in_s(world, 60)))
        await turns()
        host.ports.clear()
        host.outcome = ready
        await call
        assert host.calls == ["ensure", "get", "ensure"]


@timeless
async def test_silence_and_a_busy_host_are_transient(world: World) -> None:
    async with one_host(world) as (hosts, host, bus):
        for failure in (Busy("full"), Failed("a disk error")):
            host.failure = failure
            with pytest.raises(Transient):
                await hosts.ensure("h1", port.ENSURE, spec(), in_s(world, 60))
        bus.is_cut = True
        with pytest.raises(Transient, match="did not answer"):
            await hosts.ensure("h1", port.ENSURE, spec(), in_s(world, 60))
        with pytest.raises(Transient):
            await hosts.call("h1", port.GET, Ref(id="p"))


@timeless
async def test_a_call_raises_what_the_host_answered(world: World) -> None:
    async with one_host(world) as (hosts, host, _):
        with pytest.raises(errors.NotFound):
            await hosts.call("h1", port.GET, Ref(id="p"))
        for failure, kind in ((Failed("x"), errors.Unavailable), (Stale("x"), errors.Conflict)):
            host.failure = failure
            with pytest.raises(kind):
                await hosts.call("h1", port.GET, Ref(id="p"))


@timeless
async def test_absent_is_waited_for_and_a_removed_host_holds_nothing(world: World) -> None:
    async with one_host(world) as (hosts, host, _):
        absence = Absence(id="p", generation=Generation(1, 2))
        assert (await hosts.absent("h1", port.ABSENT, absence, in_s(world, 60))).progress is Progress.ABSENT
        hosts.forget("h1")
        host.calls.clear()
        gone = await hosts.absent("h1", port.ABSENT, absence, in_s(world, 60))
        assert (gone.id, gone.progress) == ("p", Progress.ABSENT)
        with pytest.raises(errors.Conflict, match="removed"):
            await hosts.ensure("h1", port.ENSURE, spec(3), in_s(world, 60))
        with pytest.raises(errors.Conflict, match="removed"):
            await hosts.call("h1", port.GET, Ref(id="p"))
        assert host.calls == []


@timeless
async def test_a_host_that_keeps_silent_is_not_asked_by_everybody_and_a_heartbeat_ends_that(world: World) -> None:
    async with one_host(world) as (hosts, host, bus):
        bus.is_cut = True
        for _ in range(20):
            with pytest.raises(Transient):
                await hosts.call("h1", port.GET, Ref(id="p"))
        assert len(bus.requests) == 3
        bus.is_cut = False
        with pytest.raises(Transient, match="lately"):
            await hosts.call("h1", port.GET, Ref(id="p"))
        await host.beat()
        with pytest.raises(errors.NotFound):
            await hosts.call("h1", port.GET, Ref(id="p"))


@timeless
async def test_an_open_breaker_lets_one_call_try_after_a_pause(world: World) -> None:
    async with one_host(world) as (hosts, _host, bus):
        bus.is_cut = True
        for _ in range(3):
            with pytest.raises(Transient):
                await hosts.call("h1", port.GET, Ref(id="p"))
        bus.is_cut = False
        await asyncio.sleep(1.1)
        with pytest.raises(errors.NotFound):
            await hosts.call("h1", port.GET, Ref(id="p"))
        with pytest.raises(errors.NotFound):
            await hosts.call("h1", port.GET, Ref(id="p"))


@timeless
async def test_the_request_of_the_task_travels_in_the_headers(world: World) -> None:
    async with one_host(world) as (hosts, _host, bus):
        with structlog.contextvars.bound_contextvars(request_id="req-1", traceparent="00-a-b-01"):
            with pytest.raises(errors.NotFound):
                await hosts.call("h1", port.GET, Ref(id="p"))
        assert bus.requests[-1][1] == {"Hostler-Request-Id": "req-1", "traceparent": "00-a-b-01"}


@timeless
async def test_an_answer_that_cannot_be_read_is_not_an_answer_about_the_object(world: World) -> None:
    async with one_host(world) as (hosts, _host, bus):

        async def nonsense(message):
            return b'{"ok": {"id": 5}}'

        bus.handlers["hostler.v1.host.h1.port.ensure"] = nonsense
        with pytest.raises(errors.Invalid, match="not one"):
            await hosts.ensure("h1", port.ENSURE, spec(), in_s(world, 60))

        async def another(message):
            return b'{"ok": {"id": "other", "generation": [1, 9], "progress": "ready"}}'

        bus.handlers["hostler.v1.host.h1.port.ensure"] = another
        with pytest.raises(Transient):
            await hosts.ensure("h1", port.ENSURE, spec(), in_s(world, 2))


@timeless
async def test_a_cancelled_wait_leaves_nothing_behind(world: World) -> None:
    async with one_host(world) as (hosts, _host, _):
        call = asyncio.create_task(hosts.ensure("h1", port.ENSURE, spec(), in_s(world, 60)))
        await turns()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert not hosts._waits


def test_silence_is_no_kind_of_answer() -> None:
    """So that no `except WireError` takes a time-out for a refusal."""
    assert not issubclass(Silent, NotFound.__mro__[1])
