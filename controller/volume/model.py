"""Volumes, snapshots and attachments as frozen structs, and the life that each can lead.

Theory of operation. A volume's `status` is the lock: whoever wants something of a volume takes an event by one
conditional UPDATE made from the table `LIFECYCLE`, in the transaction that also inserts the saga; whoever loses that
race is refused before anything happened. What attachments do to a volume is not written by hand: its status follows
from the rows of its attachments (`status_by`), in every transaction that changes one of them.
"""

import enum
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from controller.errors import Invalid


class Status(enum.StrEnum):
    """Of a volume, spelled as Cinder does."""

    CREATING = "creating"
    AVAILABLE = "available"
    RESERVED = "reserved"
    ATTACHING = "attaching"
    IN_USE = "in-use"
    DETACHING = "detaching"
    EXTENDING = "extending"
    DELETING = "deleting"
    ERROR = "error"
    ERROR_DELETING = "error_deleting"
    ERROR_EXTENDING = "error_extending"
    ERROR_ATTACHING = "error_attaching"  # A host is silent; it is attached, or detached, when that returns.
    MAINTENANCE = "maintenance"


class SnapshotStatus(enum.StrEnum):
    """Of a snapshot."""

    CREATING = "creating"
    AVAILABLE = "available"
    DELETING = "deleting"
    ERROR = "error"
    ERROR_DELETING = "error_deleting"


class AttachStatus(enum.StrEnum):
    """Of an attachment."""

    RESERVED = "reserved"
    ATTACHING = "attaching"
    ATTACHED = "attached"
    DETACHING = "detaching"


class Source(enum.StrEnum):
    """What a volume begins as."""

    NONE = "none"
    IMAGE = "image"
    SNAPSHOT = "snapshot"
    VOLUME = "volume"


class Event(enum.StrEnum):
    """What users ask of a volume, and what its sagas report."""

    DELETE = "delete"
    FORCE_DELETE = "force-delete"
    EXTEND = "extend"
    EXTEND_ATTACHED = "extend-attached"
    COPY = "copy"
    SNAPSHOT = "snapshot"
    SNAPSHOT_ATTACHED = "snapshot-attached"
    MADE = "made"
    MAKING_FAILED = "making-failed"
    EXTENDED = "extended"
    EXTENDING_FAILED = "extending-failed"
    DELETING_FAILED = "deleting-failed"
    ATTACHING_FAILED = "attaching-failed"
    ATTACHING_ENDED = "attaching-ended"


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """When an event may come, and what follows. `after` None: the status stays, or follows from the attachments."""

    before: frozenset[Status] | None  # None: any.
    after: Status | None = None


_S = Status
_RESTING: Final = (_S.AVAILABLE, _S.ERROR, _S.ERROR_EXTENDING, _S.ERROR_DELETING)

LIFECYCLE: Final[Mapping[Event, Rule]] = {
    Event.DELETE: Rule(before=frozenset(_RESTING), after=_S.DELETING),
    Event.FORCE_DELETE: Rule(before=None, after=_S.DELETING),
    Event.EXTEND: Rule(before=frozenset({_S.AVAILABLE}), after=_S.EXTENDING),
    Event.EXTEND_ATTACHED: Rule(before=frozenset({_S.AVAILABLE, _S.IN_USE}), after=_S.EXTENDING),
    Event.COPY: Rule(before=frozenset({_S.AVAILABLE, _S.IN_USE})),
    Event.SNAPSHOT: Rule(before=frozenset({_S.AVAILABLE})),
    Event.SNAPSHOT_ATTACHED: Rule(before=frozenset({_S.AVAILABLE, _S.IN_USE})),
    Event.MADE: Rule(before=frozenset({_S.CREATING, _S.ERROR})),
    Event.MAKING_FAILED: Rule(before=frozenset({_S.CREATING, _S.ERROR}), after=_S.ERROR),
    Event.EXTENDED: Rule(before=frozenset({_S.EXTENDING, _S.ERROR_EXTENDING})),
    Event.EXTENDING_FAILED: Rule(before=frozenset({_S.EXTENDING, _S.ERROR_EXTENDING}), after=_S.ERROR_EXTENDING),
    Event.ATTACHING_FAILED: Rule(before=frozenset({_S.RESERVED, _S.ATTACHING, _S.DETACHING}), after=_S.ERROR_ATTACHING),
    Event.ATTACHING_ENDED: Rule(before=frozenset({_S.ERROR_ATTACHING})),
    Event.DELETING_FAILED: Rule(before=frozenset({_S.DELETING, _S.ERROR_DELETING}), after=_S.ERROR_DELETING),
}

BY_ATTACHMENTS: Final = frozenset({_S.AVAILABLE, _S.RESERVED, _S.ATTACHING, _S.IN_USE, _S.DETACHING})
"""Statuses that follow from the attachments; any other one is somebody's who works on the volume, or a failure."""

SETTABLE: Final = (
    "creating", "available", "deleting", "error", "error_deleting", "attaching", "detaching", "in-use", "maintenance",
    "error_extending",
)  # fmt: skip
"""What an operator may set it to by os-reset_status."""


def status_by(attachments: Iterable[str]) -> Status:
    """What the statuses of its attachments make of a volume that nobody works on."""
    found = set(attachments)
    for one, status in (
        # First, also where others use it: who detached waits for the volume to be what it was.
        (AttachStatus.DETACHING, Status.DETACHING),
        (AttachStatus.ATTACHED, Status.IN_USE),
        (AttachStatus.ATTACHING, Status.ATTACHING),
        (AttachStatus.RESERVED, Status.RESERVED),
    ):
        if one in found:
            return status
    return Status.AVAILABLE


class InvalidVolume(Invalid):
    """The volume's present state forbids it: Cinder says 400 where others say 409."""

    def __init__(self, reason: str, *, why: dict[str, Any] | None = None) -> None:
        super().__init__(f"Invalid volume: {reason}", why=why)


class InvalidSnapshot(Invalid):
    """The snapshot's present state forbids it."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"Invalid snapshot: {reason}")


class VolumeType(msgspec.Struct, frozen=True):
    """A type's row, in the order of the table's columns."""

    id: str
    name: str
    description: str | None
    is_public: bool
    extra_specs: dict[str, str]
    created_at: float
    updated_at: float | None

    @property
    def is_multiattach(self) -> bool:
        """Whether its volumes may be attached to several servers at once."""
        return _is_true(self.extra_specs.get("multiattach", ""))


def _is_true(spec: str) -> bool:
    """Cinder spells truth `<is> True` in extra specs."""
    return spec.strip().lower().removeprefix("<is>").strip() == "true"


class Volume(msgspec.Struct, frozen=True):
    """A volume's row, in the order of the table's columns."""

    id: str
    project_id: str
    user_id: str
    name: str | None
    description: str | None
    status: str
    size_gib: int
    promised_gib: int
    type_id: str | None
    zone: str
    is_bootable: bool
    is_readonly: bool | None
    is_multiattach: bool
    meta: dict[str, str]
    image_meta: dict[str, str]
    source: str
    source_id: str | None
    source_hash: str | None
    host_id: str | None
    host_name: str | None
    pool: str | None
    generation: int
    is_deleting: bool
    created_at: float
    updated_at: float


class Snapshot(msgspec.Struct, frozen=True):
    """A snapshot's row, in the order of the table's columns."""

    id: str
    project_id: str
    user_id: str
    volume_id: str
    name: str | None
    description: str | None
    status: str
    size_gib: int
    type_id: str | None
    meta: dict[str, str]
    host_id: str | None
    pool: str | None
    generation: int
    is_deleting: bool
    created_at: float
    updated_at: float


class Attachment(msgspec.Struct, frozen=True):
    """An attachment's row, in the order of the table's columns."""

    id: str
    volume_id: str
    project_id: str
    server_id: str | None
    is_ours: bool
    status: str
    mode: str
    device: str | None
    host_name: str | None
    connector: dict[str, Any] | None
    generation: int
    initiators: list[str]
    portal_host: str | None
    portal_port: int | None
    iqn: str | None
    lun: int | None
    created_at: float
    attached_at: float | None
    secret_generation: int

    @property
    def is_exported(self) -> bool:
        """Whether its storage host may hold an export of it."""
        return bool(self.initiators)


class Pool(msgspec.Struct, frozen=True):
    """A pool's row, in the order of the table's columns."""

    host_id: str
    name: str
    driver: str
    total_gib: int
    is_thin: bool
    is_gone: bool
    claims: int


class Message(msgspec.Struct, frozen=True):
    """Why something failed, for its user; in the order of the table's columns."""

    id: str
    project_id: str
    request_id: str
    resource_type: str
    resource_id: str
    event_id: str
    level: str
    text: str
    created_at: float
    kept_until: float
