"""live migration."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward; there is no way back but a backup."""
    with op.batch_alter_table("attachment", schema=None) as batch_op:
        batch_op.add_column(sa.Column("secret_generation", sa.Integer(), server_default="0", nullable=False))

    op.execute("UPDATE attachment SET secret_generation = generation")
