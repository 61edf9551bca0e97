"""Guests that go to another host while they run: on two fake hosts, with agents that die at any effect."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec
import pytest

from agent.wire import domain
from agent.wire.domain import Desired, DomainSpec, Landing, Passage
from agent.wire.errors import Conflict, Failed, FaultCode
from agent.wire.image import Offer
from agent.wire.lifecycle import Power, Progress
from agent.wire.specs import Absence
from drivers.hypervisor.base import Machine, NicSource
from drivers.hypervisor.fake import FakeHost, FakeHypervisor
from tests.agent.rig import SERVER, TAG, WHOLE, InlineThreads, Rig, a_domain, gen, simulated

OFFER = Offer(url="https://198.18.0.12:5444/control/x", name="h2", ticket="t")


async def two() -> tuple[Rig, FakeHost]:
    """A host with a guest that runs, and another one that waits for it."""
    rig = Rig()
    there = FakeHost()
    there.name, rig.host.neighbours = "there", {"there": there}
    nic = NicSource(device="t1", mac="fa:16:3e:00:00:05", mtu=1450)
    coming = Machine(spec=a_domain(5, Desired.LANDING), disks=(), nics=(nic,), uid=200001, folder="/there")
    FakeHypervisor(there, TAG).receive(coming)
    rig.start()
    await rig.ready()
    for row, request in WHOLE:
        await rig.until(row, request)
    return rig, there


def leaving(n: int = 5, ticket: str = "t", bases: Mapping[str, str] = MappingProxyType({})) -> DomainSpec:
    offer = msgspec.structs.replace(OFFER, ticket=ticket)
    landing = Landing(uid=200001, gid=200001, folder="/there", gate="there", bases=dict(bases))
    way = Passage(landing=landing, control=offer, memory=offer, disks=offer, arrival=offer)
    return a_domain(n, Desired.LEAVING, leaving=way)


def powers(rig: Rig, there: FakeHost) -> list[Power | None]:
    found = [{one.machine.spec.id: one.power for one in host.domains()} for host in (rig.host, there)]
    return [one.get(SERVER) for one in found]


def test_a_guest_that_leaves_is_not_here_and_stands_still_there() -> None:
    async def main() -> None:
        rig, there = await two()
        status = await rig.until(domain.ENSURE, leaving())
        assert status.power is Power.UNKNOWN and powers(rig, there) == [None, Power.PAUSED]
        assert there.get(SERVER).boots == 1, "it was not booted anew"
        assert (await rig.until(domain.ENSURE, leaving(ticket="another"))).power is Power.UNKNOWN

    simulated(main)


def test_nobody_starts_what_has_left_not_even_after_a_restart() -> None:
    async def main() -> None:
        rig, there = await two()
        await rig.until(domain.ENSURE, leaving())
        for n in (6, 7):
            with pytest.raises(AssertionError, match="conflict"):
                status = await rig.call(domain.ENSURE, a_domain(n))
                assert status.progress is Progress.READY, status.fault.code
            await rig.kill()
            rig.start()
            await rig.ready()
        assert powers(rig, there) == [None, Power.PAUSED]
        await rig.until(domain.ABSENT, Absence(id=SERVER, generation=gen(8)), Progress.ABSENT)
        assert (await rig.until(domain.ENSURE, a_domain(9))).power is Power.RUNNING

    simulated(main)


def test_one_that_could_not_be_sent_stays_and_says_why() -> None:
    async def main() -> None:
        rig, there = await two()
        rig.host.fail_next("send", Failed("no way"))
        status = await rig.call(domain.ENSURE, leaving())
        assert status.fault is not None and status.fault.code is FaultCode.CONFLICT and "no way" in status.fault.message
        assert (await rig.until(domain.ENSURE, a_domain(6, Desired.STAYING))).power is Power.RUNNING
        assert (await rig.until(domain.ENSURE, a_domain(7))).power is Power.RUNNING
        assert rig.host.get(SERVER).boots == 1 and powers(rig, there) == [Power.RUNNING, None]

    simulated(main)


def test_one_whose_disk_lies_upon_another_image_there_is_not_sent() -> None:
    async def main() -> None:
        rig, there = await two()
        (disk,) = a_domain(5).disks
        status = await rig.call(domain.ENSURE, leaving(bases={disk.disk_id: "another.qcow2"}))
        assert status.fault is not None and "another.qcow2 there" in status.fault.message
        assert powers(rig, there) == [Power.RUNNING, None]

    simulated(main)


def test_one_that_left_in_the_moment_in_which_it_failed_is_told_to_be_gone() -> None:
    async def main() -> None:
        rig, there = await two()
        rig.host.fail_next("send", Failed("the line broke"), is_after_effect=True)
        assert (await rig.call(domain.ENSURE, leaving())).fault is not None
        assert (await rig.until(domain.ENSURE, a_domain(6, Desired.STAYING))).power is Power.UNKNOWN
        assert powers(rig, there) == [None, Power.PAUSED]

    simulated(main)


def test_one_that_stays_is_whole_when_the_other_host_has_it_too() -> None:
    """The other host may have it standing still: nobody was told to let it go on there."""

    async def main() -> None:
        rig, there = await two()
        rig.host.loses_next_guest = True
        assert (await rig.call(domain.ENSURE, leaving())).fault is not None
        assert powers(rig, there) == [Power.RUNNING, Power.PAUSED]
        assert (await rig.until(domain.ENSURE, a_domain(6, Desired.STAYING))).power is Power.RUNNING

    simulated(main)


def test_one_that_is_off_does_not_leave() -> None:
    async def main() -> None:
        rig, there = await two()
        rig.host.power_off_from_inside(SERVER)
        status = await rig.call(domain.ENSURE, leaving())
        assert status.fault is not None and "not on" in status.fault.message
        assert (await rig.until(domain.ENSURE, a_domain(6, Desired.STAYING))).power is Power.SHUTOFF
        assert powers(rig, there) == [Power.SHUTOFF, None]

    simulated(main)


def test_room_for_a_guest_starts_nothing_and_is_taken_back() -> None:
    async def main() -> None:
        rig = Rig()
        rig.start()
        await rig.ready()
        for row, request in WHOLE[:-1]:
            await rig.until(row, request)
        status = await rig.until(domain.ENSURE, a_domain(1, Desired.LANDING))
        assert status.power is Power.UNKNOWN and status.landing is not None
        await rig.kill()
        rig.start()
        await rig.ready()
        again = await rig.until(domain.ENSURE, a_domain(1, Desired.LANDING))
        assert again.landing == status.landing, "an agent that restarts has the same room"
        await rig.until(domain.ABSENT, Absence(id=SERVER, generation=gen(2)), Progress.ABSENT)
        assert not rig.host.domains() and not rig.host._coming

    simulated(main)


def test_haste_is_for_guests_that_leave() -> None:
    async def main() -> None:
        rig, _ = await two()
        with pytest.raises(Conflict, match="not leaving"):
            await rig.call(domain.HASTEN, domain.Hasten(id=SERVER))

    simulated(main)


@pytest.fixture
def _long_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes seconds to send a guest."""
    run = InlineThreads.run

    async def slow(self: InlineThreads, fn: Callable[..., Any], *args: Any, timeout_s: float) -> Any:
        if any(isinstance(one, Passage) for one in args):
            await asyncio.sleep(5.0)
        return await run(self, fn, *args, timeout_s=timeout_s)

    monkeypatch.setattr(InlineThreads, "run", slow)


@pytest.mark.usefixtures("_long_ways")
def test_in_haste_it_stands_still_before_it_is_there() -> None:
    async def main() -> None:
        rig, there = await two()
        going = asyncio.ensure_future(rig.until(domain.ENSURE, leaving()))
        await asyncio.sleep(1.0)
        assert powers(rig, there) == [Power.RUNNING, None]
        await rig.call(domain.HASTEN, domain.Hasten(id=SERVER))
        await asyncio.sleep(1.0)
        assert powers(rig, there) == [Power.PAUSED, None]
        await going
        assert powers(rig, there) == [None, Power.PAUSED]

    simulated(main)


@pytest.mark.usefixtures("_long_ways")
def test_haste_ends_with_the_sending_that_it_was_for() -> None:
    async def main() -> None:
        rig, there = await two()
        rig.host.fail_next("send", Failed("no way"))
        going = asyncio.ensure_future(rig.call(domain.ENSURE, leaving()))
        await asyncio.sleep(1.0)
        await rig.call(domain.HASTEN, domain.Hasten(id=SERVER))
        await going
        await rig.until(domain.ENSURE, a_domain(6, Desired.STAYING))
        assert (await rig.until(domain.ENSURE, a_domain(7))).power is Power.RUNNING
        going = asyncio.ensure_future(rig.until(domain.ENSURE, leaving(8)))
        await asyncio.sleep(2.0)
        assert powers(rig, there) == [Power.RUNNING, None]
        await going

    simulated(main)


@pytest.mark.parametrize("is_after", [False, True])
def test_wherever_the_agent_dies_the_guest_is_in_one_place(is_after: bool) -> None:
    async def die(at: int) -> bool:
        rig, there = await two()
        effects = rig.effects
        effects.die_at, effects.is_after = effects.count + at, is_after
        with contextlib.suppress(Exception):  # Whatever the dead say.
            await rig.call(domain.ENSURE, leaving())
        is_through, effects.die_at = effects.life.alive, None
        if not is_through:
            rig.start()
            await rig.ready()
        status = await rig.until(domain.ENSURE, a_domain(6, Desired.STAYING))
        found = powers(rig, there)
        assert found in ([Power.RUNNING, None], [None, Power.PAUSED]), (at, found)
        assert (status.power is Power.UNKNOWN) is (found[0] is None)
        return is_through

    async def main() -> None:
        for at in range(1, 200):
            if await die(at):
                return

    simulated(main)
