"""What every hypervisor driver promises: on the fake everywhere, on libvirt and QEMU as root."""

import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.wire.domain import Hardware
from agent.wire.errors import Conflict, Failed, NotFound
from agent.wire.lifecycle import Generation, Power
from drivers.hypervisor.base import Hypervisor, Machine
from drivers.hypervisor.fake import FakeHost, FakeHypervisor
from drivers.hypervisor.kvm_probe import Choice
from tests.drivers.machines import a_machine, changed
from tests.drivers.private_host import PrivateHost, wait_until
from tests.rfb import SocketLine, Viewer

TAG = "c0fe"


class FakeStand:
    """A fake host."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = FakeHost(path=str(folder / "host.jsonl"))

    def connect(self, tag: str = TAG) -> Hypervisor:
        return FakeHypervisor(self.host, tag)

    def crash(self, machine: Machine) -> None:
        self.host.crash(machine.spec.id)

    def runs(self, machine: Machine) -> object:
        """Something that changes when the guest is powered on anew."""
        return self.host.get(machine.spec.id).boots

    def close(self) -> None:
        pass


class LibvirtStand:
    """A libvirtd of its own in namespaces of its own."""

    def __init__(self, _folder: Path) -> None:
        self.host = PrivateHost()
        self.folder = self.host.folder
        self.host.ensure_daemon()

    def connect(self, tag: str = TAG) -> Hypervisor:
        from drivers.hypervisor.libvirt.driver import LibvirtHypervisor

        choice = Choice(virt_type="qemu", why="these tests run without KVM")
        return LibvirtHypervisor(uri=self.host.uri, tag=tag, choice=choice, emulator="/usr/bin/qemu-system-x86_64")

    def crash(self, machine: Machine) -> None:
        self.host.run("kill", "-9", str(self.host.qemu_pid(machine.spec.name)))

    def runs(self, machine: Machine) -> object:
        return self.host.qemu_pid(machine.spec.name)

    def close(self) -> None:
        self.host.close()


@pytest.fixture(scope="module", params=["fake", pytest.param("libvirt", marks=pytest.mark.host)])
def stand(request, tmp_path_factory) -> Iterator[FakeStand | LibvirtStand]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "libvirt" and os.geteuid() != 0:
        pytest.skip("needs root")
    stand = {"fake": FakeStand, "libvirt": LibvirtStand}[request.param](folder)
    yield stand
    stand.close()


@pytest.fixture
def hypervisor(stand) -> Iterator[Hypervisor]:
    hypervisor = stand.connect()
    yield hypervisor
    for domain in hypervisor.list():
        hypervisor.destroy(domain.id)
        hypervisor.undefine(domain.id)
    hypervisor.close()


@pytest.fixture
def machine(stand) -> Machine:
    domain_id = str(uuid.uuid4())
    return a_machine(domain_id=domain_id, folder=str(stand.folder / "guests" / domain_id))


def test_capabilities_describe_the_host(hypervisor):
    capabilities = hypervisor.capabilities()
    assert capabilities.virt_type == "qemu" and capabilities.why
    assert capabilities.vcpus > 0 and capabilities.memory_mib > 0 and capabilities.version > 0
    assert hypervisor.capabilities() == capabilities


def test_what_was_defined_is_observed_off_with_its_mark(hypervisor, machine):
    labels = {"owner": "någon", "strange": "<&\x00\ufffe>", "": ""}
    machine = changed(machine, labels=labels, generation=Generation(3, 7))
    hardware = hypervisor.define(machine)
    observed = hypervisor.find(machine.spec.id)
    assert observed is not None
    assert (observed.id, observed.generation, observed.power) == (machine.spec.id, Generation(3, 7), Power.SHUTOFF)
    assert observed.hardware == hardware and observed.labels == labels
    assert hypervisor.list() == (observed,)


def test_hardware_is_resolved_once_and_kept(hypervisor, machine):
    first = hypervisor.define(machine)
    assert first.machine not in ("q35", "pc") and first.cpu_model != "host-default"
    assert hypervisor.define(changed(machine, generation=Generation(1, 2))) == first
    assert hypervisor.define(changed(machine, hardware=first)) == first


def test_redefinition_leaves_a_running_guest_alone(hypervisor, machine, stand):
    hypervisor.define(machine)
    hypervisor.start(machine.spec.id)
    run = stand.runs(machine)
    hypervisor.define(changed(machine, generation=Generation(1, 2), vcpus=2))
    observed = hypervisor.find(machine.spec.id)
    assert observed is not None and observed.generation == Generation(1, 2)
    assert observed.power is Power.RUNNING and stand.runs(machine) == run


def test_start_and_destroy_converge(hypervisor, machine, stand):
    hypervisor.define(machine)
    hypervisor.start(machine.spec.id)
    run = stand.runs(machine)
    hypervisor.start(machine.spec.id)
    assert stand.runs(machine) == run
    for _ in range(2):
        hypervisor.destroy(machine.spec.id)
        assert hypervisor.find(machine.spec.id).power is Power.SHUTOFF
    hypervisor.start(machine.spec.id)
    assert stand.runs(machine) != run


def test_a_guest_that_is_on_is_not_forgotten(hypervisor, machine):
    hypervisor.define(machine)
    hypervisor.start(machine.spec.id)
    with pytest.raises(Failed):
        hypervisor.undefine(machine.spec.id)
    hypervisor.destroy(machine.spec.id)
    hypervisor.undefine(machine.spec.id)
    hypervisor.undefine(machine.spec.id)
    assert hypervisor.find(machine.spec.id) is None
    assert not Path(machine.folder).exists()


def test_unknown_domains_are_not_found_but_absent_already(hypervisor):
    for unknown in (str(uuid.uuid4()), "no-uuid"):
        assert hypervisor.find(unknown) is None
        hypervisor.destroy(unknown)
        hypervisor.undefine(unknown)
        for act in (hypervisor.start, hypervisor.shutdown, hypervisor.reboot):
            with pytest.raises(NotFound):
                act(unknown)
        with pytest.raises(NotFound):
            hypervisor.console_log(unknown, 100)


def test_what_is_not_sent_stays_without_a_word(hypervisor, machine):
    hypervisor.stop_sending(str(uuid.uuid4()))
    hypervisor.define(machine)
    hypervisor.stop_sending(machine.spec.id)
    hypervisor.start(machine.spec.id)
    hypervisor.stop_sending(machine.spec.id)
    assert hypervisor.find(machine.spec.id).power is Power.RUNNING
    assert hypervisor.transfer(machine.spec.id) is None


def test_the_power_button_does_nothing_to_a_guest_that_is_off_and_a_reboot_fails(hypervisor, machine):
    hypervisor.define(machine)
    hypervisor.shutdown(machine.spec.id)
    with pytest.raises(Failed):
        hypervisor.reboot(machine.spec.id)
    assert hypervisor.find(machine.spec.id).power is Power.SHUTOFF


def test_buttons_of_a_running_guest_answer_at_once(hypervisor, machine):
    hypervisor.define(machine)
    hypervisor.start(machine.spec.id)
    hypervisor.reboot(machine.spec.id)
    hypervisor.shutdown(machine.spec.id)


def test_listeners_hear_what_was_asked_and_what_was_not(hypervisor, machine, stand):
    heard: list[tuple[str, Power]] = []
    hypervisor.watch(lambda domain_id, power: heard.append((domain_id, power)))
    hypervisor.define(machine)
    hypervisor.start(machine.spec.id)
    wait_until(lambda: (machine.spec.id, Power.RUNNING) in heard, "the start is heard")
    stand.crash(machine)
    wait_until(lambda: (machine.spec.id, Power.CRASHED) in heard, "the crash is heard")
    wait_until(lambda: hypervisor.find(machine.spec.id).power is Power.CRASHED, "the crash is seen")
    hypervisor.start(machine.spec.id)
    hypervisor.destroy(machine.spec.id)
    wait_until(lambda: heard[-1] == (machine.spec.id, Power.SHUTOFF), "the end is heard")


def test_a_closed_connection_hears_nothing(hypervisor, machine, stand):
    heard = []
    other = stand.connect()
    other.watch(lambda domain_id, power: heard.append(power))
    other.close()
    hypervisor.define(machine)
    hypervisor.start(machine.spec.id)
    assert heard == []


def test_another_agent_process_finds_the_same_guests(hypervisor, machine, stand):
    earlier = stand.connect()
    hardware = earlier.define(machine)
    earlier.start(machine.spec.id)
    run = stand.runs(machine)
    earlier.close()
    observed = hypervisor.find(machine.spec.id)
    assert observed is not None and observed.power is Power.RUNNING and observed.hardware == hardware
    assert hypervisor.define(machine) == hardware and stand.runs(machine) == run


def test_clouds_on_one_host_do_not_see_each_other(hypervisor, machine, stand):
    other = stand.connect("beef")
    try:
        hypervisor.define(machine)
        hypervisor.start(machine.spec.id)
        assert other.list() == () and other.find(machine.spec.id) is None
        other.destroy(machine.spec.id)
        other.undefine(machine.spec.id)
        with pytest.raises(Conflict):
            other.define(machine)
        with pytest.raises(Conflict):
            other.define(a_machine(name=machine.spec.name, folder=machine.folder + "-other"))
        assert hypervisor.find(machine.spec.id).power is Power.RUNNING
    finally:
        other.close()


def test_names_are_unique(hypervisor, machine):
    hypervisor.define(machine)
    with pytest.raises(Conflict):
        hypervisor.define(a_machine(name=machine.spec.name, folder=machine.folder + "-other"))
    assert len(hypervisor.list()) == 1


def test_console_log_is_bounded_and_empty_at_first(hypervisor, machine):
    hypervisor.define(machine)
    assert hypervisor.console_log(machine.spec.id, 1000).text == ""
    hypervisor.start(machine.spec.id)
    assert len(hypervisor.console_log(machine.spec.id, 4).text) <= 4


def test_asked_hardware_that_is_no_default_is_kept(hypervisor, machine):
    hardware = hypervisor.define(changed(machine, hardware=Hardware(cpu_model="qemu32", vif_model="e1000")))
    assert (hardware.cpu_model, hardware.vif_model) == ("qemu32", "e1000")
    assert hypervisor.find(machine.spec.id).hardware == hardware


def test_only_guests_that_are_on_have_used_anything(hypervisor, machine, stand):
    domain_id = machine.spec.id
    hypervisor.define(machine)
    assert hypervisor.usage([domain_id]) == ()
    hypervisor.start(domain_id)
    wait_until(lambda: hypervisor.usage([domain_id])[0].cpu_ns > 0, "the guest's processor runs")
    (first,) = hypervisor.usage([domain_id, str(uuid.uuid4()), "no-uuid"])
    assert (first.id, first.vcpus, first.memory_mib) == (domain_id, machine.spec.vcpus, machine.spec.memory_mib)
    (later,) = hypervisor.usage([domain_id])
    assert later.run == first.run and later.cpu_ns >= first.cpu_ns
    assert hypervisor.usage([]) == ()
    other = stand.connect("beef")
    assert other.usage([domain_id]) == ()
    other.close()


def test_every_power_on_is_a_run_of_its_own(hypervisor, machine, stand):
    domain_id = machine.spec.id
    hypervisor.define(machine)
    runs = []
    for _ in range(3):
        hypervisor.start(domain_id)
        runs.append(hypervisor.usage([domain_id])[0].run)
        other = stand.connect()
        assert other.usage([domain_id])[0].run == runs[-1]
        other.close()
        hypervisor.destroy(domain_id)
    assert len(set(runs)) == 3


def test_a_guest_that_is_on_has_a_screen_and_a_serial_port(hypervisor, machine):
    hypervisor.define(machine)
    for opened in (hypervisor.open_screen, hypervisor.open_serial):
        with pytest.raises(Failed):
            opened(machine.spec.id)
        with pytest.raises(NotFound):
            opened(str(uuid.uuid4()))
    hypervisor.start(machine.spec.id)
    with hypervisor.open_screen(machine.spec.id) as one, hypervisor.open_screen(machine.spec.id) as other:
        Viewer(SocketLine(one)).until(lambda frame: frame.colours() > 1, lambda: time.sleep(0.5))
        assert Viewer(SocketLine(other)).frame().pixels, "two may look at once"
    with hypervisor.open_serial(machine.spec.id) as serial:
        serial.setblocking(True)
        serial.sendall(b"\n")
    with hypervisor.open_serial(machine.spec.id):
        pass


def test_a_paused_guest_stands_still_and_goes_on(hypervisor, machine, stand):
    hypervisor.define(machine)
    with pytest.raises(Failed):
        hypervisor.pause(machine.spec.id)
    hypervisor.start(machine.spec.id)
    run = stand.runs(machine)
    for _ in range(2):
        hypervisor.pause(machine.spec.id)
        assert hypervisor.find(machine.spec.id).power is Power.PAUSED
    hypervisor.define(changed(machine, generation=Generation(1, 2)))
    assert hypervisor.find(machine.spec.id).power is Power.PAUSED
    hypervisor.start(machine.spec.id)
    assert hypervisor.find(machine.spec.id).power is Power.RUNNING and stand.runs(machine) == run


def test_a_saved_guest_is_off_with_its_memory_until_it_goes_on(hypervisor, machine, stand):
    heard = []
    hypervisor.watch(lambda _, power: heard.append(power))
    hypervisor.define(machine)
    with pytest.raises(Failed):
        hypervisor.save(machine.spec.id)
    hypervisor.start(machine.spec.id)
    for _ in range(2):
        hypervisor.save(machine.spec.id)
        assert hypervisor.find(machine.spec.id).power is Power.SUSPENDED
    wait_until(lambda: heard[-1] is Power.SUSPENDED, "the save is heard as one")
    hypervisor.define(changed(machine, generation=Generation(1, 2)))
    observed = hypervisor.find(machine.spec.id)
    assert (observed.power, observed.generation) == (Power.SUSPENDED, Generation(1, 2))
    hypervisor.start(machine.spec.id)
    observed = hypervisor.find(machine.spec.id)
    assert (observed.power, observed.generation) == (Power.RUNNING, Generation(1, 2))


def test_a_paused_guest_is_saved_and_then_runs(hypervisor, machine):
    hypervisor.define(machine)
    hypervisor.start(machine.spec.id)
    hypervisor.pause(machine.spec.id)
    hypervisor.save(machine.spec.id)
    hypervisor.start(machine.spec.id)
    assert hypervisor.find(machine.spec.id).power is Power.RUNNING


def test_a_saved_guest_that_is_destroyed_has_no_memory(hypervisor, machine):
    hypervisor.define(machine)
    hypervisor.start(machine.spec.id)
    hypervisor.save(machine.spec.id)
    hypervisor.destroy(machine.spec.id)
    assert hypervisor.find(machine.spec.id).power is Power.SHUTOFF


def test_a_saved_guest_is_forgotten_with_its_memory(hypervisor, machine):
    hypervisor.define(machine)
    hypervisor.start(machine.spec.id)
    hypervisor.save(machine.spec.id)
    hypervisor.undefine(machine.spec.id)
    assert hypervisor.find(machine.spec.id) is None
    hypervisor.define(machine)
    assert hypervisor.find(machine.spec.id).power is Power.SHUTOFF


def test_what_is_unknown_is_neither_paused_nor_saved_nor_copied(hypervisor, machine):
    for act in (hypervisor.pause, hypervisor.save):
        with pytest.raises(NotFound):
            act(machine.spec.id)
    with pytest.raises(NotFound):
        hypervisor.copy_disk(machine.spec.id, "/nowhere", "/nowhere-else")
    with pytest.raises(NotFound):
        hypervisor.plug_nics(machine)


def test_a_guest_that_is_off_has_nothing_plugged_and_nothing_copied(hypervisor, machine):
    hypervisor.define(machine)
    hypervisor.plug_nics(machine)
    assert hypervisor.copy_disk(machine.spec.id, "/nowhere", "/nowhere-else") is False
