"""`hostler explain <request id>`: the steps of one request, where each ran, how long it took, why it ended so."""

from typing import Any

from rich.console import Console
from rich.table import Table

from controller.cli.api import Client
from controller.cli.trial import Trial


def explain(trial: Trial, request_id: str) -> None:
    """Print the trace of a request. Raises ApiError for one that started nothing."""
    admin = Client(trial.api_url, "admin", trial.password("admin"), "admin")
    events: list[dict[str, Any]] = admin.get(f"/operator/v1/requests/{request_id}")["events"]
    began = events[0]["at"]
    table = Table("at", "saga", "step", "event", "ms", "where and why", title=request_id, title_justify="left")
    for event in events:
        notes = " ".join(f"{key}={value}" for key, value in event["notes"].items())
        why = " ".join(part for part in (notes, event["error"]) if part)
        when = f"+{event['at'] - began:.3f} s"
        table.add_row(when, event["kind"], event["step"], event["event"], f"{event['ms']:.1f}", why)
    Console(highlight=False).print(table)
