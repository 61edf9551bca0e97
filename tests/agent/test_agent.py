"""One agent over fakes: commands in any order, restarts and crashes at every effect."""

import asyncio
import contextlib
from typing import Any

import pytest

from agent.wire import disk, domain, group, host, image, network, port
from agent.wire.domain import Desired, DomainStatus, Reboot, RebootKind
from agent.wire.errors import Busy, Conflict, Failed, NotFound, Silent, Stale, Unfit
from agent.wire.host import Heartbeat, Inventory, LedgerRequest
from agent.wire.lifecycle import Power, Progress
from agent.wire.specs import Absence, Empty
from tests.agent.rig import (
    DISK,
    GONE,
    NET,
    PORT,
    SERVER,
    WHOLE,
    Rig,
    a_disk,
    a_domain,
    a_network,
    a_port,
    an_image,
    assert_empty,
    assert_running,
    gen,
    simulated,
)


async def a_running_server() -> Rig:
    rig = Rig()
    rig.start()
    await rig.ready()
    for row, spec in WHOLE:
        assert (await rig.call(row, spec)).progress is Progress.READY
    assert_running(rig)
    return rig


def test_a_server_is_made_and_removed_without_a_trace() -> None:
    async def main() -> None:
        rig = await a_running_server()
        for row, absence in GONE:
            assert (await rig.call(row, absence)).progress is Progress.ABSENT
        assert_empty(rig)

    simulated(main)


@pytest.mark.parametrize("order", [list(reversed(WHOLE)), [WHOLE[i] for i in (3, 6, 0, 5, 2, 4, 1)]])
def test_commands_may_come_in_any_order(order: list[Any]) -> None:
    async def main() -> None:
        rig = Rig()
        rig.start()
        await rig.ready()
        await asyncio.gather(*(rig.call(row, spec) for row, spec in order))
        for row, spec in order:
            await rig.until(row, spec)
        assert_running(rig)
        assert (await rig.get(domain.GET, SERVER)).progress is Progress.READY

    simulated(main)


def test_removal_in_any_order_ends_the_same() -> None:
    async def main() -> None:
        rig = await a_running_server()
        await asyncio.gather(*(rig.call(row, absence) for row, absence in reversed(GONE)))
        for row, absence in GONE:
            await rig.until(row, absence, Progress.ABSENT)
        assert_empty(rig)

    simulated(main)


def test_a_repeated_command_does_nothing() -> None:
    async def main() -> None:
        rig = await a_running_server()
        applications = rig.net.filter_changes
        for row, spec in WHOLE:
            assert (await rig.call(row, spec)).progress is Progress.READY
        assert_running(rig)
        assert rig.net.filter_changes == applications

    simulated(main)


def test_older_and_contradicting_commands_are_refused() -> None:
    async def main() -> None:
        rig = await a_running_server()
        with pytest.raises(Conflict):
            await rig.call(domain.ENSURE, a_domain(vcpus=2))
        await rig.until(domain.ENSURE, a_domain(2))
        with pytest.raises(Stale):
            await rig.call(domain.ENSURE, a_domain(1))
        with pytest.raises(Stale):
            await rig.call(domain.ABSENT, Absence(id=SERVER, generation=gen(1)))
        with pytest.raises(Conflict):
            await rig.call(domain.ABSENT, Absence(id=SERVER, generation=gen(2)))
        assert_running(rig)

    simulated(main)


def test_a_late_ensure_does_not_revive_what_was_removed() -> None:
    async def main() -> None:
        rig = await a_running_server()
        for row, absence in GONE:
            await rig.call(row, absence)
        for row, spec in WHOLE:
            with pytest.raises(Stale):
                await rig.call(row, spec)
        assert_empty(rig)

    simulated(main)


def test_restart_of_the_agent_touches_no_guest() -> None:
    async def main() -> None:
        rig = await a_running_server()
        for _ in range(3):
            await rig.kill()
            rig.start()
            await rig.ready()
            assert_running(rig, boots=1)
            status = await rig.get(domain.GET, SERVER)
            assert (status.progress, status.power) == (Progress.READY, Power.RUNNING)

    simulated(main)


def test_a_guest_that_powered_itself_off_stays_off_and_is_told() -> None:
    async def main() -> None:
        rig = await a_running_server()
        rig.host.power_off_from_inside(SERVER)
        await asyncio.sleep(1)
        told = rig.bus.bodies("domain", DomainStatus)[-1]
        assert (told.power, told.progress) == (Power.SHUTOFF, Progress.READY)
        await rig.until(domain.ENSURE, a_domain())
        await rig.kill()
        rig.start()
        await rig.ready()
        assert rig.host.get(SERVER).boots == 1
        assert (await rig.get(domain.GET, SERVER)).power is Power.SHUTOFF
        await rig.until(domain.ENSURE, a_domain(2))
        assert_running(rig, boots=2)

    simulated(main)


def test_a_lost_power_event_is_found_by_the_patrol() -> None:
    async def main() -> None:
        rig = await a_running_server()
        rig.host.disconnect_all()
        rig.host.crash(SERVER)
        await asyncio.sleep(40)
        assert rig.bus.bodies("domain", DomainStatus)[-1].power is Power.CRASHED

    simulated(main)


def test_after_a_boot_no_guest_starts_before_the_controller_asks() -> None:
    async def main() -> None:
        rig = await a_running_server()
        rig.host.fail_next("start", Failed("no"))
        await rig.call(domain.ENSURE, a_domain(2, Desired.SHUTOFF))
        rig.host.fail_next("start", Failed("not now"))
        await rig.call(domain.ENSURE, a_domain(3))
        await rig.kill()
        rig.host.power_failure()
        rig.net.taps.remove(PORT)
        rig.probe.now = type(rig.probe.now)(**{**_fields(rig.probe.now), "boot_id": "boot-2"})
        for _ in range(2):  # Also not at the second start after that boot.
            rig.start()
            await rig.ready()
            await asyncio.sleep(100)
            assert rig.host.get(SERVER).power is Power.SHUTOFF
            assert rig.net.taps.keys() == [PORT]
            await rig.kill()
        rig.start()
        await rig.ready()
        await rig.until(domain.ENSURE, a_domain(3))
        assert rig.host.get(SERVER).power is Power.RUNNING

    simulated(main)


def test_stop_presses_the_button_then_pulls_the_plug() -> None:
    async def main() -> None:
        rig = await a_running_server()
        rig.host.obeys_power_button = False
        status = await rig.call(domain.ENSURE, a_domain(2, Desired.SHUTOFF))
        assert (status.progress, status.power) == (Progress.PENDING, Power.RUNNING)
        await asyncio.sleep(50)
        assert rig.host.get(SERVER).power is Power.RUNNING
        await asyncio.sleep(15)
        status = await rig.get(domain.GET, SERVER)
        assert (status.progress, status.power) == (Progress.READY, Power.SHUTOFF)

    simulated(main)


def test_a_removal_does_not_wait_for_a_stop_under_way() -> None:
    async def main() -> None:
        rig = await a_running_server()
        rig.host.obeys_power_button = False
        await rig.call(domain.ENSURE, a_domain(2, Desired.SHUTOFF))
        for row, absence in GONE:
            assert (await rig.call(row, absence)).progress is Progress.ABSENT
        assert_empty(rig)

    simulated(main)


@pytest.mark.parametrize("obeys", [True, False])
def test_a_reboot_is_done_once_by_its_operation_id(obeys: bool) -> None:
    async def main() -> None:
        rig = await a_running_server()
        rig.host.obeys_power_button = obeys
        act = Reboot(id=SERVER, operation_id="op-1", kind=RebootKind.SOFT, grace_s=30.0)
        first = await rig.call(domain.REBOOT, act)
        assert first.progress is (Progress.READY if obeys else Progress.PENDING)
        for _ in range(3):
            again = await rig.until(domain.REBOOT, act)
            assert (again.progress, again.power) == (Progress.READY, Power.RUNNING)
        assert_running(rig, boots=2)
        await rig.kill()
        rig.start()
        await rig.ready()
        assert (await rig.call(domain.REBOOT, act)).progress is Progress.READY
        assert_running(rig, boots=2)

    simulated(main)


@pytest.mark.parametrize("verb", ["start", "plug_nics"])
def test_a_reboot_that_met_a_busy_driver_goes_on_where_it_was(verb: str) -> None:
    async def main() -> None:
        rig = await a_running_server()
        rig.host.fail_next(verb, Busy("not now"), is_after_effect=True)
        act = Reboot(id=SERVER, operation_id="op-1", kind=RebootKind.HARD)
        assert (await rig.call(domain.REBOOT, act)).progress is not Progress.FAILED
        assert (await rig.until(domain.REBOOT, act)).progress is Progress.READY
        assert_running(rig, boots=2)

    simulated(main)


def test_a_reboot_that_a_newer_definition_interrupts_while_the_guest_is_off_boots_it_once() -> None:
    async def main() -> None:
        rig = await a_running_server()
        rig.host.fail_next("start", Busy("not now"))
        act = Reboot(id=SERVER, operation_id="op-1", kind=RebootKind.HARD)
        assert (await rig.call(domain.REBOOT, act)).progress is Progress.PENDING
        await rig.until(domain.ENSURE, a_domain(2))
        assert (await rig.until(domain.REBOOT, act)).progress is Progress.READY
        assert_running(rig, boots=2)

    simulated(main)


def test_a_reboot_that_could_not_be_done_in_time_is_not_done_later() -> None:
    async def main() -> None:
        rig = await a_running_server()
        rig.host.fail_next("define", Unfit("no such machine"))
        await rig.call(domain.ENSURE, a_domain(2))
        act = Reboot(id=SERVER, operation_id="op-1", kind=RebootKind.HARD, grace_s=30.0)
        for _ in range(20):  # Each try meets it again.
            rig.host.fail_next("define", Unfit("no such machine"))
            await rig.call(domain.REBOOT, act)
            await asyncio.sleep(10)
        rig.host._failures.clear()
        await rig.until(domain.ENSURE, a_domain(3))
        assert_running(rig, boots=1)
        assert (await rig.call(domain.REBOOT, act)).fault.message.endswith("could not be rebooted in time")

    simulated(main)


def test_a_guest_is_not_left_off_by_a_crash_in_a_reboot() -> None:
    async def main() -> None:
        for die_at in range(1, 12):
            rig = await a_running_server()
            await rig.kill()
            effects = rig.start()
            await rig.ready()
            effects.die_at = effects.count + die_at
            act = Reboot(id=SERVER, operation_id="op-1", kind=RebootKind.HARD)
            with contextlib.suppress(Silent):
                await rig.call(domain.REBOOT, act)
            await rig.kill()
            rig.start()
            await rig.ready()
            assert (await rig.until(domain.REBOOT, act)).power is Power.RUNNING
            assert rig.host.get(SERVER).boots in (1, 2)

    simulated(main)


def test_crash_at_every_effect_of_making_converges_and_boots_once() -> None:
    async def main(die_at: int, is_after: bool) -> bool:
        rig = Rig()
        effects = rig.start(die_at, is_after=is_after)
        work = asyncio.gather(*(rig.until(row, spec) for row, spec in WHOLE))
        while effects.life.alive and not work.done():
            await asyncio.sleep(0.5)
        if effects.life.alive:
            return False
        rig.start()
        await work
        assert_running(rig)
        return True

    _exhaust(main)


def test_crash_at_every_effect_of_removing_leaves_nothing() -> None:
    async def main(die_at: int, is_after: bool) -> bool:
        rig = await a_running_server()
        await rig.kill()
        effects = rig.start()
        await rig.ready()
        effects.die_at, effects.is_after = effects.count + die_at, is_after
        work = asyncio.gather(*(rig.until(row, absence, Progress.ABSENT) for row, absence in GONE))
        while effects.life.alive and not work.done():
            await asyncio.sleep(0.5)
        if effects.life.alive:
            return False
        rig.start()
        await work
        assert_empty(rig)
        return True

    _exhaust(main)


def _exhaust(main: Any) -> None:
    for is_after in (False, True):
        die_at = 1
        while simulated(lambda: main(die_at, is_after)):  # noqa: B023
            die_at += 1
        assert die_at > 15, "the effects were not counted"


def test_a_failed_driver_is_told_and_tried_again() -> None:
    async def main() -> None:
        rig = Rig()
        rig.start()
        await rig.ready()
        rig.host.fail_next("start", Failed("no memory"))
        for row, spec in WHOLE[:-1]:
            await rig.call(row, spec)
        status = await rig.call(domain.ENSURE, a_domain())
        assert status.progress is Progress.FAILED and status.fault.message == "no memory"
        await asyncio.sleep(3)
        assert (await rig.get(domain.GET, SERVER)).progress is Progress.READY
        assert [s.progress for s in rig.bus.bodies("domain", DomainStatus)] == [Progress.FAILED, Progress.READY]

    simulated(main)


def test_what_this_host_can_never_do_is_not_tried_again() -> None:
    async def main() -> None:
        rig = Rig()
        rig.start()
        await rig.ready()
        rig.host.fail_next("define", Unfit("no such machine"))
        for row, spec in WHOLE:
            status = await rig.call(row, spec)
        assert status.fault.code == "unfit"
        await asyncio.sleep(300)
        assert rig.host.domains() == []
        assert (await rig.call(domain.ENSURE, a_domain())).progress is Progress.READY

    simulated(main)


def test_a_disk_that_vanished_is_not_made_anew() -> None:
    async def main() -> None:
        rig = await a_running_server()
        await rig.kill()
        rig.images.disks.remove(DISK)
        rig.start()
        await rig.ready()
        status = await rig.get(disk.GET, DISK)
        assert status.progress is Progress.FAILED and "not made anew" in status.fault.message
        status = await rig.call(disk.ENSURE, a_disk(2, size_gib=2))
        assert status.progress is Progress.FAILED

    simulated(main)


def test_a_disk_that_should_have_stayed_is_not_made_anew_by_who_forgot_it() -> None:
    async def main() -> None:
        rig = Rig()
        rig.start()
        await rig.ready()
        assert (await rig.call(image.ENSURE, an_image())).progress is Progress.READY
        status = await rig.call(disk.ENSURE, a_disk(2, is_kept=True))
        assert status.progress is Progress.FAILED and "not made anew" in status.fault.message
        assert rig.images.disks.get(DISK) is None
        assert (await rig.call(disk.ENSURE, a_disk(3))).progress is Progress.READY
        assert (await rig.call(disk.ENSURE, a_disk(4, is_kept=True))).progress is Progress.READY

    simulated(main)


def test_an_image_is_fetched_again_with_a_new_ticket_under_the_same_generation() -> None:
    async def main() -> None:
        rig = Rig()
        rig.images.fail_next("cache.fetch", Failed("the ticket is spent"))
        rig.start()
        await rig.ready()
        assert (await rig.call(image.ENSURE, an_image())).progress is Progress.FAILED
        assert (await rig.call(image.ENSURE, an_image(ticket="t2"))).progress is Progress.READY
        with pytest.raises(Conflict):
            await rig.call(image.ENSURE, an_image(sha256="cd" * 32))

    simulated(main)


def test_amnesia_removes_nothing_and_keeps_filters_until_seeded() -> None:
    async def main() -> None:
        rig = await a_running_server()
        before = rig.net.filter
        await rig.kill()
        rig.database = Rig().database
        rig.start()
        await rig.ready()
        with pytest.raises(NotFound):
            await rig.get(port.GET, PORT)
        listed = (await rig.call(domain.LIST, Empty())).domains
        assert [(one.id, one.power) for one in listed] == [(SERVER, Power.RUNNING)]
        other = a_port(id="99999999-9999-4999-8999-999999999999", groups=())
        await rig.call(network.ENSURE, a_network())
        assert (await rig.call(port.ENSURE, other)).fault.code == "busy"
        assert rig.net.filter is before
        for row, spec in reversed(WHOLE):
            await rig.call(row, spec)
        for row, spec in WHOLE:
            await rig.until(row, spec)
        await rig.until(port.ENSURE, other)
        assert rig.host.get(SERVER).boots == 1 and rig.net.exposed == set()
        assert len(rig.net.filter.ports) == 2

    simulated(main)


def test_a_link_that_somebody_removed_is_made_anew() -> None:
    async def main() -> None:
        rig = await a_running_server()
        rig.net.taps.remove(PORT)
        rig.net.leases.clear()
        await asyncio.sleep(40)
        assert_running(rig)

    simulated(main)


def test_the_host_tells_what_it_is_and_that_it_lives() -> None:
    async def main() -> None:
        rig = await a_running_server()
        await asyncio.sleep(60)
        started = rig.bus.bodies("started", Inventory)
        assert len(started) == 1 and started[0].hostname == "host1"
        beats = rig.bus.bodies("heartbeat", Heartbeat)
        assert 5 <= len(beats) <= 8 and beats[-1].running_domains == 1
        page = await rig.call(host.LEDGER, LedgerRequest())
        assert host.digest(page.entries) == beats[-1].digest and len(page.entries) == 7
        assert (await rig.call(host.INVENTORY, Empty())).ledger_high_water == gen(1)
        findings = (await rig.call(host.DOCTOR, Empty())).findings
        assert [one.name for one in findings if not one.ok] == []
        sequences = [envelope.sequence for _, envelope in rig.bus.events]
        assert sequences == list(range(1, len(sequences) + 1))

    simulated(main)


def test_a_group_outlives_the_ports_that_have_it() -> None:
    async def main() -> None:
        rig = await a_running_server()
        status = await rig.call(group.ABSENT, Absence(id=GONE[5][1].id, generation=gen(9)))
        assert status.progress is Progress.FAILED
        assert rig.net.filter is not None and rig.net.filter.groups
        await rig.call(port.ENSURE, a_port(2, groups=()))
        await asyncio.sleep(1)
        assert rig.net.filter.groups == {}

    simulated(main)


def test_uids_are_handed_out_in_turn_and_given_back() -> None:
    async def main() -> None:
        rig = await a_running_server()
        first = rig.host.get(SERVER).machine.uid
        assert rig.images.disks.get(DISK).uid == first
        for row, absence in GONE:
            await rig.call(row, absence)
        for row, spec in WHOLE:
            await rig.call(row, type(spec)(**{**_fields(spec), "generation": gen(20)}))
        assert rig.host.get(SERVER).machine.uid == first + 1
        assert rig.net.networks.keys() == [NET]

    simulated(main)


def _fields(struct: Any) -> dict[str, Any]:
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


def test_what_is_still_used_stays_and_says_by_what() -> None:
    async def main() -> None:
        rig = await a_running_server()
        for row, absence in reversed(GONE[1:]):
            if row.noun in ("disk", "image", "group", "network"):
                status = await rig.call(row, absence)
                assert status.progress is Progress.FAILED and "still" in status.fault.message, row
        assert_running(rig)
        await rig.call(*GONE[0])
        await asyncio.sleep(1)  # Woken by what goes, not by a timer.
        assert rig.images.disks.keys() == []
        assert rig.images.images.keys() == []
        assert rig.net.taps.keys() == [PORT] and rig.net.filter is not None

    simulated(main)


def test_what_waits_is_woken_by_what_it_waits_for() -> None:
    async def main() -> None:
        rig = Rig()
        rig.start()
        await rig.ready()
        for row, spec in reversed(WHOLE):
            await rig.call(row, spec)
        await asyncio.sleep(1)
        assert_running(rig)

    simulated(main)


def test_a_port_that_goes_takes_its_filter_and_lease_with_it() -> None:
    async def main() -> None:
        rig = await a_running_server()
        other = a_port(id="99999999-9999-4999-8999-999999999999", mac="fa:16:3e:00:00:77", fixed_ips=())
        await rig.call(port.ENSURE, other)
        assert rig.net.filter is not None and len(rig.net.filter.ports) == 2
        await rig.call(port.ABSENT, Absence(id=other.id, generation=gen(2)))
        assert_running(rig)
        assert [one.id for one in rig.net.filter.ports] == [PORT]

    simulated(main)


def test_a_uid_is_kept_while_anything_belongs_to_it() -> None:
    async def main() -> None:
        rig = await a_running_server()
        uid = rig.host.get(SERVER).machine.uid
        await rig.call(*GONE[0])
        again = a_domain(10)
        await rig.call(domain.ENSURE, again)
        assert rig.host.get(SERVER).machine.uid == uid == rig.images.disks.get(DISK).uid

    simulated(main)
