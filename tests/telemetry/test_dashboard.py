"""The dashboard that we ship shows meters that there are."""

import json
import re
from pathlib import Path
from typing import Any

from telemetry.collector import Collector
from telemetry.exporter import LABELS, PREFIX, Exporter
from telemetry.meters import CATALOGUE, Kind
from telemetry.store import Store
from tests.agent.rig import SeededEntropy
from tests.telemetry.test_collector import Hosts

DASHBOARD: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "packaging" / "grafana" / "servers.json").read_text()
)


def expressions() -> list[str]:
    targets = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return targets + [one["definition"] for one in DASHBOARD["templating"]["list"] if "definition" in one]


def test_every_series_of_the_dashboard_is_exported() -> None:
    exporter = Exporter(Store(), Collector(Hosts(), SeededEntropy(1), Store(), 10.0), lambda: 0.0)
    own = set(re.findall(r"^# TYPE (\S+)", exporter.page(), re.MULTILINE))
    wanted = {name for expression in expressions() for name in re.findall(r"hostler_\w+", expression)}
    assert wanted and wanted <= own
    assert {PREFIX + meter.metric + ("_total" if meter.kind is Kind.CUMULATIVE else "") for meter in CATALOGUE} <= own


def test_the_dashboard_groups_by_labels_that_there_are() -> None:
    labels = {label for row in LABELS.values() for label in row} | {"result"}
    grouped = {
        word for text in expressions() for words in re.findall(r"by \(([\w, ]+)\)", text) for word in words.split(", ")
    }
    assert grouped and grouped <= labels


def test_panels_have_ids_and_places_of_their_own() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)
