"""Samples as Prometheus wants them: base units, its own names, and labels that stay few.

A series is a meter of one server (or of one of its disks or interfaces) on one host. Its labels are ids, never names
that users may choose and change. A server that moves is another series: its counters begin anew where it goes.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest

from telemetry.collector import Collector
from telemetry.meters import CATALOGUE, Kind, Meter, Subject
from telemetry.pipeline import Sample
from telemetry.store import Store

PREFIX: Final = "hostler_server_"

LABELS: Final[dict[Subject, tuple[str, ...]]] = {
    Subject.SERVER: ("project_id", "resource_id", "host_id"),
    Subject.DISK: ("project_id", "resource_id", "host_id", "device"),
    Subject.INTERFACE: ("project_id", "resource_id", "host_id", "device", "port_id"),
}
"""By which series of a meter differ. `resource_id` is the server's id."""


class Exporter:
    """Renders a page whenever it is scraped."""

    def __init__(self, store: Store, collector: Collector, now: Callable[[], float]) -> None:
        self._store = store
        self._collector = collector
        self._now = now
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def page(self) -> str:
        """Everything, in Prometheus' text format."""
        return generate_latest(self._registry).decode()

    def describe(self) -> Iterable[Metric]:
        """Asked for at registration: which families there are does not depend on what was measured."""
        return []

    def collect(self) -> Iterator[Metric]:
        """What the registry asks for at every scrape."""
        now = self._now()
        by_meter: defaultdict[str, list[Sample]] = defaultdict(list)
        for sample in self._store.samples(now):
            by_meter[sample.meter.name].append(sample)
        for meter in CATALOGUE:
            yield _family(meter, by_meter.get(meter.name, []))
        yield from self._own(now)

    def _own(self, now: float) -> Iterator[Metric]:
        up = GaugeMetricFamily("hostler_collector_host_up", "Whether the host answered last time.", labels=["host_id"])
        for host_id, is_up in sorted(self._collector.is_up.items()):
            up.add_metric([host_id], float(is_up))
        yield up
        age = GaugeMetricFamily(
            "hostler_collector_measurement_age_seconds", "Since the host was measured.", labels=["host_id"]
        )
        for host_id, age_s in self._store.ages(now).items():
            age.add_metric([host_id], age_s)
        yield age
        polls = CounterMetricFamily("hostler_collector_polls", "Turns, by how they ended.", labels=["result"])
        for result, count in sorted(self._collector.polls.items()):
            polls.add_metric([result], count)
        yield polls
        yield CounterMetricFamily(
            "hostler_collector_samples_dropped", "Samples that there was no room for.", value=self._store.dropped
        )


def _family(meter: Meter, samples: Iterable[Sample]) -> Metric:
    name, labels = PREFIX + meter.metric, LABELS[meter.subject]
    is_counter = meter.kind is Kind.CUMULATIVE
    family: CounterMetricFamily | GaugeMetricFamily = (
        CounterMetricFamily(name, meter.help, labels=labels)
        if is_counter
        else GaugeMetricFamily(name, meter.help, labels=labels)
    )
    for sample in samples:
        family.add_metric([getattr(sample, label) for label in labels], sample.volume * meter.factor)
    return family
