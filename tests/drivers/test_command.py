"""The one place that starts programs: bounds, failures, namespaces."""

import os
import signal
import time
from pathlib import Path

import pytest

from drivers import command


def test_output_and_input_are_carried_whole() -> None:
    big = os.urandom(300_000)
    assert command.run(["cat"], timeout_s=20, input=big).stdout == big


def test_failure_says_what_was_run_and_how_stderr_ended() -> None:
    with pytest.raises(command.CommandFailed, match=r"sh -c .* ended with 3: no such disk") as failure:
        command.run(["sh", "-c", "echo no such disk >&2; exit 3"], timeout_s=20)
    assert failure.value.output.code == 3


def test_expected_codes_are_no_failure() -> None:
    assert command.run(["sh", "-c", "exit 3"], timeout_s=20, codes=(0, 3)).code == 3


def test_a_program_that_does_not_exist_is_a_failure_of_ours() -> None:
    with pytest.raises(command.CommandFailed, match="cannot be started"):
        command.run(["/nonexistent/program"], timeout_s=20)


def test_time_limit_kills_the_whole_process_group(tmp_path: Path) -> None:
    with pytest.raises(command.CommandTimeout):
        command.run(["sh", "-c", f"sleep 1000 & echo $! > {tmp_path}/pid; wait"], timeout_s=2)
    pid = int((tmp_path / "pid").read_text())
    stat = Path(f"/proc/{pid}/stat")
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":  # Killed, and about to know it.
        time.sleep(0.02)


def test_stdout_beyond_the_bound_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "OUTPUT_BYTES_MAX", 1000)
    with pytest.raises(command.CommandFailed, match="more than 1000 bytes"):
        command.run(["yes"], timeout_s=20)


def test_only_the_end_of_stderr_is_kept() -> None:
    script = "i=0; while [ $i -lt 3000 ]; do echo line $i of many >&2; i=$((i+1)); done"
    output = command.run(["sh", "-c", script], timeout_s=20)
    assert len(output.stderr) == command.STDERR_BYTES_KEPT
    assert output.stderr.endswith(b"line 2999 of many\n")


def test_environment_is_minimal_and_extended_by_the_caller() -> None:
    lines = command.run(["env"], timeout_s=20, env={"LAMP": "lit"}).text.split()
    assert "LAMP=lit" in lines and "LC_ALL=C" in lines
    assert not any(line.startswith("HOME=") for line in lines)


def test_a_program_that_ignores_its_input_does_not_fail() -> None:
    assert command.run(["true"], timeout_s=20, input=b"x" * 1_000_000).code == 0


def test_confined_program_meets_its_limits() -> None:
    confine = command.Confinement(file_bytes_max=1000, cpu_s_max=5)
    limits = command.run(["sh", "-c", "ulimit -t; ulimit -c"], timeout_s=20, confine=confine).text.split()
    assert limits == ["5", "0"]


@pytest.mark.host
def test_confined_program_has_lost_its_rights() -> None:
    ids = command.run(["id", "-u"], timeout_s=20, confine=command.Confinement(uid=65534)).text.strip()
    assert ids == "65534"


def test_a_spawned_child_logs_and_stops(tmp_path: Path) -> None:
    child = command.spawn(["sh", "-c", "echo up; exec sleep 1000"], log=tmp_path / "log")
    try:
        assert child.poll() is None
    finally:
        assert child.stop(10) == -signal.SIGTERM
    assert child.poll() == -signal.SIGTERM
