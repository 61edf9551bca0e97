"""Who exists, what they may do where, and where the services are.

Names compare without case, as on most real clouds: `name_key` is the case-folded name (up to three times as
long) and carries the uniqueness.
`auth_generation` of user, project and domain is part of every token: raising it ends the tokens that carry less.
`identity_change` has one row, whose counter rises with everything that can change what an existing token may do;
controllers watch it instead of reading all of this again.
"""

import sqlalchemy as sa

from controller.db.tables.metadata import metadata

identity_change = sa.Table(
    "identity_change",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),  # Always 1.
    sa.Column("counter", sa.BigInteger, nullable=False),
)

domain = sa.Table(
    "domain",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("name_key", sa.String(768), nullable=False, unique=True),
    sa.Column("description", sa.Text, nullable=False, default=""),
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("auth_generation", sa.Integer, nullable=False),
    sa.Column("extra", sa.JSON, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
)

project = sa.Table(
    "project",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("domain_id", sa.String(64), nullable=False),
    sa.Column("parent_id", sa.String(64), nullable=False, index=True),  # A project, or the domain.
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("name_key", sa.String(768), nullable=False),
    sa.Column("description", sa.Text, nullable=False, default=""),
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("tags", sa.JSON, nullable=False),
    sa.Column("auth_generation", sa.Integer, nullable=False),
    sa.Column("extra", sa.JSON, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.UniqueConstraint("domain_id", "name_key"),
)

user = sa.Table(
    "user",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("domain_id", sa.String(64), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("name_key", sa.String(768), nullable=False),
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("default_project_id", sa.String(64), nullable=True, index=True),
    sa.Column("password_hash", sa.String(255), nullable=True),
    sa.Column("auth_generation", sa.Integer, nullable=False),
    sa.Column("extra", sa.JSON, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.UniqueConstraint("domain_id", "name_key"),
)

user_group = sa.Table(
    "user_group",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("domain_id", sa.String(64), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("name_key", sa.String(768), nullable=False),
    sa.Column("description", sa.Text, nullable=False, default=""),
    sa.Column("extra", sa.JSON, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.UniqueConstraint("domain_id", "name_key"),
)

membership = sa.Table(
    "membership",
    metadata,
    sa.Column("user_id", sa.String(64), primary_key=True),
    sa.Column("group_id", sa.String(64), primary_key=True, index=True),
)

role = sa.Table(
    "role",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("name_key", sa.String(768), nullable=False, unique=True),
    sa.Column("description", sa.Text, nullable=False, default=""),
    sa.Column("extra", sa.JSON, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
)

implied_role = sa.Table(
    "implied_role",
    metadata,
    sa.Column("prior_role_id", sa.String(64), primary_key=True),
    sa.Column("implied_role_id", sa.String(64), primary_key=True),
)

role_assignment = sa.Table(
    "role_assignment",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),  # For pages; never shown.
    sa.Column("actor_kind", sa.String(8), nullable=False),  # user | group
    sa.Column("actor_id", sa.String(64), nullable=False),
    sa.Column("target_kind", sa.String(8), nullable=False),  # project | domain | system
    sa.Column("target_id", sa.String(64), nullable=False),  # `all` for the system.
    sa.Column("role_id", sa.String(64), nullable=False, index=True),
    sa.UniqueConstraint("actor_id", "actor_kind", "target_kind", "target_id", "role_id"),
    sa.Index("ix_role_assignment_target", "target_id", "target_kind"),
)

catalog_region = sa.Table(
    "catalog_region",
    metadata,
    sa.Column("id", sa.String(255), primary_key=True),
    sa.Column("description", sa.Text, nullable=False, default=""),
    sa.Column("parent_region_id", sa.String(255), nullable=True),
    sa.Column("extra", sa.JSON, nullable=False),
)

catalog_service = sa.Table(
    "catalog_service",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("type", sa.String(255), nullable=False, index=True),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("description", sa.Text, nullable=False, default=""),
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("extra", sa.JSON, nullable=False),
)

catalog_endpoint = sa.Table(
    "catalog_endpoint",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("service_id", sa.String(64), nullable=False, index=True),
    sa.Column("region_id", sa.String(255), nullable=True),
    sa.Column("interface", sa.String(8), nullable=False),  # public | internal | admin
    sa.Column("url", sa.Text, nullable=False),  # May hold $(public_url)s and $(project_id)s.
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("extra", sa.JSON, nullable=False),
)

revoked_token = sa.Table(
    "revoked_token",
    metadata,
    sa.Column("audit_id", sa.String(32), primary_key=True),
    sa.Column("expires_at", sa.Float, nullable=False, index=True),  # Of the token: later the row has no use.
)
