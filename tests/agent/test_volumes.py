"""Volumes, snapshots and exports on one host, and guests that get and lose them: real agent, fake drivers."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest

from agent.wire import domain, image, volume
from agent.wire.domain import Desired, DomainDisk, DomainSpec
from agent.wire.errors import Failed, FaultCode, Unfit, WireError
from agent.wire.host import INVENTORY
from agent.wire.lifecycle import Power, Progress
from agent.wire.specs import Absence, Call, Empty
from agent.wire.volume import (
    Chap,
    ExportSpec,
    IscsiSource,
    SnapshotSpec,
    SourceKind,
    VolumeSource,
    VolumeSpec,
    initiator_iqn,
)
from tests.agent.rig import DISK, GONE, IMAGE, SERVER, TAG, WHOLE, Rig, a_domain, an_image, assert_empty, gen, simulated

A = "aaaaaaaa-0000-4000-8000-000000000001"
B = "bbbbbbbb-0000-4000-8000-000000000002"
SNAP = "cccccccc-0000-4000-8000-000000000003"
AT = "dddddddd-0000-4000-8000-000000000004"
ME, OTHER = initiator_iqn(TAG, "h1"), initiator_iqn(TAG, "h2")
CHAP = Chap(user=AT, secret="5" * 32)
GIB = 1 << 30


def a_volume(n: int = 1, **changes: Any) -> VolumeSpec:
    return msgspec.structs.replace(VolumeSpec(id=A, generation=gen(n), size_gib=1), **changes)


def a_snapshot(n: int = 1) -> SnapshotSpec:
    return SnapshotSpec(id=SNAP, generation=gen(n), volume_id=A)


def an_export(n: int = 1, **changes: Any) -> ExportSpec:
    spec = ExportSpec(id=AT, generation=gen(n), volume_id=A, initiators=(ME,), chap=CHAP)
    return msgspec.structs.replace(spec, **changes)


def source(size_gib: int = 1) -> IscsiSource:
    return IscsiSource(
        volume_id=A,
        host="198.18.0.11",
        port=3260,
        iqn=volume.target_iqn(TAG, AT),
        lun=1,
        initiator=ME,
        chap=CHAP,
        size_gib=size_gib,
    )


def with_volume(n: int, size_gib: int = 1, desired: Desired = Desired.RUNNING) -> DomainSpec:
    plugged = DomainDisk(disk_id=AT, iscsi=source(size_gib), device="vdb")
    return a_domain(n, desired, disks=(DomainDisk(disk_id=DISK, boot_index=1), plugged))


KEPT: tuple[tuple[Call[Any, Any], Any], ...] = (
    (volume.ENSURE, a_volume()),
    (volume.SNAPSHOT_ENSURE, a_snapshot()),
    (volume.ENSURE, a_volume(id=B, source=VolumeSource(kind=SourceKind.SNAPSHOT, id=SNAP))),
    (volume.EXPORT_ENSURE, an_export()),
)

FREED: tuple[tuple[Call[Any, Any], Absence], ...] = (
    (volume.EXPORT_ABSENT, Absence(id=AT, generation=gen(9))),
    (volume.ABSENT, Absence(id=B, generation=gen(9))),
    (volume.SNAPSHOT_ABSENT, Absence(id=SNAP, generation=gen(9))),
    (volume.ABSENT, Absence(id=A, generation=gen(9))),
)


def assert_freed(rig: Rig) -> None:
    storage = rig.storage
    assert not (storage.volumes.keys() or storage.snapshots.keys() or storage.targets.keys() or storage.torn)


async def begun() -> Rig:
    rig = Rig()
    rig.host.login = rig.storage.login
    rig.start()
    await rig.ready()
    return rig


def run(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(5000):
            return await main()

    return simulated(bounded)


def test_a_volume_is_made_exported_and_removed_without_a_trace() -> None:
    async def main() -> None:
        rig = await begun()
        for row, spec in KEPT:
            status = await rig.until(row, spec)
        assert (status.host, status.port, status.iqn, status.lun) == ("198.18.0.11", 3260, source().iqn, 1)
        assert (status.volume_id, status.size_gib) == (A, 1)
        rig.storage.write(source(), "kept")
        for row, absence in FREED:
            await rig.until(row, absence, Progress.ABSENT)
        assert_freed(rig)

    run(main)


@pytest.mark.parametrize("order", [KEPT, KEPT[::-1]], ids=["forwards", "backwards"])
def test_commands_and_removals_may_come_in_any_order(order: Any) -> None:
    async def main() -> None:
        rig = await begun()
        for row, spec in order:
            await rig.call(row, spec)
        for row, spec in KEPT:
            await rig.until(row, spec)
        for row, absence in reversed(FREED):
            await rig.call(row, absence)
        for row, absence in FREED:
            await rig.until(row, absence, Progress.ABSENT)
        assert_freed(rig)

    run(main)


def test_a_volume_begins_as_its_image_and_keeps_the_image_until_then() -> None:
    async def main() -> None:
        rig = await begun()
        await rig.call(volume.ENSURE, a_volume(source=VolumeSource(kind=SourceKind.IMAGE, id=IMAGE)))
        assert rig.storage.volumes.keys() == []
        await rig.until(image.ENSURE, an_image())
        await rig.until(volume.ENSURE, a_volume(source=VolumeSource(kind=SourceKind.IMAGE, id=IMAGE)))
        assert rig.storage.content(A) == f"image {IMAGE}"
        await rig.until(image.ABSENT, Absence(id=IMAGE, generation=gen(9)), Progress.ABSENT)

    run(main)


def test_what_is_exported_or_copied_stays_and_says_by_what() -> None:
    async def main() -> None:
        rig = await begun()
        await rig.until(volume.ENSURE, a_volume())
        await rig.until(volume.EXPORT_ENSURE, an_export())
        status = await rig.call(volume.ABSENT, Absence(id=A, generation=gen(2)))
        assert status.progress is Progress.FAILED and AT in status.fault.message
        assert rig.storage.volumes.keys() == [A]
        await rig.until(volume.EXPORT_ABSENT, Absence(id=AT, generation=gen(2)), Progress.ABSENT)
        await rig.until(volume.ABSENT, Absence(id=A, generation=gen(2)), Progress.ABSENT)

    run(main)


def test_a_volume_that_vanished_is_not_made_anew() -> None:
    async def main() -> None:
        rig = await begun()
        await rig.until(volume.ENSURE, a_volume())
        await rig.until(volume.SNAPSHOT_ENSURE, a_snapshot())
        rig.storage.volumes.remove(A)
        rig.storage.snapshots.remove(SNAP)
        await rig.kill()
        rig.start()
        await rig.ready()
        for row, name in ((volume.GET, A), (volume.SNAPSHOT_GET, SNAP)):
            status = await rig.get(row, name)
            assert status.progress is Progress.FAILED and "was on this host and is gone" in status.fault.message
        assert not (rig.storage.volumes.keys() or rig.storage.snapshots.keys())

    run(main)


def test_a_snapshot_is_taken_once_whatever_is_written_later() -> None:
    async def main() -> None:
        rig = await begun()
        for row, spec in (KEPT[0], KEPT[3]):
            await rig.until(row, spec)
        rig.storage.write(source(), "then")
        await rig.until(volume.SNAPSHOT_ENSURE, a_snapshot())
        rig.storage.write(source(), "now")
        await rig.until(volume.SNAPSHOT_ENSURE, a_snapshot(2))
        assert rig.storage.content(SNAP) == "then"

    run(main)


@pytest.mark.parametrize("kind", ["snapshot", "clone"])
@pytest.mark.parametrize("is_broken", [False, True])
def test_nobody_writes_while_a_volume_is_copied_and_its_exports_come_back(kind: str, is_broken: bool) -> None:
    async def main() -> None:
        rig = await begun()
        for row, spec in (KEPT[0], KEPT[3]):
            await rig.until(row, spec)
        rig.storage.write(source(), "in use")
        verb = "volumes.ensure_snapshot" if kind == "snapshot" else "volumes.ensure"
        if is_broken:
            rig.storage.fail_next(verb, Failed("no room"))
        clone = a_volume(id=B, source=VolumeSource(kind=SourceKind.VOLUME, id=A))
        row, spec = (volume.SNAPSHOT_ENSURE, a_snapshot()) if kind == "snapshot" else (volume.ENSURE, clone)
        if is_broken:
            assert (await rig.call(row, spec)).progress is Progress.FAILED
            assert rig.storage.read(source()) == "in use"
        await rig.until(row, spec)
        assert rig.storage.content(SNAP if kind == "snapshot" else B) == "in use"
        assert rig.storage.torn == []
        assert rig.storage.read(source()) == "in use"

    run(main)


def test_a_pool_that_copies_at_once_disturbs_nobody() -> None:
    async def main() -> None:
        rig = await begun()
        rig.storage.is_instant = True
        for row, spec in (KEPT[0], KEPT[3], KEPT[1]):
            await rig.until(row, spec)
        assert rig.storage.targets.values()[0].makings == 1

    run(main)


def test_an_export_revoked_during_a_copy_does_not_come_back() -> None:
    async def main() -> None:
        rig = await begun()
        for row, spec in (KEPT[0], KEPT[3]):
            await rig.until(row, spec)
        copying = asyncio.create_task(rig.until(volume.SNAPSHOT_ENSURE, a_snapshot()))
        await asyncio.sleep(0)
        await rig.until(volume.EXPORT_ABSENT, Absence(id=AT, generation=gen(2)), Progress.ABSENT)
        await copying
        await asyncio.sleep(60)
        assert rig.storage.targets.keys() == [] and rig.storage.torn == []

    run(main)


def test_nobody_writes_to_a_copy_through_an_export_that_is_on_its_way_out() -> None:
    async def main() -> None:
        rig = await begun()
        for row, spec in (KEPT[0], KEPT[3]):
            await rig.until(row, spec)
        rig.storage.fail_next("exporter.absent", Failed("the target is busy"))
        await rig.call(volume.EXPORT_ABSENT, Absence(id=AT, generation=gen(2)))
        assert rig.storage.targets.keys() != [], "it is revoked, and still there"
        await rig.until(volume.SNAPSHOT_ENSURE, a_snapshot())
        assert rig.storage.torn == []
        await rig.until(volume.EXPORT_ABSENT, Absence(id=AT, generation=gen(2)), Progress.ABSENT)
        assert rig.storage.targets.keys() == []

    run(main)


def test_a_dead_daemon_is_noticed_at_once_and_a_restart_finds_its_exports() -> None:
    async def main() -> None:
        rig = await begun()
        for row, spec in KEPT:
            await rig.until(row, spec)
        rig.storage.kill_daemon()
        await asyncio.sleep(0.5)
        assert [one.export.id for one in rig.storage.targets.values()] == [AT]
        await rig.kill()
        rig.start()
        await rig.ready()
        await rig.until(volume.EXPORT_ENSURE, an_export())
        assert rig.storage.targets.values()[0].makings == 1
        rig.storage._listeners.clear()
        rig.storage.kill_daemon()
        await asyncio.sleep(40)
        assert [one.export.id for one in rig.storage.targets.values()] == [AT]

    run(main)


def test_what_was_exported_once_is_exported_again_however_often_that_is_refused() -> None:
    async def main() -> None:
        rig = await begun()
        for row, spec in KEPT:
            await rig.until(row, spec)
        for _ in range(3):
            rig.storage.fail_next("exporter.ensure", Unfit("not now"))
        rig.storage.kill_daemon()
        await asyncio.sleep(120)
        assert [one.export.id for one in rig.storage.targets.values()] == [AT]

    run(main)


def test_a_host_that_was_booted_exports_again() -> None:
    async def main() -> None:
        rig = await begun()
        for row, spec in KEPT:
            await rig.until(row, spec)
        await rig.kill()
        rig.storage.power_failure()
        rig.start()
        await rig.ready()
        assert [one.export.id for one in rig.storage.targets.values()] == [AT]

    run(main)


def test_growing_reaches_the_export_before_it_is_told() -> None:
    async def main() -> None:
        rig = await begun()
        for row, spec in (KEPT[0], KEPT[3]):
            await rig.until(row, spec)
        status = await rig.until(volume.ENSURE, a_volume(2, size_gib=3))
        assert status.size_gib == 3
        assert rig.storage.login(source()).export.size_bytes == 3 * GIB
        assert (await rig.until(volume.EXPORT_ENSURE, an_export())).size_gib == 3

    run(main)


def test_pools_are_told() -> None:
    async def main() -> None:
        rig = await begun()
        (pool,) = (await rig.call(INVENTORY, Empty())).pools
        assert (pool.name, pool.total_gib, pool.provisioned_gib) == ("files", 1000, 0)

    run(main)


async def with_a_server(rig: Rig) -> None:
    for row, spec in (*WHOLE, KEPT[0], KEPT[3]):
        await rig.until(row, spec)


def test_a_running_guest_gets_and_loses_a_volume_without_being_touched() -> None:
    async def main() -> None:
        rig = await begun()
        await with_a_server(rig)
        await rig.until(domain.ENSURE, with_volume(2))
        found = rig.host.get(SERVER)
        assert [(one.disk_id, one.device, one.serial) for one in found.volumes] == [(AT, "vdb", A)]
        assert rig.storage.targets.values()[0].sessions == (ME,)
        await rig.until(domain.ENSURE, a_domain(3))
        found = rig.host.get(SERVER)
        assert (found.volumes, found.boots, found.power) == ((), 1, Power.RUNNING)

    run(main)


def test_a_guest_that_is_off_has_its_volume_when_it_starts() -> None:
    async def main() -> None:
        rig = await begun()
        await with_a_server(rig)
        await rig.until(domain.ENSURE, a_domain(2, Desired.SHUTOFF))
        await rig.until(domain.ENSURE, with_volume(3, desired=Desired.SHUTOFF))
        assert rig.host.get(SERVER).boots == 1
        await rig.until(domain.ENSURE, with_volume(4))
        assert [one.disk_id for one in rig.host.get(SERVER).volumes] == [AT]

    run(main)


def test_a_guest_that_holds_on_is_told_and_asked_again_until_the_disk_is_wanted_back() -> None:
    async def main() -> None:
        rig = await begun()
        await with_a_server(rig)
        await rig.until(domain.ENSURE, with_volume(2))
        rig.host.hold_disks(SERVER, True)
        status = await rig.until(domain.ENSURE, a_domain(3), Progress.FAILED)
        assert status.fault.code is FaultCode.BUSY and "vdb" in status.fault.message
        await rig.until(domain.ENSURE, with_volume(4))
        assert [one.disk_id for one in rig.host.get(SERVER).volumes] == [AT]
        await rig.until(domain.ENSURE, a_domain(5), Progress.FAILED)
        rig.host.hold_disks(SERVER, False)
        await rig.until(domain.ENSURE, a_domain(5))
        assert rig.host.get(SERVER).volumes == ()

    run(main)


def test_a_volume_that_cannot_be_reached_fails_and_says_so_without_its_secret() -> None:
    async def main() -> None:
        rig = await begun()
        for row, spec in WHOLE:
            await rig.until(row, spec)
        status = await rig.until(domain.ENSURE, with_volume(2), Progress.FAILED)
        assert "target not found" in status.fault.message
        assert CHAP.secret not in status.fault.message and CHAP.secret not in repr(with_volume(2))
        await rig.until(volume.ENSURE, a_volume())
        await rig.until(volume.EXPORT_ENSURE, an_export(initiators=(OTHER,)))
        assert (await rig.get(domain.GET, SERVER)).progress is Progress.FAILED
        await rig.until(volume.EXPORT_ENSURE, an_export(2))
        await rig.until(domain.ENSURE, with_volume(2))

    run(main)


def test_a_volume_without_a_device_is_refused() -> None:
    async def main() -> None:
        rig = await begun()
        await with_a_server(rig)
        nameless = a_domain(2, disks=(DomainDisk(disk_id=DISK), DomainDisk(disk_id=AT, iscsi=source())))
        status = await rig.until(domain.ENSURE, nameless, Progress.FAILED)
        assert status.fault.code is FaultCode.INVALID

    run(main)


def sweep(main: Callable[[int, bool], Coroutine[Any, Any, bool]], least: int) -> None:
    """`main` dies at each effect, before and after it; it says whether it died."""
    for is_after in (False, True):
        die_at = 1
        while simulated(lambda: main(die_at, is_after)):  # noqa: B023
            die_at += 1
        assert die_at > least, "the effects were not counted"


async def resumed(rig: Rig) -> bool:
    """Whether the agent died; then another one is there."""
    if rig.life.alive:
        return False
    rig.start()
    await rig.ready()
    return True


def test_crash_at_every_effect_of_keeping_and_exporting_converges() -> None:
    async def main(die_at: int, is_after: bool) -> bool:
        rig = Rig()
        rig.start(die_at, is_after=is_after)
        died = False
        for row, spec in KEPT:
            while True:
                try:
                    async with asyncio.timeout(5):
                        await rig.ready()
                        await rig.until(row, spec)
                        break
                except TimeoutError:
                    died = await resumed(rig) or died
        died = await resumed(rig) or died
        await asyncio.sleep(60)
        assert rig.storage.volumes.keys() == [A, B] and rig.storage.snapshots.keys() == [SNAP]
        assert rig.storage.read(source()) == "" and rig.storage.torn == []
        return died

    sweep(main, 8)


def test_crash_at_every_effect_of_a_copy_under_use_leaves_it_exported() -> None:
    async def main(die_at: int, is_after: bool) -> bool:
        rig = await begun()
        for row, spec in (KEPT[0], KEPT[3]):
            await rig.until(row, spec)
        rig.storage.write(source(), "in use")
        effects = rig.effects
        effects.die_at, effects.is_after = effects.count + die_at, is_after
        died = False
        while True:
            try:
                async with asyncio.timeout(5):
                    await rig.until(volume.SNAPSHOT_ENSURE, a_snapshot())
                    break
            except TimeoutError:
                died = await resumed(rig) or died
        died = await resumed(rig) or died
        await asyncio.sleep(60)
        assert rig.storage.content(SNAP) == "in use" and rig.storage.torn == []
        assert rig.storage.read(source()) == "in use"
        return died

    sweep(main, 4)


def test_crash_at_every_effect_of_freeing_leaves_nothing() -> None:
    async def main(die_at: int, is_after: bool) -> bool:
        rig = await begun()
        for row, spec in (*WHOLE, *KEPT, (domain.ENSURE, with_volume(2))):
            await rig.until(row, spec)
        effects = rig.effects
        effects.die_at, effects.is_after = effects.count + die_at, is_after
        died = False
        for row, absence in (*GONE, *FREED):
            while True:
                try:
                    async with asyncio.timeout(5):
                        await rig.until(row, absence, Progress.ABSENT)
                        break
                except TimeoutError:
                    died = await resumed(rig) or died
        died = await resumed(rig) or died
        await asyncio.sleep(60)
        assert_empty(rig)
        assert_freed(rig)
        return died

    sweep(main, 20)


def test_a_foreign_word_in_an_account_is_refused_without_the_secret() -> None:
    async def main() -> None:
        rig = await begun()
        await rig.until(volume.ENSURE, a_volume())
        bad = an_export(chap=Chap(user="a,b", secret=CHAP.secret))
        try:
            status = await rig.until(volume.EXPORT_ENSURE, bad, Progress.FAILED)
            assert status.fault.code is FaultCode.INVALID and CHAP.secret not in status.fault.message
        except WireError as error:
            assert CHAP.secret not in str(error)

    run(main)


@pytest.mark.parametrize("verb", ["plug", "unplug", "grow"])
def test_crash_at_every_effect_of_plugging_converges_and_touches_no_guest(verb: str) -> None:
    before, asked = {
        "plug": (a_domain(2), with_volume(3)),
        "unplug": (with_volume(2), a_domain(3)),
        "grow": (with_volume(2), with_volume(3, 2)),
    }[verb]

    async def main(die_at: int, is_after: bool) -> bool:
        rig = await begun()
        await with_a_server(rig)
        await rig.until(domain.ENSURE, before)
        if verb == "grow":
            await rig.until(volume.ENSURE, a_volume(2, size_gib=2))
        effects = rig.effects
        effects.die_at, effects.is_after = effects.count + die_at, is_after
        died = False
        while True:
            try:
                async with asyncio.timeout(5):
                    await rig.until(domain.ENSURE, asked)
                    break
            except TimeoutError:
                died = await resumed(rig) or died
        died = await resumed(rig) or died
        found = rig.host.get(SERVER)
        has = [(one.disk_id, one.iscsi.size_gib) for one in found.volumes if one.iscsi is not None]
        assert has == {"plug": [(AT, 1)], "unplug": [], "grow": [(AT, 2)]}[verb]
        assert (found.boots, found.power) == (1, Power.RUNNING)
        return died

    sweep(main, 3)
