"""Limits that differ from the defaults. Usage is never stored: it is counted beside the rows it speaks of."""

import sqlalchemy as sa

from controller.db.tables.metadata import metadata

quota = sa.Table(
    "quota",
    metadata,
    sa.Column("project_id", sa.String(64), primary_key=True),
    sa.Column("service", sa.String(16), primary_key=True),
    sa.Column("resource", sa.String(64), primary_key=True),
    sa.Column("limit_max", sa.Integer, nullable=False),
)

quota_lock = sa.Table(
    "quota_lock",
    metadata,
    sa.Column("project_id", sa.String(64), primary_key=True),
    sa.Column("service", sa.String(16), primary_key=True),
    sa.Column("charges", sa.Integer, nullable=False),
)
"""A row that charging transactions of one project write first: on PostgreSQL they then meet there and not later."""
