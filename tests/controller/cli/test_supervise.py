"""Pid files name one process, not whoever has its number later, and not the dead."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.cli.supervise import Supervised, end, running

SLEEPS = [sys.executable, "-c", "print('up', flush=True); import time; time.sleep(60)"]


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Supervised]:
    one = Supervised(tmp_path, {"name": "one", "argv": SLEEPS, "log": str(tmp_path / "one.log")})
    one.start()
    yield one
    one.stop()


def test_a_pid_file_names_what_runs(supervised: Supervised) -> None:
    assert supervised.process is not None
    assert running(supervised.pid_file) == supervised.process.pid


def test_a_number_that_somebody_else_has_now_is_not_it(supervised: Supervised) -> None:
    assert supervised.process is not None
    supervised.pid_file.write_text(f"{supervised.process.pid} 1")
    assert running(supervised.pid_file) is None
    end(supervised.pid_file)
    assert supervised.process.poll() is None


def test_the_dead_that_nobody_has_waited_for_do_not_run(tmp_path: Path) -> None:
    child = os.posix_spawn("/bin/true", ["true"], {})
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    try:
        (tmp_path / "dead.pid").write_text(f"{child} gone")
        assert running(tmp_path / "dead.pid") is None
        ticks = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[19]
        (tmp_path / "dead.pid").write_text(f"{child} {ticks}")
        assert running(tmp_path / "dead.pid") is None
    finally:
        os.waitpid(child, 0)


def test_what_ends_is_started_again_after_a_pause_that_grows(tmp_path: Path) -> None:
    one = Supervised(tmp_path, {"name": "one", "argv": ["/bin/false"], "log": str(tmp_path / "one.log")})
    one.start()
    pauses = []
    for _ in range(3):
        wait(one)
        one.tend()
        assert one.process is None, "it waits first"
        pauses.append(one.pause_s)
        one.start_at = 0.0
        one.tend()
    assert pauses[0] < pauses[1] < pauses[2]
    one.stop()


def wait(one: Supervised) -> None:
    assert one.process is not None
    one.process.wait()


def test_end_takes_what_runs_and_its_file(tmp_path: Path) -> None:
    child = subprocess.Popen(SLEEPS, stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None and child.stdout.readline() == b"up\n"
        ticks = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19]
        (tmp_path / "one.pid").write_text(f"{child.pid} {ticks}")
        end(tmp_path / "one.pid")
        assert not (tmp_path / "one.pid").exists()
        assert child.wait(10) != 0
    finally:
        child.kill()
        child.wait()
