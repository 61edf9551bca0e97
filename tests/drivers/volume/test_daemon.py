"""What the target daemon may do on its host: open what is exported, and nothing else."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.wire.volume import Chap
from drivers.volume.base import Export
from drivers.volume.load import Place, VolumeDrivers, VolumeSettings, load
from tests.bus_server import free_port

UID = VolumeSettings().uid
AT = "11111111-1111-4111-8111-111111111111"
EXPORTED = "22222222-2222-4222-8222-222222222222"
KEPT = "33333333-3333-4333-8333-333333333333"

pytestmark = [pytest.mark.host, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="hostler-volumes-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def drivers(folder: Path) -> Iterator[VolumeDrivers]:
    place = Place(tag="7e57", state=str(folder), run=str(folder / "run"), address="127.0.0.1", confined_uid=65534)
    made = load(VolumeSettings(port=free_port()), place)
    yield made
    made.exporter.absent(AT)
    made.exporter.close()


def owner(path: str | Path) -> int:
    return Path(path).stat().st_uid


def test_the_daemon_has_no_rights_and_owns_what_is_exported(drivers: VolumeDrivers, folder: Path) -> None:
    exported, kept = (drivers.volumes.ensure(name, "files", 1 << 30, None) for name in (EXPORTED, KEPT))
    export = Export(
        id=AT,
        volume_id=EXPORTED,
        path=exported.path,
        size_bytes=1 << 30,
        initiators=("iqn.2026-01.test:one",),
        chap=Chap(user=AT, secret="s" * 32),
    )
    drivers.exporter.ensure(export)
    run = folder / "run" / "tgt"
    status = Path(f"/proc/{(run / 'pid').read_text()}/status").read_text().splitlines()
    found = {name: " ".join(value.split()) for name, _, value in (line.partition(":") for line in status)}
    assert found["Name"] == "tgtd" and found["Uid"] == found["Gid"] == " ".join([str(UID)] * 4)
    assert (found["Groups"], found["NoNewPrivs"]) == ("", "1")
    assert {int(found[kind], 16) for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert (owner(exported.path), owner(kept.path)) == (UID, 0)
    assert {Path(path).stat().st_mode & 0o777 for path in (exported.path, kept.path)} == {0o600}
    assert {path.name: owner(path) for path in run.iterdir()} == {"ipc": UID, "log": 0, "pid": 0}
    assert [one.id for one in drivers.exporter.list()] == [AT]
