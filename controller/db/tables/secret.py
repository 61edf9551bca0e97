"""What controllers of one cloud share and nobody else may read: sealed by a key that is in no database."""

import sqlalchemy as sa

from controller.db.tables.metadata import metadata

secret = sa.Table(
    "secret",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("sealed", sa.Text, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
)
