"""What test_agent.py runs inside a host of its own: an agent with real drivers from first network to empty host.

python -m tests.host.agent_walk FOLDER IMAGE
"""

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from agent.config import Settings
from agent.effects import Drivers
from agent.guard_link import GuardLink
from agent.inventory import Identity
from agent.ledger import open_ledger
from agent.node import Agent
from agent.probe import SystemProbe
from agent.wire import bus as wire
from agent.wire import disk, domain, group, host, image, network, port, router, volume
from agent.wire.domain import ConsoleRequest, Desired, DomainDisk, DomainNic, DomainSpec, GuestData, Reboot, RebootKind
from agent.wire.group import AddressesSpec, GroupSpec, RuleSpec
from agent.wire.image import ImageSpec
from agent.wire.lifecycle import Generation, Power, Progress
from agent.wire.network import DhcpPort, NetworkSpec, SubnetSpec
from agent.wire.port import FixedIp, PortSpec
from agent.wire.router import FloatingSpec, GatewaySpec, LegSpec, RouterSpec
from agent.wire.settings import load
from agent.wire.specs import Absence, Call, Empty
from agent.wire.volume import (
    Chap,
    ExportSpec,
    IscsiSource,
    SnapshotSpec,
    SourceKind,
    VolumeSource,
    VolumeSpec,
    initiator_iqn,
)
from agent.wire.world import system_world
from drivers.hypervisor import load as hypervisors
from drivers.image import load as images
from drivers.image.base import Fetch
from drivers.network import load as networks
from drivers.volume import load as volumes
from tests.agent.memory_bus import MemoryBus

TAG = "a9e7"
SERVER, PORT, NET, OUTSIDE, GROUP, ROUTER = (f"{n}{n}111111-1111-4111-8111-111111111111" for n in "abcdef")
DISK = f"{SERVER}-root"
VOLUME, CLONE, SNAPSHOT, ATTACHMENT = (f"{n}{n}222222-2222-4222-8222-222222222222" for n in "abcd")
MAC, DHCP_MAC, LEG_MAC, GATEWAY_MAC = (f"fa:16:3e:00:00:0{n}" for n in "5678")
BOOT_S = 240
SHUTDOWN_S = 120


class CopySource:
    def __init__(self, path: Path) -> None:
        self.path = path

    def fetch(self, spec: ImageSpec) -> Fetch:
        return lambda path: shutil.copyfile(self.path, path)


class Walk:
    def __init__(self, folder: Path, picture: Path) -> None:
        self.folder, self.picture = folder, picture
        environment = {
            "HOSTLER_AGENT_STATE": str(folder / "state"),
            "HOSTLER_AGENT_RUN": str(folder / "agent-run"),
            "HOSTLER_HYPERVISOR_IS_DAEMON_OURS": "true",
            "HOSTLER_HYPERVISOR_VIRT_TYPE": "qemu",
            "HOSTLER_NETWORK_PHYSICAL_NETWORKS": ('{external = {bridge = "br-ex", addresses = ["203.0.113.1/24"]}}'),
        }
        self.settings = load(Settings, None, environment)
        for made in (folder / "state", folder / "agent-run"):
            made.mkdir(exist_ok=True)
            made.chmod(0o755)
        self.world = system_world(8, "driver")
        self.guard: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """An agent, as its process would make it."""
        self.bus = MemoryBus()
        self.link = GuardLink(self.settings.guard_socket(), self.settings.guard.uid, self.world.threads)
        state = str(self.settings.agent.folder)
        net, disks = networks.load(self.settings.network_settings(TAG)), images.load(self.settings.image, state=state)
        kept = volumes.load(self.settings.volume, self.settings.volume_place(TAG))
        drivers = Drivers(
            hypervisor=hypervisors.load(self.settings.hypervisor, tag=TAG, state=state),
            fabric=net.fabric,
            filter=net.filter,
            dhcp=net.dhcp,
            images=disks.cache,
            disks=disks.disks,
            volumes=kept.volumes,
            exporter=kept.exporter,
        )
        self.ledger = open_ledger(self.settings.agent.folder / "ledger" / "ledger.sqlite", self.world.entropy.uuid)
        self.drivers = drivers
        self.agent = Agent(
            self.world,
            self.bus,
            self.ledger,
            drivers,
            Identity(host_id="h1", cloud="test", tag=TAG, underlay_address="127.0.0.1"),
            probe=SystemProbe(self.settings.agent.folder),
            guard=self.link,
            source=CopySource(self.picture),
            places=self.settings.places(),
        )
        self.tasks = [asyncio.create_task(self.link.run()), asyncio.create_task(self.agent.run())]
        ready = asyncio.create_task(self.agent.is_ready.wait())
        await asyncio.wait((ready, *self.tasks), return_when=asyncio.FIRST_COMPLETED, timeout=180)
        assert ready.done(), [task for task in self.tasks if task.done()]

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.drivers.hypervisor.close()
        self.ledger.close()

    def start_guard(self) -> None:
        argv = [sys.executable, "-m", "agent.guard", str(self.settings.guard_socket())]
        self.guard = subprocess.Popen(argv)

    async def until(self, row: Call[Any, Any], request: Any, end: Progress = Progress.READY) -> Any:
        async with asyncio.timeout(BOOT_S):
            while True:
                status = await wire.call(self.bus, "h1", row, request)
                if status.progress is end:
                    return status
                print(
                    "  waits for", row.name, status.progress, status.fault.message if status.fault else "", flush=True
                )
                await asyncio.sleep(1)

    async def console(self) -> str:
        return (await wire.call(self.bus, "h1", domain.CONSOLE, ConsoleRequest(id=SERVER))).text

    async def console_has(self, word: str, times: int = 1) -> None:
        async with asyncio.timeout(BOOT_S):
            while (await self.console()).count(word) < times:
                await asyncio.sleep(1)

    def qemu(self) -> int:
        return int(Path(f"/run/libvirt/qemu/instance-{SERVER[:8]}.pid").read_text())


def generation(n: int) -> Generation:
    return Generation(1, n)


def whole(picture: Path) -> list[tuple[Call[Any, Any], Any]]:
    g = generation(1)
    inner = SubnetSpec(id="s1", cidr="10.9.0.0/24", ip_version=4, gateway="10.9.0.1", dhcp=True)
    outer = SubnetSpec(id="s2", cidr="203.0.113.0/24", ip_version=4, gateway="203.0.113.1", dhcp=False)
    data = picture.read_bytes()
    sha = hashlib.sha256(data).hexdigest()
    rules = (
        RuleSpec(id="r1", direction="egress", ethertype="IPv4"),
        RuleSpec(id="r2", direction="ingress", ethertype="IPv4", protocol="icmp"),
        RuleSpec(id="r3", direction="ingress", ethertype="IPv4", protocol="tcp", port_min=22, port_max=22),
    )
    meta = {"uuid": SERVER, "name": "walker", "hostname": "walker", "local-hostname": "walker", "public_keys": {}}
    return [
        (
            network.ENSURE,
            NetworkSpec(
                id=NET,
                generation=g,
                segment=77,
                mtu=1450,
                subnets=(inner,),
                dhcp=DhcpPort(port_id="dhcp", mac=DHCP_MAC, addresses=(("s1", "10.9.0.2"),)),
            ),
        ),
        (
            network.ENSURE,
            NetworkSpec(id=OUTSIDE, generation=g, segment=0, mtu=1500, physical_network="external", subnets=(outer,)),
        ),
        (group.ENSURE, GroupSpec(id=GROUP, generation=g, rules=rules)),
        (group.ADDRESSES_ENSURE, AddressesSpec(id=GROUP, generation=g, addresses=("10.9.0.5",))),
        (
            router.ENSURE,
            RouterSpec(
                id=ROUTER,
                generation=g,
                legs=(LegSpec(port_id="leg", network_id=NET, mac=LEG_MAC, addresses=("10.9.0.1/24",)),),
                gateway=GatewaySpec(
                    port_id="gw",
                    network_id=OUTSIDE,
                    mac=GATEWAY_MAC,
                    addresses=("203.0.113.50/24",),
                    next_hops=("203.0.113.1",),
                    snat=True,
                ),
                floating=(FloatingSpec(id="fip", address="203.0.113.51", fixed="10.9.0.5"),),
            ),
        ),
        (
            image.ENSURE,
            ImageSpec(
                id=sha, generation=g, sha256=sha, size_bytes=len(data), disk_format="qcow2", sources=(), ticket=""
            ),
        ),
        (
            disk.ENSURE,
            disk.DiskSpec(id=DISK, generation=g, domain_id=SERVER, image_id=sha, image_sha256=sha, size_gib=1),
        ),
        (
            port.ENSURE,
            PortSpec(
                id=PORT,
                generation=g,
                network_id=NET,
                domain_id=SERVER,
                mac=MAC,
                fixed_ips=(FixedIp(subnet_id="s1", address="10.9.0.5"),),
                hostname="walker",
                groups=(GROUP,),
            ),
        ),
        (
            domain.ENSURE,
            DomainSpec(
                id=SERVER,
                generation=g,
                name=f"instance-{SERVER[:8]}",
                desired=Desired.RUNNING,
                vcpus=1,
                memory_mib=128,
                disks=(DomainDisk(disk_id=DISK, boot_index=1),),
                nics=(DomainNic(port_id=PORT, mac=MAC, mtu=1450),),
                guest=GuestData(
                    meta_data=json.dumps(meta), network_data="{}", user_data=b"#!/bin/sh\necho user-data ran\n"
                ),
            ),
        ),
    ]


async def walk(folder: Path, picture: Path) -> None:
    steps = Walk(folder, picture)
    steps.start_guard()
    await steps.start()
    before = leftovers()
    for row, spec in whole(picture):
        await steps.until(row, spec)
        say(f"{row.name} is ready")
    check_rights(folder)
    await steps.console_has("user-data ran")
    await steps.console_has("walker login:")
    say("the guest has read its metadata")
    await ssh_answers()
    say("the floating IP answers")

    qemu = steps.qemu()
    steps.guard.send_signal(signal.SIGKILL)
    steps.guard.wait()
    await steps.stop()
    await steps.start()
    assert steps.qemu() == qemu and not await steps.link.settle(0.1)
    steps.start_guard()
    assert await steps.link.settle(20)
    status = await wire.call(steps.bus, "h1", domain.GET, domain.GET.request(id=SERVER))
    assert (status.progress, status.power) == (Progress.READY, Power.RUNNING), status
    await ssh_answers()
    findings = (await wire.call(steps.bus, "h1", host.DOCTOR, Empty())).findings
    assert all(finding.ok for finding in findings), findings
    say("agent and guard were restarted; the guest noticed nothing")

    for pid, name in programs():
        if name == "libvirtd":
            os.kill(pid, signal.SIGKILL)
    await asyncio.sleep(1)
    inventory = await wire.call(steps.bus, "h1", host.INVENTORY, Empty())
    assert inventory.virt_type == "qemu" and Path(f"/proc/{qemu}").exists()
    say("libvirtd was killed; the guest goes on")

    act = Reboot(id=SERVER, operation_id="op-1", kind=RebootKind.SOFT, grace_s=float(SHUTDOWN_S))
    await steps.until(domain.REBOOT, act)
    assert steps.qemu() != qemu
    await steps.console_has("walker login:")
    say("the guest was rebooted")

    await volumes_walk(steps, whole(picture)[-1][1])

    last = whole(picture)[-1][1]
    stopped = msgspec.structs.replace(last, generation=generation(8), desired=Desired.SHUTOFF)
    assert (await steps.until(domain.ENSURE, stopped)).power is Power.SHUTOFF
    say("the guest was stopped by its power button")

    for row, spec in reversed(whole(picture)):
        gone = Call(f"{row.noun}.absent", Absence, row.reply)
        await steps.until(gone, Absence(id=spec.id, generation=generation(9)), Progress.ABSENT)
        say(f"{row.noun} is gone")
    assert await steps.link.settle(10)
    await steps.stop()
    steps.guard.terminate()
    steps.guard.wait()
    assert leftovers() == before, (before, leftovers())
    assert [path.name for path in (folder / "state" / "guests").iterdir()] == []
    say("nothing is left")


async def volumes_walk(steps: Walk, server: DomainSpec) -> None:
    """A volume comes and goes under the running guest, is copied and grown meanwhile, and its daemon dies."""
    qemu, g = steps.qemu(), generation(1)
    chap = Chap(user=ATTACHMENT, secret="0123456789abcdef" * 2)
    spec = ExportSpec(id=ATTACHMENT, generation=g, volume_id=VOLUME, initiators=(initiator_iqn(TAG, "h1"),), chap=chap)
    await steps.until(volume.ENSURE, VolumeSpec(id=VOLUME, generation=g, size_gib=1))
    export = await steps.until(volume.EXPORT_ENSURE, spec)

    def with_volume(n: int, size_gib: int) -> DomainSpec:
        source = IscsiSource(
            volume_id=VOLUME,
            host=export.host,
            port=export.port,
            iqn=export.iqn,
            lun=export.lun,
            initiator=spec.initiators[0],
            chap=chap,
            size_gib=size_gib,
        )
        plugged = DomainDisk(disk_id=ATTACHMENT, iscsi=source, device="vdb")
        return msgspec.structs.replace(server, generation=generation(n), disks=(*server.disks, plugged))

    await steps.until(domain.ENSURE, with_volume(2, 1))
    assert [one.sessions for one in steps.drivers.exporter.list()] == [spec.initiators]
    say("the guest has a volume")

    daemon = Path(steps.settings.agent.run) / "tgt" / "pid"
    killed = int(daemon.read_text())
    os.kill(killed, signal.SIGKILL)
    await until_true(lambda: daemon.exists() and int(daemon.read_text()) != killed)
    await until_true(lambda: [one.sessions for one in steps.drivers.exporter.list()] == [spec.initiators])
    say("the target daemon was killed; it is there again with what it exported")

    await steps.until(volume.SNAPSHOT_ENSURE, SnapshotSpec(id=SNAPSHOT, generation=g, volume_id=VOLUME))
    copy = VolumeSource(kind=SourceKind.VOLUME, id=VOLUME)
    await steps.until(volume.ENSURE, VolumeSpec(id=CLONE, generation=g, size_gib=1, source=copy))
    await steps.until(volume.ENSURE, VolumeSpec(id=VOLUME, generation=generation(2), size_gib=2))
    await steps.until(domain.ENSURE, with_volume(3, 2))
    await until_true(lambda: [one.sessions for one in steps.drivers.exporter.list()] == [spec.initiators])
    say("it was copied twice and grown under the guest")

    await steps.until(domain.ENSURE, msgspec.structs.replace(server, generation=generation(4)))
    await until_true(lambda: [one.sessions for one in steps.drivers.exporter.list()] == [()])
    for row, name in (
        (volume.EXPORT_ABSENT, ATTACHMENT),
        (volume.ABSENT, VOLUME),
        (volume.SNAPSHOT_ABSENT, SNAPSHOT),
        (volume.ABSENT, CLONE),
    ):
        await steps.until(row, Absence(id=name, generation=generation(9)), Progress.ABSENT)
    assert steps.qemu() == qemu and not daemon.exists()
    assert not list((steps.folder / "state" / "volumes").rglob("*.raw"))
    say("the guest has let go of it, and it is gone")


async def until_true(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not claim():
            await asyncio.sleep(0.1)


def check_rights(folder: Path) -> None:
    """The guest runs as nobody else, the image is nobody's to write, the ledger nobody's to read."""
    assert [Path(f"/proc/{pid}").stat().st_uid for pid, name in programs() if name.startswith("qemu-system")] == [
        200000
    ]
    for cached in (folder / "state" / "images").glob("*.qcow2"):
        assert (cached.stat().st_uid, cached.stat().st_mode & 0o777) == (0, 0o444)
    assert (folder / "state" / "ledger").stat().st_mode & 0o777 == 0o700


def programs() -> list[tuple[int, str]]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                found.append((int(entry.name), (entry / "comm").read_text().strip()))
    return sorted(found)


def leftovers() -> dict[str, list[str]]:
    """What an agent leaves on a host."""
    names = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True).stdout
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    virsh = ["virsh", "-q", "list", "--all", "--name"]
    domains = subprocess.run(virsh, capture_output=True, text=True, check=True).stdout
    return {
        "links": sorted(line.split()[0] for line in names.splitlines()),
        "tables": sorted(tables.splitlines()),
        "namespaces": sorted(path.name for path in Path("/run/netns").iterdir()),
        "processes": [name for _, name in programs() if name.startswith(("qemu-system", "dnsmasq", "tgtd"))],
        "domains": domains.split(),
        "disks": sorted(str(path) for path in Path(sys.argv[1]).joinpath("state").rglob("*.qcow2")),
    }


async def ssh_answers() -> None:
    """Through the floating IP, the router and the filter."""
    async with asyncio.timeout(60):
        while True:
            try:
                reader, writer = await asyncio.open_connection("203.0.113.51", 22)
            except OSError:
                await asyncio.sleep(0.5)
                continue
            assert (await reader.readline()).startswith(b"SSH-2.0-")
            writer.close()
            return


def say(what: str) -> None:
    print(what, flush=True)


if __name__ == "__main__":
    asyncio.run(walk(Path(sys.argv[1]), Path(sys.argv[2])))
