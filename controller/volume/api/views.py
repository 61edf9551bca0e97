"""What the API shows of volumes, snapshots, types, attachments and messages, and in which versions."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from controller.http.fields import Field, render
from controller.http.op import Call
from controller.volume.api.links import links, micros
from controller.volume.model import (
    Attachment,
    AttachStatus,
    Message,
    Snapshot,
    SnapshotStatus,
    Source,
    Volume,
    VolumeType,
)


class Card(msgspec.Struct, frozen=True):
    """A volume with what its view takes from elsewhere."""

    volume: Volume
    links: list[dict[str, str]]
    type_name: str | None
    attachments: Sequence[Attachment]
    is_admin: bool


def _attachments(card: Card) -> list[dict[str, Any]]:
    """Those that are there, or going."""
    there = (AttachStatus.ATTACHED, AttachStatus.DETACHING)
    return [
        {
            "id": one.volume_id,
            "attachment_id": one.id,
            "volume_id": one.volume_id,
            "server_id": one.server_id,
            "host_name": one.host_name if card.is_admin else None,
            "device": one.device,
            "attached_at": micros(one.attached_at),
        }
        for one in card.attachments
        if one.status in there
    ]


def _meta(card: Card) -> dict[str, str]:
    """The user's, and how it may be attached, where somebody said so."""
    row = card.volume
    return row.meta if row.is_readonly is None else {**row.meta, "readonly": str(row.is_readonly)}


def _host(card: Card) -> str | None:
    row = card.volume
    return None if row.host_name is None else f"{row.host_name}@{row.pool}#{row.pool}"


def _source(kind: Source) -> Any:
    return lambda card: card.volume.source_id if card.volume.source == kind else None


VOLUME: Final = (
    Field("id", "volume.id"),
    Field("name", "volume.name"),
    Field("description", "volume.description"),
    Field("status", "volume.status"),
    Field("size", "volume.size_gib"),
    Field("availability_zone", "volume.zone"),
    Field("created_at", lambda card: micros(card.volume.created_at)),
    Field("updated_at", lambda card: micros(card.volume.updated_at)),
    Field("attachments", _attachments),
    Field("volume_type", "type_name"),
    Field("snapshot_id", _source(Source.SNAPSHOT)),
    Field("source_volid", _source(Source.VOLUME)),
    Field("metadata", _meta),
    Field("links", "links"),
    Field("user_id", "volume.user_id"),
    Field("bootable", lambda card: "true" if card.volume.is_bootable else "false"),
    Field("encrypted", lambda card: False),
    Field("replication_status", lambda card: None),
    Field("consistencygroup_id", lambda card: None),
    Field("multiattach", "volume.is_multiattach"),
    Field("migration_status", lambda card: None),
    Field("group_id", lambda card: None, since=(3, 13)),
    Field("shared_targets", lambda card: False, since=(3, 48)),
    Field("service_uuid", lambda card: None, since=(3, 48)),
    Field("volume_type_id", "volume.type_id", since=(3, 63)),
    Field("consumes_quota", lambda card: True, since=(3, 65)),
)

VOLUME_ADMIN: Final = (
    Field("provider_id", lambda card: None, since=(3, 21)),
    Field("cluster_name", lambda card: None, since=(3, 61)),
)

VOLUME_WHERE: Final = (
    Field("os-vol-host-attr:host", _host),
    Field("os-vol-mig-status-attr:migstat", lambda card: None),
    Field("os-vol-mig-status-attr:name_id", lambda card: None),
)


def changed_volume(call: Call, card: Card) -> dict[str, Any]:
    """What POST and PUT answer: in Cinder, extensions add to what is looked at only."""
    found = render(VOLUME, card, call.version)
    if card.is_admin:
        found.update(render(VOLUME_ADMIN, card, call.version))
    return found


def volume(call: Call, card: Card) -> dict[str, Any]:
    """A whole volume."""
    found = changed_volume(call, card)
    found["os-vol-tenant-attr:tenant_id"] = card.volume.project_id
    if card.volume.image_meta:
        found["volume_image_metadata"] = card.volume.image_meta
    if card.is_admin:
        found.update(render(VOLUME_WHERE, card, call.version))
    return found


def named(call: Call, collection: str, row: Any) -> dict[str, Any]:
    """One line of a list of names."""
    return {"id": row.id, "name": row.name, "links": links(call, collection, row.id)}


SNAPSHOT_LINE: Final = (
    Field("id", "id"),
    Field("name", "name"),
    Field("description", "description"),
    Field("volume_id", "volume_id"),
    Field("status", "status"),
    Field("size", "size_gib"),
    Field("metadata", "meta"),
    Field("created_at", lambda row: micros(row.created_at)),
    Field("updated_at", lambda row: micros(row.updated_at)),
    Field("user_id", "user_id", since=(3, 41)),
    Field("consumes_quota", lambda row: True, since=(3, 65)),
)

_EXTENDED: Final = "os-extended-snapshot-attributes:"

SNAPSHOT: Final = (
    *SNAPSHOT_LINE,
    Field(_EXTENDED + "progress", lambda row: "100%" if row.status == SnapshotStatus.AVAILABLE else "0%"),
    Field(_EXTENDED + "project_id", "project_id"),
    Field("group_snapshot_id", lambda row: None, since=(3, 14)),
)


def snapshot(call: Call, row: Snapshot, *, whole: bool) -> dict[str, Any]:
    """A snapshot; `whole` with what details add."""
    return render(SNAPSHOT if whole else SNAPSHOT_LINE, row, call.version)


TYPE_CHANGED: Final = (
    Field("id", "id"),
    Field("name", "name"),
    Field("description", "description"),
    Field("is_public", "is_public"),
)

TYPE_MADE: Final = (*TYPE_CHANGED, Field("os-volume-type-access:is_public", "is_public"))

TYPE: Final = (*TYPE_MADE, Field("qos_specs_id", lambda row: None))

VISIBLE_SPECS: Final = frozenset({"RESKEY:availability_zones", "multiattach", "replication_enabled"})
"""What members see of a type's extra specs, as in Cinder; the rest says how the cloud is built."""


def volume_type(call: Call, row: VolumeType, fields: Sequence[Field] = TYPE) -> dict[str, Any]:
    """A type. POST and PUT answer with fewer fields."""
    return {**render(fields, row, call.version), "extra_specs": specs(call, row)}


def specs(call: Call, row: VolumeType) -> Mapping[str, str]:
    """What this caller sees of the extra specs."""
    if call.ctx.is_admin:
        return row.extra_specs
    return {key: value for key, value in row.extra_specs.items() if key in VISIBLE_SPECS}


ATTACHMENT_LINE: Final = (
    Field("id", "id"),
    Field("volume_id", "volume_id"),
    Field("instance", "server_id"),
    Field("status", "status"),
)

ATTACHMENT: Final = (
    *ATTACHMENT_LINE,
    Field("attached_at", lambda row: micros(row.attached_at) or ""),
    Field("detached_at", lambda row: ""),
    Field("attach_mode", "mode"),
)


def attachment(call: Call, row: Attachment, connection: Mapping[str, Any]) -> dict[str, Any]:
    """An attachment, with how to connect."""
    return {**render(ATTACHMENT, row, call.version), "connection_info": connection}


def attachment_line(call: Call, row: Attachment) -> dict[str, Any]:
    """One line of a list."""
    return render(ATTACHMENT_LINE, row, call.version)


def connection(row: Attachment, secret: tuple[str, str] | None) -> dict[str, Any]:
    """How an initiator reaches the volume; `secret` (user, secret) is shown once, to who asked for the export."""
    if row.portal_host is None or not row.initiators:
        return {}
    found: dict[str, Any] = {
        "attachment_id": row.id,
        "driver_volume_type": "iscsi",
        "target_discovered": False,
        "target_portal": f"{row.portal_host}:{row.portal_port}",
        "target_iqn": row.iqn,
        "target_lun": row.lun,
        "volume_id": row.volume_id,
        "access_mode": row.mode,
        "encrypted": False,
        "auth_method": "CHAP",
    }
    if secret is not None:
        found["auth_username"], found["auth_password"] = secret
    return found


MESSAGE: Final = (
    Field("id", "id"),
    Field("event_id", "event_id"),
    Field("user_message", "text"),
    Field("message_level", "level"),
    Field("resource_type", "resource_type"),
    Field("resource_uuid", "resource_id"),
    Field("request_id", "request_id"),
    Field("created_at", lambda row: micros(row.created_at)),
    Field("guaranteed_until", lambda row: micros(row.kept_until)),
)


def message(call: Call, row: Message) -> dict[str, Any]:
    """Why something failed."""
    return {**render(MESSAGE, row, call.version), "links": links(call, "messages", row.id)}
