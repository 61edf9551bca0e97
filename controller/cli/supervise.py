"""Keeps a trial's processes running. Standard library only: this one is always there and should weigh little.

    python -m controller.cli.supervise RUN_FOLDER

Reads `processes.json` (a list of name, argv, env, log), starts each in order, restarts what ends with a growing
pause, writes `<name>.pid`, and on SIGTERM stops all in reverse order. It is started detached; when it was killed
hard, the next one first ends what its pid files name, if that is still what they name. Guests are nobody's
children here: they outlive all of this.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

PAUSE_MIN_S: Final = 0.2
PAUSE_MAX_S: Final = 10.0
"""Between two starts of a process that keeps ending. Longer: recovery waits; shorter: a broken one eats a core."""
STEADY_S: Final = 30.0
"""A process that ran this long starts over with the shortest pause."""
STOP_S: Final = 10.0
"""From SIGTERM to SIGKILL."""
LOG_BYTES_MAX: Final = 32 << 20
"""A log larger than this is moved aside once, at the next start of its process."""


class Supervised:
    """One process that should run."""

    def __init__(self, folder: Path, entry: dict[str, Any]) -> None:
        self.name: str = entry["name"]
        self.argv: list[str] = entry["argv"]
        self.env: dict[str, str] = {**os.environ, **entry.get("env", {})}
        self.log = Path(entry["log"])
        self.pid_file = folder / f"{self.name}.pid"
        self.process: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0
        self.pause_s = PAUSE_MIN_S
        self.start_at = 0.0

    def start(self) -> None:
        """Start it, with its output appended to its log."""
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES_MAX:
            self.log.replace(self.log.with_suffix(".old"))
        with self.log.open("ab") as sink:
            self.process = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=self.env, start_new_session=True
            )
        self.started_at = time.monotonic()
        self.pid_file.write_text(f"{self.process.pid} {_start_ticks(self.process.pid)}")

    def tend(self) -> None:
        """Start it if it does not run and its pause is over."""
        now = time.monotonic()
        if self.process is not None and self.process.poll() is not None:
            print(f"{self.name} ended with {self.process.returncode}", file=sys.stderr, flush=True)
            self.pause_s = PAUSE_MIN_S if now - self.started_at > STEADY_S else min(self.pause_s * 2, PAUSE_MAX_S)
            self.start_at = now + self.pause_s
            self.process = None
        if self.process is None and now >= self.start_at:
            self.start()

    def stop(self) -> None:
        """SIGTERM, then SIGKILL."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_S)
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
        self.pid_file.unlink(missing_ok=True)


GONE: Final = "gone"


def _start_ticks(pid: int) -> str:
    """When a process started: with the pid it names one process for ever. What only waits for its parent is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return GONE
    state, *rest = text[text.rindex(")") + 2 :].split()
    return GONE if state in "ZX" else rest[18]


def running(pid_file: Path) -> int | None:
    """The pid in a pid file, if that very process still runs."""
    try:
        pid, ticks = pid_file.read_text().split()
    except (OSError, ValueError):
        return None
    return int(pid) if _start_ticks(int(pid)) == ticks != GONE else None


def end(pid_file: Path) -> None:
    """Stop what a pid file names, if it still runs, and remove the file."""
    deadline = time.monotonic() + STOP_S
    sent = signal.SIGTERM
    while (pid := running(pid_file)) is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, sent)
        if time.monotonic() > deadline:
            sent = signal.SIGKILL
        time.sleep(0.05)
    pid_file.unlink(missing_ok=True)


def main() -> None:
    """Supervise until SIGTERM."""
    folder = Path(sys.argv[1])
    entries = [Supervised(folder, entry) for entry in json.loads((folder / "processes.json").read_text())]
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    for entry in reversed(entries):
        end(entry.pid_file)
    own = folder / "supervisor.pid"
    own.write_text(f"{os.getpid()} {_start_ticks(os.getpid())}")
    while not stopping:
        for entry in entries:
            entry.tend()
        time.sleep(0.5)
    for entry in reversed(entries):
        entry.stop()
    own.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
