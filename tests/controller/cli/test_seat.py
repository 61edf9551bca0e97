"""What `up` writes for controller, NATS and collector is written as their uids, who may be unable to read our code."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from controller.cli.seat import COLLECTOR_UID, UID, Seat
from controller.cli.trial import Trial
from telemetry.config import Collector
from tests.rootless import WATCHING, watching

REPOSITORY = Path(__file__).parent.parent.parent.parent

PREPARE = watching("""
import msgspec
from controller.cli import processes
from controller.cli.trial import Trial
processes.prepare(msgspec.json.decode(sys.argv[1], type=Trial))
""")


@pytest.fixture
def trial() -> Iterator[Trial]:
    with tempfile.TemporaryDirectory(prefix="hostler-test-") as folder:
        place = Path(folder)
        place.chmod(0o711)
        found = Trial(name="seat-test", tag="0000", state=str(place / "state"), run=str(place / "run"))
        found.run_folder.mkdir()
        (found.run_folder / "ns").mkdir()
        yield found
        Seat(found).remove()
        subprocess.run(["umount", found.run_folder / "ns"], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to give up")
def test_keys_are_their_users_and_no_code_is_read_to_write_them(trial: Trial) -> None:
    argv = [sys.executable, "-c", PREPARE, msgspec.json.encode(trial).decode()]
    done = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert (done.returncode, set(done.stderr.splitlines())) == (0, {WATCHING})
    written = [path for path in trial.folder.rglob("*") if path.is_file()]
    assert {"nats.conf", "ca.pem"} <= {path.name for path in written}
    given = {path for path in written if trial.collector_folder in path.parents}
    assert {path.name for path in given} == {"collector.jwt", "collector.seed", "ca.pem"}
    assert {path.stat().st_uid for path in written if path not in given} == {UID}
    assert {path.stat().st_uid for path in given} == {COLLECTOR_UID} == {Collector().uid} != {UID}
    folders = {trial.controller_folder: UID, trial.nats_folder: UID, trial.collector_folder: COLLECTOR_UID}
    for folder, uid in folders.items():
        found = folder.stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (uid, uid, 0o700)
    assert not [path for path in written if path.stat().st_mode & 0o077 and path.suffix == ".key"]
