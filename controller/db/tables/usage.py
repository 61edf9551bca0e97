"""When servers were ACTIVE, and as how large: what tenants are charged for."""

import sqlalchemy as sa

from controller.db.tables.metadata import metadata

server_usage = sa.Table(
    "server_usage",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("server_id", sa.String(36), sa.ForeignKey("server.id", ondelete="CASCADE"), nullable=False),
    sa.Column("began_at", sa.Float, nullable=False),
    sa.Column("ended_at", sa.Float, nullable=True),  # NULL: it is ACTIVE now.
    # As they were sold: a server that is resized is not ACTIVE in between, and begins anew as another size.
    sa.Column("vcpus", sa.Integer, nullable=False),
    sa.Column("memory_mib", sa.Integer, nullable=False),
    sa.Column("disk_gib", sa.Integer, nullable=False),  # Root and ephemeral.
)
sa.Index("ix_server_usage_server_id", server_usage.c.server_id, server_usage.c.began_at)
_open = server_usage.c.ended_at.is_(None)
sa.Index(  # Two at once would charge twice.
    "ux_server_usage_open", server_usage.c.server_id, unique=True, sqlite_where=_open, postgresql_where=_open
)
