"""usage."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward; there is no way back but a backup."""
    op.create_table(
        "server_usage",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("server_id", sa.String(length=36), nullable=False),
        sa.Column("began_at", sa.Float(), nullable=False),
        sa.Column("ended_at", sa.Float(), nullable=True),
        sa.Column("vcpus", sa.Integer(), nullable=False),
        sa.Column("memory_mib", sa.Integer(), nullable=False),
        sa.Column("disk_gib", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["server_id"], ["server.id"], name=op.f("fk_server_usage_server_id_server"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_server_usage")),
    )
    op.create_index("ix_server_usage_server_id", "server_usage", ["server_id", "began_at"])
    op.create_index(
        "ux_server_usage_open",
        "server_usage",
        ["server_id"],
        unique=True,
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    # Servers that are ACTIVE now have been so since they were launched, as far as anybody knows.
    op.execute(
        "INSERT INTO server_usage (server_id, began_at, ended_at, vcpus, memory_mib, disk_gib) "
        "SELECT id, launched_at, NULL, vcpus, memory_mib, root_gib + ephemeral_gib FROM server "
        "WHERE vm_state = 'active' AND deleted_at IS NULL AND launched_at IS NOT NULL"
    )
