"""Generations and progress: how the two ends agree about what is newest and how far it has got.

Theory of operation. Every object a host holds has one owner, the controller, and a *generation* that the
controller raises by a committed compare-and-set before it sends anything new. A host keeps the highest
generation it has seen of each object, in its ledger, also after `absent` (a tombstone, seven days). So a
message may come late, twice, or out of order, and the worst that happens is the answer `Stale`.
"""

import enum

import msgspec


class Generation(msgspec.Struct, frozen=True, array_like=True, order=True):
    """Which intent is newer: `epoch` rises when a database is restored, `n` with every change.

    Compared as a pair, epoch first, so hosts follow a restored (numerically older) database.
    """

    epoch: int
    n: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.n}"


class Progress(enum.StrEnum):
    """How far a host is with the newest generation that it has accepted."""

    PENDING = "pending"
    READY = "ready"
    FAILED = "failed"  # It keeps trying; `ObjectStatus.fault` says what is in the way.
    ABSENT = "absent"


class Power(enum.StrEnum):
    """Power state of a domain, named as libvirt's states."""

    RUNNING = "running"
    PAUSED = "paused"
    SHUTOFF = "shutoff"
    CRASHED = "crashed"
    SUSPENDED = "suspended"  # Off, with its memory in a file.
    UNKNOWN = "unknown"

    @classmethod
    def _missing_(cls, value: object) -> "Power":
        return cls.UNKNOWN  # A newer host's word.
