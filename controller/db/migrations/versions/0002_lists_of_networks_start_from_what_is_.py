"""lists of networks start from what is shared or external."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward; there is no way back but a backup."""
    with op.batch_alter_table("network", schema=None) as batch_op:
        batch_op.create_index(
            "ix_network_external",
            ["id"],
            unique=False,
            sqlite_where=sa.text("external = 1"),
            postgresql_where=sa.text("external"),
        )
        batch_op.create_index(
            "ix_network_shared",
            ["id"],
            unique=False,
            sqlite_where=sa.text("shared = 1"),
            postgresql_where=sa.text("shared"),
        )
