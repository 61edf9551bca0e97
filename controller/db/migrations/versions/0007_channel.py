"""channel."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward; there is no way back but a backup."""
    op.create_table(
        "cached_image",
        sa.Column("host_id", sa.String(length=36), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("is_wanted", sa.Boolean(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("used_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("host_id", "sha256", name=op.f("pk_cached_image")),
    )
    with op.batch_alter_table("cached_image", schema=None) as batch_op:
        batch_op.create_index("ix_cached_image_sha256", ["sha256"], unique=False)

    op.create_table(
        "console_token",
        sa.Column("token_sha256", sa.String(length=64), nullable=False),
        sa.Column("server_id", sa.String(length=36), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("user_id", sa.String(length=64), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.Column("used_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("token_sha256", name=op.f("pk_console_token")),
    )
    with op.batch_alter_table("console_token", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_console_token_expires_at"), ["expires_at"], unique=False)
