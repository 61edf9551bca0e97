"""What guests use, as a host measures it: pulled by the collector, never pushed, so that a fleet cannot flood the bus.

Meters bear Ceilometer's names and units (`telemetry.meters` lists them): `cpu` in nanoseconds, `memory.usage` in MiB,
`disk.device.*` and `network.*` in bytes, requests and packets. A cumulative meter of a guest never falls while its
domain is on this host: not when the guest is switched off and on, and not when the agent or libvirtd is restarted.

The collector has an identity of its own, which may ask for this and nothing else.
"""

import msgspec

from agent.wire.specs import Call


class SamplesRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Ask for the first page, which measures anew, or for the one behind the cursor `after`."""

    after: str | None = None


class DeviceSample(msgspec.Struct, frozen=True, kw_only=True):
    """One device of a guest. `resource_id` is the port's id; empty for disks."""

    device: str  # As the guest's or the host's kernel calls it: `vda`, or the tap's name.
    resource_id: str = ""
    volumes: dict[str, int] = {}  # Meter → how much.


class DomainSample(msgspec.Struct, frozen=True, kw_only=True):
    """One guest that is on. `at` is the host's clock: to be shown, never to be compared."""

    id: str
    at: float
    labels: dict[str, str] = {}  # The spec's, unread.
    volumes: dict[str, int] = {}  # Meter → how much.
    devices: tuple[DeviceSample, ...] = ()


class SamplesPage(msgspec.Struct, frozen=True, kw_only=True):
    """Guests by id; `next` is the cursor of the following page of the same measurement."""

    domains: tuple[DomainSample, ...] = ()
    next: str | None = None


GET = Call("samples.get", SamplesRequest, SamplesPage, timeout_s=10.0)
