"""The KVM probe: its good branch is proved with TCG, its bad ones with what has no KVM."""

import tempfile
from pathlib import Path

import pytest

from drivers import command
from drivers.hypervisor import kvm_probe

QEMU = "/usr/bin/qemu-system-x86_64"
needs_qemu = pytest.mark.skipif(not Path(QEMU).exists(), reason="needs QEMU")


@needs_qemu
def test_the_payload_reaches_its_end_where_an_exception_works():
    found = kvm_probe.probe("tcg", emulator=QEMU, timeout_s=60)
    assert found.works, found.why


@needs_qemu
def test_a_machine_that_cannot_start_says_why():
    found = kvm_probe.probe("no-such-accelerator", emulator=QEMU, timeout_s=60)
    assert not found.works and "no-such-accelerator" in found.why


def test_an_emulator_that_is_missing_is_no_kvm():
    assert not kvm_probe.probe("tcg", emulator="/nonexistent/qemu", timeout_s=10).works


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("exit 33", "ended well"),
        ("echo KVM internal error. Suberror: 1 >&2; sleep 1000", "KVM internal error"),
        ("sleep 1000", "did not end within"),
        ("echo oops >&2; exit 1", "oops"),
    ],
)
def test_every_way_a_guest_can_end_is_told_apart(script, why):
    with tempfile.TemporaryDirectory() as folder:  # Not pytest's: the probe runs as nobody, who must reach it.
        Path(folder).chmod(0o755)
        emulator = Path(folder, "qemu")
        emulator.write_text(f"#!/bin/sh\n{script}\n")
        emulator.chmod(0o755)
        found = kvm_probe.probe("tcg", emulator=str(emulator), timeout_s=3)
    assert why in found.why and found.works == (script == "exit 33")


def test_the_answer_is_remembered_until_conditions_change(tmp_path, monkeypatch):
    asked = []

    def probe(accel, *, emulator, timeout_s):
        asked.append(accel)
        return kvm_probe.Probe(works=True, why="a test says so", seconds=0.1)

    monkeypatch.setattr(kvm_probe, "probe", probe)
    for _ in range(2):
        choice = kvm_probe.choose("auto", folder=str(tmp_path), emulator=QEMU, timeout_s=1)
        assert choice.virt_type == "kvm"
    assert asked == ["kvm"]
    kvm_probe.choose("auto", folder=str(tmp_path), emulator="/another/qemu", timeout_s=1)
    (tmp_path / "kvm-probe.json").write_text("{")
    kvm_probe.choose("auto", folder=str(tmp_path), emulator=QEMU, timeout_s=1)
    assert asked == ["kvm"] * 3


def test_the_operator_may_choose_without_a_probe(tmp_path):
    for wanted in ("kvm", "qemu"):
        choice = kvm_probe.choose(wanted, folder=str(tmp_path), emulator="/nonexistent", timeout_s=0.1)
        assert (choice.virt_type, choice.why) == (wanted, "set by the operator")


@pytest.mark.host
def test_the_payload_is_what_its_source_assembles_to(tmp_path):
    source = Path(kvm_probe.__file__).with_suffix(".S")
    try:
        command.run(["as", "--64", "-o", tmp_path / "probe.o", source], timeout_s=30)
    except command.CommandFailed as failure:
        if "cannot be started" in str(failure):
            pytest.skip("needs binutils")
        raise
    link = ["ld", "-m", "elf_x86_64", "-Ttext=0x100000", "--oformat", "binary"]
    command.run([*link, "-o", tmp_path / "probe.bin", tmp_path / "probe.o"], timeout_s=30)
    assert (tmp_path / "probe.bin").read_bytes() == kvm_probe.PAYLOAD
