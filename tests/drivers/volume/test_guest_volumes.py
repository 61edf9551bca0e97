"""Volumes under real guests: two hosts, one of them keeps the volume; QEMU logs in, the guest writes all the time."""

import contextlib
import os
import re
import shutil
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from agent.wire.errors import Busy, Failed
from agent.wire.lifecycle import Power
from agent.wire.volume import LUN, Chap, IscsiSource, initiator_iqn, target_iqn
from drivers import command
from drivers.hypervisor.base import DiskSource, Machine
from drivers.hypervisor.kvm_probe import Choice
from drivers.image.load import ImageDrivers, ImageSettings, load
from drivers.volume.base import Export, ObservedExport
from drivers.volume.file import FileVolumes
from tests.drivers.images import MIB, sha256
from tests.drivers.machines import a_guest, a_machine
from tests.drivers.private_host import ROOT, PrivateHost, wait_until
from tests.drivers.volume.inside import Order

pytestmark = [
    pytest.mark.host,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

CACHE = Path(os.environ.get("HOSTLER_TEST_CACHE", ROOT / ".cache/tests"))
TAG = "c0de"
UID = 70002
GIB = 1 << 30
BOOT_S = 240
VOLUME = "aaaaaaaa-0000-4000-8000-000000000001"
STORAGE, COMPUTE = "198.18.77.1", "198.18.77.2"

WRITER = b"""#!/bin/sh
exec >/dev/console 2>&1
watch() {
    n=0 size=
    while :; do
        if [ -b /dev/vdb ]; then
            now=$(cat /sys/block/vdb/size)
            if [ "$now" != "$size" ]; then
                size=$now
                echo "vdb has $size sectors and says $(dd if=/dev/vdb bs=512 count=1 2>/dev/null | tr -d '\\0') end"
            fi
            n=$((n + 1))
            if echo "count $n" | dd of=/dev/vdb bs=512 seek=1 conv=fsync,notrunc 2>/dev/null; then
                echo "wrote $n"
            else
                echo "failed $n"
            fi
        elif [ -n "$size" ]; then
            size=
            echo "vdb is gone"
        fi
        sleep 0.3
    done
}
watch &
"""


class Host:
    """One host: libvirt, a guest, and a way into its namespaces."""

    def __init__(self, name: str, address: str) -> None:
        from drivers.hypervisor.libvirt.driver import LibvirtHypervisor

        self.name, self.address = name, address
        self.place = PrivateHost()
        self.place.ensure_daemon()
        self.hypervisor = LibvirtHypervisor(
            uri=self.place.uri,
            tag=TAG,
            choice=Choice(virt_type="qemu", why="a test"),
            emulator="/usr/bin/qemu-system-x86_64",
        )
        self.machine: Machine | None = None

    def boot(self, image: Path) -> None:
        """Define and start a guest that writes to its second disk whenever it has one."""
        images = load(ImageSettings(), state=str(self.place.folder / "state"))
        domain_id = str(uuid.uuid4())
        self.machine = a_machine(
            domain_id=domain_id,
            memory_mib=128,
            uid=UID,
            folder=str(self.place.folder / "guest"),
            disks=self._disks(images, image, domain_id),
        )
        self.hypervisor.define(self.machine)
        self.hypervisor.start(domain_id)

    def give(self, *volumes: DiskSource) -> Machine:
        """The guest's machine with these volumes, recorded."""
        assert self.machine is not None
        disks = (*(disk for disk in self.machine.disks if disk.iscsi is None), *volumes)
        self.machine = msgspec.structs.replace(self.machine, disks=disks)
        self.hypervisor.define(self.machine)
        return self.machine

    def plug(self, *volumes: DiskSource) -> None:
        """Until the guest has these volumes and no others."""
        machine = self.give(*volumes)

        def is_plugged() -> bool:
            try:
                self.hypervisor.plug_disks(machine)
            except Busy:
                return False
            return True

        wait_until(is_plugged, "the guest has its volumes", BOOT_S)

    def said(self) -> str:
        assert self.machine is not None
        return self.hypervisor.console_log(self.machine.spec.id, 200_000).text.replace("\r", "")

    def waits_for(self, what: str, times: int = 1) -> None:
        wait_until(lambda: len(re.findall(what, self.said())) >= times, f"{self.name} says {what}", BOOT_S)

    def wrote(self) -> int:
        numbers = re.findall(r"^wrote (\d+)$", self.said(), flags=re.MULTILINE)
        return int(numbers[-1]) if numbers else 0

    def goes_on_writing(self) -> None:
        before = self.wrote()
        wait_until(lambda: self.wrote() >= before + 3, f"{self.name} writes", BOOT_S)

    def secrets(self) -> list[str]:
        return self.place.run("virsh", "-q", "secret-list").text.split()

    def _disks(self, images: ImageDrivers, image: Path, domain_id: str) -> tuple[DiskSource, ...]:
        data = image.read_bytes()
        cached = images.cache.fetch(sha256(data), len(data), "qcow2", lambda path: shutil.copyfile(image, path))
        root = images.disks.ensure("root", cached, 512 * MIB, UID)
        guest = a_guest(meta_data=f'{{"uuid": "{domain_id}", "hostname": "{self.name}"}}', user_data=WRITER)
        config = images.disks.ensure_config("config", guest, UID)
        return (
            DiskSource(disk_id=root.id, path=root.path, format=root.format, boot_index=0, serial="root"),
            DiskSource(disk_id=config.id, path=config.path, format=config.format, is_cdrom=True),
        )


class Storage:
    """The exporter of one host, told from outside."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.folder = host.place.folder / "tgt"
        self.volumes = FileVolumes({"files": host.place.folder / "volumes"}, confined_uid=65534, timeout_s=60)

    def export(self, attachment: str, *hosts: Host) -> DiskSource:
        """The volume, for one attachment, as a guest's second disk."""
        volume = self.volumes.find(VOLUME)
        assert volume is not None
        chap = Chap(user=attachment, secret=attachment.replace("-", "")[:32])
        export = Export(
            id=attachment,
            volume_id=VOLUME,
            path=volume.path,
            size_bytes=volume.size_bytes,
            initiators=tuple(initiator_iqn(TAG, one.name) for one in hosts),
            chap=chap,
        )
        self._tell(export=export)
        source = IscsiSource(
            volume_id=VOLUME,
            host=STORAGE,
            port=3260,
            iqn=target_iqn(TAG, attachment),
            lun=LUN,
            initiator=initiator_iqn(TAG, hosts[0].name),
            chap=chap,
            size_gib=volume.size_bytes // GIB,
        )
        return DiskSource(disk_id=attachment, path="", format="raw", iscsi=source, device="vdb", serial=VOLUME)

    def revoke(self, attachment: str) -> None:
        self._tell(absent=attachment)

    def sessions(self) -> dict[str, tuple[str, ...]]:
        found = msgspec.json.decode(self._tell().stdout, type=list[ObservedExport])
        return {one.id: one.sessions for one in found}

    def kill(self) -> None:
        """kill -9 of the target daemon."""
        self.host.place.run("kill", "-9", (self.folder / "pid").read_text())

    def content(self, sector: int) -> str:
        volume = self.volumes.find(VOLUME)
        assert volume is not None
        with Path(volume.path).open("rb") as file:
            file.seek(512 * sector)
            return file.read(512).split(b"\n")[0].strip(b"\0").decode()

    def _tell(self, **order: object) -> command.Output:
        told = Order(folder=str(self.folder), address=STORAGE, port=3260, tag=TAG, **order)  # type: ignore[arg-type]
        text = msgspec.json.encode(told).decode()
        return self.host.place.run(sys.executable, "-m", "tests.drivers.volume.inside", text)


@pytest.fixture(scope="module")
def image() -> Path:
    """The tiny guest image, built if it is not there."""
    builder = [sys.executable, ROOT / "packaging/guest/build.py", "--out", CACHE / "images", "--cache", CACHE / "debs"]
    command.run([*builder, "--only", "hostler-tiny"], timeout_s=300, env={"HOME": os.environ.get("HOME", "/root")})
    return CACHE / "images" / "hostler-tiny.qcow2"


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    one, two = Host("one", STORAGE), Host("two", COMPUTE)
    try:
        ends = ("netns", str(one.place.pid), "type", "veth", "peer", "name", "wire", "netns", str(two.place.pid))
        command.run(["ip", "link", "add", "wire", *ends], timeout_s=30)
        for host in (one, two):
            host.place.run("ip", "address", "add", f"{host.address}/24", "dev", "wire")
            host.place.run("ip", "link", "set", "wire", "up")
        yield one, two
    finally:
        for host in (one, two):
            host.hypervisor.close()
            host.place.close()


def test_a_volume_serves_guests_on_two_hosts_through_everything(image, hosts):
    one, two = hosts
    storage = Storage(one)
    volume = storage.volumes.ensure(VOLUME, "files", GIB, None)
    with Path(volume.path).open("r+b") as file:
        file.write(b"first words")
    one.boot(image)
    two.boot(image)
    first, second, foreign = (str(uuid.uuid4()) for _ in range(3))

    # Hot plug; data arrives.
    one.waits_for("one login:")
    mine = storage.export(first, one)
    one.plug(mine)
    one.waits_for("vdb has 2097152 sectors and says first words end")
    one.goes_on_writing()
    assert storage.content(1).startswith("count ")
    assert storage.sessions() == {first: (initiator_iqn(TAG, "one"),)}
    assert mine.iscsi.chap.secret not in one.place.run("ps", "axww", "-o", "args").text
    assert mine.iscsi.chap.secret not in one.place.run("virsh", "dumpxml", "--security-info", one.machine.spec.id).text

    # Who has no account, another's, or another name, is refused; the guest goes on.
    two.waits_for("two login:")
    stolen = msgspec.structs.replace(mine.iscsi, initiator=initiator_iqn(TAG, "two"))
    guessed = msgspec.structs.replace(mine.iscsi, chap=Chap(user=first, secret="g" * 32))
    for bad in (stolen, guessed):
        with pytest.raises(Failed):
            two.hypervisor.plug_disks(two.give(msgspec.structs.replace(mine, disk_id=foreign, iscsi=bad)))
    two.give()
    assert two.secrets() == []

    # The target daemon dies under the writer; nothing fails, nothing is lost.
    storage.kill()
    assert storage.sessions() == {}
    before = one.wrote()
    storage.export(first, one)
    one.goes_on_writing()
    assert "failed" not in one.said() and one.hypervisor.find(one.machine.spec.id).power is Power.RUNNING
    assert one.wrote() >= before + 3

    # libvirtd forgets its secrets; the guest needs none.
    one.place.kill_daemon()
    one.place.ensure_daemon()
    one.goes_on_writing()

    # It grows under the writer.
    storage.volumes.ensure(VOLUME, "files", 2 * GIB, None)
    grown = storage.export(first, one)
    one.plug(grown)
    one.waits_for("vdb has 4194304 sectors and says first words end")
    one.goes_on_writing()
    assert "failed" not in one.said()

    # Unplugged here, plugged in there.
    one.plug()
    one.waits_for("vdb is gone")
    last = one.wrote()
    wait_until(lambda: storage.sessions() == {first: ()}, "QEMU has logged out")
    assert one.secrets() == []
    storage.revoke(first)
    assert storage.content(1) in (f"count {last}", f"count {last + 1}")  # The last one may have lost its words.
    theirs = storage.export(second, two)
    two.plug(theirs)
    two.waits_for("vdb has 4194304 sectors and says first words end")
    two.goes_on_writing()

    # Revoked under the writer: from that instant nothing arrives. Given back, it goes on.
    storage.revoke(second)
    assert not (storage.folder / "pid").exists()
    seen = storage.content(1)
    with pytest.raises(AssertionError):
        wait_until(lambda: storage.content(1) != seen, "a write arrives", 3)
    storage.export(second, two)
    two.goes_on_writing()
    assert "failed" not in two.said()

    # Two servers have it at once, each by an attachment of its own.
    shared = storage.export(first, one)
    shared = msgspec.structs.replace(shared, iscsi=msgspec.structs.replace(shared.iscsi, is_shared=True))
    one.plug(shared)
    one.goes_on_writing()
    two.goes_on_writing()
    assert sorted(storage.sessions()) == sorted((first, second))
    storage.kill()
    storage.export(first, one)
    storage.export(second, two)
    one.goes_on_writing()
    two.goes_on_writing()
    assert "failed" not in one.said() + two.said()
    one.plug()
    storage.revoke(first)
    assert storage.sessions() == {second: (initiator_iqn(TAG, "two"),)}
    two.goes_on_writing()

    # A guest whose storage is silent holds on, and nothing else hangs; when the storage is back it lets go.
    storage.kill()
    with contextlib.suppress(Busy):  # It has let go if it was just not writing.
        two.hypervisor.plug_disks(two.give())
    assert two.hypervisor.find(two.machine.spec.id).power is Power.RUNNING
    storage.export(second, two)
    two.plug()
    two.waits_for("vdb is gone")
    two.plug(theirs)

    # A power cycle keeps it: it is in the record.
    two.hypervisor.destroy(two.machine.spec.id)
    assert storage.sessions() == {second: ()}
    two.hypervisor.start(two.machine.spec.id)
    assert storage.sessions() == {second: (initiator_iqn(TAG, "two"),)}
    assert "vdb" in two.place.run("virsh", "domblklist", two.machine.spec.id).text
    two.waits_for("two login:")

    storage.revoke(second)
    two.hypervisor.destroy(two.machine.spec.id)
    two.hypervisor.undefine(two.machine.spec.id)
    assert two.secrets() == []
