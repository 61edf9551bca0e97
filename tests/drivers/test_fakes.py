"""What only fakes have: hosts that lose power, calls that fail on demand, and memory that outlives a process."""

import hashlib
from pathlib import Path

import pytest

from agent.wire.errors import Busy, Failed, Unfit
from agent.wire.lifecycle import Power
from drivers.hypervisor.fake import FakeHost, FakeHypervisor
from drivers.hypervisor.load import HypervisorSettings
from drivers.hypervisor.load import load as load_hypervisor
from drivers.image.fake import FakeDisks, FakeImageCache, FakeImageHost
from tests.drivers.machines import a_machine


def test_a_planned_failure_happens_once_before_or_after_the_effect():
    host = FakeHost()
    hypervisor, machine = FakeHypervisor(host, "c0fe"), a_machine()
    hypervisor.define(machine)
    host.fail_next("start", Failed("before"))
    with pytest.raises(Failed, match="before"):
        hypervisor.start(machine.spec.id)
    assert hypervisor.find(machine.spec.id).power is Power.SHUTOFF
    host.fail_next("start", Failed("after"), is_after_effect=True)
    with pytest.raises(Failed, match="after"):
        hypervisor.start(machine.spec.id)
    assert hypervisor.find(machine.spec.id).power is Power.RUNNING
    hypervisor.start(machine.spec.id)
    assert host.get(machine.spec.id).boots == 1


def test_guests_switch_themselves_off_pause_and_lose_power():
    host = FakeHost()
    hypervisor, machine = FakeHypervisor(host, "c0fe"), a_machine()
    heard = []
    hypervisor.watch(lambda _, power: heard.append(power))
    hypervisor.define(machine)
    hypervisor.start(machine.spec.id)
    host.pause(machine.spec.id)
    hypervisor.start(machine.spec.id)
    host.power_off_from_inside(machine.spec.id)
    hypervisor.start(machine.spec.id)
    host.power_failure()
    assert heard == [Power.RUNNING, Power.PAUSED, Power.RUNNING, Power.SHUTOFF, Power.RUNNING]
    assert hypervisor.find(machine.spec.id).power is Power.SHUTOFF and host.get(machine.spec.id).boots == 2


def test_the_console_says_what_was_written():
    host = FakeHost()
    hypervisor, machine = FakeHypervisor(host, "c0fe"), a_machine()
    hypervisor.define(machine)
    hypervisor.start(machine.spec.id)
    host.write_console(machine.spec.id, "hello\n")
    assert hypervisor.console_log(machine.spec.id, 6).text == "hello\n"


def test_a_fake_host_outlives_its_process_and_a_line_that_was_cut_off(tmp_path: Path):
    settings = HypervisorSettings(driver="fake")
    hypervisor, machine, gone = load_hypervisor(settings, tag="c0fe", state=str(tmp_path)), a_machine(), a_machine()
    for one in (machine, gone):
        hypervisor.define(one)
    hypervisor.start(machine.spec.id)
    hypervisor.undefine(gone.spec.id)
    before = hypervisor.list()
    file = tmp_path / "fake-hypervisor.jsonl"
    file.write_bytes(file.read_bytes() + b'{"key":"cut')
    assert load_hypervisor(settings, tag="c0fe", state=str(tmp_path)).list() == before != ()
    assert len(file.read_bytes().splitlines()) == 1


def test_without_a_folder_the_fake_cache_touches_no_file():
    host = FakeImageHost()
    cache, disks = FakeImageCache(host), FakeDisks(host)
    sha256 = hashlib.sha256(b"").hexdigest()
    paths = []
    image = cache.fetch(sha256, 1000, "raw", paths.append)
    assert not Path(paths[0]).parent.exists() and image.virtual_bytes == 1000
    assert disks.ensure("root", image, 2000, 70001).size_bytes == 2000
    host.fail_next("disks.ensure", Failed("planned"))
    with pytest.raises(Failed, match="planned"):
        disks.ensure("other", None, 2000, 70001)


def test_an_unknown_hypervisor_driver_is_unfit(tmp_path):
    with pytest.raises(Unfit, match="fake, libvirt"):
        load_hypervisor(HypervisorSettings(driver="xen"), tag="c0fe", state=str(tmp_path))


def test_the_libvirt_driver_is_made_without_a_libvirtd(tmp_path):
    settings = HypervisorSettings(virt_type="qemu", uri="qemu+unix:///system?socket=/nonexistent")
    hypervisor = load_hypervisor(settings, tag="c0fe", state=str(tmp_path))
    with pytest.raises(Busy, match="does not answer"):
        hypervisor.list()
    hypervisor.close()
