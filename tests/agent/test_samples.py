"""What a host answers to a collector: true, bounded, and never less than before."""

import asyncio
from pathlib import Path

from agent import sampler
from agent.totals import Total, Totals
from agent.wire import domain
from agent.wire.domain import Desired
from agent.wire.errors import Busy, WireError
from agent.wire.samples import GET, DomainSample, SamplesPage, SamplesRequest
from agent.wire.specs import MESSAGE_BYTES_MAX, encode
from drivers.network import names
from telemetry.meters import CATALOGUE
from tests.agent.rig import GONE, PORT, SERVER, WHOLE, Rig, a_domain, simulated

LABELS = {"project_id": "p1", "user_id": "u1"}


async def a_labelled_server(rig: Rig) -> None:
    rig.start()
    await rig.ready()
    for row, spec in WHOLE[:-1]:
        await rig.call(row, spec)
    await rig.until(domain.ENSURE, a_domain(labels=LABELS))


async def ask(rig: Rig) -> DomainSample:
    """The one guest's samples, measured anew."""
    await asyncio.sleep(sampler.FRESH_S + 0.1)
    page = await rig.call(GET, SamplesRequest())
    (found,) = page.domains
    return found


def test_a_guest_is_metered_by_ceilometers_names() -> None:
    async def main() -> None:
        rig = Rig()
        await a_labelled_server(rig)
        before = await ask(rig)
        rig.host.work(SERVER, 3000)
        after = await ask(rig)
        assert after.labels == LABELS and after.id == SERVER and after.at > before.at
        assert after.volumes["cpu"] - before.volumes["cpu"] == 3_000_000_000
        assert after.volumes["memory"] == 128 and after.volumes["memory.usage"] == 64
        devices = {one.device: one for one in after.devices}
        assert devices.keys() == {"vda", names.tap(PORT)}
        assert devices[names.tap(PORT)].resource_id == PORT
        assert devices["vda"].volumes["disk.device.read.bytes"] == 4000 << 10
        assert devices[names.tap(PORT)].volumes["network.outgoing.packets"] == 1000
        told = after.volumes.keys() | {name for one in after.devices for name in one.volumes}
        assert told == {meter.name for meter in CATALOGUE}

    simulated(main)


def test_a_guest_that_is_off_or_gone_is_not_metered() -> None:
    async def main() -> None:
        rig = Rig()
        await a_labelled_server(rig)
        await rig.until(domain.ENSURE, a_domain(2, Desired.SHUTOFF))
        await asyncio.sleep(2)
        assert (await rig.call(GET, SamplesRequest())).domains == ()
        for row, absence in GONE:
            await rig.call(row, absence)
        await asyncio.sleep(2)
        assert (await rig.call(GET, SamplesRequest())).domains == ()

    simulated(main)


def test_counters_go_on_over_power_cycles() -> None:
    async def main() -> None:
        rig = Rig()
        await a_labelled_server(rig)
        rig.host.work(SERVER, 5000)
        before = await ask(rig)
        await rig.until(domain.ENSURE, a_domain(2, Desired.SHUTOFF, labels=LABELS))
        await rig.until(domain.ENSURE, a_domain(3, labels=LABELS))
        after = await ask(rig)
        assert after.volumes["cpu"] == before.volumes["cpu"] + 1_000_000_000
        for old, new in zip(before.devices, after.devices, strict=True):
            assert all(new.volumes[name] >= value for name, value in old.volumes.items())

    simulated(main)


def test_counters_survive_the_agent_and_what_the_guest_did_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "totals.json"
    first = Totals(path)
    assert first.advance("d", "1", {"cpu": 70, "vda/r": 5}) == {"cpu": 70, "vda/r": 5}
    first.write(first.encoded())
    second = Totals(path)
    assert second.advance("d", "2", {"cpu": 1}) == {"cpu": 71}
    assert second.advance("d", "2", {"cpu": 80, "vda/r": 1}) == {"cpu": 150, "vda/r": 6}
    second.forget_others([])
    second.write(second.encoded())
    assert Totals(path).advance("d", "2", {"cpu": 3}) == {"cpu": 3}


def test_a_device_that_was_unplugged_and_comes_back_goes_on() -> None:
    total = Total(run="1")
    total.advance("1", {"vdb/r": 100})
    total.advance("1", {})
    assert total.advance("1", {"vdb/r": 7}) == {"vdb/r": 107}


def test_a_damaged_file_of_totals_is_no_reason_not_to_meter(tmp_path: Path) -> None:
    path = tmp_path / "totals.json"
    path.write_text("{half")
    assert Totals(path).advance("d", "1", {"cpu": 3}) == {"cpu": 3}


def test_many_questions_are_one_measurement() -> None:
    async def main() -> None:
        rig = Rig()
        await a_labelled_server(rig)
        await ask(rig)
        await asyncio.sleep(2)
        count = rig.effects.count
        pages = await asyncio.gather(*(rig.call(GET, SamplesRequest()) for _ in range(20)))
        assert len(set(map(encode, pages))) == 1
        assert rig.effects.count == count + 1

    simulated(main)


def test_pages_fit_into_messages_and_hold_every_guest() -> None:
    devices = tuple(
        sampler.DeviceSample(device=f"t{index:010}", volumes=dict.fromkeys((one.name for one in CATALOGUE), 1 << 50))
        for index in range(8)
    )
    measured = tuple(DomainSample(id=f"{index:04}", at=1.0, devices=devices) for index in range(300))
    found: list[str] = []
    after: str | None = None
    while True:
        page: SamplesPage = sampler._page(measured, after)
        assert len(encode(page)) < MESSAGE_BYTES_MAX
        found += [one.id for one in page.domains]
        after = page.next
        if after is None:
            break
    assert found == [one.id for one in measured]


def test_a_hypervisor_that_does_not_answer_is_told() -> None:
    async def main() -> None:
        rig = Rig()
        await a_labelled_server(rig)
        rig.host.fail_next("usage", Busy("libvirt is away"))
        await asyncio.sleep(2)
        try:
            await rig.call(GET, SamplesRequest())
        except WireError as error:
            assert "libvirt is away" in str(error)
        else:
            raise AssertionError("it should have failed")
        assert (await ask(rig)).volumes["cpu"] > 0

    simulated(main)


def test_a_host_without_guests_answers() -> None:
    async def main() -> None:
        rig = Rig()
        rig.start()
        await rig.ready()
        assert await rig.call(GET, SamplesRequest()) == SamplesPage()
        assert await rig.call(GET, SamplesRequest(after="zzz")) == SamplesPage()

    simulated(main)
