"""A guest that is paused, saved, given interfaces and copied while it runs: it is asked, not only libvirt."""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.wire.errors import Busy
from agent.wire.lifecycle import Power
from drivers import command
from drivers.hypervisor.base import DiskSource, Machine, NicSource
from drivers.hypervisor.kvm_probe import Choice
from drivers.image.load import ImageSettings, load
from tests.drivers.images import MIB, sha256
from tests.drivers.machines import a_guest, a_machine
from tests.drivers.private_host import ROOT, PrivateHost, wait_until

pytestmark = [
    pytest.mark.host,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

CACHE = Path(os.environ.get("HOSTLER_TEST_CACHE", ROOT / ".cache/tests"))
UID = 70001
TAPS = ("t0000000001", "t0000000002")
GUEST_S = 240  # An idle machine takes seconds; one whose cores are all busy, many times that.

COUNTING = b"""#!/bin/sh
echo a-file-of-the-first-guest > /root/proof
sync
n=0
while :; do
  n=$((n + 1))
  set -- /sys/class/net/eth*
  echo "tick $n nics $#" > /dev/console
  sleep 1
done &
"""

READING = b"""#!/bin/sh
echo "proof is $(cat /root/proof)" > /dev/console
"""


class Stand:
    """A private host with libvirt, a cached image, and machines upon it."""

    def __init__(self, image: Path) -> None:
        from drivers.hypervisor.libvirt.driver import LibvirtHypervisor

        self.host = PrivateHost()
        self.host.ensure_daemon()
        for tap in TAPS:
            self.host.run("ip", "tuntap", "add", tap, "mode", "tap")
            self.host.run("ip", "link", "set", tap, "mtu", "1450", "up")
        self.images = load(ImageSettings(), state=str(self.host.folder / "state"))
        data = image.read_bytes()
        self.image = self.images.cache.fetch(
            sha256(data), len(data), "qcow2", lambda path: shutil.copyfile(image, path)
        )
        self.hypervisor = LibvirtHypervisor(
            uri=self.host.uri,
            tag="c0fe",
            choice=Choice(virt_type="qemu", why="a test"),
            emulator="/usr/bin/qemu-system-x86_64",
        )

    def machine(self, name: str, root: Any, user_data: bytes) -> Machine:
        guest = a_guest(meta_data=f'{{"uuid": "{name}", "hostname": "{name}"}}', user_data=user_data)
        config = self.images.disks.ensure_config(f"{name}-config", guest, UID)
        return a_machine(
            memory_mib=128,
            uid=UID,
            folder=str(self.host.folder / "guests" / name),
            nics=(NicSource(device=TAPS[0], mac="fa:16:3e:00:00:01", mtu=1450),),
            disks=(
                DiskSource(disk_id=root.id, path=root.path, format=root.format, boot_index=0),
                DiskSource(disk_id=config.id, path=config.path, format=config.format, is_cdrom=True),
            ),
        )

    def boot(self, machine: Machine) -> None:
        self.hypervisor.define(machine)
        self.hypervisor.start(machine.spec.id)

    def said(self, machine: Machine) -> str:
        return self.hypervisor.console_log(machine.spec.id, 200_000).text

    def ticks(self, machine: Machine) -> int:
        found = re.findall(r"tick (\d+) nics", self.said(machine))
        return int(found[-1]) if found else 0

    def nics(self, machine: Machine) -> int:
        found = re.findall(r"tick \d+ nics (\d+)", self.said(machine))
        return int(found[-1]) if found else 0

    def goes_on(self, machine: Machine, since: int) -> None:
        wait_until(lambda: self.ticks(machine) > since, f"the guest counts beyond {since}", GUEST_S)

    def close(self) -> None:
        self.hypervisor.close()
        self.host.close()


@pytest.fixture(scope="module")
def stand() -> Iterator[Stand]:
    builder = [sys.executable, ROOT / "packaging/guest/build.py", "--out", CACHE / "images", "--cache", CACHE / "debs"]
    command.run([*builder, "--only", "hostler-tiny"], timeout_s=300, env={"HOME": os.environ.get("HOME", "/root")})
    made = Stand(CACHE / "images" / "hostler-tiny.qcow2")
    yield made
    made.close()


@pytest.fixture(scope="module")
def counting(stand: Stand) -> Machine:
    root = stand.images.disks.ensure("counting", stand.image, 512 * MIB, UID)
    machine = stand.machine("counting", root, COUNTING)
    stand.boot(machine)
    stand.goes_on(machine, 2)
    return machine


def test_a_paused_guest_counts_no_further_and_then_goes_on(stand: Stand, counting: Machine) -> None:
    stand.hypervisor.pause(counting.spec.id)
    before = stand.ticks(counting)
    stand.host.run("sleep", "3")
    assert stand.ticks(counting) == before
    stand.hypervisor.start(counting.spec.id)
    stand.goes_on(counting, before)


def test_a_saved_guest_has_no_qemu_and_goes_on_where_it_stood(stand: Stand, counting: Machine) -> None:
    stand.hypervisor.save(counting.spec.id)
    before = stand.ticks(counting)
    assert stand.host.qemu_pid(counting.spec.name) is None
    assert stand.hypervisor.find(counting.spec.id).power is Power.SUSPENDED
    stand.hypervisor.start(counting.spec.id)
    # The console's log begins anew with a new QEMU; what is counted goes on.
    wait_until(lambda: stand.ticks(counting) > before, "the guest counts on", GUEST_S)
    assert "login:" not in stand.said(counting), "it did not boot"


def test_a_guest_gets_an_interface_and_lets_go_of_it(stand: Stand, counting: Machine) -> None:
    second = NicSource(device=TAPS[1], mac="fa:16:3e:00:00:02", mtu=1450)
    with_two = msgspec.structs.replace(counting, nics=(*counting.nics, second))
    for _ in range(2):  # Twice is harmless.
        stand.hypervisor.define(with_two)
        stand.hypervisor.plug_nics(with_two)
    wait_until(lambda: stand.nics(counting) == 2, "the guest sees two", GUEST_S)
    stand.hypervisor.define(counting)

    def is_gone() -> bool:
        try:
            stand.hypervisor.plug_nics(counting)
        except Busy:
            return False
        return True

    wait_until(is_gone, "the guest has let go", GUEST_S)
    wait_until(lambda: stand.nics(counting) == 1, "the guest sees one", GUEST_S)
    assert TAPS[1] in stand.host.run("ip", "-o", "link").text  # It was not libvirt's, and libvirt left it.


def test_a_disk_that_was_copied_under_a_running_guest_boots_with_what_was_written(
    stand: Stand, counting: Machine
) -> None:
    disks = stand.images.disks
    source = disks.find("counting")
    target = disks.begin_copy("picture-capture", "counting", UID)
    before = stand.ticks(counting)
    assert stand.hypervisor.copy_disk(counting.spec.id, source.path, target) is True
    copy = disks.end_copy("picture-capture")
    stand.goes_on(counting, before)
    assert "job" not in stand.host.run("virsh", "domblklist", counting.spec.name).text
    info = stand.host.run("qemu-img", "info", "--output=json", copy.path).text
    assert "backing" not in info
    assert Path(copy.path).stat().st_uid == 0
    _boots_with_proof(stand, "live", copy.path)


def test_a_disk_beside_a_guest_that_is_off_is_copied_flat(stand: Stand, counting: Machine) -> None:
    stand.hypervisor.destroy(counting.spec.id)
    disks = stand.images.disks
    target = disks.begin_copy("cold-capture", "counting", UID)
    assert stand.hypervisor.copy_disk(counting.spec.id, disks.find("counting").path, target) is False
    disks.fill_copy("cold-capture", "counting", UID)
    copy = disks.end_copy("cold-capture")
    assert "backing" not in stand.host.run("qemu-img", "info", "--output=json", copy.path).text
    _boots_with_proof(stand, "cold", copy.path)


def _boots_with_proof(stand: Stand, name: str, path: str) -> None:
    """As an image: fetched into the cache, verified and inspected, a disk upon it, a guest upon that."""
    data = Path(path).read_bytes()
    cached = stand.images.cache.fetch(sha256(data), len(data), "qcow2", lambda part: shutil.copyfile(path, part))
    machine = stand.machine(name, stand.images.disks.ensure(name, cached, 512 * MIB, UID), READING)
    second = NicSource(device=TAPS[1], mac="fa:16:3e:00:00:03", mtu=1450)
    machine = msgspec.structs.replace(machine, nics=(second,))
    stand.boot(machine)
    wait_until(lambda: "proof is a-file-of-the-first-guest" in stand.said(machine), "the copy has the file", GUEST_S)
    stand.hypervisor.destroy(machine.spec.id)
    stand.hypervisor.undefine(machine.spec.id)
