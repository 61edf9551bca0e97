"""Images and members as the image API shows them."""

from datetime import UTC, datetime
from typing import Any, Final

from controller.http.fields import Field, render
from controller.image.model import Image, Member


def time(seconds: float) -> str:
    """Seconds UTC as Glance writes them."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


_IMAGE: Final = (
    Field("id", "id"),
    Field("name", "name"),
    Field("status", "status"),
    Field("visibility", "visibility"),
    Field("owner", "owner"),
    Field("protected", "protected"),
    Field("os_hidden", "os_hidden"),
    Field("disk_format", "disk_format"),
    Field("container_format", "container_format"),
    Field("size", "size"),
    Field("virtual_size", "virtual_size"),
    Field("checksum", "md5"),
    Field("os_hash_algo", lambda one: "sha256" if one.sha256 else None),
    Field("os_hash_value", "sha256"),
    Field("min_disk", "min_disk"),
    Field("min_ram", "min_ram"),
    Field("tags", "tags"),
    Field("created_at", lambda one: time(one.created_at)),
    Field("updated_at", lambda one: time(one.updated_at)),
    Field("self", lambda one: f"/v2/images/{one.id}"),
    Field("file", lambda one: f"/v2/images/{one.id}/file"),
    Field("schema", lambda one: "/v2/schemas/image"),
)

_MEMBER: Final = (
    Field("image_id", "image_id"),
    Field("member_id", "member_id"),
    Field("status", "status"),
    Field("created_at", lambda one: time(one.created_at)),
    Field("updated_at", lambda one: time(one.updated_at)),
    Field("schema", lambda one: "/v2/schemas/member"),
)


def image(one: Image) -> dict[str, Any]:
    """One image; its properties are top-level keys, which can hide none of ours."""
    return {**one.properties, **render(_IMAGE, one)}


def member(one: Member) -> dict[str, Any]:
    """One member."""
    return render(_MEMBER, one)


_TEXT: Final = {"type": ["null", "string"], "maxLength": 255}
_PROPERTIES: Final[dict[str, Any]] = {
    "id": {"type": "string", "pattern": "^([0-9a-fA-F]){8}-([0-9a-fA-F]{4}-){3}([0-9a-fA-F]){12}$"},
    "name": _TEXT,
    "status": {"type": "string", "readOnly": True, "enum": ["queued", "saving", "active", "deactivated", "deleted"]},
    "visibility": {"type": "string", "enum": ["community", "public", "private", "shared"]},
    "owner": _TEXT,
    "protected": {"type": "boolean"},
    "os_hidden": {"type": "boolean"},
    "disk_format": {"type": ["null", "string"], "enum": [None, "raw", "qcow2"]},
    "container_format": {"type": ["null", "string"], "enum": [None, "bare"]},
    "size": {"type": ["null", "integer"], "readOnly": True},
    "virtual_size": {"type": ["null", "integer"], "readOnly": True},
    "checksum": {"type": ["null", "string"], "readOnly": True, "maxLength": 32},
    "os_hash_algo": {"type": ["null", "string"], "readOnly": True, "maxLength": 64},
    "os_hash_value": {"type": ["null", "string"], "readOnly": True, "maxLength": 128},
    "min_disk": {"type": "integer"},
    "min_ram": {"type": "integer"},
    "tags": {"type": "array", "items": {"type": "string", "maxLength": 255}},
    "created_at": {"type": "string", "readOnly": True},
    "updated_at": {"type": "string", "readOnly": True},
    "self": {"type": "string", "readOnly": True},
    "file": {"type": "string", "readOnly": True},
    "schema": {"type": "string", "readOnly": True},
}

IMAGE_SCHEMA: Final[dict[str, Any]] = {
    "name": "image",
    "properties": _PROPERTIES,
    "additionalProperties": {"type": "string"},
    "links": [
        {"rel": "self", "href": "{self}"},
        {"rel": "enclosure", "href": "{file}"},
        {"rel": "describedby", "href": "{schema}"},
    ],
}

IMAGES_SCHEMA: Final[dict[str, Any]] = {
    "name": "images",
    "properties": {
        "images": {"type": "array", "items": IMAGE_SCHEMA},
        "schema": {"type": "string"},
        "next": {"type": "string"},
        "first": {"type": "string"},
    },
    "links": [
        {"rel": "first", "href": "{first}"},
        {"rel": "next", "href": "{next}"},
        {"rel": "describedby", "href": "{schema}"},
    ],
}

MEMBER_SCHEMA: Final[dict[str, Any]] = {
    "name": "member",
    "properties": {
        "image_id": {"type": "string"},
        "member_id": {"type": "string"},
        "status": {"type": "string", "enum": ["pending", "accepted", "rejected"]},
        "created_at": {"type": "string"},
        "updated_at": {"type": "string"},
        "schema": {"type": "string"},
    },
}

MEMBERS_SCHEMA: Final[dict[str, Any]] = {
    "name": "members",
    "properties": {"members": {"type": "array", "items": MEMBER_SCHEMA}, "schema": {"type": "string"}},
}
