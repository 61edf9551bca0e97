"""What the scheduler knows: hosts as they are now, and what one server wants. Values only."""

import enum
from typing import Any, Final

import msgspec

DEFAULT_ZONE: Final = "nova"
"""The availability zone of every host that was given no other."""


class Ratios(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [scheduler] of the settings: how far a host may be promised away beyond what it has."""

    cpu: float = 16.0  # Higher: guests wait for each other. Lower: idle guests block the host.
    memory: float = 1.0  # Above 1, a host that runs out of memory kills guests.
    disk: float = 1.0  # Above 1, a full host pauses guests.
    reserved_memory_mib: int = 512  # For the host itself. Too low: the host swaps and every guest suffers.


class Amounts(msgspec.Struct, frozen=True, kw_only=True):
    """Virtual CPUs, memory and local disk, had, used or wanted."""

    vcpus: int
    memory_mib: int
    disk_gib: int


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """One host at the moment of the snapshot: what it has, and what of it is promised."""

    host_id: str
    hostname: str
    zone: str
    is_up: bool
    is_disabled: bool
    disabled_reason: str
    arch: str
    total: Amounts
    used: Amounts
    servers: int

    def free(self, ratios: Ratios) -> Amounts:
        """What may still be promised; negative where a host shrank below what it had promised."""
        return Amounts(
            vcpus=int(self.total.vcpus * ratios.cpu) - self.used.vcpus,
            memory_mib=int((self.total.memory_mib - ratios.reserved_memory_mib) * ratios.memory) - self.used.memory_mib,
            disk_gib=int(self.total.disk_gib * ratios.disk) - self.used.disk_gib,
        )


class Policy(enum.StrEnum):
    """What a server group asks for, as Nova names it."""

    AFFINITY = "affinity"
    ANTI_AFFINITY = "anti-affinity"
    SOFT_AFFINITY = "soft-affinity"
    SOFT_ANTI_AFFINITY = "soft-anti-affinity"


class Company(msgspec.Struct, frozen=True, kw_only=True):
    """The other servers of its group, and how near it wants to be to them."""

    policy: Policy
    max_per_host: int = 1  # Of anti-affinity.
    on: dict[str, int] = {}  # Host id → how many of them are there.


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What one server asks of a host."""

    server_id: str
    project_id: str
    user_id: str
    amounts: Amounts
    zone: str | None = None
    host: str | None = None  # A host's name.
    is_forced: bool = False  # `zone:host`: only that host, and no other question but whether it is there.
    exclude_hosts: tuple[str, ...] = ()  # Host ids that failed before.
    arch: str | None = None
    different_from: tuple[str, ...] = ()  # Host ids that hold the servers of the hint `different_host`.
    same_as: tuple[str, ...] | None = None  # Host ids that hold the servers of the hint `same_host`.
    group: Company | None = None  # As of the snapshot, and again as of the claim.


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why one host cannot take it: `reason` for machines, `detail` with the numbers."""

    host_id: str
    hostname: str
    reason: str
    detail: dict[str, Any] = {}


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Hosts that can take it, best first, and why each other one cannot."""

    candidates: tuple[str, ...]
    refusals: tuple[Refusal, ...]
