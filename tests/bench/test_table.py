"""The benchmark's verdict: what binds must be there and reached; what does not is only marked."""

import contextlib
import os
import signal
import subprocess
import sys

from tests.bench import plane
from tests.bench.__main__ import table
from tests.bench.figures import ROWS

REACHED = {row.key: row.goal for row in ROWS}


def test_what_is_reached_has_no_mark() -> None:
    text, is_kept = table(REACHED)
    assert is_kept
    assert not [line for line in text.splitlines()[1:-1] if line.endswith((" !", " -"))]


def test_a_binding_row_that_is_missed_or_missing_fails_the_run() -> None:
    for key in (row.key for row in ROWS if row.is_binding):
        text, is_kept = table({**REACHED, key: 1e9})
        assert not is_kept and [line for line in text.splitlines() if line.endswith(" !")]
        assert not table({name: value for name, value in REACHED.items() if name != key})[1]


def test_other_rows_are_marked_only() -> None:
    for row in (row for row in ROWS if not row.is_binding):
        text, is_kept = table({**REACHED, row.key: 0.0 if row.is_rate else 1e9})
        assert is_kept and [line for line in text.splitlines() if line.endswith(" -")]


def test_what_processes_share_counts_once() -> None:
    code = "print(flush=True); input()"
    with contextlib.ExitStack() as stack:
        pids = {}
        for name in ("one", "other"):
            process = stack.enter_context(
                subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            )
            assert process.stdout is not None and process.stdout.readline()  # It runs, with all it needs.
            pids[name] = process.pid
        both, alone = plane.memory_mib(pids), plane.memory_mib({"one": pids["one"]})
        for pid in pids.values():
            os.kill(pid, signal.SIGTERM)
    assert 0 < alone < both < 2 * alone
