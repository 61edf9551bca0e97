"""The host itself: how it joins, what it can do, and that it is alive."""

import hashlib
from collections.abc import Iterable

import msgspec

from agent.wire.lifecycle import Generation
from agent.wire.specs import Call, Empty
from agent.wire.volume import PoolStatus


class JoinRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Sent once over TLS to the controller's host channel, after the CA was pinned by the token's hash.

    Keys are made on the host and never leave it.
    """

    token: str  # hst1.<sha256 of CA>.<id>.<secret>
    hostname: str
    underlay_address: str
    nkey: str  # Public user nkey (U...).
    csr_pem: str


class JoinReply(msgspec.Struct, frozen=True, kw_only=True):
    """Who the host is from now on."""

    host_id: str
    cloud: str
    tag: str  # The cloud's 4 hex digits, in every name of a host object.
    nats_urls: tuple[str, ...]
    nats_jwt: str
    certificate_pem: str
    ca_pem: str


class RenewRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Sent over the host channel with the certificate that is to be renewed."""

    csr_pem: str


class RenewReply(msgspec.Struct, frozen=True, kw_only=True):
    """The new certificate; the old one stays valid beside it."""

    certificate_pem: str
    ca_pem: str


class RefusedBecause(msgspec.Struct, frozen=True, kw_only=True):
    """Why the host channel refuses: `code` is the HTTP status, `message` a sentence for an operator."""

    code: int
    title: str
    message: str


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """The body of every answer of the host channel that is not 200."""

    error: RefusedBecause


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """What the host has and can do; sent at start and whenever it changes."""

    host_id: str
    hostname: str
    underlay_address: str
    agent_version: str
    wire_version: int
    boot_id: str
    ledger_incarnation: str
    ledger_high_water: Generation
    vcpus: int
    memory_mib: int
    disk_gib: int
    virt_type: str  # kvm | qemu
    hypervisor_version: int  # libvirt's number, e.g. 7002000
    cpu_model: str
    cpu_arch: str
    physical_networks: tuple[str, ...]
    capabilities: tuple[str, ...]
    pools: tuple[PoolStatus, ...] = ()  # Of volumes. None: this is no storage host.


class Door(msgspec.Struct, frozen=True, kw_only=True):
    """Where a host's channel listens, and what tickets for it must name."""

    address: str  # host:port on the underlay.
    id: str  # Drawn when the process began to listen.
    boottime_s: float  # What the host's CLOCK_BOOTTIME showed when it said this.


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """Every ten seconds, jittered. Where `digest` differs from what the controller expects, it syncs."""

    host_id: str
    boot: str
    digest: str  # `digest` of the ledger.
    ledger_high_water: Generation
    disk_free_gib: int
    memory_free_mib: int
    load_1: float
    running_domains: int
    pools: tuple[PoolStatus, ...] = ()
    door: Door | None = None  # None: this host has no channel.


class LedgerEntry(msgspec.Struct, frozen=True, array_like=True):
    """One object of a host's ledger, in short."""

    noun: str
    id: str
    generation: Generation
    absent: bool
    progress: str


def digest(entries: Iterable[LedgerEntry]) -> str:
    """The digest of a whole ledger, as heartbeats carry it; both ends use this function. Order does not matter.

    Progress is left out: it changes without anybody's intent having changed.
    """
    total = hashlib.sha256()
    for entry in sorted(entries, key=lambda entry: (entry.noun, entry.id)):
        total.update(f"{entry.noun}\t{entry.id}\t{entry.generation}\t{int(entry.absent)}\n".encode())
    return total.hexdigest()


class LedgerPage(msgspec.Struct, frozen=True, kw_only=True):
    """Part of a ledger, sorted by (noun, id); `next` is the cursor of the following page."""

    entries: tuple[LedgerEntry, ...]
    next: str | None = None


class LedgerRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Ask for a page of the ledger."""

    after: str | None = None


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """A finding of the host's own check-up."""

    name: str
    ok: bool
    detail: str


class CheckUp(msgspec.Struct, frozen=True, kw_only=True):
    """What `hostler doctor` shows of a host."""

    findings: tuple[Finding, ...]


class Granted(msgspec.Struct, frozen=True, kw_only=True):
    """What the host that asked has for another lease: the ids of the routers whose gateway it is."""

    gateways: tuple[str, ...]


INVENTORY = Call("host.get", Empty, Inventory)
LEDGER = Call("host.ledger", LedgerRequest, LedgerPage, timeout_s=5.0)
DOCTOR = Call("host.doctor", Empty, CheckUp, timeout_s=10.0)
LEASE = Call("lease.renew", Empty, Granted)
"""Asked by hosts, answered by any controller."""
HEARTBEAT = "heartbeat"
"""Noun of the heartbeat event."""
STARTED = "started"
"""Noun of the event with an `Inventory` that an agent publishes when it is ready."""
