"""The cloud itself: one row."""

import sqlalchemy as sa

from controller.db.tables.metadata import metadata

cloud = sa.Table(
    "cloud",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),  # Always 1.
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("tag", sa.String(4), nullable=False),  # Four hex digits, in the name of every host object.
    sa.Column("epoch", sa.Integer, nullable=False),  # Rises when this database is restored from a backup.
    sa.Column("created_at", sa.Float, nullable=False),
)
