"""`make bench`: a cloud with fake drivers (5 ms a call) and everything else real, measured as its users meet it.

    python -m tests.bench [--seconds S] [-o FILE]

The cloud is made for the run and removed after it, however it ends. Status 0: everything that binds is reached. 1: it
is not. 2: nothing was measured.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path

from controller.cli import clean, clouds
from controller.cli.trial import Trial
from controller.cli.up import NotPossible, up
from tests.bench.figures import ROWS, Row
from tests.bench.http import BadAnswer
from tests.bench.measures import Bench, NotMeasured
from tests.walk.client import VENV

CLOUD = "bench"
PLACE = {
    "underlay": "198.18.253.0/24",
    "external": "198.19.253.0/24",
    "api_port": 5253,
    "metrics_port": 9753,
    "drivers": "fake",
}


def table(found: dict[str, float]) -> tuple[str, bool]:
    """The table as text, and whether everything that binds is reached."""
    lines = [f"{'measure':46} {'OpenStack':>11} {'goal':>9} {'Hostler':>10}"]
    lines += [_line(row, found[row.key]) for row in ROWS if row.key in found]
    lines.append("(! binds and is missed   - is missed)")
    binding = [row for row in ROWS if row.is_binding]
    return "\n".join(lines), all(row.key in found and _is_reached(row, found[row.key]) for row in binding)


def _line(row: Row, ours: float) -> str:
    mark = " " if _is_reached(row, ours) else ("!" if row.is_binding else "-")
    theirs = "" if row.openstack is None else f"{row.openstack:.4g}"
    return f"{row.title:46} {theirs:>11} {row.goal:9.4g} {ours:10.4g} {row.unit} {mark}".rstrip()


def _is_reached(row: Row, ours: float) -> bool:
    return ours >= row.goal if row.is_rate else ours <= row.goal


def main() -> None:
    """Make a cloud, measure it, remove it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one round")
    parser.add_argument("-o", "--output", help="also write the figures as JSON")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _end)
    clean.clean(CLOUD)
    began = time.monotonic()
    try:
        trial = up(CLOUD, PLACE, furnished=False)
        usable = time.monotonic() - began
        found = _measured(trial, options.seconds)
    except (NotMeasured, NotPossible, BadAnswer, OSError) as error:
        print(f"not measured: {error or type(error).__name__}", file=sys.stderr)
        sys.exit(2)
    finally:
        clean.clean(CLOUD)
    found["usable"] = usable
    text, is_kept = table(found)
    print(text)
    if options.output:
        Path(options.output).write_text(json.dumps(found, indent=1))
    sys.exit(0 if is_kept else 1)


def _measured(trial: Trial, seconds: float) -> dict[str, float]:
    bench = Bench(trial, seconds)
    client = VENV / "bin" / "openstack"
    if client.exists():  # `make walk` installs it.
        env = {**os.environ, "OS_CLIENT_CONFIG_FILE": str(clouds.path(trial)), "OS_CLOUD": "hostler"}
        bench.client([str(client)], env)
    return asyncio.run(bench.run())


def _end(*_: object) -> None:
    raise SystemExit(2)


if __name__ == "__main__":
    main()
