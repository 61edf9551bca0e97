"""A hypervisor without machines: everything the protocol promises, in memory, and optionally in a file.

`FakeHost` is the host: it outlives agents, as QEMU and libvirt do. `FakeHypervisor` is one agent's connection to it.
An agent that crashed and came back connects anew to the same `FakeHost` and finds its domains as they were; in another
process it finds them through `path`. Nothing here reads a clock or draws a random number, and no thread is started:
listeners are called inside the call that changed the power, so a simulation is the same every time.
"""

import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import msgspec

from agent.wire.domain import ConsoleLog, Hardware, Landing, Passage, Transfer
from agent.wire.errors import Busy, Conflict, Failed, NotFound, WireError
from agent.wire.lifecycle import Generation, Power
from agent.wire.volume import IscsiSource
from drivers.fake_journal import FakeJournal
from drivers.hypervisor import fake_console
from drivers.hypervisor.base import (
    Capabilities,
    DiskSource,
    Hypervisor,
    Machine,
    NicSource,
    ObservedDomain,
    PowerListener,
)
from drivers.hypervisor.hardware import resolved
from drivers.hypervisor.usage import DiskUsage, DomainUsage, NicUsage

MACHINE = "pc-q35-fake"
"""What the alias `q35` resolves to here, as libvirt resolves it to `pc-q35-7.2`."""

CPU_MODEL = "fake64"

BOOT_WORK = 1000
"""What a guest does to boot, in units of `FakeHost.work`."""


class FakeDomain(msgspec.Struct, frozen=True, kw_only=True):
    """A domain of the fake host."""

    tag: str
    machine: Machine
    hardware: Hardware
    power: Power = Power.SHUTOFF
    boots: int = 0  # How often it was started or rebooted; proves in tests that nobody touched it.
    console: str = ""
    runs: int = 0  # How often it was powered on.
    work: int = 0  # What its guest has done since then; see `FakeHost.work`.
    nics: tuple[NicSource, ...] = ()  # What the guest sees of its interfaces while it is on.
    holds_nics: bool = False  # It does not let go of an interface that it should lose.
    volumes: tuple[DiskSource, ...] = ()  # What it has of volumes while it is on.
    holds_disks: bool = False
    is_landed: bool = False  # It came while it ran, and has not gone on yet.

    @property
    def generation(self) -> Generation:
        """That of the newest definition."""
        return self.machine.spec.generation


def _boot_log(domain: FakeDomain) -> str:
    """What a guest says on its serial port when it boots: some lines, as real ones do."""
    stages = ("firmware", "kernel", "root file system", "network", "login:")
    return "".join(f"{domain.machine.spec.name} boots: {stage}\n" for stage in stages)


class FakeHost:
    """What exists on one host. Thread-safe.

    `path` keeps it in a file. `latency_s` is how long every call takes. `obeys_power_button` is whether guests react
    to `shutdown`. `fail_next` makes the next call of one verb fail, before or after its effect.
    """

    def __init__(
        self,
        *,
        path: str | None = None,
        latency_s: float = 0.0,
        vcpus: int = 64,
        memory_mib: int = 262144,
        obeys_power_button: bool = True,
    ) -> None:
        self.latency_s = latency_s
        self.vcpus = vcpus
        self.memory_mib = memory_mib
        self.obeys_power_button = obeys_power_button
        self.login: Callable[[IscsiSource], object] = lambda source: None  # At a volume's target; raises Failed.
        self.name = ""  # Of the host, for guests that come while they run.
        self.neighbours: dict[str, FakeHost] = {}  # By name: where guests of this host can go while they run.
        self.loses_next_guest = False  # The next `send` fails when the guest has arrived: it goes on here all the same.
        self._lock = threading.RLock()
        self._domains = FakeJournal(FakeDomain, path)
        self._ids_by_name = {domain.machine.spec.name: domain.machine.spec.id for domain in self._domains.values()}
        self._listeners: list[tuple[str, PowerListener]] = []
        self._failures: dict[str, list[tuple[WireError, bool]]] = {}
        self._coming: dict[str, Machine] = {}  # What is ready to be taken in.

    def crash(self, domain_id: str) -> None:
        """The guest's QEMU dies."""
        self._drop(domain_id, Power.CRASHED)

    def power_off_from_inside(self, domain_id: str) -> None:
        """The guest's user types `poweroff`."""
        self._drop(domain_id, Power.SHUTOFF)

    def pause(self, domain_id: str) -> None:
        """The guest stands still, as on a full disk."""
        with self._lock:
            domain = self.get(domain_id)
            if domain.power is Power.RUNNING:
                self._set_power(domain, Power.PAUSED)

    def power_failure(self) -> None:
        """The host loses its power: every guest is off, and nobody hears of it."""
        with self._lock:
            self._listeners.clear()
            self._coming.clear()
            for domain in self._domains.values():
                if domain.power is not Power.SUSPENDED:
                    self._keep(msgspec.structs.replace(domain, power=Power.SHUTOFF))

    def hold_nics(self, domain_id: str, holds: bool) -> None:
        """The guest does not let go of interfaces that it should lose; or does again."""
        with self._lock:
            self._keep(msgspec.structs.replace(self.get(domain_id), holds_nics=holds))

    def hold_disks(self, domain_id: str, holds: bool) -> None:
        """The guest does not let go of volumes that it should lose; or does again."""
        with self._lock:
            self._keep(msgspec.structs.replace(self.get(domain_id), holds_disks=holds))

    def write_console(self, domain_id: str, text: str) -> None:
        """The guest says something on its serial port."""
        with self._lock:
            domain = self.get(domain_id)
            self._keep(msgspec.structs.replace(domain, console=domain.console + text))

    def work(self, domain_id: str, units: int) -> None:
        """The guest does something: a unit is a millisecond of CPU time, and a KiB at each disk and interface."""
        with self._lock:
            domain = self.get(domain_id)
            self._keep(msgspec.structs.replace(domain, work=domain.work + units))

    def fail_next(self, verb: str, error: WireError, *, is_after_effect: bool = False) -> None:
        """The next call of `verb` (a method's name of the protocol) raises `error`, having done nothing or all."""
        with self._lock:
            self._failures.setdefault(verb, []).append((error, is_after_effect))

    def disconnect_all(self) -> None:
        """Every agent's connection falls silent: their listeners hear no more."""
        with self._lock:
            self._listeners.clear()

    def domains(self) -> list[FakeDomain]:
        """Everything on the host, of all clouds, sorted by id."""
        with self._lock:
            return self._domains.values()

    def get(self, domain_id: str) -> FakeDomain:
        """One domain. Raises NotFound."""
        with self._lock:
            domain = self._domains.get(domain_id)
        if domain is None:
            raise NotFound(f"there is no domain {domain_id} on this host")
        return domain

    @contextmanager
    def _call(self, verb: str) -> Iterator[None]:
        """One call of the protocol: takes its time, has its turn, fails if told to."""
        if self.latency_s > 0:
            time.sleep(self.latency_s)
        with self._lock:
            planned = self._failures.get(verb)
            error, is_after_effect = planned.pop(0) if planned else (None, False)
            if error is not None and not is_after_effect:
                raise error
            yield
            if error is not None:
                raise error

    def _find(self, domain_id: str, tag: str) -> FakeDomain | None:
        domain = self._domains.get(domain_id)
        return domain if domain is not None and domain.tag == tag else None

    def _refuse_collision(self, domain_id: str, name: str, tag: str) -> None:
        """Ids and names are unique on a host, across clouds."""
        same_id = self._domains.get(domain_id)
        if (same_id is not None and same_id.tag != tag) or self._ids_by_name.get(name, domain_id) != domain_id:
            raise Conflict(f"the id or name of domain {domain_id} ({name}) belongs to another one on this host")

    def _keep(self, domain: FakeDomain) -> None:
        spec = domain.machine.spec
        self._domains.put(spec.id, domain)
        self._ids_by_name[spec.name] = spec.id

    def _take_in(self, domain: FakeDomain) -> None:
        """A guest comes from another host while it runs. It stands still, and is what it was but for its places."""
        spec = domain.machine.spec
        with self._lock:
            machine = self._coming.get(spec.id)
            if machine is None:
                raise Failed(f"nobody waits for domain {spec.id} on the other host")
            self._refuse_collision(spec.id, spec.name, domain.tag)
            volumes = _volumes(machine)
            for _, source in volumes.values():
                self.login(source)
            have = tuple(volumes[disk.disk_id][0] for disk in domain.volumes if disk.disk_id in volumes)
            here = msgspec.structs.replace(
                domain, machine=machine, runs=domain.runs + 1, work=0, volumes=have, is_landed=True
            )
            self._set_power(here, Power.PAUSED)

    def _forget(self, domain: FakeDomain) -> None:
        self._domains.remove(domain.machine.spec.id)
        self._ids_by_name.pop(domain.machine.spec.name, None)

    def _drop(self, domain_id: str, power: Power) -> None:
        with self._lock:
            domain = self.get(domain_id)
            if domain.power in (Power.RUNNING, Power.PAUSED):
                self._set_power(domain, power)

    def _set_power(self, domain: FakeDomain, power: Power) -> None:
        self._keep(msgspec.structs.replace(domain, power=power))
        for tag, listener in tuple(self._listeners):
            if tag == domain.tag:
                listener(domain.machine.spec.id, power)


class FakeHypervisor:
    """One cloud's connection to a `FakeHost`; see drivers.hypervisor.base.Hypervisor for every method."""

    def __init__(self, host: FakeHost, tag: str) -> None:
        self.host = host
        self._tag = tag
        self._mine: list[tuple[str, PowerListener]] = []

    def capabilities(self) -> Capabilities:
        """See Hypervisor."""
        return Capabilities(
            virt_type="qemu",
            why="the fake hypervisor runs no machines",
            version=7002000,
            cpu_model=CPU_MODEL,
            cpu_arch="x86_64",
            vcpus=self.host.vcpus,
            memory_mib=self.host.memory_mib,
            slow_factor=1.0,
        )

    def list(self) -> tuple[ObservedDomain, ...]:
        """See Hypervisor."""
        with self.host._call("list"):
            return tuple(_observed(domain) for domain in self.host.domains() if domain.tag == self._tag)

    def find(self, domain_id: str) -> ObservedDomain | None:
        """See Hypervisor."""
        with self.host._call("find"):
            domain = self.host._find(domain_id, self._tag)
            return None if domain is None else _observed(domain)

    def define(self, machine: Machine) -> Hardware:
        """See Hypervisor."""
        spec = machine.spec
        with self.host._call("define"):
            self.host._refuse_collision(spec.id, spec.name, self._tag)
            known = self.host._find(spec.id, self._tag)
            hardware = resolved(
                spec.hardware, None if known is None else known.hardware, machine=MACHINE, cpu_model=CPU_MODEL
            )
            if known is None:
                known = FakeDomain(tag=self._tag, machine=machine, hardware=hardware)
            self.host._coming.pop(spec.id, None)
            self.host._keep(msgspec.structs.replace(known, machine=machine, hardware=hardware))
            return hardware

    def start(self, domain_id: str) -> None:
        """See Hypervisor."""
        with self.host._call("start"):
            domain = self._get(domain_id)
            if domain.power is Power.RUNNING:
                return
            if domain.power is Power.PAUSED:
                self.host._set_power(msgspec.structs.replace(domain, is_landed=False), Power.RUNNING)
                return
            if domain.power is Power.SUSPENDED:  # Its memory comes back; what is counted begins anew with a new QEMU.
                self.host._set_power(msgspec.structs.replace(domain, runs=domain.runs + 1, work=0), Power.RUNNING)
                return
            volumes = _volumes(domain.machine)
            for volume in volumes.values():
                self.host.login(volume[1])
            booted = msgspec.structs.replace(
                domain,
                boots=domain.boots + 1,
                console=_boot_log(domain),
                runs=domain.runs + 1,
                work=BOOT_WORK,
                nics=domain.machine.nics,
                volumes=tuple(volume[0] for volume in volumes.values()),
            )
            self.host._set_power(booted, Power.RUNNING)

    def pause(self, domain_id: str) -> None:
        """See Hypervisor."""
        with self.host._call("pause"):
            domain = self._get(domain_id)
            if domain.power not in (Power.RUNNING, Power.PAUSED):
                raise Failed(f"domain {domain_id} is off; it cannot be paused")
            if domain.power is Power.RUNNING:
                self.host._set_power(domain, Power.PAUSED)

    def save(self, domain_id: str) -> None:
        """See Hypervisor."""
        with self.host._call("save"):
            domain = self._get(domain_id)
            if domain.power not in (Power.RUNNING, Power.PAUSED, Power.SUSPENDED):
                raise Failed(f"domain {domain_id} is off; it has no memory to be saved")
            if domain.power is not Power.SUSPENDED:
                self.host._set_power(domain, Power.SUSPENDED)

    def plug_nics(self, machine: Machine) -> None:
        """See Hypervisor."""
        with self.host._call("plug_nics"):
            domain = self._get(machine.spec.id)
            if domain.power not in (Power.RUNNING, Power.PAUSED):
                return
            wanted = {nic.mac for nic in machine.nics}
            surplus = [nic for nic in domain.nics if nic.mac not in wanted]
            if surplus and domain.holds_nics:
                kept = (*machine.nics, *surplus)
                self.host._keep(msgspec.structs.replace(domain, nics=kept))
                raise Busy(f"the guest of domain {machine.spec.id} has not let go of interface {surplus[0].mac} yet")
            self.host._keep(msgspec.structs.replace(domain, nics=machine.nics))

    def plug_disks(self, machine: Machine) -> None:
        """See Hypervisor."""
        with self.host._call("plug_disks"):
            domain = self._get(machine.spec.id)
            if domain.power not in (Power.RUNNING, Power.PAUSED):
                return
            wanted, had = _volumes(machine), {disk.disk_id for disk in domain.volumes}
            for disk_id, (_, source) in wanted.items():
                if disk_id not in had:
                    self.host.login(source)
            surplus = tuple(disk for disk in domain.volumes if disk.disk_id not in wanted)
            kept = surplus if domain.holds_disks else ()
            volumes = (*(disk for disk, _ in wanted.values()), *kept)
            self.host._keep(msgspec.structs.replace(domain, volumes=volumes))
            if kept:
                raise Busy(f"the guest of domain {machine.spec.id} has not let go of {kept[0].device} yet")

    def copy_disk(self, domain_id: str, source: str, target: str) -> bool:
        """See Hypervisor. There are no bytes here: whoever keeps fake disks knows that one was copied."""
        with self.host._call("copy_disk"):
            return self._get(domain_id).power in (Power.RUNNING, Power.PAUSED)

    def receive(self, machine: Machine) -> Landing:
        """See Hypervisor."""
        with self.host._call("receive"):
            known = self.host._find(machine.spec.id, self._tag)
            if known is not None and known.power not in (Power.RUNNING, Power.PAUSED):
                raise Conflict(f"there is a domain {machine.spec.id} on this host, and it is off")
            self.host._coming[machine.spec.id] = machine
            return Landing(uid=machine.uid, gid=machine.uid, folder=machine.folder, gate=self.host.name)

    def forget_received(self, domain_id: str, folder: str, iqns: Collection[str]) -> None:
        """See Hypervisor."""
        with self.host._call("forget_received"):
            if self.host._find(domain_id, self._tag) is not None:
                raise Failed(f"domain {domain_id} is on this host")
            self.host._coming.pop(domain_id, None)

    def send(self, domain_id: str, way: Passage) -> None:
        """See Hypervisor. It takes no time: nobody can end it."""
        with self.host._call("send"):
            domain = self._get(domain_id)
            if domain.power not in (Power.RUNNING, Power.PAUSED):
                raise Failed(f"domain {domain_id} is off; it cannot be sent")
            there = self.host.neighbours.get(way.landing.gate)
            if there is None:
                raise Failed(f"nobody answers at {way.landing.gate}")
            there._take_in(domain)
            if self.host.loses_next_guest:
                self.host.loses_next_guest = False
                raise Failed("the other host went away in the last moment")
            self.host._forget(domain)

    def stop_sending(self, domain_id: str) -> None:
        """See Hypervisor."""
        with self.host._call("stop_sending"):
            return

    def transfer(self, domain_id: str) -> Transfer | None:
        """See Hypervisor."""
        with self.host._call("transfer"):
            return None

    def shutdown(self, domain_id: str) -> None:
        """See Hypervisor."""
        with self.host._call("shutdown"):
            domain = self._get(domain_id)
            if domain.power is Power.RUNNING and self.host.obeys_power_button:
                self.host._set_power(domain, Power.SHUTOFF)

    def destroy(self, domain_id: str) -> None:
        """See Hypervisor."""
        with self.host._call("destroy"):
            domain = self.host._find(domain_id, self._tag)
            if domain is not None and domain.power in (Power.RUNNING, Power.PAUSED, Power.SUSPENDED):
                self.host._set_power(domain, Power.SHUTOFF)

    def undefine(self, domain_id: str) -> None:
        """See Hypervisor."""
        with self.host._call("undefine"):
            domain = self.host._find(domain_id, self._tag)
            if domain is None:
                return
            if domain.power in (Power.RUNNING, Power.PAUSED):
                raise Failed(f"domain {domain_id} is on; it must be off to be forgotten")
            self.host._forget(domain)

    def reboot(self, domain_id: str) -> None:
        """See Hypervisor."""
        with self.host._call("reboot"):
            domain = self._get(domain_id)
            if domain.power is not Power.RUNNING:
                raise Failed(f"domain {domain_id} is off; it cannot reboot")
            console = domain.console + _boot_log(domain)
            self.host._keep(msgspec.structs.replace(domain, boots=domain.boots + 1, console=console))

    def console_log(self, domain_id: str, bytes_max: int) -> ConsoleLog:
        """See Hypervisor."""
        with self.host._call("console_log"):
            said = self._get(domain_id).console.encode()
            return ConsoleLog(text=said[max(0, len(said) - bytes_max) :].decode("utf-8", "replace"))

    def usage(self, domain_ids: Collection[str]) -> tuple[DomainUsage, ...]:
        """See Hypervisor."""
        with self.host._call("usage"):
            mine = (self.host._find(domain_id, self._tag) for domain_id in sorted(set(domain_ids)))
            on = (Power.RUNNING, Power.PAUSED)
            return tuple(_usage(domain) for domain in mine if domain is not None and domain.power in on)

    def open_screen(self, domain_id: str) -> socket.socket:
        """See Hypervisor."""
        with self.host._call("open_screen"):
            return fake_console.screen(self._on(domain_id).machine.spec.name)

    def open_serial(self, domain_id: str) -> socket.socket:
        """See Hypervisor."""
        with self.host._call("open_serial"):
            return fake_console.serial(self._on(domain_id).console)

    def watch(self, listener: PowerListener) -> None:
        """See Hypervisor."""
        with self.host._lock:
            row = (self._tag, listener)
            self._mine.append(row)
            self.host._listeners.append(row)

    def close(self) -> None:
        """See Hypervisor."""
        with self.host._lock:
            self.host._listeners[:] = [row for row in self.host._listeners if row not in self._mine]
            self._mine.clear()

    def _on(self, domain_id: str) -> FakeDomain:
        domain = self._get(domain_id)
        if domain.power not in (Power.RUNNING, Power.PAUSED):
            raise Failed(f"domain {domain_id} is off; it has no console")
        return domain

    def _get(self, domain_id: str) -> FakeDomain:
        domain = self.host._find(domain_id, self._tag)
        if domain is None:
            raise NotFound(f"there is no domain {domain_id} on this host")
        return domain


def _volumes(machine: Machine) -> dict[str, tuple[DiskSource, IscsiSource]]:
    return {disk.disk_id: (disk, disk.iscsi) for disk in machine.disks if disk.iscsi is not None}


def _observed(domain: FakeDomain) -> ObservedDomain:
    return ObservedDomain(
        id=domain.machine.spec.id,
        generation=domain.generation,
        power=domain.power,
        hardware=domain.hardware,
        labels=domain.machine.spec.labels,
    )


def _usage(domain: FakeDomain) -> DomainUsage:
    """Every disk and interface has the same share, and what goes in comes out."""
    machine, done = domain.machine, domain.work
    size, requests = done << 10, done // 4
    return DomainUsage(
        id=machine.spec.id,
        run=str(domain.runs),
        cpu_ns=done * 1_000_000,
        vcpus=machine.spec.vcpus,
        memory_mib=machine.spec.memory_mib,
        memory_used_mib=machine.spec.memory_mib // 2,
        memory_resident_mib=machine.spec.memory_mib // 2,
        disks=tuple(
            DiskUsage(
                device=f"vd{chr(ord('a') + index)}",
                read_bytes=size,
                read_requests=requests,
                write_bytes=size,
                write_requests=requests,
                capacity_bytes=1 << 30,
            )
            for index, disk in enumerate(machine.disks)
            if not disk.is_cdrom
        ),
        nics=tuple(
            NicUsage(
                device=nic.device,
                incoming_bytes=size,
                incoming_packets=requests,
                outgoing_bytes=size,
                outgoing_packets=requests,
            )
            for nic in domain.nics or machine.nics
        ),
    )


_: type[Hypervisor] = FakeHypervisor
