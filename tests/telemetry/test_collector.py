"""The collector against hosts that behave, do not, come and go; and what it shows of them."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent.wire import subjects
from agent.wire.bus import Handler, Message, answering
from agent.wire.errors import Busy, Silent
from agent.wire.samples import GET, DeviceSample, DomainSample, SamplesPage, SamplesRequest
from agent.wire.specs import encode
from telemetry import collector as collecting
from telemetry.collector import Collector
from telemetry.exporter import Exporter
from telemetry.meters import CATALOGUE, Kind
from telemetry.pipeline import UNKNOWN, samples_of
from telemetry.store import STALE_S, Store
from tests.agent.rig import SeededEntropy, simulated

Answer = Callable[[SamplesRequest], Awaitable[SamplesPage]]


class Hosts:
    """A bus on which hosts answer, as far as a collector sees it."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        self.hearing: list[Handler] = []

    async def request(self, subject: str, data: bytes, headers: Mapping[str, str], timeout_s: float) -> bytes:
        host_id = subjects.host_of(subject)
        self.asked.append(host_id)
        answer = self.answers.get(host_id)
        if answer is None:
            await asyncio.sleep(timeout_s)
            raise Silent(subject)

        async def handle(request: SamplesRequest, message: Message) -> SamplesPage:
            return await answer(request)

        return await answering(GET, handle)(Message(subject, data)) or b""

    async def publish(self, subject: str, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        raise AssertionError("a collector publishes nothing")

    async def subscribe(self, subject: str, handler: Handler, queue: str = "") -> Any:
        assert subject == "hostler.v1.event.host.*.heartbeat"
        self.hearing.append(handler)

    def on_gap(self, callback: Callable[[], None]) -> None:
        return

    async def beat(self, host_id: str) -> None:
        for handler in self.hearing:
            await handler(Message(subjects.host_event(host_id, "heartbeat"), b"{}"))

    def has(self, host_id: str, *domains: DomainSample) -> None:
        async def answer(request: SamplesRequest) -> SamplesPage:
            return SamplesPage(domains=domains)

        self.answers[host_id] = answer


class Stand:
    """A collector at work, its store and its page."""

    def __init__(self, series_max: int = 1000) -> None:
        self.hosts = Hosts()
        self.store = Store(series_max)
        self.collector = Collector(self.hosts, SeededEntropy(1), self.store, 10.0)
        self.exporter = Exporter(self.store, self.collector, asyncio.get_running_loop().time)
        self.task = asyncio.create_task(self.collector.run())

    async def heard(self, *host_ids: str) -> None:
        await asyncio.sleep(0.1)
        for host_id in host_ids:
            await self.hosts.beat(host_id)
        await asyncio.sleep(0.1)

    def shown(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """Series → value, of everything on the page."""
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(self.exporter.page())
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float | None:
        found = [value for (key, said), value in self.shown().items() if key == name and labels.items() <= {*said}]
        assert len(found) <= 1, found
        return found[0] if found else None


def a_guest(id: str = "s1", cpu: int = 5_000_000_000, **changes: Any) -> DomainSample:
    disk = DeviceSample(device="vda", volumes={"disk.device.read.bytes": 4096, "disk.device.capacity": 1 << 30})
    nic = DeviceSample(device="tabc", resource_id="port1", volumes={"network.incoming.bytes": 77})
    given = {"labels": {"project_id": "p1"}, "volumes": {"cpu": cpu, "memory.usage": 64}, "devices": (disk, nic)}
    return DomainSample(**{"id": id, "at": 1.0, **given, **changes})


def test_what_hosts_measure_is_shown_in_base_units_with_ids_as_labels() -> None:
    async def main() -> None:
        stand = Stand()
        stand.hosts.has("h1", a_guest())
        await stand.heard("h1")
        series = {"project_id": "p1", "resource_id": "s1", "host_id": "h1"}
        shown = stand.shown()
        assert shown["hostler_server_cpu_seconds_total", tuple(sorted(series.items()))] == 5.0
        assert stand.value("hostler_server_memory_usage_bytes", **series) == 64 << 20
        assert stand.value("hostler_server_disk_read_bytes_total", device="vda", **series) == 4096
        incoming = stand.value("hostler_server_network_incoming_bytes_total", device="tabc", port_id="port1", **series)
        assert incoming == 77
        assert stand.value("hostler_collector_host_up", host_id="h1") == 1.0

    simulated(main)


def test_a_measurement_is_renewed_and_what_is_gone_is_not_shown() -> None:
    async def main() -> None:
        stand = Stand()
        stand.hosts.has("h1", a_guest("s1"), a_guest("s2"))
        await stand.heard("h1")
        assert stand.value("hostler_server_cpu_seconds_total", resource_id="s2") == 5.0
        stand.hosts.has("h1", a_guest("s1", cpu=9_000_000_000))
        await asyncio.sleep(12)
        assert stand.value("hostler_server_cpu_seconds_total", resource_id="s1") == 9.0
        assert stand.value("hostler_server_cpu_seconds_total", resource_id="s2") is None

    simulated(main)


def test_a_host_that_is_silent_is_down_then_stale_then_forgotten_and_may_return() -> None:
    async def main() -> None:
        stand = Stand()
        stand.hosts.has("h1", a_guest())
        stand.hosts.has("h2", a_guest("s2"))
        await stand.heard("h1", "h2")
        del stand.hosts.answers["h1"]
        await asyncio.sleep(30)
        assert stand.value("hostler_collector_host_up", host_id="h1") == 0.0
        assert stand.value("hostler_server_cpu_seconds_total", resource_id="s1") == 5.0
        await asyncio.sleep(STALE_S)
        assert stand.value("hostler_server_cpu_seconds_total", resource_id="s1") is None
        assert stand.value("hostler_server_cpu_seconds_total", resource_id="s2") == 5.0
        await asyncio.sleep(collecting.FORGET_S)
        assert stand.value("hostler_collector_host_up", host_id="h1") is None
        asked = len(stand.hosts.asked)
        await asyncio.sleep(60)
        assert len(stand.hosts.asked) == asked
        stand.hosts.has("h1", a_guest())
        await stand.heard("h1")
        assert stand.value("hostler_server_cpu_seconds_total", resource_id="s1") == 5.0

    simulated(main)


def test_pages_are_put_together() -> None:
    async def main() -> None:
        stand = Stand()

        async def answer(request: SamplesRequest) -> SamplesPage:
            number = 0 if request.after is None else int(request.after) + 1
            return SamplesPage(domains=(a_guest(f"s{number}"),), next=str(number) if number < 4 else None)

        stand.hosts.answers["h1"] = answer
        await stand.heard("h1")
        assert sum(name == "hostler_server_cpu_seconds_total" for name, _ in stand.shown()) == 5

    simulated(main)


@pytest.mark.parametrize("kind", ["endless", "refusing", "garbage", "empty"])
def test_a_bad_host_costs_the_others_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "PAGES_MAX", 5)

    async def main() -> None:
        stand = Stand()

        async def answer(request: SamplesRequest) -> SamplesPage:
            if kind == "refusing":
                raise Busy("libvirt is away")
            return SamplesPage(next="again")

        stand.hosts.answers["bad"] = answer
        stand.hosts.has("good", a_guest())
        if kind in ("garbage", "empty"):
            honest = stand.hosts.request

            async def request(subject: str, data: bytes, headers: Mapping[str, str], timeout_s: float) -> bytes:
                said = {"garbage": b'{"ok": {"domains": [7]}}', "empty": b"{}"}[kind]
                return said if ".bad." in subject else await honest(subject, data, headers, timeout_s)

            stand.hosts.request = request  # type: ignore[method-assign]
        await stand.heard("bad", "good")
        await asyncio.sleep(25)
        assert not stand.task.done()
        assert stand.value("hostler_collector_host_up", host_id="bad") == 0.0
        assert stand.value("hostler_collector_host_up", host_id="good") == 1.0
        assert stand.value("hostler_server_cpu_seconds_total", resource_id="s1") == 5.0

    simulated(main)


def test_series_are_bounded_and_what_finds_no_room_is_counted() -> None:
    async def main() -> None:
        stand = Stand(series_max=12)
        stand.hosts.has("h1", a_guest("s1"), a_guest("s2"), a_guest("s3"))
        await stand.heard("h1")
        shown = [name for name, _ in stand.shown() if name.startswith("hostler_server_")]
        assert len(shown) == 12
        assert stand.value("hostler_collector_samples_dropped_total") == 3.0
        stand.hosts.has("h2", a_guest("s4"))
        await stand.heard("h2")
        assert len([name for name, _ in stand.shown() if name.startswith("hostler_server_")]) == 12

    simulated(main)


@pytest.mark.parametrize(
    "guest",
    [
        a_guest('s1"} 1\nforged_metric{x="'),
        a_guest("x" * 65),
        a_guest(volumes={"no.such.meter": 1, "cpu": -1, "disk.device.read.bytes": 3}, devices=()),
        a_guest(volumes={"cpu": 1 << 200}, devices=()),
        a_guest(volumes={}, devices=(DeviceSample(device="vd\n", volumes={"disk.device.read.bytes": 1}),)),
        a_guest(
            volumes={}, devices=(DeviceSample(device="t1", resource_id="{}", volumes={"network.incoming.bytes": 1}),)
        ),
        a_guest(volumes={}, devices=(DeviceSample(device="vda", volumes={"cpu": 1}),)),
    ],
)
def test_what_a_host_should_not_say_is_left_out(guest: DomainSample) -> None:
    assert list(samples_of("h1", [guest])) == []


def test_a_guest_without_a_project_is_metered_all_the_same() -> None:
    found = list(samples_of("h1", [a_guest(labels={"project_id": "{evil}"})]))
    assert {one.project_id for one in found} == {UNKNOWN} and len(found) == 5


def test_the_catalogue_is_sound() -> None:
    assert len({meter.name for meter in CATALOGUE}) == len({meter.metric for meter in CATALOGUE}) == len(CATALOGUE)
    for meter in CATALOGUE:
        assert not meter.metric.endswith("_total") and meter.metric.islower() and meter.help.endswith(".")
        assert meter.unit in {"ns", "MB", "B", "request", "packet", "vcpu"}
        assert meter.kind is Kind.GAUGE or meter.unit not in {"MB", "vcpu"}
    assert encode(SamplesRequest()) == b'{"after":null}'
