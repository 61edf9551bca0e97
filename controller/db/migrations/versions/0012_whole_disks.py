"""whole disks."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward; there is no way back but a backup."""
    op.add_column("server", sa.Column("is_disk_whole", sa.Boolean(), server_default=sa.text("(false)"), nullable=False))
