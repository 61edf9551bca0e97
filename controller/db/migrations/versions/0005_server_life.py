"""server_life."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward; there is no way back but a backup."""
    op.add_column("server", sa.Column("rescue_image_id", sa.String(length=36), nullable=True))
    op.add_column("server", sa.Column("is_rescued", sa.Boolean(), server_default=sa.text("(false)"), nullable=False))
    op.add_column("server", sa.Column("shelved_image_id", sa.String(length=36), nullable=True))
    op.add_column("server", sa.Column("shelved_at", sa.Float(), nullable=True))

    op.create_table(
        "server_resize",
        sa.Column("server_id", sa.String(length=36), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("old", sa.JSON(), nullable=False),
        sa.Column("new", sa.JSON(), nullable=False),
        sa.Column("from_host_id", sa.String(length=36), nullable=False),
        sa.Column("from_host_name", sa.String(length=255), nullable=False),
        sa.Column("to_host_id", sa.String(length=36), nullable=True),
        sa.Column("to_host_name", sa.String(length=255), nullable=True),
        sa.Column("was_on", sa.Boolean(), nullable=False),
        sa.Column("extra_vcpus", sa.Integer(), nullable=False),
        sa.Column("extra_memory_mib", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["server_id"], ["server.id"], name=op.f("fk_server_resize_server_id_server"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("server_id", name=op.f("pk_server_resize")),
        sa.UniqueConstraint("id", name=op.f("uq_server_resize_id")),
    )
    op.create_index(op.f("ix_server_resize_project_id"), "server_resize", ["project_id"], unique=False)

    op.create_table(
        "server_group",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("policy", sa.String(length=32), nullable=False),
        sa.Column("max_per_host", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_server_group")),
    )
    op.create_index("ix_server_group_project", "server_group", ["project_id", "created_at", "id"], unique=False)

    op.create_table(
        "server_group_member",
        sa.Column("server_id", sa.String(length=36), nullable=False),
        sa.Column("group_id", sa.String(length=36), nullable=False),
        sa.ForeignKeyConstraint(
            ["group_id"],
            ["server_group.id"],
            name=op.f("fk_server_group_member_group_id_server_group"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["server_id"], ["server.id"], name=op.f("fk_server_group_member_server_id_server"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("server_id", name=op.f("pk_server_group_member")),
    )
    op.create_index(op.f("ix_server_group_member_group_id"), "server_group_member", ["group_id"], unique=False)
