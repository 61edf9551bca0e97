"""Request bodies of the image API. Properties are top-level keys, so a new image's body is read by hand here."""

import re
from typing import Annotated, Any, Final, Literal

import msgspec

from controller.errors import Forbidden, Invalid
from controller.http.bodies import Body
from controller.image.model import CONTAINER_FORMATS, DISK_FORMATS, TAGS_MAX, Visibility

NewImage = dict[str, Any]
"""POST /images; see `values_of`."""


class PatchStep(Body, frozen=True, kw_only=True):
    """One operation of a JSON patch as sent: `op` and `path` (RFC 6902), or in the older media type the verb as key."""

    op: Literal["add", "replace", "remove"] | msgspec.UnsetType = msgspec.UNSET
    path: str | msgspec.UnsetType = msgspec.UNSET
    add: str | msgspec.UnsetType = msgspec.UNSET
    replace: str | msgspec.UnsetType = msgspec.UNSET
    remove: str | msgspec.UnsetType = msgspec.UNSET
    value: Any = msgspec.UNSET


class NewMember(Body, frozen=True, kw_only=True):
    """POST /images/{id}/members."""

    member: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class MemberAnswer(Body, frozen=True, kw_only=True):
    """PUT /images/{id}/members/{member}."""

    status: Literal["pending", "accepted", "rejected"]


READ_ONLY: Final = frozenset(
    {"checksum", "created_at", "direct_url", "file", "locations", "os_hash_algo", "os_hash_value", "owner", "schema"}
    | {"self", "size", "status", "stores", "updated_at", "virtual_size", "deleted", "deleted_at"}
)
"""Shown on images, set by nobody (by `owner`: only admins)."""

_RESERVED: Final = "os_glance_"
PROPERTIES_MAX: Final = 128
PROPERTY_MAX: Final = 65535
"""Characters of a property's value."""
_UUID: Final = re.compile(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}")


def _text(key: str, value: Any, longest: int = 255) -> str:
    if not isinstance(value, str) or len(value) > longest:
        raise Invalid(f"Invalid value for '{key}': it must be text of at most {longest} characters.")
    return value


def _name(key: str, value: Any) -> str | None:
    return None if value is None else _text(key, value)


def _count(key: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 31:
        raise Invalid(f"Invalid value for '{key}': it must be a whole number from 0.")
    return value


def _flag(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise Invalid(f"Invalid value for '{key}': it must be true or false.")
    return value


def _one_of(*allowed: str) -> Any:
    def parse(key: str, value: Any) -> str | None:
        if value is not None and value not in allowed:
            raise Invalid(f"Invalid value '{value}' for '{key}': it must be one of {', '.join(allowed)}.")
        return value  # type: ignore[no-any-return]  # One of the allowed texts.

    return parse


def _visibility(key: str, value: Any) -> str:
    if value not in tuple(Visibility):
        raise Invalid(f"Invalid value '{value}' for '{key}': it must be one of {', '.join(Visibility)}.")
    return str(value)


def _tags(key: str, value: Any) -> list[str]:
    if not isinstance(value, list) or len(value) > TAGS_MAX:
        raise Invalid(f"Invalid value for '{key}': it must be a list of at most {TAGS_MAX} texts.")
    return sorted({_text(key, tag) for tag in value})


def _id(key: str, value: Any) -> str:
    if not isinstance(value, str) or not _UUID.fullmatch(value):
        raise Invalid(f"Invalid value for '{key}': it must be a UUID.")
    return value


BASE: Final[dict[str, Any]] = {
    "name": _name,
    "visibility": _visibility,
    "protected": _flag,
    "os_hidden": _flag,
    "min_disk": _count,
    "min_ram": _count,
    "disk_format": _one_of(*DISK_FORMATS),
    "container_format": _one_of(*CONTAINER_FORMATS),
    "tags": _tags,
}
"""What has a column of its own; every other key is a property."""


def values_of(body: NewImage) -> tuple[dict[str, Any], dict[str, str]]:
    """The columns and the properties of a new image. Raises Invalid, Forbidden for read-only keys."""
    columns: dict[str, Any] = {}
    properties: dict[str, str] = {}
    for key, value in body.items():
        if key == "id":
            columns["id"] = _id(key, value)
        elif key == "owner":
            columns["owner"] = _text(key, value, 64)
        elif key in READ_ONLY:
            raise Forbidden(f"Attribute '{key}' is read-only.")
        elif key in BASE:
            columns[key] = BASE[key](key, value)
        else:
            properties[property_key(key)] = _text(key, value, PROPERTY_MAX)
    bounded(properties)
    return columns, properties


def owner(value: Any) -> str:
    """The project that an image shall belong to. Raises Invalid."""
    if not value:
        raise Invalid("Invalid value for 'owner': an image belongs to a project.")
    return _text("owner", value, 64)


def property_key(key: str) -> str:
    """A property's name. Raises Invalid, and Forbidden for the names that services keep to themselves."""
    if not 0 < len(key) <= 255:
        raise Invalid("The name of a property has 1 to 255 characters.")
    if key.startswith(_RESERVED):
        raise Forbidden(f"Attribute '{key}' is reserved.")
    return key


def bounded(properties: dict[str, str]) -> None:
    """Raises Invalid for more properties than an image may have."""
    if len(properties) > PROPERTIES_MAX:
        raise Invalid(f"An image has at most {PROPERTIES_MAX} properties.")


def property_value(key: str, value: Any) -> str:
    """A property's value. Raises Invalid."""
    return _text(key, value, PROPERTY_MAX)
