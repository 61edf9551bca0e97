"""Every meter there is: Ceilometer's name, unit and kind, and how Prometheus is shown it. Append only.

Names and units are Ceilometer's, so that who bills by them can go on; Prometheus wants base units and its own habits
of naming, hence the second name and the factor.
"""

import enum
from typing import Final

import msgspec


class Kind(enum.StrEnum):
    """Ceilometer's kinds of meters that we have."""

    CUMULATIVE = "cumulative"  # Rises from the guest's beginning on this host.
    GAUGE = "gauge"


class Subject(enum.StrEnum):
    """What a sample is about."""

    SERVER = "server"
    DISK = "disk"  # One of a server's disks.
    INTERFACE = "interface"  # One of a server's interfaces.


class Meter(msgspec.Struct, frozen=True):
    """One row of the catalogue."""

    name: str
    unit: str
    kind: Kind
    subject: Subject
    metric: str  # For Prometheus, behind `hostler_server_` and before the `_total` that it gives counters.
    factor: float  # From Ceilometer's unit to Prometheus'.
    help: str


_MIB: Final = float(1 << 20)
_NS: Final = 1e-9
_C, _G = Kind.CUMULATIVE, Kind.GAUGE
_S, _D, _I = Subject.SERVER, Subject.DISK, Subject.INTERFACE

CATALOGUE: Final = (
    Meter("cpu", "ns", _C, _S, "cpu_seconds", _NS, "CPU time used."),
    Meter("vcpus", "vcpu", _G, _S, "vcpus", 1.0, "Virtual CPUs."),
    Meter("memory", "MB", _G, _S, "memory_bytes", _MIB, "Memory given."),
    Meter("memory.usage", "MB", _G, _S, "memory_usage_bytes", _MIB, "Memory in use, as the guest says."),
    Meter("memory.resident", "MB", _G, _S, "memory_resident_bytes", _MIB, "Memory taken on the host."),
    Meter("disk.device.read.bytes", "B", _C, _D, "disk_read_bytes", 1.0, "Read."),
    Meter("disk.device.read.requests", "request", _C, _D, "disk_read_requests", 1.0, "Read requests."),
    Meter("disk.device.read.latency", "ns", _C, _D, "disk_read_seconds", _NS, "Time of all reads."),
    Meter("disk.device.write.bytes", "B", _C, _D, "disk_write_bytes", 1.0, "Written."),
    Meter("disk.device.write.requests", "request", _C, _D, "disk_write_requests", 1.0, "Write requests."),
    Meter("disk.device.write.latency", "ns", _C, _D, "disk_write_seconds", _NS, "Time of all writes."),
    Meter("disk.device.capacity", "B", _G, _D, "disk_capacity_bytes", 1.0, "As the guest sees it."),
    Meter(
        "disk.device.allocation",
        "B",
        _G,
        _D,
        "disk_allocation_bytes",
        1.0,
        "Up to the last byte written.",
    ),
    Meter("disk.device.usage", "B", _G, _D, "disk_usage_bytes", 1.0, "Taken on the host."),
    Meter("network.incoming.bytes", "B", _C, _I, "network_incoming_bytes", 1.0, "Received."),
    Meter("network.incoming.packets", "packet", _C, _I, "network_incoming_packets", 1.0, "Received."),
    Meter(
        "network.incoming.packets.drop",
        "packet",
        _C,
        _I,
        "network_incoming_drops",
        1.0,
        "Dropped on the way in.",
    ),
    Meter(
        "network.incoming.packets.error",
        "packet",
        _C,
        _I,
        "network_incoming_errors",
        1.0,
        "Damaged on the way in.",
    ),
    Meter("network.outgoing.bytes", "B", _C, _I, "network_outgoing_bytes", 1.0, "Sent."),
    Meter("network.outgoing.packets", "packet", _C, _I, "network_outgoing_packets", 1.0, "Sent."),
    Meter(
        "network.outgoing.packets.drop",
        "packet",
        _C,
        _I,
        "network_outgoing_drops",
        1.0,
        "Dropped on the way out.",
    ),
    Meter(
        "network.outgoing.packets.error",
        "packet",
        _C,
        _I,
        "network_outgoing_errors",
        1.0,
        "Damaged on the way out.",
    ),
)

BY_NAME: Final = {meter.name: meter for meter in CATALOGUE}
