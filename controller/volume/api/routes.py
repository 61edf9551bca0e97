"""Every endpoint of the volume API (Cinder v3) on one page. What is not here answers 404 in every version."""

from typing import Any, Final

from controller.http import faults
from controller.http.op import PUBLIC, Op, Service
from controller.volume.api import (
    attachments,
    bodies,
    cloud,
    messages,
    quotas,
    snapshots,
    types,
    versions,
    volume_actions,
    volumes,
)
from controller.volume.api.versions import VERSIONS
from controller.volume.policy import RULES

_METADATA: Final = "metadata is the user's own (block storage API reference, volume metadata)"
_HINTS: Final = "scheduler hints are free: each scheduler has its own (block storage API reference, POST /volumes)"
_SPECS: Final = "extra specs are free (block storage API reference, volume type extra specs)"
_CONNECTOR: Final = "a connector is what its host tells of itself (block storage API reference, attachments)"
_QUOTAS: Final = "limits of types have the types' names in theirs (block storage API reference, quota sets)"

_VOLUME: Final = "/volumes/{volume_id}"
_ACTIONS: Final = "volume_extension:volume_actions:"
_ADMIN: Final = "volume_extension:volume_admin_actions:"
_IMAGE_META: Final = "volume_extension:volume_image_metadata:"


def _act(name: str, handler: Any, rule: str, **more: Any) -> Op:
    return Op("POST", f"{_VOLUME}/action", handler, rule, **{"action": name, "status": 202, **more})


def _metadata(path: str, module: Any, rules: tuple[str, str, str, str]) -> tuple[Op, ...]:
    """Metadata of volumes and of snapshots. `rules`: to read, to add, to change, to delete."""
    read, add, change, drop = rules
    whole, key = f"{path}/metadata", f"{path}/metadata/{{key}}"
    given: dict[str, Any] = {"body": bodies.Metadata, "open_body": _METADATA}
    one: dict[str, Any] = {"body": bodies.MetadataItem, "open_body": _METADATA}
    return (
        Op("GET", whole, module.metadata, read),
        Op("POST", whole, module.extend_metadata, add, **given),
        Op("PUT", whole, module.replace_metadata, change, **given),
        Op("GET", key, module.metadata_item, read),
        Op("PUT", key, module.set_metadata_item, change, **one),
        Op("DELETE", key, module.delete_metadata_item, drop),
    )


VOLUMES: Final = (
    Op(
        "POST", "/volumes", volumes.create, "volume:create", body=bodies.VolumeCreate, status=202,
        open_body=_HINTS,
    ),
    Op("GET", "/volumes", volumes.index, "volume:get_all"),
    Op("GET", "/volumes/detail", volumes.detail, "volume:get_all"),
    Op("GET", "/volumes/summary", volumes.summary, "volume:get_all", since=(3, 12)),
    Op("GET", _VOLUME, volumes.show, "volume:get"),
    Op("PUT", _VOLUME, volumes.update, "volume:update", body=bodies.VolumeUpdate, open_body=_METADATA),
    Op("DELETE", _VOLUME, volumes.delete, "volume:delete", status=202),
    *_metadata(
        _VOLUME,
        volumes,
        (
            "volume:get_volume_metadata",
            "volume:create_volume_metadata",
            "volume:update_volume_metadata",
            "volume:delete_volume_metadata",
        ),
    ),
    _act("os-extend", volume_actions.extend, "volume:extend", body=bodies.Extend),
    _act("os-reset_status", volume_actions.reset_status, _ADMIN + "reset_status", body=bodies.ResetStatus),
    _act("os-force_delete", volume_actions.force_delete, _ADMIN + "force_delete"),
    _act("os-set_bootable", volume_actions.set_bootable, _ACTIONS + "set_bootable", body=bodies.Bootable, status=200),
    _act(
        "os-update_readonly_flag", volume_actions.set_readonly, "volume:update_readonly_flag", body=bodies.Readonly
    ),
    _act(
        "os-set_image_metadata", volume_actions.set_image_metadata, _IMAGE_META + "set", body=bodies.Metadata,
        status=200, open_body=_METADATA,
    ),
    _act(
        "os-unset_image_metadata", volume_actions.unset_image_metadata, _IMAGE_META + "remove",
        body=bodies.MetadataKey, status=200,
    ),
    _act("os-show_image_metadata", volume_actions.show_image_metadata, _IMAGE_META + "show", status=200),
    _act("os-attach", volume_actions.attach, _ACTIONS + "attach", body=bodies.Attach),
    _act("os-detach", volume_actions.detach, _ACTIONS + "detach", body=bodies.Detach | None),
    _act("os-reserve", volume_actions.reserve, _ACTIONS + "reserve"),
    _act("os-unreserve", volume_actions.unreserve, _ACTIONS + "unreserve"),
)  # fmt: skip

_SNAPSHOT: Final = "/snapshots/{snapshot_id}"
_SNAPSHOT_ADMIN: Final = "volume_extension:snapshot_admin_actions:"

SNAPSHOTS: Final = (
    Op(
        "POST", "/snapshots", snapshots.create, "volume:create_snapshot", body=bodies.SnapshotCreate, status=202,
        open_body=_METADATA,
    ),
    Op("GET", "/snapshots", snapshots.index, "volume:get_all_snapshots"),
    Op("GET", "/snapshots/detail", snapshots.detail, "volume:get_all_snapshots"),
    Op("GET", _SNAPSHOT, snapshots.show, "volume:get_snapshot"),
    Op("PUT", _SNAPSHOT, snapshots.update, "volume:update_snapshot", body=bodies.SnapshotUpdate, open_body=_METADATA),
    Op("DELETE", _SNAPSHOT, snapshots.delete, "volume:delete_snapshot", status=202),
    *_metadata(
        _SNAPSHOT,
        snapshots,
        (
            "volume:get_snapshot_metadata",
            "volume:update_snapshot_metadata",
            "volume:update_snapshot_metadata",
            "volume:delete_snapshot_metadata",
        ),
    ),
    Op(
        "POST", f"{_SNAPSHOT}/action", snapshots.reset_status, _SNAPSHOT_ADMIN + "reset_status",
        action="os-reset_status", body=bodies.ResetSnapshotStatus, status=202,
    ),
    Op(
        "POST", f"{_SNAPSHOT}/action", snapshots.force_delete, _SNAPSHOT_ADMIN + "force_delete",
        action="os-force_delete", status=202,
    ),
)  # fmt: skip

_TYPE: Final = "/types/{type_id}"
_SPECS_PATH: Final = f"{_TYPE}/extra_specs"
_SPECS_RULE: Final = "volume_extension:types_extra_specs:"
_ACCESS: Final = "volume_extension:volume_type_access:"
_DEFAULT: Final = "/default-types/{project_id}"

TYPES: Final = (
    Op("GET", "/types", types.index, "volume_extension:type_get_all"),
    Op(
        "POST", "/types", types.create, "volume_extension:type_create", body=bodies.TypeCreate, open_body=_SPECS
    ),
    Op("GET", _TYPE, types.show, "volume_extension:type_get"),
    Op("PUT", _TYPE, types.update, "volume_extension:type_update", body=bodies.TypeUpdate),
    Op("DELETE", _TYPE, types.delete, "volume_extension:type_delete", status=202),
    Op("GET", f"{_TYPE}/encryption", types.encryption, "volume_extension:volume_type_encryption:get"),
    Op("GET", _SPECS_PATH, types.specs, _SPECS_RULE + "index"),
    Op(
        "POST", _SPECS_PATH, types.extend_specs, _SPECS_RULE + "create", body=bodies.ExtraSpecs, open_body=_SPECS
    ),
    Op("GET", f"{_SPECS_PATH}/{{key}}", types.spec, _SPECS_RULE + "show"),
    Op(
        "PUT", f"{_SPECS_PATH}/{{key}}", types.set_spec, _SPECS_RULE + "update", body=dict[str, str],
        open_body=_SPECS,
    ),
    Op("DELETE", f"{_SPECS_PATH}/{{key}}", types.delete_spec, _SPECS_RULE + "delete", status=202),
    Op("GET", f"{_TYPE}/os-volume-type-access", types.access, _ACCESS + "get_all_for_type"),
    Op(
        "POST", f"{_TYPE}/action", types.add_access, _ACCESS + "add_project_access", action="addProjectAccess",
        body=bodies.Project, status=202,
    ),
    Op(
        "POST", f"{_TYPE}/action", types.remove_access, _ACCESS + "remove_project_access",
        action="removeProjectAccess", body=bodies.Project, status=202,
    ),
    Op("GET", "/default-types", types.defaults, "volume_extension:default_get_all", since=(3, 62)),
    Op("GET", _DEFAULT, types.default, "volume_extension:default_get", since=(3, 62)),
    Op(
        "PUT", _DEFAULT, types.set_default, "volume_extension:default_set_or_update", body=bodies.DefaultTypeUpdate,
        since=(3, 62),
    ),
    Op("DELETE", _DEFAULT, types.unset_default, "volume_extension:default_unset", status=204, since=(3, 62)),
)  # fmt: skip

_ATTACHMENT: Final = "/attachments/{attachment_id}"

ATTACHMENTS: Final = (
    Op("GET", "/attachments", attachments.index, "volume:attachment_get_all", since=(3, 27)),
    Op("GET", "/attachments/detail", attachments.detail, "volume:attachment_get_all", since=(3, 27)),
    Op("GET", _ATTACHMENT, attachments.show, "volume:attachment_get", since=(3, 27)),
    Op(
        "POST", "/attachments", attachments.create, "volume:attachment_create", body=bodies.AttachmentCreate327,
        since=(3, 27), until=(3, 53), open_body=_CONNECTOR,
    ),
    Op(
        "POST", "/attachments", attachments.create, "volume:attachment_create", body=bodies.AttachmentCreate354,
        since=(3, 54), open_body=_CONNECTOR,
    ),
    Op(
        "PUT", _ATTACHMENT, attachments.update, "volume:attachment_update", body=bodies.AttachmentUpdate,
        since=(3, 27), open_body=_CONNECTOR,
    ),
    Op("DELETE", _ATTACHMENT, attachments.delete, "volume:attachment_delete", since=(3, 27)),
    Op(
        "POST", f"{_ATTACHMENT}/action", attachments.complete, "volume:attachment_complete", action="os-complete",
        status=204, since=(3, 44),
    ),
)  # fmt: skip

_QUOTA: Final = "/os-quota-sets/{project_id}"

CLOUD: Final = (
    Op("GET", "/limits", quotas.limits, "limits_extension:used_limits"),
    Op("GET", _QUOTA, quotas.show, "volume_extension:quotas:show"),
    Op("GET", f"{_QUOTA}/defaults", quotas.defaults, "volume_extension:quotas:show"),
    Op(
        "PUT", _QUOTA, quotas.update, "volume_extension:quotas:update", body=bodies.QuotaUpdate, open_body=_QUOTAS
    ),
    Op("DELETE", _QUOTA, quotas.reset, "volume_extension:quotas:delete"),
    Op("GET", "/os-quota-class-sets/{class_name}", quotas.classes, "volume_extension:quota_classes:get"),
    Op("GET", "/scheduler-stats/get_pools", cloud.get_pools, "scheduler_extension:scheduler_stats:get_pools"),
    Op("GET", "/os-services", cloud.services, "volume_extension:services:index"),
    Op("GET", "/os-availability-zone", cloud.zones, "volume:availability_zone_list"),
    Op("GET", "/capabilities/{host}", cloud.capabilities, "volume_extension:capabilities"),
    Op(
        "GET", "/resource_filters", cloud.resource_filters, "volume_extension:resource_filters", since=(3, 33)
    ),
    Op("GET", "/extensions", cloud.extensions, "volume_extension:list_extensions"),
    Op("GET", "/messages", messages.index, "message:get_all", since=(3, 3)),
    Op("GET", "/messages/{message_id}", messages.show, "message:get", since=(3, 3)),
    Op("DELETE", "/messages/{message_id}", messages.delete, "message:delete", status=204, since=(3, 3)),
)  # fmt: skip

SERVICE: Final = Service(
    name="volume",
    types=("volumev3", "block-storage"),
    prefix="/volume/v3",
    ops=(Op("GET", "/", versions.version, PUBLIC), *VOLUMES, *SNAPSHOTS, *TYPES, *ATTACHMENTS, *CLOUD),
    policies=RULES,
    envelope=faults.nova,
    versions=VERSIONS,
    version_header="volume",
    catalog_path="/volume/v3",
    project_in_path=True,
    over_quota_status=413,
    is_slash_an_id=True,
    documents=(Op("GET", "/volume", versions.choices, PUBLIC, status=300),),
)
