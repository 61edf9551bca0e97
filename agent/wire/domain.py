"""Domains: the virtual machines of a host. One domain is one server on one host."""

import enum

import msgspec

from agent.wire.lifecycle import Power
from agent.wire.specs import FAST_S, Absence, Call, Empty, ObjectSpec, ObjectStatus, Ref
from agent.wire.volume import IscsiSource


class Desired(enum.StrEnum):
    """The power state that the controller wants to hold."""

    RUNNING = "running"
    SHUTOFF = "shutoff"
    PAUSED = "paused"  # In memory, standing still. One that is off stays off.
    SUSPENDED = "suspended"  # Off, with its memory in a file of the host; `running` goes on from there.


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


class DomainStatus(ObjectStatus, frozen=True, kw_only=True):
    """A domain as the host sees it."""

    power: Power = Power.UNKNOWN
    hardware: Hardware | None = None  # As resolved when it was first defined.


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
CONSOLE = Call("domain.console", ConsoleRequest, ConsoleLog, timeout_s=5.0)
