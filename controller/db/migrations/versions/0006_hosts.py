"""hosts."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward; there is no way back but a backup."""
    op.create_table(
        "forwarding",
        sa.Column("network_id", sa.String(length=36), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("network_id", name=op.f("pk_forwarding")),
    )
    op.create_table(
        "forwarding_change",
        sa.Column("network_id", sa.String(length=36), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("port_id", sa.String(length=36), nullable=False),
        sa.Column("left_host_id", sa.String(length=36), nullable=False),
        sa.PrimaryKeyConstraint("network_id", "version", name=op.f("pk_forwarding_change")),
    )
    op.create_table(
        "migration",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("server_id", sa.String(length=36), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("source_host_id", sa.String(length=36), nullable=False),
        sa.Column("source_host_name", sa.String(length=255), nullable=False),
        sa.Column("target_host_id", sa.String(length=36), nullable=True),
        sa.Column("target_host_name", sa.String(length=255), nullable=True),
        sa.Column("flavor_id", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("updated_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_migration")),
        sa.UniqueConstraint("uuid", name=op.f("uq_migration_uuid")),
    )
    with op.batch_alter_table("migration", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_migration_server_id"), ["server_id"], unique=False)

    with op.batch_alter_table("host_object", schema=None) as batch_op:
        batch_op.create_index("ix_host_object_object", ["noun", "object_id"], unique=False)

    with op.batch_alter_table("port", schema=None) as batch_op:
        batch_op.add_column(sa.Column("moving_to", sa.String(length=36), server_default="", nullable=False))
        batch_op.create_index("ix_port_moving", ["moving_to"], unique=False)

    op.execute("INSERT INTO forwarding (network_id, version) SELECT id, 1 FROM network")
