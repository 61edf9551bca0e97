"""A real Prometheus, Debian's, started by a test on a port of its own and ended by its process id."""

import contextlib
import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bus_server import free_port
from tests.databases import _die_with_parent

PATIENCE_S = 60.0


class Prometheus:
    """One that scrapes one exporter every second."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, path: str, **query: str) -> Any:
        """The data of an answer of its API."""
        with urllib.request.urlopen(f"{self.url}{path}?{urllib.parse.urlencode(query)}", timeout=10) as answer:
            found = json.load(answer)
        assert found["status"] == "success", found
        return found["data"]

    def series(self, expression: str) -> dict[str, tuple[dict[str, str], float]]:
        """What an expression comes to now: by the server, its labels and value. Of one meter with a series each."""
        rows = self.ask("/api/v1/query", query=expression)["result"]
        found = {row["metric"].get("resource_id", ""): (row["metric"], float(row["value"][1])) for row in rows}
        assert len(found) == len(rows), rows
        return found

    def value(self, expression: str) -> float | None:
        """The one number that an expression comes to, or None."""
        rows = self.ask("/api/v1/query", query=expression)["result"]
        assert len(rows) <= 1, rows
        return float(rows[0]["value"][1]) if rows else None

    def until(self, expression: str, at_least: float = 0.0, timeout_s: float = PATIENCE_S) -> float:
        """Its value, once there is one that is large enough."""
        deadline = time.monotonic() + timeout_s
        while True:
            found = self.value(expression)
            if found is not None and found >= at_least:
                return found
            assert time.monotonic() < deadline, f"{expression} is {found}, not {at_least}, after {timeout_s:g} s"
            time.sleep(0.25)


@contextlib.contextmanager
def prometheus(folder: Path, exporter: str) -> Iterator[Prometheus]:
    """A running one, its data in `folder`; `exporter` is host:port."""
    binary = shutil.which("prometheus")
    if binary is None:
        pytest.fail("Prometheus is missing: apt-get install prometheus")
    scrape = {"job_name": "hostler", "static_configs": [{"targets": [exporter]}]}
    config = folder / "prometheus.yml"
    times = {"scrape_interval": "1s", "scrape_timeout": "1s"}
    config.write_text(json.dumps({"global": times, "scrape_configs": [scrape]}))
    found = Prometheus(free_port())
    argv = [
        binary,
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address={found.url.removeprefix('http://')}",
        "--log.level=warn",
    ]
    with (folder / "prometheus.log").open("ab") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, cwd=folder, preexec_fn=_die_with_parent)
    try:
        _await_ready(found, process, folder / "prometheus.log")
        yield found
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_ready(found: Prometheus, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{found.url}/-/ready", timeout=5).close()
            return
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
