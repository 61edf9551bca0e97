"""What running guests have used, as a hypervisor counts it: raw, from zero at every power-on."""

import msgspec


class DiskUsage(msgspec.Struct, frozen=True, kw_only=True):
    """One disk. Times are what its requests took together."""

    device: str  # As the guest calls it: `vda`.
    read_bytes: int = 0
    read_requests: int = 0
    read_ns: int = 0
    write_bytes: int = 0
    write_requests: int = 0
    write_ns: int = 0
    capacity_bytes: int = 0  # What the guest sees.
    allocation_bytes: int = 0  # Up to where it has written.
    usage_bytes: int = 0  # What it takes on the host.


class NicUsage(msgspec.Struct, frozen=True, kw_only=True):
    """One interface, as the guest sees it: `incoming` is what it received."""

    device: str  # The tap's name.
    incoming_bytes: int = 0
    incoming_packets: int = 0
    incoming_drops: int = 0
    incoming_errors: int = 0
    outgoing_bytes: int = 0
    outgoing_packets: int = 0
    outgoing_drops: int = 0
    outgoing_errors: int = 0


class DomainUsage(msgspec.Struct, frozen=True, kw_only=True):
    """One domain that is on. `run` differs from one power-on to the next: by it counters that began anew are known."""

    id: str
    run: str
    cpu_ns: int = 0
    vcpus: int = 0
    memory_mib: int = 0  # What the guest was given.
    memory_used_mib: int | None = None  # As the guest says; None while it does not.
    memory_resident_mib: int | None = None  # What its process takes on the host.
    disks: tuple[DiskUsage, ...] = ()
    nics: tuple[NicUsage, ...] = ()
