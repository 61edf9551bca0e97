"""Permissions to look at a server's console, each for one connection. Only hashes of them are kept."""

import sqlalchemy as sa

from controller.db.tables.metadata import metadata

console_token = sa.Table(
    "console_token",
    metadata,
    sa.Column("token_sha256", sa.String(64), primary_key=True),
    sa.Column("server_id", sa.String(36), nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),  # The server's at that time: a reboot or rebuild ends it.
    sa.Column("kind", sa.String(16), nullable=False),  # vnc | serial
    sa.Column("user_id", sa.String(64), nullable=False),
    sa.Column("request_id", sa.String(64), nullable=False),
    sa.Column("expires_at", sa.Float, nullable=False, index=True),
    sa.Column("used_at", sa.Float),
)
