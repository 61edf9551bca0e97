"""Domains: the virtual machines of a host. One domain is one server on one host."""

import enum
from typing import Final

import msgspec

from agent.wire.image import Offer
from agent.wire.lifecycle import Power
from agent.wire.specs import FAST_S, Absence, Call, Empty, ObjectSpec, ObjectStatus, Ref
from agent.wire.volume import IscsiSource

CONTROL: Final = "control"
MEMORY: Final = "memory"
DISKS: Final = "disks"
ARRIVAL: Final = "arrival"
"""Kinds of streams, at the host where a domain comes while it runs; of the first three also the sockets' names."""


class Desired(enum.StrEnum):
    """The power state that the controller wants to hold."""

    RUNNING = "running"
    SHUTOFF = "shutoff"
    PAUSED = "paused"  # In memory, standing still. One that is off stays off.
    SUSPENDED = "suspended"  # Off, with its memory in a file of the host; `running` goes on from there.
    LANDING = "landing"  # Room for one that comes from another host while it runs. Nothing is started, or removed.
    LEAVING = "leaving"  # To the host of `DomainSpec.leaving`, while it runs; ready when it is not here any more.
    STAYING = "staying"  # If it is still here it goes on here; if it has left it is not started again.


class Hardware(msgspec.Struct, frozen=True, kw_only=True):
    """The virtual hardware, fixed at first boot and kept for ever, so that no upgrade changes a guest's machine."""

    machine: str = "q35"  # libvirt's machine type, as resolved by the first host (`pc-q35-7.2`).
    cpu_model: str = "host-default"  # A libvirt CPU model, or `host-default`: qemu64 under TCG, host-model under KVM.
    firmware: str = "bios"  # bios | uefi
    disk_bus: str = "virtio"
    vif_model: str = "virtio"


class DomainDisk(msgspec.Struct, frozen=True, kw_only=True):
    """A disk of a domain: an object that `disk.ensure` made on this host or, with `iscsi`, a volume.

    Volumes come and go under a running guest: a new generation of the domain with one more or one less plugs it in or
    out. The domain is ready when the guest has it, or has let go of it; a guest that does not let go is told as `Busy`
    and asked again, until a newer generation wants the disk back.
    """

    disk_id: str  # The disk's id; with `iscsi` the attachment's.
    boot_index: int | None = None
    iscsi: IscsiSource | None = None
    device: str = ""  # As the guest may call it (`vdb`); needed with `iscsi`, and kept while it is attached.
    bus: str = ""  # Other than the hardware's (`virtio`, `scsi`).


class DomainNic(msgspec.Struct, frozen=True, kw_only=True):
    """A network interface of a domain, backed by a port that `port.ensure` wired on this host."""

    port_id: str
    mac: str
    mtu: int


class GuestData(msgspec.Struct, frozen=True, kw_only=True):
    """Everything cloud-init may ask for. The controller renders; the host serves the bytes it was given.

    Served from 169.254.169.254 and, if `config_drive`, from an ISO labelled config-2.
    """

    meta_data: str  # openstack/*/meta_data.json, a JSON text
    network_data: str  # openstack/*/network_data.json, a JSON text
    vendor_data: str = "{}"
    user_data: bytes = b""  # at most 64 KiB
    ec2: dict[str, str] = {}  # path below /latest/meta-data/ → text, e.g. "public-keys/0/openssh-key"


class Landing(msgspec.Struct, frozen=True, kw_only=True):
    """What a host has made ready for a domain that comes while it runs: what differs from where it is."""

    uid: int
    gid: int
    folder: str  # The guest's own.
    gate: str  # The folder where its QEMU, and whoever brings it, meet.
    disks: dict[str, str] = {}  # Disk id → path. Volumes are reached as `initiators` say.
    bases: dict[str, str] = {}  # Disk id → the image upon which it lies; only what differs from that is copied.
    nics: dict[str, str] = {}  # MAC → tap.
    initiators: dict[str, str] = {}  # Disk id of a volume → as whom QEMU logs in there.


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """Where a domain goes that leaves while it runs, and what opens the way: one connection each, once."""

    landing: Landing
    control: Offer  # libvirt's, there.
    memory: Offer
    disks: Offer | None = None  # Without a disk of the host's own there is nothing to be copied.
    arrival: Offer  # To be told that it is not here any more: then it goes on there.
    limit_s: float = 600.0  # Until it is given up; the guest stays then.


class Transfer(msgspec.Struct, frozen=True, kw_only=True):
    """How far a domain is on its way."""

    memory_total: int = 0
    memory_processed: int = 0
    memory_remaining: int = 0
    disk_total: int = 0
    disk_processed: int = 0
    disk_remaining: int = 0


class DomainSpec(ObjectSpec, frozen=True, kw_only=True):
    """A whole virtual machine. `id` is the server's id (a dashed UUID), and the domain's UUID in libvirt."""

    name: str  # As shown in libvirt: `instance-<8 hex>`.
    desired: Desired
    vcpus: int
    memory_mib: int
    hardware: Hardware = Hardware()
    disks: tuple[DomainDisk, ...] = ()
    nics: tuple[DomainNic, ...] = ()
    guest: GuestData
    config_drive: bool = False
    leaving: Passage | None = None  # With `desired` LEAVING.


class DomainStatus(ObjectStatus, frozen=True, kw_only=True):
    """A domain as the host sees it. One that is LANDING, LEAVING or STAYING and is not here has `power` UNKNOWN."""

    power: Power = Power.UNKNOWN
    hardware: Hardware | None = None  # As resolved when it was first defined.
    landing: Landing | None = None  # Where it comes while it runs.
    transfer: Transfer | None = None  # While it leaves.


class RebootKind(enum.StrEnum):
    """How a reboot is asked for."""

    SOFT = "soft"  # ACPI; falls back to hard after the grace time.
    HARD = "hard"  # Power cycle with the definition rendered anew.


class Reboot(msgspec.Struct, frozen=True, kw_only=True):
    """Reboot once. `operation_id` names this act: a repeat returns the first one's result."""

    id: str
    operation_id: str
    kind: RebootKind
    grace_s: float = 60.0


class Hasten(msgspec.Struct, frozen=True, kw_only=True):
    """A domain that leaves stands still until it is there: it writes nothing that would have to be sent again."""

    id: str


class ConsoleRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Ask for the end of the serial console's log."""

    id: str
    bytes_max: int = 100 * 1024


class ConsoleLog(msgspec.Struct, frozen=True, kw_only=True):
    """The end of the serial console's log; what is not UTF-8 is replaced."""

    text: str


class DomainList(msgspec.Struct, frozen=True, kw_only=True):
    """Every domain of this cloud on the host."""

    domains: tuple[DomainStatus, ...]


ENSURE = Call("domain.ensure", DomainSpec, DomainStatus)
ABSENT = Call("domain.absent", Absence, DomainStatus)
GET = Call("domain.get", Ref, DomainStatus)
LIST = Call("domain.list", Empty, DomainList, timeout_s=10.0)
REBOOT = Call("domain.reboot", Reboot, DomainStatus, timeout_s=FAST_S)
HASTEN = Call("domain.hasten", Hasten, Empty)
CONSOLE = Call("domain.console", ConsoleRequest, ConsoleLog, timeout_s=5.0)
