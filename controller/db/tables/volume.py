"""Volumes, their types, snapshots and attachments; where they lie; why one failed; and which a server was given."""

import sqlalchemy as sa

from controller.db.tables.metadata import metadata

volume_type = sa.Table(
    "volume_type",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("name", sa.String(255), nullable=False, unique=True),
    sa.Column("description", sa.String(255), nullable=True),
    sa.Column("is_public", sa.Boolean, nullable=False),
    sa.Column("extra_specs", sa.JSON, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("updated_at", sa.Float, nullable=True),
)
sa.Index("ix_volume_type_created", volume_type.c.created_at, volume_type.c.id)

volume_type_access = sa.Table(
    "volume_type_access",
    metadata,
    sa.Column("type_id", sa.String(36), sa.ForeignKey("volume_type.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("project_id", sa.String(64), primary_key=True),
)
"""Who may use a type that is not public."""

volume_type_default = sa.Table(
    "volume_type_default",
    metadata,
    sa.Column("project_id", sa.String(64), primary_key=True),
    sa.Column("type_id", sa.String(36), sa.ForeignKey("volume_type.id", ondelete="CASCADE"), nullable=False),
)
"""A project's own default, instead of the cloud's."""

volume = sa.Table(
    "volume",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("project_id", sa.String(64), nullable=False),
    sa.Column("user_id", sa.String(64), nullable=False),
    sa.Column("name", sa.String(255), nullable=True),
    sa.Column("description", sa.String(255), nullable=True),
    sa.Column("status", sa.String(32), nullable=False),  # See controller/volume/model.py.
    sa.Column("size_gib", sa.Integer, nullable=False),  # As it is.
    sa.Column("promised_gib", sa.Integer, nullable=False),  # As it will be: what quota and pools count.
    sa.Column("type_id", sa.String(36), nullable=True),
    sa.Column("zone", sa.String(255), nullable=False),
    sa.Column("is_bootable", sa.Boolean, nullable=False),
    sa.Column("is_readonly", sa.Boolean, nullable=True),  # None: nobody ever said.
    sa.Column("is_multiattach", sa.Boolean, nullable=False),
    sa.Column("meta", sa.JSON, nullable=False),
    sa.Column("image_meta", sa.JSON, nullable=False),  # Of the image that it began as, and what was set since.
    sa.Column("source", sa.String(16), nullable=False),  # none | image | snapshot | volume
    sa.Column("source_id", sa.String(64), nullable=True),  # Of it.
    sa.Column("source_hash", sa.String(64), nullable=True),  # The image's content, as hosts know it.
    # Place.
    sa.Column("host_id", sa.String(36), nullable=True),  # None until a pool is chosen. It is the claim, too.
    sa.Column("host_name", sa.String(255), nullable=True),
    sa.Column("pool", sa.String(64), nullable=True),
    sa.Column("generation", sa.Integer, nullable=False),  # Rises with everything that its host must know.
    sa.Column("is_deleting", sa.Boolean, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("updated_at", sa.Float, nullable=False),
)
sa.Index("ix_volume_project", volume.c.project_id, volume.c.created_at, volume.c.id)
sa.Index("ix_volume_created", volume.c.created_at, volume.c.id)
sa.Index(  # Covering: usage is counted from the index alone.
    "ix_volume_usage", volume.c.project_id, volume.c.type_id, volume.c.promised_gib
)
sa.Index("ix_volume_pool", volume.c.host_id, volume.c.pool, volume.c.promised_gib)

snapshot = sa.Table(
    "snapshot",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("project_id", sa.String(64), nullable=False),
    sa.Column("user_id", sa.String(64), nullable=False),
    sa.Column("volume_id", sa.String(36), nullable=False, index=True),
    sa.Column("name", sa.String(255), nullable=True),
    sa.Column("description", sa.String(255), nullable=True),
    sa.Column("status", sa.String(32), nullable=False),
    sa.Column("size_gib", sa.Integer, nullable=False),
    sa.Column("type_id", sa.String(36), nullable=True),
    sa.Column("meta", sa.JSON, nullable=False),
    sa.Column("host_id", sa.String(36), nullable=True),
    sa.Column("pool", sa.String(64), nullable=True),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("is_deleting", sa.Boolean, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("updated_at", sa.Float, nullable=False),
)
sa.Index("ix_snapshot_project", snapshot.c.project_id, snapshot.c.created_at, snapshot.c.id)
sa.Index("ix_snapshot_created", snapshot.c.created_at, snapshot.c.id)
sa.Index("ix_snapshot_pool", snapshot.c.host_id, snapshot.c.pool, snapshot.c.size_gib)

attachment = sa.Table(
    "attachment",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("volume_id", sa.String(36), sa.ForeignKey("volume.id"), nullable=False, index=True),
    sa.Column("project_id", sa.String(64), nullable=False),
    sa.Column("server_id", sa.String(36), nullable=True, index=True),
    sa.Column("is_ours", sa.Boolean, nullable=False),  # The compute service's; else a user's, by the attachments API.
    sa.Column("status", sa.String(16), nullable=False),  # reserved | attaching | attached | detaching
    sa.Column("mode", sa.String(2), nullable=False),  # rw | ro
    sa.Column("device", sa.String(255), nullable=True),  # /dev/vdb
    sa.Column("host_name", sa.String(255), nullable=True),  # Where it is attached.
    sa.Column("connector", sa.JSON, nullable=True),  # As a user gave it.
    # The export.
    sa.Column("generation", sa.Integer, nullable=False),  # Raised before anything new is sent about it.
    sa.Column("initiators", sa.JSON, nullable=False),  # Who may log in; none: it is not exported.
    sa.Column("portal_host", sa.String(64), nullable=True),  # As its host answered.
    sa.Column("portal_port", sa.Integer, nullable=True),
    sa.Column("iqn", sa.String(255), nullable=True),
    sa.Column("lun", sa.Integer, nullable=True),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("attached_at", sa.Float, nullable=True),
    # The generation whose secret opens it: an older one while it follows a guest that goes on meanwhile.
    sa.Column("secret_generation", sa.Integer, nullable=False, server_default="0"),
)
sa.Index("ix_attachment_project", attachment.c.project_id, attachment.c.created_at, attachment.c.id)
sa.Index("ix_attachment_created", attachment.c.created_at, attachment.c.id)

server_volume = sa.Table(
    "server_volume",
    metadata,
    sa.Column("attachment_id", sa.String(36), primary_key=True),
    sa.Column("server_id", sa.String(36), nullable=False),
    sa.Column("volume_id", sa.String(36), nullable=False, index=True),
    sa.Column("device", sa.String(32), nullable=False),  # /dev/vdb
    sa.Column("bus", sa.String(16), nullable=True),  # Asked for; None: the server's own.
    sa.Column("boot_index", sa.Integer, nullable=True),  # 0: the root disk.
    sa.Column("tag", sa.String(60), nullable=True),
    sa.Column("is_ended_with_server", sa.Boolean, nullable=False),  # delete_on_termination
    sa.Column("is_plugged", sa.Boolean, nullable=False),  # Part of the domain that the host is told of.
    sa.UniqueConstraint("server_id", "volume_id"),
    sa.UniqueConstraint("server_id", "device"),
)
"""Which volumes a server was given, and as what its guest sees them. The compute service's."""

volume_pool = sa.Table(
    "volume_pool",
    metadata,
    sa.Column("host_id", sa.String(36), primary_key=True),
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("driver", sa.String(32), nullable=False),
    sa.Column("total_gib", sa.Integer, nullable=False),
    sa.Column("is_thin", sa.Boolean, nullable=False),
    sa.Column("is_gone", sa.Boolean, nullable=False),  # Its host does not tell of it any more.
    sa.Column("claims", sa.Integer, nullable=False),  # Written by every claim, so that two claims of one pool meet.
)
"""What hosts can hold volumes in. What is used of it is the sum of the rows; what is free, heartbeats say."""

volume_message = sa.Table(
    "volume_message",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("project_id", sa.String(64), nullable=False),
    sa.Column("request_id", sa.String(64), nullable=False),
    sa.Column("resource_type", sa.String(32), nullable=False),  # VOLUME | VOLUME_SNAPSHOT
    sa.Column("resource_id", sa.String(36), nullable=False),
    sa.Column("event_id", sa.String(64), nullable=False),
    sa.Column("level", sa.String(16), nullable=False),
    sa.Column("text", sa.String(1024), nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("kept_until", sa.Float, nullable=False),
)
sa.Index("ix_volume_message_project", volume_message.c.project_id, volume_message.c.created_at, volume_message.c.id)
sa.Index("ix_volume_message_kept", volume_message.c.kept_until)
