"""A guest from end to end, below the agent: cached image, overlay, config drive, tap, console, buttons."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from agent.wire.lifecycle import Power
from drivers import command
from drivers.hypervisor.base import DiskSource, NicSource
from drivers.hypervisor.kvm_probe import Choice
from drivers.image.load import ImageSettings, load
from tests.drivers.images import MIB, sha256
from tests.drivers.machines import a_guest, a_machine
from tests.drivers.private_host import ROOT, PrivateHost, wait_until

pytestmark = [
    pytest.mark.host,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

CACHE = Path(os.environ.get("HOSTLER_TEST_CACHE", ROOT / ".cache/tests"))
UID = 70001
TAP = "t0123456789"
BOOT_S = 180  # An idle machine takes 4 s; one whose cores are all busy, many times that.


@pytest.fixture(scope="module")
def image() -> Path:
    """The tiny guest image, built if it is not there."""
    builder = [sys.executable, ROOT / "packaging/guest/build.py", "--out", CACHE / "images", "--cache", CACHE / "debs"]
    command.run([*builder, "--only", "hostler-tiny"], timeout_s=300, env={"HOME": os.environ.get("HOME", "/root")})
    return CACHE / "images" / "hostler-tiny.qcow2"


def test_a_guest_boots_reads_its_config_drive_and_obeys_its_buttons(image):
    from drivers.hypervisor.libvirt.driver import LibvirtHypervisor

    host = PrivateHost()
    try:
        host.ensure_daemon()
        host.run("ip", "tuntap", "add", TAP, "mode", "tap")
        host.run("ip", "link", "set", TAP, "mtu", "1450", "up")
        images = load(ImageSettings(), state=str(host.folder / "state"))
        data = image.read_bytes()
        cached = images.cache.fetch(sha256(data), len(data), "qcow2", lambda path: shutil.copyfile(image, path))
        root = images.disks.ensure("root", cached, 512 * MIB, UID)
        guest = a_guest(meta_data='{"uuid": "from-the-drive", "hostname": "driven"}')
        config = images.disks.ensure_config("config", guest, UID)
        machine = a_machine(
            memory_mib=128,
            uid=UID,
            folder=str(host.folder / "guest"),
            nics=(NicSource(device=TAP, mac="fa:16:3e:00:00:01", mtu=1450),),
            disks=(
                DiskSource(disk_id=root.id, path=root.path, format=root.format, boot_index=0, serial="root"),
                DiskSource(disk_id=config.id, path=config.path, format=config.format, is_cdrom=True),
            ),
        )
        hypervisor = LibvirtHypervisor(
            uri=host.uri,
            tag="c0fe",
            choice=Choice(virt_type="qemu", why="a test"),
            emulator="/usr/bin/qemu-system-x86_64",
        )
        heard: list[Power] = []
        hypervisor.watch(lambda _, power: heard.append(power))
        hypervisor.define(machine)
        hypervisor.start(machine.spec.id)

        def said() -> str:
            return hypervisor.console_log(machine.spec.id, 100_000).text

        wait_until(lambda: "driven login:" in said(), "the guest has its name from the drive", BOOT_S)
        assert "metadata drive from-the-drive" in said()
        pid = host.qemu_pid(machine.spec.name)

        hypervisor.reboot(machine.spec.id)
        wait_until(lambda: said().count("driven login:") == 2, "the guest came back", BOOT_S)
        assert host.qemu_pid(machine.spec.name) == pid and heard == [Power.RUNNING]

        hypervisor.shutdown(machine.spec.id)
        wait_until(lambda: heard[-1] is Power.SHUTOFF, "the guest obeyed the power button", BOOT_S)
        assert hypervisor.find(machine.spec.id).power is Power.SHUTOFF
        assert TAP in host.run("ip", "-o", "link").text  # It was not libvirt's, and libvirt left it.
        assert (
            Path(cached.path).stat().st_mode & 0o777 == 0o444
            and sha256(Path(cached.path).read_bytes()) == cached.sha256
        )
        hypervisor.close()
    finally:
        host.close()
