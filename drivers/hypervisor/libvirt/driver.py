"""Domains by libvirt and QEMU: the protocol, composed of xml (what), connection (how), state and events (what then).

A domain is ours if its metadata bears our element with this cloud's tag; others on the same libvirtd are never touched.
What libvirt records persistently is the newest definition; a running guest keeps the one it was started with.

The guest's folder holds its sockets, console log and firmware variables. It belongs to root and only lets the guest's
group through: libvirtd opens files there as root, so QEMU's uid must not be able to plant links in it.
"""

import contextlib
import os
import shutil
import socket
import threading
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

import libvirt

from agent.wire.domain import ConsoleLog, Hardware, Landing, Passage, Transfer
from agent.wire.errors import Busy, Conflict, Failed, NotFound, Unfit, WireError
from agent.wire.lifecycle import Power
from drivers.hypervisor import kvm_probe
from drivers.hypervisor.base import Capabilities, Hypervisor, Machine, ObservedDomain, PowerListener
from drivers.hypervisor.hardware import ALIASES, resolved
from drivers.hypervisor.libvirt import console, copying, disks, moving, nics, state, xml
from drivers.hypervisor.libvirt.connection import Connection
from drivers.hypervisor.libvirt.daemon import LibvirtDaemon
from drivers.hypervisor.libvirt.events import PowerEvents
from drivers.hypervisor.libvirt.usage import usage_of
from drivers.hypervisor.usage import DomainUsage

TCG_CPU: Final = "qemu64"
"""The CPU of guests without KVM: the fastest to emulate."""

TCG_SLOW_FACTOR: Final = 5.0

KEEP_INTERVAL_S: Final = 30.0
"""How often the keeper trims console logs (a guest's serial port fills a few hundred MiB in that time at most) and asks
for every domain's power, should an event have been lost."""

SETTLE_S: Final = 2.0
"""After a reconnect it asks again this soon: of a guest that dies while a new libvirtd takes it up, no event tells."""

_RECONNECT_S: Final = 1.0

_UNDEFINE: Final = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)

_MEASURED: Final = (
    libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
    | libvirt.VIR_DOMAIN_STATS_VCPU
    | libvirt.VIR_DOMAIN_STATS_BALLOON
    | libvirt.VIR_DOMAIN_STATS_INTERFACE
    | libvirt.VIR_DOMAIN_STATS_BLOCK
)
_ON_WITHOUT_WAITING: Final = (
    libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
)
"""A domain whose QEMU is busy or hangs tells what is known without it, and the others are not held up."""


class LibvirtHypervisor:
    """See drivers.hypervisor.base.Hypervisor for every method. `choice` is what the KVM probe said."""

    def __init__(
        self,
        *,
        uri: str,
        tag: str,
        choice: kvm_probe.Choice,
        emulator: str,
        daemon: LibvirtDaemon | None = None,
    ) -> None:
        self._tag = tag
        self._choice = choice
        self._emulator = emulator
        self._events = PowerEvents(self._powers)
        prepare = None if daemon is None else daemon.ensure
        self._connection = Connection(uri, prepare=prepare, opened=self._events.register)
        self._capabilities: Capabilities | None = None
        self._is_closed = False
        self._ours: set[tuple[str, int]] = set()  # (id, libvirt's number) of what was measured last.
        self._keeper = threading.Thread(target=self._keep, name="libvirt-keeper", daemon=True)

    def capabilities(self) -> Capabilities:
        """See Hypervisor."""
        if self._capabilities is None:
            self._capabilities = self._connection.call(self._asked)
        return self._capabilities

    def list(self) -> tuple[ObservedDomain, ...]:
        """See Hypervisor."""
        return self._connection.call(self._listed)

    def find(self, domain_id: str) -> ObservedDomain | None:
        """See Hypervisor."""

        def look(connection: libvirt.virConnect) -> ObservedDomain | None:
            domain = self._find(connection, domain_id)
            return None if domain is None else _observed(*domain)

        return self._connection.call(look)

    def define(self, machine: Machine) -> Hardware:
        """See Hypervisor."""
        spec = machine.spec

        def record(connection: libvirt.virConnect) -> Hardware:
            known = self._find_any(connection, spec.id)
            mark = None if known is None else _mark(known)
            if known is not None and (mark is None or mark.tag != self._tag):
                raise Conflict(f"the id of domain {spec.id} belongs to another one on this host")
            namesake = _by_name(connection, spec.name)
            if namesake is not None and namesake.UUIDString() != spec.id:
                raise Conflict(f"the name of domain {spec.id} ({spec.name}) belongs to another one on this host")
            hardware = self._resolved(connection, spec.hardware, None if mark is None else mark.hardware)
            facts = self._facts(connection)
            text = xml.render(machine, hardware, facts, self._tag)
            _prepare_folder(machine, hardware, machine.uid if facts.gid is None else facts.gid)
            moving.close_gate(spec.id)
            before = set() if known is None else disks.secrets_of(known)
            disks.tell_secrets(connection, machine)
            recorded = connection.defineXML(text)
            disks.forget_secrets(connection, before - disks.secrets_of(recorded))
            return hardware

        return self._connection.call(record)

    def start(self, domain_id: str) -> None:
        """See Hypervisor."""

        def start(connection: libvirt.virConnect) -> None:
            domain, _ = self._get(connection, domain_id)
            power = _power(domain)
            if power is Power.RUNNING:
                return
            try:
                domain.resume() if power is Power.PAUSED else domain.create()
            except libvirt.libvirtError as error:
                if not _is_needless(error) or not domain.isActive():
                    raise

        self._connection.call(start)

    def pause(self, domain_id: str) -> None:
        """See Hypervisor."""

        def pause(connection: libvirt.virConnect) -> None:
            domain, _ = self._get(connection, domain_id)
            if not domain.isActive():
                raise Failed(f"domain {domain_id} is off; it cannot be paused")
            if _power(domain) is not Power.PAUSED:
                domain.suspend()

        self._connection.call(pause)

    def save(self, domain_id: str) -> None:
        """See Hypervisor."""

        def save(connection: libvirt.virConnect) -> None:
            domain, _ = self._get(connection, domain_id)
            if _power(domain) is Power.SUSPENDED:
                return
            if not domain.isActive():
                raise Failed(f"domain {domain_id} is off; it has no memory to be saved")
            domain.managedSave(libvirt.VIR_DOMAIN_SAVE_RUNNING)  # However it stood, it is to run again.

        self._connection.call(save)

    def plug_nics(self, machine: Machine) -> None:
        """See Hypervisor."""

        def plug(connection: libvirt.virConnect) -> None:
            domain, mark = self._get(connection, machine.spec.id)
            if domain.isActive():
                nics.converge(domain, machine, mark.hardware, self._facts(connection))

        self._connection.call(plug)

    def plug_disks(self, machine: Machine) -> None:
        """See Hypervisor."""

        def plug(connection: libvirt.virConnect) -> None:
            domain, mark = self._get(connection, machine.spec.id)
            if domain.isActive():
                disks.tell_secrets(connection, machine)
                disks.converge(domain, machine, mark.hardware)

        self._connection.call(plug)

    def copy_disk(self, domain_id: str, source: str, target: str) -> bool:
        """See Hypervisor."""

        def copy(connection: libvirt.virConnect) -> bool:
            domain, _ = self._get(connection, domain_id)
            if not domain.isActive():
                return False
            copying.copy(domain, source, target)
            return True

        return self._connection.call(copy)

    def receive(self, machine: Machine) -> Landing:
        """See Hypervisor."""

        def receive(connection: libvirt.virConnect) -> Landing:
            known = self._find_any(connection, machine.spec.id)
            if known is not None and not known.isActive():
                raise Conflict(f"there is a domain {machine.spec.id} on this host, and it is off")
            facts = self._facts(connection)
            gid = machine.uid if facts.gid is None else facts.gid
            disks.tell_secrets(connection, machine)
            at = str(moving.gate(machine.spec.id))
            if known is None:
                _prepare_folder(machine, machine.spec.hardware, gid)
                at = moving.open_gate(machine.spec.id, machine.uid)
            return moving.landing(machine, machine.uid, gid, at)

        return self._connection.call(receive)

    def forget_received(self, domain_id: str, folder: str, iqns: Collection[str]) -> None:
        """See Hypervisor."""

        def forget(connection: libvirt.virConnect) -> None:
            if self._find_any(connection, domain_id) is not None:
                raise Failed(f"domain {domain_id} is on this host")
            moving.close_gate(domain_id)
            _remove_folder(Path(folder))
            disks.forget_secrets(connection, iqns)

        self._connection.call(forget)

    def send(self, domain_id: str, way: Passage) -> None:
        """See Hypervisor."""

        def send(connection: libvirt.virConnect) -> None:
            domain, mark = self._get(connection, domain_id)
            moving.send(domain, mark.folder, way)

        self._connection.call(send, is_repeatable=False)

    def stop_sending(self, domain_id: str) -> None:
        """See Hypervisor."""

        def stop(connection: libvirt.virConnect) -> None:
            found = self._find(connection, domain_id)
            if found is not None:
                moving.stop(found[0])

        self._connection.call(stop)

    def transfer(self, domain_id: str) -> Transfer | None:
        """See Hypervisor."""

        def look(connection: libvirt.virConnect) -> Transfer | None:
            found = self._find(connection, domain_id)
            return None if found is None or not found[0].isActive() else moving.transfer(found[0])

        return self._connection.call(look)

    def shutdown(self, domain_id: str) -> None:
        """See Hypervisor."""

        def press(connection: libvirt.virConnect) -> None:
            domain, _ = self._get(connection, domain_id)
            with _needless_is_fine():
                domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)

        self._connection.call(press)

    def destroy(self, domain_id: str) -> None:
        """See Hypervisor."""

        def destroy(connection: libvirt.virConnect) -> None:
            found = self._find(connection, domain_id)
            if found is not None:
                with _needless_is_fine():
                    found[0].destroy()
                if found[0].hasManagedSaveImage():
                    found[0].managedSaveRemove()

        self._connection.call(destroy)

    def undefine(self, domain_id: str) -> None:
        """See Hypervisor."""

        def forget(connection: libvirt.virConnect) -> None:
            found = self._find(connection, domain_id)
            if found is None:
                return
            domain, mark = found
            if domain.isActive():
                raise Failed(f"domain {domain_id} is on; it must be off to be forgotten")
            _remove_folder(Path(mark.folder))  # First, while it is known where it is.
            disks.forget_secrets(connection, disks.secrets_of(domain))
            try:
                domain.undefineFlags(_UNDEFINE)
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                    raise

        self._connection.call(forget)

    def reboot(self, domain_id: str) -> None:
        """See Hypervisor."""

        def reboot(connection: libvirt.virConnect) -> None:
            domain, _ = self._get(connection, domain_id)
            if not domain.isActive():
                raise Failed(f"domain {domain_id} is off; it cannot reboot")
            domain.reboot(libvirt.VIR_DOMAIN_REBOOT_ACPI_POWER_BTN)

        self._connection.call(reboot, is_repeatable=False)

    def console_log(self, domain_id: str, bytes_max: int) -> ConsoleLog:
        """See Hypervisor."""
        _, mark = self._connection.call(lambda connection: self._get(connection, domain_id))
        return ConsoleLog(text=console.tail(Path(mark.folder, xml.CONSOLE_LOG), bytes_max))

    def usage(self, domain_ids: Collection[str]) -> tuple[DomainUsage, ...]:
        """See Hypervisor: all of them in one call. libvirt's own number of a domain is new at every power-on."""

        def measure(connection: libvirt.virConnect) -> tuple[DomainUsage, ...]:
            wanted = frozenset(domain_ids)
            measured = connection.getAllDomainStats(_MEASURED, _ON_WITHOUT_WAITING)
            rows = [(domain, domain.UUIDString(), domain.ID(), stats) for domain, stats in measured]
            rows = [row for row in rows if row[1] in wanted and self._is_measured(row[0], row[1], row[2])]
            self._ours = {(name, run) for _, name, run, _ in rows}
            return tuple(sorted((usage_of(name, str(run), stats) for _, name, run, stats in rows), key=_by_id))

        return self._connection.call(measure)

    def open_screen(self, domain_id: str) -> socket.socket:
        """See Hypervisor."""

        def look(connection: libvirt.virConnect) -> int:
            domain, _ = self._get(connection, domain_id)
            if not domain.isActive():
                raise Failed(f"domain {domain_id} is off; it has no screen")
            descriptor: int = domain.openGraphicsFD(0)
            return descriptor

        return socket.socket(fileno=self._connection.call(look))

    def open_serial(self, domain_id: str) -> socket.socket:
        """See Hypervisor."""
        _, mark = self._connection.call(lambda connection: self._get(connection, domain_id))
        return console.connect(Path(mark.folder, xml.SERIAL_SOCKET), domain_id)

    def watch(self, listener: PowerListener) -> None:
        """See Hypervisor."""
        self._events.listen(listener)
        with contextlib.suppress(Busy):  # The keeper goes on trying.
            self._connection.get()
        if not self._keeper.is_alive():
            self._keeper.start()

    def close(self) -> None:
        """See Hypervisor."""
        self._is_closed = True
        self._events.close()
        self._connection.close()

    def _asked(self, connection: libvirt.virConnect) -> Capabilities:
        arch, _, vcpus = connection.getInfo()[:3]
        # Asked in any case: libvirt's first look at QEMU takes seconds, which no guest's start should pay for.
        capabilities = self._domain_capabilities(connection, ALIASES[0])
        cpu = xml.cpu_of(capabilities) if self._has_kvm else TCG_CPU
        return Capabilities(
            virt_type=self._choice.virt_type,
            why=self._choice.why,
            version=connection.getVersion(),
            cpu_model=cpu.partition(",")[0],
            cpu_arch=arch,
            vcpus=vcpus,
            # libvirt adds up NUMA cells, and where memory was plugged in later it misses most of it.
            memory_mib=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20,
            slow_factor=1.0 if self._has_kvm else TCG_SLOW_FACTOR,
        )

    @property
    def _has_kvm(self) -> bool:
        return self._choice.virt_type == "kvm"

    def _facts(self, connection: libvirt.virConnect) -> xml.HostFacts:
        return xml.HostFacts(
            virt_type=self._choice.virt_type,
            arch=connection.getInfo()[0],
            emulator=self._emulator,
            gid=self._choice.gid,
        )

    def _resolved(self, connection: libvirt.virConnect, asked: Hardware, known: Hardware | None) -> Hardware:
        family = asked.machine if asked.machine in ALIASES else ALIASES[0]
        capabilities = self._domain_capabilities(connection, family)
        return resolved(
            asked,
            known,
            machine=xml.machine_of(capabilities),
            cpu_model=xml.cpu_of(capabilities) if self._has_kvm else TCG_CPU,
        )

    def _domain_capabilities(self, connection: libvirt.virConnect, machine: str) -> str:
        """Of our emulator only: asking for all of libvirt's capabilities would probe every QEMU binary there is."""
        text: str = connection.getDomainCapabilities(
            self._emulator, connection.getInfo()[0], machine, self._choice.virt_type
        )
        return text

    def _listed(self, connection: libvirt.virConnect) -> tuple[ObservedDomain, ...]:
        observed = []
        for domain in connection.listAllDomains():
            try:
                mark = _mark(domain)
                if mark is not None and mark.tag == self._tag:
                    observed.append(_observed(domain, mark))
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:  # It went while we looked.
                    raise
        return tuple(sorted(observed, key=lambda domain: domain.id))

    def _find_any(self, connection: libvirt.virConnect, domain_id: str) -> libvirt.virDomain | None:
        try:
            return connection.lookupByUUIDString(domain_id)
        except libvirt.libvirtError as error:
            if error.get_error_code() in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_INVALID_ARG):
                return None  # An id that is no UUID names no domain either.
            raise

    def _find(self, connection: libvirt.virConnect, domain_id: str) -> tuple[libvirt.virDomain, xml.Mark] | None:
        domain = self._find_any(connection, domain_id)
        mark = None if domain is None else _mark(domain)
        return None if mark is None or mark.tag != self._tag else (domain, mark)

    def _get(self, connection: libvirt.virConnect, domain_id: str) -> tuple[libvirt.virDomain, xml.Mark]:
        found = self._find(connection, domain_id)
        if found is None:
            raise NotFound(f"there is no domain {domain_id} on this host")
        return found

    def _is_measured(self, domain: libvirt.virDomain, domain_id: str, run: int) -> bool:
        """Whether a domain that is on is ours: looked at once for each power-on."""
        if (domain_id, run) in self._ours:
            return True
        try:
            mark = _mark(domain)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:  # It went while we looked.
                raise
            return False
        return mark is not None and mark.tag == self._tag

    def _powers(self, domain_id: str | None) -> dict[str, Power]:
        """For events: the power of one of ours, or of all."""
        if domain_id is None:
            return {domain.id: domain.power for domain in self.list()}
        domain = self.find(domain_id)
        return {} if domain is None else {domain.id: domain.power}

    def _keep(self) -> None:
        """The keeper's thread: brings a lost connection and its events back, and keeps console logs small."""
        pause_s = KEEP_INTERVAL_S
        while not self._is_closed:
            was_lost = self._connection.lost.wait(pause_s)
            try:
                self._connection.call(self._trim_consoles)
            except WireError:  # libvirtd is away, and stays so for a while.
                time.sleep(_RECONNECT_S)
            self._events.resync()
            pause_s = SETTLE_S if was_lost else KEEP_INTERVAL_S

    def _trim_consoles(self, connection: libvirt.virConnect) -> None:
        for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
            with contextlib.suppress(libvirt.libvirtError):
                mark = _mark(domain)
                if mark is not None and mark.tag == self._tag:
                    console.trim(Path(mark.folder, xml.CONSOLE_LOG))


def _observed(domain: libvirt.virDomain, mark: xml.Mark) -> ObservedDomain:
    return ObservedDomain(
        id=mark.id,
        generation=mark.generation,
        power=_power(domain),
        hardware=mark.hardware,
        labels=mark.labels,
    )


def _by_id(usage: DomainUsage) -> str:
    return usage.id


def _power(domain: libvirt.virDomain) -> Power:
    power = state.power(*domain.state())
    is_saved = power in (Power.SHUTOFF, Power.CRASHED) and domain.hasManagedSaveImage()
    return Power.SUSPENDED if is_saved else power


def _mark(domain: libvirt.virDomain) -> xml.Mark | None:
    """Our element of the recorded definition, or None if there is none."""
    flags = libvirt.VIR_DOMAIN_AFFECT_CONFIG if domain.isPersistent() else libvirt.VIR_DOMAIN_AFFECT_CURRENT
    try:
        return xml.parse_mark(domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, xml.NAMESPACE, flags))
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN_METADATA:
            return None
        raise


def _by_name(connection: libvirt.virConnect, name: str) -> libvirt.virDomain | None:
    try:
        return connection.lookupByName(name)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise


def _is_needless(error: libvirt.libvirtError) -> bool:
    """libvirt refused because the domain is in that state already (or, for a power button, off)."""
    return bool(error.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID)


@contextlib.contextmanager
def _needless_is_fine() -> Iterator[None]:
    try:
        yield
    except libvirt.libvirtError as error:
        if not _is_needless(error):
            raise


def _prepare_folder(machine: Machine, hardware: Hardware, gid: int) -> None:
    """Root's, passable for the guest's group; with the variables of its firmware, if it has any."""
    folder = Path(machine.folder)
    folder.mkdir(parents=True, exist_ok=True)
    os.chown(folder, 0, gid)
    folder.chmod(0o710)
    template = xml.FIRMWARE_VARIABLES.get(hardware.firmware)
    if template is not None:
        _prepare_nvram(folder / xml.NVRAM, Path(template), machine.uid, gid)


def _prepare_nvram(path: Path, template: Path, uid: int, gid: int) -> None:
    """Made once: it holds what the guest's firmware was told, such as its boot order."""
    if path.exists():
        return
    if not template.exists():
        raise Unfit(f"this host has no UEFI firmware: {template} is missing")
    fresh = path.with_suffix(".part")
    shutil.copyfile(template, fresh)
    os.chown(fresh, uid, gid)
    fresh.chmod(0o600)
    fresh.replace(path)


def _remove_folder(folder: Path) -> None:
    """Only what we and libvirt put there; should it hold anything else, it stays."""
    for name in (xml.SERIAL_SOCKET, xml.AGENT_SOCKET, xml.CONSOLE_LOG, xml.NVRAM):
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


_: type[Hypervisor] = LibvirtHypervisor
