"""Servers that moved from one host to another or got another size, or tried to: what os-migrations lists."""

import sqlalchemy as sa

from controller.db.tables.metadata import metadata

migration = sa.Table(
    "migration",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("uuid", sa.String(36), nullable=False, unique=True),  # Holds the old claim meanwhile.
    sa.Column("server_id", sa.String(36), nullable=False, index=True),
    sa.Column("project_id", sa.String(64), nullable=False),
    sa.Column("user_id", sa.String(64), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),  # migration | resize | live-migration | evacuation
    sa.Column("status", sa.String(16), nullable=False),  # As Nova spells them.
    sa.Column("source_host_id", sa.String(36), nullable=False),
    sa.Column("source_host_name", sa.String(255), nullable=False),
    sa.Column("target_host_id", sa.String(36)),
    sa.Column("target_host_name", sa.String(255)),
    sa.Column("flavor_id", sa.String(255), nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("updated_at", sa.Float, nullable=False),
    sa.Column("new_flavor_id", sa.String(255)),  # Of a resize.
)
