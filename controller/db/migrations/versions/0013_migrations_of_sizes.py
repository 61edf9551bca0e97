"""migrations of sizes."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward; there is no way back but a backup."""
    with op.batch_alter_table("migration", schema=None) as batch_op:
        batch_op.add_column(sa.Column("new_flavor_id", sa.String(length=255), nullable=True))
