"""Images as frozen structs, and the life of one."""

import enum
import functools
from typing import Any, Final

import msgspec

DISK_FORMATS: Final = ("qcow2", "raw")
"""What hosts can run. Others are refused when an image is made, not when a server is."""

CONTAINER_FORMATS: Final = ("bare",)


TAGS_MAX: Final = 128
MEMBERS_MAX: Final = 128
"""Of one image, as Glance has it: each rides along wherever the image is shown or looked for."""


class Status(enum.StrEnum):
    """queued → saving → active → deleted; a failed upload returns to queued, an admin may deactivate."""

    QUEUED = "queued"
    SAVING = "saving"
    ACTIVE = "active"
    DEACTIVATED = "deactivated"
    DELETED = "deleted"


class Visibility(enum.StrEnum):
    """Who sees an image."""

    PUBLIC = "public"
    COMMUNITY = "community"
    SHARED = "shared"
    PRIVATE = "private"


class MemberStatus(enum.StrEnum):
    """What a project makes of an image that was shared with it."""

    PENDING = "pending"
    ACCEPTED = "accepted"
    REJECTED = "rejected"


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """An image. Sizes are bytes, min_disk GiB, min_ram MiB, times seconds UTC."""

    id: str
    owner: str
    name: str | None = None
    visibility: Visibility = Visibility.SHARED
    status: Status = Status.QUEUED
    disk_format: str | None = None
    container_format: str | None = None
    size: int | None = None
    virtual_size: int | None = None
    md5: str | None = None
    sha256: str | None = None
    min_disk: int = 0
    min_ram: int = 0
    protected: bool = False
    os_hidden: bool = False
    properties: dict[str, str] = {}
    tags: tuple[str, ...] = ()
    reserved_bytes: int = 0
    upload_until: float | None = None
    created_at: float
    updated_at: float
    deleted_at: float | None = None


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A project that an image is shared with."""

    image_id: str
    member_id: str
    status: MemberStatus
    created_at: float
    updated_at: float


def from_row(kind: Any, row: Any) -> Any:
    """The struct of a row: columns of the same names."""
    return msgspec.convert(dict(zip(_names(row._fields), row, strict=True)), kind)


@functools.cache
def _names(columns: tuple[str, ...]) -> tuple[str, ...]:
    """SQLAlchemy's column names are a subclass of str, which msgspec does not take for a key."""
    return tuple(str(name) for name in columns)
