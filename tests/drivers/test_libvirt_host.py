"""What only a real libvirtd can show: it is killed and guests go on, QEMU has no rights, nothing listens."""

import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.wire.domain import Hardware
from agent.wire.lifecycle import Generation, Power
from drivers import command
from drivers.hypervisor.base import DiskSource, Machine
from drivers.hypervisor.kvm_probe import Choice
from tests.drivers.machines import a_machine, changed
from tests.drivers.private_host import PrivateHost, wait_until

pytestmark = [pytest.mark.host, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

UID = 70123
EMULATOR = "/usr/bin/qemu-system-x86_64"


@pytest.fixture(scope="module")
def host() -> Iterator[PrivateHost]:
    host = PrivateHost()
    host.ensure_daemon()
    yield host
    host.close()


@pytest.fixture
def hypervisor(host):
    from drivers.hypervisor.libvirt.driver import LibvirtHypervisor

    hypervisor = LibvirtHypervisor(
        uri=host.uri, tag="c0fe", choice=Choice(virt_type="qemu", why="a test"), emulator=EMULATOR
    )
    yield hypervisor
    host.ensure_daemon()
    for domain in hypervisor.list():
        hypervisor.destroy(domain.id)
        hypervisor.undefine(domain.id)
    hypervisor.close()


@pytest.fixture
def machine(host) -> Machine:
    domain_id = str(uuid.uuid4())
    disks = host.folder / "disks"
    disks.mkdir(exist_ok=True)
    disks.chmod(0o711)
    root, config = disks / f"{domain_id}.qcow2", disks / f"{domain_id}.iso"
    command.run(["qemu-img", "create", "-q", "-f", "qcow2", root, "64M"], timeout_s=30)
    config.write_bytes(bytes(65536))
    for path in (root, config):
        os.chown(path, UID, UID)
        path.chmod(0o600)
    return a_machine(
        domain_id=domain_id,
        disks=(
            DiskSource(disk_id="root", path=str(root), format="qcow2", boot_index=0, serial="root-disk"),
            DiskSource(disk_id="config", path=str(config), format="raw", is_cdrom=True),
        ),
        uid=UID,
        folder=str(host.folder / "guests" / domain_id),
    )


def test_killing_libvirtd_disturbs_no_guest_and_the_driver_finds_the_next_one(host, hypervisor, machine):
    heard: list[tuple[str, Power]] = []
    hypervisor.watch(lambda domain_id, power: heard.append((domain_id, power)))
    hypervisor.define(machine)
    hypervisor.start(machine.spec.id)
    wait_until(lambda: heard == [(machine.spec.id, Power.RUNNING)], "the start is heard")
    pid = host.qemu_pid(machine.spec.name)

    host.kill_daemon()
    host.ensure_daemon()
    assert hypervisor.find(machine.spec.id).power is Power.RUNNING
    assert host.qemu_pid(machine.spec.name) == pid
    host.run("kill", "-0", str(pid))
    host.run("kill", "-9", str(pid))
    wait_until(lambda: heard[-1] == (machine.spec.id, Power.CRASHED), "events come through the new connection")


def test_the_keeper_brings_events_back_without_a_call(host, hypervisor, machine):
    heard: list[Power] = []
    hypervisor.define(machine)
    hypervisor.start(machine.spec.id)
    hypervisor.watch(lambda _, power: heard.append(power))
    host.kill_daemon()
    host.run("kill", "-9", str(host.qemu_pid(machine.spec.name)))
    host.ensure_daemon()
    wait_until(lambda: Power.CRASHED in heard or Power.SHUTOFF in heard, "the keeper reconnected and told what changed")


def test_a_guest_that_died_while_libvirtd_was_away_is_not_running(host, hypervisor, machine):
    hypervisor.define(machine)
    hypervisor.start(machine.spec.id)
    host.kill_daemon()
    host.run("kill", "-9", str(host.qemu_pid(machine.spec.name)))
    host.ensure_daemon()
    wait_until(lambda: hypervisor.find(machine.spec.id).power in (Power.SHUTOFF, Power.CRASHED), "the death is noticed")
    hypervisor.start(machine.spec.id)


def test_a_second_ensure_leaves_the_daemon_alone(host):
    pid = (host.folder / "run" / "libvirtd.pid").read_text()
    host.ensure_daemon()
    assert (host.folder / "run" / "libvirtd.pid").read_text() == pid


def test_a_planted_cache_is_taken_and_spares_the_probe(host, hypervisor, machine):
    hypervisor.define(machine)
    other = PrivateHost()
    try:
        other.ensure_daemon(seed=str(host.folder / "cache"))
        planted = other.folder / "cache" / "qemu" / "capabilities"
        known = [path for path in planted.iterdir() if f"<emulator>{EMULATOR}</emulator>" in path.read_text()]
        before = [path.read_bytes() for path in known]
        later = type(hypervisor)(
            uri=other.uri, tag="c0fe", choice=Choice(virt_type="qemu", why="a test"), emulator=EMULATOR
        )
        later.capabilities()
        later.close()
        assert before and [path.read_bytes() for path in known] == before
    finally:
        other.close()


def test_qemu_has_the_guests_uid_and_no_rights(host, hypervisor, machine):
    hypervisor.define(machine)
    hypervisor.start(machine.spec.id)
    pid = host.qemu_pid(machine.spec.name)
    status = dict(
        line.split(":", 1) for line in host.run("cat", f"/proc/{pid}/status").text.splitlines() if ":" in line
    )
    assert status["Uid"].split() == [str(UID)] * 4 and status["Gid"].split() == [str(UID)] * 4
    assert status["Groups"].split() == [str(UID)]
    assert int(status["CapEff"], 16) == 0
    assert status["NoNewPrivs"].strip() == "1" and status["Seccomp"].strip() == "2"


def test_nothing_listens_on_tcp_and_the_screen_is_reached_by_descriptor(host, hypervisor, machine):
    import libvirt

    hypervisor.define(machine)
    hypervisor.start(machine.spec.id)
    assert host.run("ss", "-H", "-ltn").text == ""
    connection = libvirt.open(host.uri)
    try:
        domain = connection.lookupByUUIDString(machine.spec.id)
        with socket.socket(fileno=domain.openGraphicsFD(0, libvirt.VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH)) as screen:
            screen.settimeout(30)
            assert screen.recv(12) == b"RFB 003.008\n"
    finally:
        connection.close()


def test_owners_and_modes_stay_as_they_were(host, hypervisor, machine):
    hypervisor.define(machine)
    hypervisor.start(machine.spec.id)
    hypervisor.destroy(machine.spec.id)
    for disk in machine.disks:
        status = Path(disk.path).stat()
        assert (status.st_uid, status.st_mode & 0o777) == (UID, 0o600)
    folder = Path(machine.folder).stat()
    assert (folder.st_uid, folder.st_gid, folder.st_mode & 0o777) == (0, UID, 0o710)


def test_console_log_shows_the_end_and_a_link_in_its_place_is_not_followed(hypervisor, machine):
    hypervisor.define(machine)
    hypervisor.start(machine.spec.id)
    log = Path(machine.folder, "console.log")
    with log.open("ab") as file:
        file.write(b"first line\nlast line \xff\n")
    assert hypervisor.console_log(machine.spec.id, 12).text == "last line \N{REPLACEMENT CHARACTER}\n"
    hypervisor.destroy(machine.spec.id)
    log.unlink()
    log.symlink_to("/etc/passwd")
    assert hypervisor.console_log(machine.spec.id, 100).text == ""


def test_a_guest_cannot_fill_the_host_through_its_console(tmp_path):
    from drivers.hypervisor.libvirt import console

    log = tmp_path / "console.log"
    log.write_bytes(b"x" * (8 << 20) + b"the end\n")
    console.trim(log)
    assert log.stat().st_blocks * 512 <= console.KEPT_BYTES + 65536
    assert console.tail(log, 8) == "the end\n"
    assert console.tail(log, 2 << 20).endswith("xthe end\n")


def test_uefi_guests_keep_their_variables(host, hypervisor, machine):
    machine = changed(machine, hardware=Hardware(firmware="uefi"))
    hypervisor.define(machine)
    hypervisor.start(machine.spec.id)
    variables = Path(machine.folder, "nvram.fd")
    assert variables.stat().st_uid == UID
    first = variables.stat().st_ino
    hypervisor.define(changed(machine, generation=Generation(1, 2)))
    hypervisor.destroy(machine.spec.id)
    hypervisor.start(machine.spec.id)
    assert variables.stat().st_ino == first
    hypervisor.destroy(machine.spec.id)
    hypervisor.undefine(machine.spec.id)
    assert not Path(machine.folder).exists()
