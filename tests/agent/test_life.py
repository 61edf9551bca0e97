"""Guests that stand still, sleep, get and lose interfaces, and whose disks are captured: on the fake host."""

import asyncio
from typing import Any

from agent.wire import capture, disk, domain, port
from agent.wire.capture import CaptureSpec
from agent.wire.domain import Desired, DomainNic
from agent.wire.errors import FaultCode
from agent.wire.image import Offer
from agent.wire.lifecycle import Power, Progress
from agent.wire.port import FixedIp
from agent.wire.specs import Absence
from tests.agent.rig import DISK, PORT, SERVER, WHOLE, Rig, a_domain, a_port, gen, simulated

SECOND_PORT = "22222222-2222-4222-8222-222222222223"
SECOND_MAC = "fa:16:3e:00:00:06"
CAPTURE = "77777777-7777-4777-8777-777777777777"


async def _whole() -> Rig:
    rig = Rig()
    rig.start()
    await rig.ready()
    for row, request in WHOLE:
        await rig.until(row, request)
    return rig


def _with_two(n: int, **changes: Any) -> Any:
    second = DomainNic(port_id=SECOND_PORT, mac=SECOND_MAC, mtu=1450)
    return a_domain(n, nics=(*a_domain().nics, second), **changes)


def a_second_port(n: int = 1) -> Any:
    address = FixedIp(subnet_id="subnet-1", address="10.0.0.6")
    return a_port(n, id=SECOND_PORT, mac=SECOND_MAC, fixed_ips=(address,))


def test_a_guest_is_paused_saved_and_goes_on_without_a_boot() -> None:
    async def main() -> None:
        rig = await _whole()
        for n, desired, power in (
            (2, Desired.PAUSED, Power.PAUSED),
            (3, Desired.RUNNING, Power.RUNNING),
            (4, Desired.SUSPENDED, Power.SUSPENDED),
            (5, Desired.RUNNING, Power.RUNNING),
        ):
            status = await rig.until(domain.ENSURE, a_domain(n, desired))
            assert status.power is power
        assert rig.host.get(SERVER).boots == 1

    simulated(main)


def test_what_is_off_is_neither_paused_nor_saved() -> None:
    async def main() -> None:
        rig = await _whole()
        await rig.until(domain.ENSURE, a_domain(2, Desired.SHUTOFF))
        for n, desired in ((3, Desired.PAUSED), (4, Desired.SUSPENDED)):
            assert (await rig.until(domain.ENSURE, a_domain(n, desired))).power is Power.SHUTOFF

    simulated(main)


def test_a_saved_guest_that_should_be_off_loses_its_memory() -> None:
    async def main() -> None:
        rig = await _whole()
        await rig.until(domain.ENSURE, a_domain(2, Desired.SUSPENDED))
        assert (await rig.until(domain.ENSURE, a_domain(3, Desired.SHUTOFF))).power is Power.SHUTOFF
        await rig.until(domain.ENSURE, a_domain(4))
        assert rig.host.get(SERVER).boots == 2

    simulated(main)


def test_a_restart_of_the_agent_leaves_paused_and_saved_guests_as_they_are() -> None:
    async def main() -> None:
        for desired, power in ((Desired.PAUSED, Power.PAUSED), (Desired.SUSPENDED, Power.SUSPENDED)):
            rig = await _whole()
            await rig.until(domain.ENSURE, a_domain(2, desired))
            await rig.kill()
            rig.start()
            await rig.ready()
            assert rig.host.get(SERVER).power is power
            assert (await rig.get(domain.GET, SERVER)).power is power

    simulated(main)


def test_an_interface_is_plugged_into_a_running_guest_and_taken_out_of_it() -> None:
    async def main() -> None:
        rig = await _whole()
        await rig.until(port.ENSURE, a_second_port())
        await rig.until(domain.ENSURE, _with_two(2))
        assert [nic.mac for nic in rig.host.get(SERVER).nics] == ["fa:16:3e:00:00:05", SECOND_MAC]
        await rig.until(domain.ENSURE, a_domain(3))
        assert [nic.mac for nic in rig.host.get(SERVER).nics] == ["fa:16:3e:00:00:05"]
        await rig.until(port.ABSENT, Absence(id=SECOND_PORT, generation=gen(2)), Progress.ABSENT)
        assert rig.net.taps.keys() == [PORT]
        assert rig.host.get(SERVER).boots == 1

    simulated(main)


def test_a_guest_that_holds_its_interface_is_told_and_asked_again() -> None:
    async def main() -> None:
        rig = await _whole()
        await rig.until(port.ENSURE, a_second_port())
        await rig.until(domain.ENSURE, _with_two(2))
        rig.host.hold_nics(SERVER, True)
        status = await rig.call(domain.ENSURE, a_domain(3))
        while status.progress is Progress.PENDING:
            await asyncio.sleep(1.0)
            status = await rig.get(domain.GET, SERVER)
        assert (status.progress, status.fault.code) == (Progress.FAILED, FaultCode.BUSY)
        rig.host.hold_nics(SERVER, False)
        await rig.until(domain.ENSURE, a_domain(3))
        assert len(rig.host.get(SERVER).nics) == 1

    simulated(main)


def a_capture(n: int = 1, ticket: str = "t1") -> CaptureSpec:
    offer = Offer(url=f"https://198.18.0.1:5443/image/{CAPTURE}", name="", ticket=ticket)
    return CaptureSpec(id=CAPTURE, generation=gen(n), domain_id=SERVER, disk_id=DISK, offer=offer)


def test_a_disk_is_captured_delivered_and_nothing_of_it_stays() -> None:
    async def main() -> None:
        for desired in (Desired.RUNNING, Desired.SHUTOFF):
            rig = await _whole()
            await rig.until(domain.ENSURE, a_domain(2, desired))
            status = await rig.until(capture.ENSURE, a_capture())
            assert status.size_bytes > 0
            assert rig.images.disks.keys() == [f"{SERVER}-config", DISK]
            await rig.until(capture.ABSENT, Absence(id=CAPTURE, generation=gen(2)), Progress.ABSENT)

    simulated(main)


def test_another_ticket_is_no_other_content() -> None:
    async def main() -> None:
        rig = await _whole()
        await rig.until(capture.ENSURE, a_capture())
        await rig.until(capture.ENSURE, a_capture(ticket="t2"))

    simulated(main)


def test_a_crash_anywhere_in_a_capture_leaves_what_the_next_run_finishes() -> None:
    async def main() -> None:
        for die_at in range(1, 60):
            for is_after in (False, True):
                rig = await _whole()
                await rig.kill()
                effects = rig.start(die_at, is_after=is_after)
                asking = asyncio.create_task(rig.until(capture.ENSURE, a_capture()))
                await asyncio.sleep(30.0)
                if rig.life.alive:
                    await asking
                    if effects.count < die_at:
                        return
                else:
                    rig.start()
                    await asking
                assert rig.images.disks.keys() == [f"{SERVER}-config", DISK]
                await rig.kill()

    simulated(main)


def test_a_capture_goes_before_its_disk() -> None:
    async def main() -> None:
        rig = await _whole()
        await rig.until(capture.ENSURE, a_capture())
        await rig.until(capture.ABSENT, Absence(id=CAPTURE, generation=gen(2)), Progress.ABSENT)
        await rig.until(domain.ABSENT, Absence(id=SERVER, generation=gen(9)), Progress.ABSENT)
        await rig.until(disk.ABSENT, Absence(id=DISK, generation=gen(9)), Progress.ABSENT)
        assert rig.images.disks.keys() == []
        assert rig.host.domains() == []

    simulated(main)
