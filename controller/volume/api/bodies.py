"""Bodies of requests of the volume API. Structs refuse unknown keys; texts are checked in `texts`."""

from typing import Annotated, Any, Literal

import msgspec

from controller.http.bodies import Body

Flag = bool | str
Count = int | str
Text = Annotated[str, msgspec.Meta(max_length=255)]
Uuid = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Meta = dict[str, str | None]
UNSET = msgspec.UNSET
Unset = msgspec.UnsetType


class Volume(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new volume. Both pairs of names are Cinder's; groups and backups there are none."""

    size: Count | None = None
    name: Text | None = None
    display_name: Text | None = None
    description: Text | None = None
    display_description: Text | None = None
    volume_type: Text | None = None
    availability_zone: Text | None = None
    metadata: Meta | None = None
    snapshot_id: Uuid | None = None
    source_volid: Uuid | None = None
    image_ref: str | None = msgspec.field(name="imageRef", default=None)
    image_id: Uuid | None = None
    multiattach: Flag | None = None
    consistencygroup_id: Uuid | None = None
    group_id: Uuid | None = None
    backup_id: Uuid | None = None


class VolumeCreate(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /volumes. Hints are free objects, because every scheduler has its own; this one takes none."""

    volume: Volume
    hints: dict[str, Any] = msgspec.field(name="OS-SCH-HNT:scheduler_hints", default_factory=dict)


class Names(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What PUT may change of a volume or a snapshot."""

    name: Text | Unset | None = UNSET
    display_name: Text | Unset | None = UNSET
    description: Text | Unset | None = UNSET
    display_description: Text | Unset | None = UNSET
    metadata: Meta | Unset = UNSET


class VolumeUpdate(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PUT /volumes/{id}."""

    volume: Names


class SnapshotUpdate(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PUT /snapshots/{id}."""

    snapshot: Names


class Metadata(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST and PUT of all metadata."""

    metadata: Meta


class MetadataItem(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PUT of one key."""

    meta: Annotated[dict[str, str], msgspec.Meta(min_length=1, max_length=1)]


class Extend(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`os-extend`."""

    new_size: Count


class ResetStatus(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`os-reset_status` of a volume. What attachments are is not a matter of words."""

    status: Annotated[str, msgspec.Meta(min_length=1, max_length=32)] | None = None
    attach_status: Literal["attached", "detached"] | None = None
    migration_status: Literal["none"] | None = None


class ResetSnapshotStatus(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`os-reset_status` of a snapshot."""

    status: Literal["available", "creating", "deleting", "error", "error_deleting"]


class Bootable(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`os-set_bootable`."""

    bootable: Flag


class Readonly(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`os-update_readonly_flag`."""

    readonly: Flag


class MetadataKey(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`os-unset_image_metadata`."""

    key: Text


class Attach(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`os-attach`: somebody notes that they use it."""

    instance_uuid: Uuid | None = None
    host_name: Text | None = None
    mountpoint: Annotated[str, msgspec.Meta(min_length=1, max_length=255)] | None = None
    mode: Literal["rw", "ro"] | None = None


class Detach(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`os-detach`."""

    attachment_id: Uuid | None = None


class Snapshot(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new snapshot. A null for its volume is the volume that nobody has, as in Cinder."""

    volume_id: Uuid | None
    name: Text | None = None
    display_name: Text | None = None
    description: Text | None = None
    display_description: Text | None = None
    force: Flag | None = None
    metadata: Meta | None = None


class SnapshotCreate(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /snapshots."""

    snapshot: Snapshot


class VolumeType(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new type."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    description: Text | None = None
    extra_specs: dict[str, str] | None = None
    is_public: Flag = msgspec.field(name="os-volume-type-access:is_public", default=True)


class TypeCreate(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /types."""

    volume_type: VolumeType


class TypeChanges(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What PUT may change."""

    name: Text | Unset | None = UNSET
    description: Text | Unset | None = UNSET
    is_public: Flag | Unset = UNSET


class TypeUpdate(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PUT /types/{id}."""

    volume_type: TypeChanges


class ExtraSpecs(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST of extra specs."""

    extra_specs: dict[str, str]


class Project(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`addProjectAccess` and `removeProjectAccess`."""

    project: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class DefaultType(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A type by name or id."""

    volume_type: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


class DefaultTypeUpdate(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PUT /default-types/{project_id}."""

    default_type: DefaultType


class QuotaUpdate(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PUT /os-quota-sets/{project_id}: resources of types have the types' names in theirs."""

    quota_set: dict[str, Count | None]


class Attachment(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new attachment."""

    volume_uuid: Uuid
    instance_uuid: Uuid | None = None
    connector: dict[str, Any] | None = None


class ModedAttachment(Attachment, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From 3.54."""

    mode: Literal["rw", "ro", "null"] | None = None


class AttachmentCreate327(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /attachments, 3.27 to 3.53."""

    attachment: Attachment


class AttachmentCreate354(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From 3.54."""

    attachment: ModedAttachment


class Connector(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who will log in: whatever the initiator's host tells of itself."""

    connector: dict[str, Any]


class AttachmentUpdate(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PUT /attachments/{id}."""

    attachment: Connector
