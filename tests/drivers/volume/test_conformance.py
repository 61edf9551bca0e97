"""What every volume driver promises: on the fake everywhere, on files and tgtd as root. Any other passes it too."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from agent.wire.errors import Failed, Invalid, NotFound, Unfit, WireError
from agent.wire.volume import Chap, IscsiSource, SourceKind, initiator_iqn, target_iqn
from drivers import command
from drivers.volume.base import Export, Origin, StoredVolume
from drivers.volume.load import Place, VolumeDrivers, VolumeSettings, load
from tests.bus_server import free_port
from tests.drivers.images import MIB, qcow2_image
from tests.drivers.volume.initiators import FakeInitiator, Initiator, QemuInitiator, Refused

TAG = "c0de"
GIB = 1 << 30
A = "aaaaaaaa-0000-4000-8000-000000000001"
B = "bbbbbbbb-0000-4000-8000-000000000002"
SNAP = "cccccccc-0000-4000-8000-000000000003"
AT = "dddddddd-0000-4000-8000-000000000004"
AT2 = "eeeeeeee-0000-4000-8000-000000000005"
ME = initiator_iqn(TAG, "host-1")
OTHER = initiator_iqn(TAG, "host-2")


class Rig:
    """Drivers of one host, loaded anew at will, and somebody who logs in."""

    def __init__(self, kind: str, state: Path) -> None:
        self.kind, self.state = kind, state
        self.settings = VolumeSettings(driver=kind, port=free_port())
        self.drivers = self.loaded()

    def loaded(self) -> VolumeDrivers:
        place = Place(
            tag=TAG, state=str(self.state), run=str(self.state / "run"), address="127.0.0.1", confined_uid=65534
        )
        self.drivers = load(self.settings, place)
        return self.drivers

    @property
    def initiator(self) -> Initiator:
        if self.kind == "fake":
            return FakeInitiator(self.drivers.volumes.storage)  # type: ignore[attr-defined]
        return QemuInitiator()

    def kill_daemon(self) -> None:
        if self.kind == "fake":
            self.drivers.volumes.storage.kill_daemon()  # type: ignore[attr-defined]
        else:
            os.kill(int((self.state / "run" / "tgt" / "pid").read_text()), 9)

    def volume(self, name: str = A, size: int = GIB, origin: Origin | None = None) -> StoredVolume:
        return self.drivers.volumes.ensure(name, "files", size, origin)

    def export(
        self, volume: StoredVolume, at: str = AT, *initiators: str, secret: str = "s" * 32, **more
    ) -> IscsiSource:
        who = initiators or (ME,)
        chap = Chap(user=at, secret=secret)
        portal = self.drivers.exporter.ensure(
            Export(
                id=at,
                volume_id=volume.id,
                path=volume.path,
                size_bytes=volume.size_bytes,
                initiators=who,
                chap=chap,
                **more,
            )
        )
        assert (portal.iqn, portal.lun) == (target_iqn(TAG, at), 1)
        return IscsiSource(
            volume_id=volume.id,
            host=portal.host,
            port=portal.port,
            iqn=portal.iqn,
            lun=portal.lun,
            initiator=who[0],
            chap=chap,
            size_gib=volume.size_bytes // GIB,
        )

    def exported(self) -> list[str]:
        return [one.id for one in self.drivers.exporter.list()]


@contextlib.contextmanager
def a_folder(shares_blocks: bool) -> Iterator[Path]:
    """A folder, on a file system of its own if files are to share blocks."""
    folder = Path(tempfile.mkdtemp(prefix="hostler-volumes-"))
    folder.chmod(0o755)
    try:
        if not shares_blocks:
            yield folder
            return
        disk, state = folder / "disk", folder / "state"
        state.mkdir()
        command.run(["truncate", "-s", "2G", disk], timeout_s=10)
        command.run(["mkfs.xfs", "-q", "-m", "reflink=1", disk], timeout_s=60)
        command.run(["mount", "-o", "loop", disk, state], timeout_s=60)
        try:
            yield state
        finally:
            command.run(["umount", state], timeout_s=60)
    finally:
        shutil.rmtree(folder)


@pytest.fixture(
    params=[
        "fake",
        pytest.param("file", marks=pytest.mark.host),
        pytest.param("file-that-shares-blocks", marks=pytest.mark.host),
    ]
)
def rig(request) -> Iterator[Rig]:
    if request.param != "fake" and os.geteuid() != 0:
        pytest.skip("needs root")
    with a_folder(request.param.endswith("blocks")) as state:
        yield from a_rig(Rig(request.param.partition("-")[0], state), state)


def a_rig(rig: Rig, state: Path) -> Iterator[Rig]:
    yield rig
    for name in rig.exported():
        rig.drivers.exporter.absent(name)
    rig.drivers.exporter.close()
    assert not (state / "run" / "tgt").exists(), "the last export ends the daemon"


def test_copies_are_instant_where_blocks_are_shared(rig, request):
    if rig.kind == "fake":
        pytest.skip("the fake has no blocks")
    is_instant = rig.drivers.volumes.pools()[0].is_instant
    assert is_instant == ("shares-blocks" in request.node.name)
    volume = rig.volume()
    with Path(volume.path).open("r+b") as file:
        file.write(b"x" * (64 * MIB))
    before = shutil.disk_usage(rig.state).used
    rig.drivers.volumes.ensure_snapshot(SNAP, A)
    clone = rig.volume(B, GIB, Origin(kind=SourceKind.SNAPSHOT, id=SNAP, size_bytes=GIB))
    if is_instant:
        assert shutil.disk_usage(rig.state).used - before < 8 * MIB
    with Path(clone.path).open("rb") as file:
        assert file.read(64 * MIB) == b"x" * (64 * MIB) and file.read(MIB) == bytes(MIB)


def test_a_full_pool_is_told_and_nothing_is_left(rig, request):
    if "shares-blocks" not in request.node.name:
        pytest.skip("only there can a pool be filled without harm")
    image = rig.state.parent / "image"
    image.write_bytes(b"x" * (64 * MIB))
    image.chmod(0o444)
    origin = Origin(kind=SourceKind.IMAGE, id="image-1", size_bytes=64 * MIB, path=str(image), format="raw")
    taken = shutil.disk_usage(rig.state).free - 32 * MIB
    command.run(["fallocate", "-l", str(taken), rig.state / "taken"], timeout_s=60)
    with pytest.raises(Failed, match="no room"):
        rig.volume(A, GIB, origin)
    assert rig.drivers.volumes.list() == ()
    assert not [path for path in rig.state.rglob("*") if "part" in path.name]


def refused(rig: Rig, source: IscsiSource) -> bool:
    try:
        rig.initiator.size_bytes(source)
    except Refused:
        return True
    return False


def test_a_volume_is_made_once_and_only_grows(rig):
    assert rig.drivers.volumes.find(A) is None
    made = rig.volume()
    assert (made.id, made.pool, made.size_bytes) == (A, "files", GIB)
    assert rig.drivers.volumes.find(A) == made
    assert rig.volume(size=2 * GIB).size_bytes == 2 * GIB
    assert rig.volume(size=GIB).size_bytes == 2 * GIB
    assert rig.drivers.volumes.list() == (A,)


def test_an_empty_volume_takes_no_room_and_pools_count_what_was_promised(rig):
    before = rig.drivers.volumes.pools()[0]
    assert (before.name, before.provisioned_gib) == ("files", 0)
    assert before.total_gib >= before.free_gib > 0
    assert rig.volume(size=3 * GIB).allocated_bytes < MIB
    assert rig.drivers.volumes.pools()[0].provisioned_gib == 3


def test_what_was_made_is_found_by_the_next_agent(rig):
    made = rig.volume()
    rig.drivers.volumes.ensure_snapshot(SNAP, A)
    rig.loaded()
    assert rig.drivers.volumes.find(A) == made
    assert rig.drivers.volumes.list_snapshots() == (SNAP,)


def test_absent_is_absent_however_often(rig):
    rig.volume()
    rig.drivers.volumes.absent(A)
    rig.drivers.volumes.absent(A)
    assert rig.drivers.volumes.find(A) is None
    assert rig.drivers.volumes.list() == ()


def test_an_unknown_pool_and_a_bad_id_are_refused_before_anything_is_made(rig):
    with pytest.raises(Unfit):
        rig.drivers.volumes.ensure(A, "gold", GIB, None)
    for name in ("../x", "", "a/b", ".a", "x" * 80):
        with pytest.raises(Invalid):
            rig.drivers.volumes.ensure(name, "files", GIB, None)
    assert rig.drivers.volumes.list() == ()


def test_data_is_there_after_the_export_ended_and_at_another_one(rig):
    volume = rig.volume()
    rig.initiator.write(rig.export(volume), "kept")
    rig.drivers.exporter.absent(AT)
    other = rig.export(volume, AT2, OTHER, secret="t" * 32)
    assert rig.initiator.read(other) == "kept"


def test_a_snapshot_never_changes_and_stands_alone(rig):
    source = rig.export(rig.volume())
    rig.initiator.write(source, "then")
    rig.drivers.exporter.absent(AT)
    snapshot = rig.drivers.volumes.ensure_snapshot(SNAP, A)
    assert snapshot.size_bytes == GIB
    rig.initiator.write(rig.export(rig.drivers.volumes.find(A)), "now")
    rig.drivers.exporter.absent(AT)
    assert rig.drivers.volumes.ensure_snapshot(SNAP, A) == snapshot
    rig.drivers.volumes.absent(A)
    clone = rig.volume(B, 2 * GIB, Origin(kind=SourceKind.SNAPSHOT, id=SNAP, size_bytes=GIB))
    rig.drivers.volumes.absent_snapshot(SNAP)
    assert clone.size_bytes == 2 * GIB
    assert rig.initiator.read(rig.export(clone, AT2)) == "then"
    assert rig.drivers.volumes.list_snapshots() == ()


def test_a_clone_and_its_source_go_their_own_ways(rig):
    rig.initiator.write(rig.export(rig.volume()), "common")
    rig.drivers.exporter.absent(AT)
    clone = rig.volume(B, GIB, Origin(kind=SourceKind.VOLUME, id=A, size_bytes=GIB))
    mine, theirs = rig.export(rig.drivers.volumes.find(A)), rig.export(clone, AT2)
    rig.initiator.write(theirs, "changed")
    assert (rig.initiator.read(mine), rig.initiator.read(theirs)) == ("common", "changed")


@pytest.mark.parametrize("disk_format", ["raw", "qcow2"])
def test_a_volume_begins_as_its_image(rig, disk_format):
    image = rig.state / "image"
    image.write_bytes(b"boot".ljust(MIB, b"\0") if disk_format == "raw" else qcow2_image(8 * MIB))
    image.chmod(0o444)
    size = MIB if disk_format == "raw" else 8 * MIB
    origin = Origin(kind=SourceKind.IMAGE, id="image-1", size_bytes=size, path=str(image), format=disk_format)
    volume = rig.volume(A, GIB, origin)
    assert volume.size_bytes == GIB
    said = rig.initiator.read(rig.export(volume))
    assert said == {"fake": "image image-1", "file": "boot" if disk_format == "raw" else ""}[rig.kind]


def test_what_is_too_small_or_not_there_is_refused_and_leaves_nothing(rig):
    rig.volume(size=2 * GIB)
    with pytest.raises(Unfit):
        rig.volume(B, GIB, Origin(kind=SourceKind.VOLUME, id=A, size_bytes=2 * GIB))
    with pytest.raises(NotFound):
        rig.volume(B, GIB, Origin(kind=SourceKind.SNAPSHOT, id=SNAP, size_bytes=GIB))
    with pytest.raises(NotFound):
        rig.drivers.volumes.ensure_snapshot(SNAP, B)
    assert rig.drivers.volumes.list() == (A,)
    assert rig.drivers.volumes.list_snapshots() == ()
    assert not [path for path in rig.state.rglob("*") if "part" in path.name]


def test_only_the_right_initiator_with_the_right_account_gets_in(rig):
    source = rig.export(rig.volume())
    assert rig.initiator.size_bytes(source) == GIB
    nobody = Chap(user="", secret="")
    assert refused(rig, msgspec.structs.replace(source, chap=nobody))
    assert refused(rig, msgspec.structs.replace(source, chap=Chap(user=AT, secret="w" * 32)))
    assert refused(rig, msgspec.structs.replace(source, initiator=OTHER))
    assert refused(rig, msgspec.structs.replace(source, initiator=ME + "x"))


def test_one_attachment_does_not_open_another(rig):
    volume = rig.volume()
    mine, theirs = rig.export(volume), rig.export(volume, AT2, OTHER, secret="t" * 32)
    assert rig.exported() == [AT, AT2]
    assert refused(rig, msgspec.structs.replace(mine, iqn=theirs.iqn))
    assert refused(rig, msgspec.structs.replace(mine, iqn=theirs.iqn, initiator=OTHER))
    assert refused(rig, msgspec.structs.replace(theirs, chap=mine.chap))
    rig.drivers.exporter.absent(AT)
    assert refused(rig, mine)
    assert rig.initiator.size_bytes(theirs) == GIB


def test_nobody_gets_in_when_nobody_may(rig):
    source = rig.export(rig.volume())
    export = Export(
        id=AT,
        volume_id=A,
        path=rig.drivers.volumes.find(A).path,
        size_bytes=GIB,
        initiators=(),
        chap=source.chap,
    )
    rig.drivers.exporter.ensure(export)
    assert refused(rig, source)
    assert rig.exported() == [AT]


def test_a_wider_list_lets_the_other_host_in_too(rig):
    volume = rig.volume()
    source = rig.export(volume)
    rig.export(volume, AT, ME, OTHER)
    assert rig.initiator.size_bytes(source) == GIB
    assert rig.initiator.size_bytes(msgspec.structs.replace(source, initiator=OTHER)) == GIB
    rig.export(volume, AT, OTHER)
    assert refused(rig, source)


def test_a_new_secret_shuts_out_the_old_one(rig):
    volume = rig.volume()
    source = rig.export(volume)
    fresh = rig.export(volume, secret="n" * 32)
    assert refused(rig, source)
    assert rig.initiator.size_bytes(fresh) == GIB


def test_a_grown_volume_is_as_large_for_those_who_log_in(rig):
    rig.export(rig.volume())
    source = rig.export(rig.volume(size=2 * GIB))
    assert rig.initiator.size_bytes(source) == 2 * GIB


def test_revoking_is_idempotent_and_the_volume_stays(rig):
    source = rig.export(rig.volume())
    rig.drivers.exporter.absent(AT)
    rig.drivers.exporter.absent(AT)
    assert rig.exported() == []
    assert refused(rig, source)
    assert rig.drivers.volumes.list() == (A,)


def test_the_next_agent_finds_the_exports_and_changes_nothing(rig):
    volume = rig.volume()
    source = rig.export(volume)
    rig.loaded()
    assert rig.exported() == [AT]
    assert rig.export(volume) == source
    assert rig.initiator.size_bytes(source) == GIB


def test_what_a_dead_daemon_forgot_is_made_again(rig):
    volume = rig.volume()
    rig.initiator.write(rig.export(volume), "kept")
    rig.export(volume, AT2, OTHER)
    rig.kill_daemon()
    assert rig.exported() == []
    again = rig.export(volume)
    assert rig.exported() == [AT]
    assert rig.initiator.read(again) == "kept"


def test_a_secret_is_in_no_failure_and_no_representation(rig):
    volume = rig.volume()
    secret = "top" + "5" * 29
    export = Export(
        id=AT, volume_id=A, path="/nowhere", size_bytes=GIB, initiators=(ME,), chap=Chap(user="a b", secret=secret)
    )
    assert secret not in repr(export)
    with pytest.raises(WireError) as refusal:
        rig.drivers.exporter.ensure(export)
    assert secret not in str(refusal.value)
    assert volume.id in rig.drivers.volumes.list()


def test_bad_names_never_reach_the_daemon(rig):
    volume = rig.volume()
    for initiator in ("iqn.2026-01.internal.hostler:a,b", "", "iqn a", "x" * 300):
        with pytest.raises(Invalid):
            rig.export(volume, AT, initiator)
    for secret in ("short", "s" * 32 + ",user=x", "s" * 100):
        with pytest.raises(Invalid):
            rig.export(volume, secret=secret)
    assert rig.exported() == []


def test_an_export_of_nothing_fails_and_leaves_nothing(rig):
    if rig.kind == "fake":
        pytest.skip("the fake opens no files")
    ghost = msgspec.structs.replace(rig.volume(), path=str(rig.state / "ghost"))
    with pytest.raises(Failed):
        rig.export(ghost)
    assert rig.exported() == []
    rig.drivers.exporter.absent(AT)
