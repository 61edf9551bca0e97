"""volumes."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward; there is no way back but a backup."""
    op.create_table(
        "server_volume",
        sa.Column("attachment_id", sa.String(length=36), nullable=False),
        sa.Column("server_id", sa.String(length=36), nullable=False),
        sa.Column("volume_id", sa.String(length=36), nullable=False),
        sa.Column("device", sa.String(length=32), nullable=False),
        sa.Column("bus", sa.String(length=16), nullable=True),
        sa.Column("boot_index", sa.Integer(), nullable=True),
        sa.Column("tag", sa.String(length=60), nullable=True),
        sa.Column("is_ended_with_server", sa.Boolean(), nullable=False),
        sa.Column("is_plugged", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("attachment_id", name=op.f("pk_server_volume")),
        sa.UniqueConstraint("server_id", "device", name=op.f("uq_server_volume_server_id_device")),
        sa.UniqueConstraint("server_id", "volume_id", name=op.f("uq_server_volume_server_id_volume_id")),
    )
    with op.batch_alter_table("server_volume", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_server_volume_volume_id"), ["volume_id"], unique=False)

    op.create_table(
        "snapshot",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.String(length=64), nullable=False),
        sa.Column("volume_id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=True),
        sa.Column("description", sa.String(length=255), nullable=True),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("size_gib", sa.Integer(), nullable=False),
        sa.Column("type_id", sa.String(length=36), nullable=True),
        sa.Column("meta", sa.JSON(), nullable=False),
        sa.Column("host_id", sa.String(length=36), nullable=True),
        sa.Column("pool", sa.String(length=64), nullable=True),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("is_deleting", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("updated_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_snapshot")),
    )
    with op.batch_alter_table("snapshot", schema=None) as batch_op:
        batch_op.create_index("ix_snapshot_created", ["created_at", "id"], unique=False)
        batch_op.create_index("ix_snapshot_pool", ["host_id", "pool", "size_gib"], unique=False)
        batch_op.create_index("ix_snapshot_project", ["project_id", "created_at", "id"], unique=False)
        batch_op.create_index(batch_op.f("ix_snapshot_volume_id"), ["volume_id"], unique=False)

    op.create_table(
        "volume",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=True),
        sa.Column("description", sa.String(length=255), nullable=True),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("size_gib", sa.Integer(), nullable=False),
        sa.Column("promised_gib", sa.Integer(), nullable=False),
        sa.Column("type_id", sa.String(length=36), nullable=True),
        sa.Column("zone", sa.String(length=255), nullable=False),
        sa.Column("is_bootable", sa.Boolean(), nullable=False),
        sa.Column("is_readonly", sa.Boolean(), nullable=True),
        sa.Column("is_multiattach", sa.Boolean(), nullable=False),
        sa.Column("meta", sa.JSON(), nullable=False),
        sa.Column("image_meta", sa.JSON(), nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("source_id", sa.String(length=64), nullable=True),
        sa.Column("source_hash", sa.String(length=64), nullable=True),
        sa.Column("host_id", sa.String(length=36), nullable=True),
        sa.Column("host_name", sa.String(length=255), nullable=True),
        sa.Column("pool", sa.String(length=64), nullable=True),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("is_deleting", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("updated_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_volume")),
    )
    with op.batch_alter_table("volume", schema=None) as batch_op:
        batch_op.create_index("ix_volume_created", ["created_at", "id"], unique=False)
        batch_op.create_index("ix_volume_pool", ["host_id", "pool", "promised_gib"], unique=False)
        batch_op.create_index("ix_volume_project", ["project_id", "created_at", "id"], unique=False)
        batch_op.create_index("ix_volume_usage", ["project_id", "type_id", "promised_gib"], unique=False)

    op.create_table(
        "volume_message",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.Column("resource_type", sa.String(length=32), nullable=False),
        sa.Column("resource_id", sa.String(length=36), nullable=False),
        sa.Column("event_id", sa.String(length=64), nullable=False),
        sa.Column("level", sa.String(length=16), nullable=False),
        sa.Column("text", sa.String(length=1024), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("kept_until", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_volume_message")),
    )
    with op.batch_alter_table("volume_message", schema=None) as batch_op:
        batch_op.create_index("ix_volume_message_kept", ["kept_until"], unique=False)
        batch_op.create_index("ix_volume_message_project", ["project_id", "created_at", "id"], unique=False)

    op.create_table(
        "volume_pool",
        sa.Column("host_id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("driver", sa.String(length=32), nullable=False),
        sa.Column("total_gib", sa.Integer(), nullable=False),
        sa.Column("is_thin", sa.Boolean(), nullable=False),
        sa.Column("is_gone", sa.Boolean(), nullable=False),
        sa.Column("claims", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("host_id", "name", name=op.f("pk_volume_pool")),
    )
    op.create_table(
        "volume_type",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("description", sa.String(length=255), nullable=True),
        sa.Column("is_public", sa.Boolean(), nullable=False),
        sa.Column("extra_specs", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("updated_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_volume_type")),
        sa.UniqueConstraint("name", name=op.f("uq_volume_type_name")),
    )
    with op.batch_alter_table("volume_type", schema=None) as batch_op:
        batch_op.create_index("ix_volume_type_created", ["created_at", "id"], unique=False)

    op.create_table(
        "attachment",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("volume_id", sa.String(length=36), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("server_id", sa.String(length=36), nullable=True),
        sa.Column("is_ours", sa.Boolean(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("mode", sa.String(length=2), nullable=False),
        sa.Column("device", sa.String(length=255), nullable=True),
        sa.Column("host_name", sa.String(length=255), nullable=True),
        sa.Column("connector", sa.JSON(), nullable=True),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("initiators", sa.JSON(), nullable=False),
        sa.Column("portal_host", sa.String(length=64), nullable=True),
        sa.Column("portal_port", sa.Integer(), nullable=True),
        sa.Column("iqn", sa.String(length=255), nullable=True),
        sa.Column("lun", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("attached_at", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["volume_id"], ["volume.id"], name=op.f("fk_attachment_volume_id_volume")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attachment")),
    )
    with op.batch_alter_table("attachment", schema=None) as batch_op:
        batch_op.create_index("ix_attachment_created", ["created_at", "id"], unique=False)
        batch_op.create_index("ix_attachment_project", ["project_id", "created_at", "id"], unique=False)
        batch_op.create_index(batch_op.f("ix_attachment_server_id"), ["server_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_attachment_volume_id"), ["volume_id"], unique=False)

    op.create_table(
        "volume_type_access",
        sa.Column("type_id", sa.String(length=36), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["type_id"], ["volume_type.id"], name=op.f("fk_volume_type_access_type_id_volume_type"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("type_id", "project_id", name=op.f("pk_volume_type_access")),
    )
    op.create_table(
        "volume_type_default",
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("type_id", sa.String(length=36), nullable=False),
        sa.ForeignKeyConstraint(
            ["type_id"], ["volume_type.id"], name=op.f("fk_volume_type_default_type_id_volume_type"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("project_id", name=op.f("pk_volume_type_default")),
    )
