"""Who has claimed how much of which host. What a host *has* is in its own row; what is used is the sum of these."""

import sqlalchemy as sa

from controller.db.tables.metadata import metadata

provider = sa.Table(
    "provider",
    metadata,
    sa.Column("host_id", sa.String(36), primary_key=True),
    sa.Column("generation", sa.Integer, nullable=False),
)
"""One row a host: written by every claim, so that two claims of one host meet, and the loser is run again."""

allocation = sa.Table(
    "allocation",
    metadata,
    sa.Column("consumer_id", sa.String(36), primary_key=True),  # A server's id.
    sa.Column("host_id", sa.String(36), primary_key=True),  # Two hosts while a server moves.
    sa.Column("project_id", sa.String(64), nullable=False),
    sa.Column("user_id", sa.String(64), nullable=False),
    sa.Column("vcpus", sa.Integer, nullable=False),
    sa.Column("memory_mib", sa.Integer, nullable=False),
    sa.Column("disk_gib", sa.Integer, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
)
sa.Index(  # Covering: a host's usage is summed from the index alone.
    "ix_allocation_usage", allocation.c.host_id, allocation.c.vcpus, allocation.c.memory_mib, allocation.c.disk_gib
)
