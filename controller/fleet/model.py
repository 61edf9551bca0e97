"""A host as the rest of the controller sees it, and what can be in the way of one that joins."""

import enum

import msgspec

from agent.wire.host import Inventory
from controller.errors import Conflict, Forbidden, NotFound


class HostState(enum.StrEnum):
    """Whether a machine belongs to the fleet."""

    ENROLLED = "enrolled"
    REMOVED = "removed"  # By an operator's word: it is fenced, and its credentials open nothing.


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """One machine. Capacity is zero until its agent has reported an inventory."""

    id: str
    hostname: str
    underlay_address: str
    state: HostState
    disabled: bool
    disabled_reason: str
    forced_down: bool
    up: bool
    seen_at: float | None
    vcpus: int
    memory_mib: int
    disk_gib: int
    virt_type: str
    hypervisor_version: int
    cpu_model: str
    cpu_arch: str
    physical_networks: tuple[str, ...]
    capabilities: tuple[str, ...]
    agent_version: str
    wire_version: int
    boot_id: str
    ledger_incarnation: str
    ledger_epoch: int
    ledger_n: int
    created_at: float
    updated_at: float

    @property
    def is_usable(self) -> bool:
        """May take new work: enrolled, up, known in size, and no operator said otherwise."""
        return (
            self.state is HostState.ENROLLED and self.up and self.vcpus > 0 and not (self.disabled or self.forced_down)
        )


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """What a host is called and where it is, as it said when it joined."""

    hostname: str
    underlay_address: str


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """What one host was given at a join."""

    nkey: str
    host_id: str
    certificate_serial: str
    certificate_until: float


class JoinToken(msgspec.Struct, frozen=True, kw_only=True):
    """One permission to join. The secret itself is known to its bearer only."""

    id: str
    secret_sha256: str
    host_id: str | None
    created_at: float
    expires_at: float
    used_at: float | None = None
    used_nkey: str | None = None
    used_host_id: str | None = None


class Amnesia(enum.StrEnum):
    """What an inventory says about the ledger behind it."""

    NONE = "none"
    NEW = "new"  # The first inventory of this host.
    LOST = "lost"  # Another incarnation than we knew: the ledger was set aside and begun anew.
    OLDER = "older"  # The same one, but it went back in time (a restored disk image).


def amnesia(host: Host, inventory: Inventory) -> Amnesia:
    """Whether a host that reports has forgotten what it had promised. Pure."""
    if not host.ledger_incarnation:
        return Amnesia.NEW
    if host.ledger_incarnation != inventory.ledger_incarnation:
        return Amnesia.LOST
    water = inventory.ledger_high_water
    return Amnesia.OLDER if (water.epoch, water.n) < (host.ledger_epoch, host.ledger_n) else Amnesia.NONE


class BadToken(Forbidden):
    """A join token that opens nothing. One sentence for all reasons: who guesses learns nothing."""

    def __init__(self) -> None:
        super().__init__("This join token is not valid: it is unknown, expired, or was used already.")


class HostnameTaken(Conflict):
    """Two machines of one name cannot be told apart by users."""

    def __init__(self, hostname: str) -> None:
        super().__init__(
            f"A host named {hostname} is enrolled already. Remove it first, or join with a token issued to replace it."
        )


class KeyKnown(Conflict):
    """A key belongs to one credential for ever, also after that was revoked."""

    def __init__(self) -> None:
        super().__init__("This key was given to a host before. Make new ones to join.")


class NoSuchHost(NotFound):
    """No host by this id (or it was removed)."""

    def __init__(self, host_id: str) -> None:
        super().__init__(f"Host {host_id} could not be found.")
