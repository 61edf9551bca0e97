"""Hosts, the credentials they were given, and the tokens that let a new one join."""

import sqlalchemy as sa

from controller.db.tables.metadata import metadata

host = sa.Table(
    "host",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("hostname", sa.String(255), nullable=False),
    sa.Column("underlay_address", sa.String(64), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),  # enrolled | removed
    sa.Column("disabled", sa.Boolean, nullable=False, default=False),
    sa.Column("disabled_reason", sa.String(255), nullable=False, default=""),
    sa.Column("forced_down", sa.Boolean, nullable=False, default=False),
    sa.Column("up", sa.Boolean, nullable=False, default=False),  # Written on transitions only.
    sa.Column("seen_at", sa.Float),  # Of the last transition; between two, heartbeats live in memory.
    sa.Column("vcpus", sa.Integer, nullable=False, default=0),
    sa.Column("memory_mib", sa.Integer, nullable=False, default=0),
    sa.Column("disk_gib", sa.Integer, nullable=False, default=0),
    sa.Column("virt_type", sa.String(16), nullable=False, default=""),
    sa.Column("hypervisor_version", sa.Integer, nullable=False, default=0),
    sa.Column("cpu_model", sa.String(255), nullable=False, default=""),
    sa.Column("cpu_arch", sa.String(64), nullable=False, default=""),
    sa.Column("physical_networks", sa.JSON, nullable=False, default=list),
    sa.Column("capabilities", sa.JSON, nullable=False, default=list),
    sa.Column("agent_version", sa.String(64), nullable=False, default=""),
    sa.Column("wire_version", sa.Integer, nullable=False, default=0),
    sa.Column("boot_id", sa.String(64), nullable=False, default=""),
    sa.Column("ledger_incarnation", sa.String(64), nullable=False, default=""),
    sa.Column("ledger_epoch", sa.Integer, nullable=False, default=0),
    sa.Column("ledger_n", sa.Integer, nullable=False, default=0),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("updated_at", sa.Float, nullable=False),
)
"""One row a machine. Capacity is zero until its agent has reported an inventory."""

sa.Index(
    "uq_host_hostname_enrolled",
    host.c.hostname,
    unique=True,
    sqlite_where=host.c.state == "enrolled",
    postgresql_where=host.c.state == "enrolled",
)

host_credential = sa.Table(
    "host_credential",
    metadata,
    sa.Column("nkey", sa.String(64), primary_key=True),  # Public user nkey on the bus.
    sa.Column("host_id", sa.String(36), nullable=False, index=True),
    sa.Column("certificate_serial", sa.String(64), nullable=False, unique=True),  # Hex.
    sa.Column(
        "certificate_previous", sa.String(64), unique=True
    ),  # Still valid after a renewal: its reply may be lost.
    sa.Column("certificate_until", sa.Float, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("revoked_at", sa.Float),  # None: valid.
)
"""Who may speak as which host. A revoked row stays: the bus must refuse its key for ever."""

join_token = sa.Table(
    "join_token",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("secret_sha256", sa.String(64), nullable=False),
    sa.Column("host_id", sa.String(36)),  # Set: replaces that host. None: a new one.
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("expires_at", sa.Float, nullable=False),
    sa.Column("used_at", sa.Float),
    sa.Column("used_nkey", sa.String(64)),
    sa.Column("used_host_id", sa.String(36)),
)
"""Single use. The same keys may come again with it while it lasts: a host that lost the reply asks once more."""
