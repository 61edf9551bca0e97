"""What only real files show: owners, modes, crashes in the middle, and what QEMU thinks of our disks."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.wire.errors import Busy, Failed
from drivers import command
from drivers.hypervisor.base import DiskSource
from drivers.hypervisor.kvm_probe import Choice
from drivers.image import confined, convert
from drivers.image.load import ImageDrivers, ImageSettings, load
from tests.drivers.images import MIB, made_by_qemu, qcow2_image, sha256
from tests.drivers.machines import a_guest, a_machine
from tests.drivers.private_host import PrivateHost

pytestmark = [pytest.mark.host, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

UID = 70001
GOOD = qcow2_image(8 * MIB)


@pytest.fixture
def state() -> Iterator[Path]:
    state = Path(tempfile.mkdtemp(prefix="hostler-images-"))
    state.chmod(0o755)
    yield state
    shutil.rmtree(state)


@pytest.fixture
def drivers(state) -> ImageDrivers:
    return load(ImageSettings(), state=str(state))


def cached(drivers: ImageDrivers, data: bytes = GOOD, disk_format: str = "qcow2"):
    return drivers.cache.fetch(sha256(data), len(data), disk_format, lambda path: _write(path, data))


def _write(path: str, data: bytes) -> None:
    Path(path).write_bytes(data)


def rights(path: str | Path) -> tuple[int, int, int]:
    status = Path(path).stat()
    return status.st_uid, status.st_gid, status.st_mode & 0o777


def test_two_guests_from_one_image_leave_it_roots_and_read_only():
    from drivers.hypervisor.libvirt.driver import LibvirtHypervisor

    host = PrivateHost()
    try:
        host.ensure_daemon()
        drivers = load(ImageSettings(), state=str(host.folder / "state"))
        image = cached(drivers)
        before = (rights(image.path), Path(image.path).read_bytes())
        assert before[0] == (0, 0, 0o444)
        choice = Choice(virt_type="qemu", why="a test")
        hypervisor = LibvirtHypervisor(uri=host.uri, tag="c0fe", choice=choice, emulator="/usr/bin/qemu-system-x86_64")
        machines = []
        for uid in (70001, 70002):
            disk = drivers.disks.ensure(f"{uid}-root", image, 16 * MIB, uid)
            config = drivers.disks.ensure_config(f"{uid}-config", a_guest(), uid)
            machine = a_machine(
                disks=(
                    DiskSource(disk_id=disk.id, path=disk.path, format=disk.format, boot_index=0),
                    DiskSource(disk_id=config.id, path=config.path, format=config.format, is_cdrom=True),
                ),
                uid=uid,
                folder=str(host.folder / "guests" / str(uid)),
            )
            hypervisor.define(machine)
            hypervisor.start(machine.spec.id)
            machines.append(machine)
        for machine in machines:
            assert [domain.power for domain in hypervisor.list()] == ["running", "running"]
            with pytest.raises(Failed):  # A disk in use is not grown behind QEMU's back.
                drivers.disks.ensure(f"{machine.uid}-root", image, 64 * MIB, machine.uid)
        for machine in machines:
            hypervisor.destroy(machine.spec.id)
            hypervisor.undefine(machine.spec.id)
            assert rights(drivers.disks.find(f"{machine.uid}-root").path) == (machine.uid, machine.uid, 0o600)
        assert (rights(image.path), Path(image.path).read_bytes()) == before
        hypervisor.close()
    finally:
        host.close()


def flat(path, uid):
    """What a guest would read."""
    out = Path(path).parent / "out"
    out.touch(0o600)
    os.chown(out, uid, uid)
    convert.convert(path, "qcow2", str(out), "raw", uid=uid, bytes_max=8 * MIB, timeout_s=60)
    return out.read_bytes()


def test_an_overlay_names_its_base_and_format(drivers):
    image = cached(drivers)
    disk = drivers.disks.ensure("root", image, 16 * MIB, UID)
    said = convert.info(disk.path, "qcow2", uid=UID, timeout_s=30)
    assert (said.virtual_size, said.backing_filename, said.backing_filename_format) == (16 * MIB, image.path, "qcow2")
    assert rights(disk.path) == (UID, UID, 0o600)


def test_a_copy_of_an_image_lies_upon_nothing_and_has_its_bytes(drivers):
    data = os.urandom(MIB)
    image = cached(drivers, data, "raw")
    disk = drivers.disks.ensure("root", image, 2 * MIB, UID, None, True)
    said = convert.info(disk.path, "qcow2", uid=UID, timeout_s=30)
    assert (said.virtual_size, said.backing_filename) == (2 * MIB, None)
    assert rights(disk.path) == (UID, UID, 0o600)
    assert flat(disk.path, UID) == data + bytes(MIB)


def test_a_copy_that_a_crash_left_finished_does_not_keep_its_image(drivers, state):
    image = cached(drivers)
    path = drivers.disks.ensure("root", image, 16 * MIB, UID, None, True).path
    (state / "disks" / ".bases" / "root").symlink_to(image.path)
    later = load(ImageSettings(), state=str(state))
    assert later.disks.ensure("root", None, 16 * MIB, UID, None, True).path == path
    later.cache.absent(image.sha256)
    assert later.cache.list() == ()


def test_a_raw_image_becomes_the_base_of_a_qcow2_disk(drivers):
    data = os.urandom(MIB)
    image = cached(drivers, data, "raw")
    disk = drivers.disks.ensure("root", image, 2 * MIB, UID)
    assert flat(disk.path, UID) == data + bytes(MIB)


def test_folders_let_guests_through_but_not_look_around(drivers, state):
    image, disk = cached(drivers), drivers.disks.ensure("root", None, MIB, UID)
    assert rights(state / "images") == (0, 0, 0o711) and rights(state / "disks") == (0, 0, 0o711)
    as_guest = command.Confinement(uid=UID)
    command.run(["head", "-c1", image.path], timeout_s=10, confine=as_guest)
    command.run(["head", "-c1", disk.path], timeout_s=10, confine=as_guest)
    for forbidden in (
        ["ls", str(state / "disks")],
        ["ls", str(state / "images")],
        ["ls", str(state / "disks" / ".bases")],
        ["touch", image.path],
        ["touch", str(state / "disks" / "new")],
    ):
        with pytest.raises(command.CommandFailed, match="ermission denied"):
            command.run(forbidden, timeout_s=10, confine=as_guest)
    with pytest.raises(command.CommandFailed, match="ermission denied"):
        command.run(["head", "-c1", disk.path], timeout_s=10, confine=command.Confinement(uid=UID + 1))


def test_a_disk_that_a_crash_left_half_made_is_made_anew(drivers, state):
    image = cached(drivers)
    (state / "disks" / ".root.part").write_bytes(b"half a disk")
    (state / "disks" / ".bases" / "root").symlink_to(image.path)
    (state / "images" / f".{image.sha256}.abc.part").write_bytes(b"half an image")
    later = load(ImageSettings(), state=str(state))
    assert later.disks.list() == () and len(later.cache.list()) == 1
    assert not list((state / "images").glob(".*"))
    later.cache.absent(image.sha256)
    cached(later)
    assert later.disks.ensure("root", image, 16 * MIB, UID).size_bytes == 16 * MIB


def test_state_behind_a_shut_folder_is_refused_with_its_name(state):
    shut = state / "shut"
    shut.mkdir(0o700)
    with pytest.raises(Failed, match=str(shut)):
        load(ImageSettings(), state=str(shut / "agent"))


def test_a_disk_whose_guest_broke_its_header_fails_and_can_be_removed(drivers):
    disk = drivers.disks.ensure("root", None, MIB, UID)
    Path(disk.path).write_bytes(b"not qcow2 any more")
    with pytest.raises(Failed, match="damaged"):
        drivers.disks.find("root")
    drivers.disks.absent("root")
    assert drivers.disks.list() == ()


def test_a_guest_that_rewrites_its_header_does_not_free_its_image(drivers):
    image = cached(drivers)
    disk = drivers.disks.ensure("root", image, 16 * MIB, UID)
    Path(disk.path).write_bytes(qcow2_image(16 * MIB))
    with pytest.raises(Busy):
        drivers.cache.absent(image.sha256)


def test_what_qemu_img_makes_passes_inspection(state):
    for number, arguments in enumerate(
        [
            ("-f", "qcow2", "1G"),
            ("-f", "qcow2", "-o", "compat=0.10", "1G"),
            ("-f", "qcow2", "-o", "compression_type=zstd", "1G"),
            ("-f", "qcow2", "-o", "cluster_size=2M,lazy_refcounts=on", "20G"),
            ("-f", "qcow2", "-o", "cluster_size=512", "64M"),
            ("-f", "qcow2", "-o", "preallocation=metadata", "64M"),
        ]
    ):
        path = state / str(number)
        path.write_bytes(made_by_qemu(state, *arguments))
        assert inspected(path, "qcow2").disk_format == "qcow2", arguments


def test_what_qemu_img_makes_of_other_formats_is_refused_as_raw(state):
    for disk_format in ("qed", "vmdk", "vdi", "vhdx", "vpc", "parallels"):
        options = ("-o", "subformat=fixed") if disk_format == "vpc" else ()
        path = state / disk_format
        path.write_bytes(made_by_qemu(state, "-f", disk_format, *options, "8M"))
        with pytest.raises(Failed, match="is declared as"):
            inspected(path, "raw")


def test_the_inspector_has_no_rights_and_no_network():
    script = (
        "import os, socket; from drivers.image import rights; rights.give_up(65534); "
        "print(os.getresuid(), os.getgroups(), open('/proc/self/status').read()); "
        "socket.socket().connect(('127.0.0.1', 9))"
    )
    output = command.run(
        [sys.executable, "-c", script], timeout_s=30, env={"PYTHONPATH": str(confined._ROOT)}, codes=(1,)
    )
    assert "(65534, 65534, 65534) []" in output.text
    assert "CapEff:\t0000000000000000" in output.text and "NoNewPrivs:\t1" in output.text
    assert b"Network is unreachable" in output.stderr  # Not even a loopback.


def test_the_inspector_reads_what_nobody_else_can(state):
    path = state / "private"
    path.write_bytes(GOOD)
    path.chmod(0o600)
    state.chmod(0o700)
    assert inspected(path, "qcow2").virtual_bytes == 8 * MIB


def test_a_child_that_dies_is_a_refusal(state, monkeypatch):
    path = state / "image"
    path.write_bytes(GOOD)
    monkeypatch.setattr(confined, "INSPECTOR_MEMORY_MAX", 8 << 20)
    with pytest.raises(Failed):
        inspected(path, "qcow2")


def inspected(path: Path, declared: str):
    return confined.inspect(str(path), declared, uid=65534, virtual_bytes_max=1 << 40, timeout_s=60)
