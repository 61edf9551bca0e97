"""What an agent needs of a hypervisor. Calls block; the agent runs them in threads with a time-out each.

Every method may be called again after a crash in its middle and must then come to the same end. Domains are
marked with our id, generation and cloud tag inside the hypervisor's own records, so `list` needs no ledger.
"""

import socket
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final, Protocol

import msgspec

from agent.wire.domain import ConsoleLog, DomainSpec, Hardware, Landing, Passage, Transfer
from agent.wire.lifecycle import Generation, Power
from agent.wire.volume import IscsiSource
from drivers.hypervisor.usage import DomainUsage

GATES: Final = Path("/run/libvirt/hostler")
"""A folder for each guest that comes or goes, by its id: there its QEMU, and whoever brings it, meet. QEMU's uid
reaches its own, and a host's own libvirt has the folder above."""


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What this hypervisor can do on this host. Callers branch on these, never on a driver's name."""

    virt_type: str  # kvm | qemu
    why: str  # Why that virt type was chosen; for `hostler doctor`.
    version: int
    cpu_model: str
    cpu_arch: str
    vcpus: int
    memory_mib: int
    slow_factor: float  # By how much time-outs stretch (5 under TCG).


class ObservedDomain(msgspec.Struct, frozen=True, kw_only=True):
    """A domain that bears our mark."""

    id: str
    generation: Generation
    power: Power
    hardware: Hardware
    labels: dict[str, str] = {}  # The spec's, as recorded with the domain.


class DiskSource(msgspec.Struct, frozen=True, kw_only=True):
    """Where a disk's bytes are: the agent resolves `DomainDisk` to this before it calls.

    With `iscsi` it is a volume (`path` is empty, `format` raw), and then `device` is given.
    """

    disk_id: str
    path: str
    format: str  # raw | qcow2
    iscsi: IscsiSource | None = None
    device: str = ""  # What the guest may call it; empty: the first name that is free.
    bus: str = ""  # Empty: the hardware's.
    boot_index: int | None = None
    serial: str = ""
    is_cdrom: bool = False


class NicSource(msgspec.Struct, frozen=True, kw_only=True):
    """A tap that exists already, filtered and in its bridge."""

    device: str
    mac: str
    mtu: int


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """A domain spec with everything resolved to this host: what the driver turns into XML."""

    spec: DomainSpec
    disks: tuple[DiskSource, ...]
    nics: tuple[NicSource, ...]
    uid: int  # The guest's own uid and gid; QEMU never runs as root.
    folder: str  # The guest's own folder (sockets, console log). `define` makes it, `undefine` removes it.


PowerListener = Callable[[str, Power], None]
"""Called from any thread with a domain id and its new power state."""


class Hypervisor(Protocol):
    """Domains of one host."""

    def capabilities(self) -> Capabilities:
        """Cheap after the first call; the first may probe for seconds."""
        ...

    def list(self) -> tuple[ObservedDomain, ...]:
        """Every domain that bears this cloud's mark, running or only defined."""
        ...

    def find(self, domain_id: str) -> ObservedDomain | None:
        """One of them, or None."""
        ...

    def define(self, machine: Machine) -> Hardware:
        """Record the domain, or change its record; running guests are untouched. Returns resolved hardware.

        What was resolved the first time is kept while the domain is defined, also when the spec says `q35` or
        `host-default` again. Raises Conflict if the id or name belongs to a domain that is not ours.
        """
        ...

    def start(self, domain_id: str) -> None:
        """Power on; nothing if it runs. A paused or saved guest goes on where it stood. Raises NotFound."""
        ...

    def pause(self, domain_id: str) -> None:
        """Stop its clock; nothing if it stands still. Raises NotFound, or Failed if it is off."""
        ...

    def save(self, domain_id: str) -> None:
        """Write its memory to a file and power it off; nothing if it is saved. Raises NotFound, or Failed if it is off.

        A crash in the middle leaves a guest that is on, or saved.
        """
        ...

    def plug_nics(self, machine: Machine) -> None:
        """Give a guest that is on exactly the machine's interfaces, by MAC; nothing if it is off.

        Taking one away needs the guest: raises Busy while it holds on to it. Call again until it does not.
        """
        ...

    def plug_disks(self, machine: Machine) -> None:
        """Give a guest that is on exactly the machine's volumes, by disk id, in their size; nothing if it is off.

        Other disks stay as they are. Taking one away needs the guest: raises Busy while it holds on to it; call again
        until it does not. Raises Failed when a volume cannot be reached.
        """
        ...

    def copy_disk(self, domain_id: str, source: str, target: str) -> bool:
        """Copy a disk of a guest that is on into `target`, an empty qcow2 file that is there and as large; flat.

        The guest goes on meanwhile, and the copy is the disk at the end of the call. False, and nothing done, if the
        guest is off. It takes as long as the bytes take; what a crash left half-made is begun anew. Raises Failed.
        """
        ...

    def receive(self, machine: Machine) -> Landing:
        """Make everything ready for a domain that comes from another host while it runs; it is not defined by this.

        What is under way, or has arrived, is left alone. Raises Conflict if a domain that is off has its id.
        """
        ...

    def forget_received(self, domain_id: str, folder: str, iqns: Collection[str]) -> None:
        """Remove what `receive` made, or what a domain has left here that went; the domain is not defined."""
        ...

    def send(self, domain_id: str, way: Passage) -> None:
        """Bring a guest that is on to where the way leads; it stands still there until it is started.

        When this returns it is not defined here any more, nor is anything else of it but disks of its own. It takes as
        long as memory and disks take. Raises Failed, or NotFound: then it is here and as it was.
        """
        ...

    def stop_sending(self, domain_id: str) -> None:
        """End a `send`, also one of an earlier run; it fails then, unless it is just about to succeed.

        Afterwards none is under way. Nothing if there is none, or no such domain. Raises Busy if it does not end.
        """
        ...

    def transfer(self, domain_id: str) -> Transfer | None:
        """How far a `send` is; None if there is none."""
        ...

    def shutdown(self, domain_id: str) -> None:
        """Press the power button; returns at once, the guest may ignore it. Nothing if off. Raises NotFound."""
        ...

    def destroy(self, domain_id: str) -> None:
        """Power off now, and forget a saved memory; nothing if it is off or unknown. No QEMU of it is left then."""
        ...

    def undefine(self, domain_id: str) -> None:
        """Forget the domain and remove its folder; nothing if unknown. Raises Failed if it is on."""
        ...

    def reboot(self, domain_id: str) -> None:
        """Ask the guest to reboot (ACPI); returns at once. Raises NotFound, or Failed if it is not running."""
        ...

    def console_log(self, domain_id: str, bytes_max: int) -> ConsoleLog:
        """The end of the serial log; empty before the first byte. Raises agent.wire.errors.NotFound."""
        ...

    def usage(self, domain_ids: Collection[str]) -> tuple[DomainUsage, ...]:
        """What those of these domains that are ours and on have used since their power-on, sorted by id.

        Cheap for many domains, and waits for no guest. `run` is another one after every power-on.
        """
        ...

    def open_screen(self, domain_id: str) -> socket.socket:
        """A connection to the guest's screen, at its first byte: RFB, without a password. It is the caller's to close.

        No port listens anywhere. Several may look at once. Raises NotFound, or Failed if the domain is off.
        """
        ...

    def open_serial(self, domain_id: str) -> socket.socket:
        """A connection to the guest's serial port. Only one at a time is heard; others wait until it is closed.

        Raises NotFound, or Failed if the domain is off.
        """
        ...

    def watch(self, listener: PowerListener) -> None:
        """Hear of every power change, also of those that nobody asked for. May lose events: callers also poll."""
        ...

    def close(self) -> None:
        """Let go of the connection; guests stay."""
        ...
