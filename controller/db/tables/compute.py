"""Servers, flavors, keypairs, and the record of what was done to a server.

A server's row holds everything that GET shows but its addresses: the flavor is copied in (a flavor may be
deleted or changed, a server keeps what it was sold), so is the public key. Deleted rows stay for thirty days:
every index on live rows is partial, so the dead cost the living nothing.
"""

import sqlalchemy as sa

from controller.db.tables.metadata import metadata

flavor = sa.Table(
    "flavor",
    metadata,
    sa.Column("id", sa.String(255), primary_key=True),
    sa.Column("name", sa.String(255), nullable=False, unique=True),
    sa.Column("vcpus", sa.Integer, nullable=False),
    sa.Column("memory_mib", sa.Integer, nullable=False),
    sa.Column("disk_gib", sa.Integer, nullable=False),
    sa.Column("ephemeral_gib", sa.Integer, nullable=False),
    sa.Column("swap_mib", sa.Integer, nullable=False),
    sa.Column("rxtx_factor", sa.Float, nullable=False),
    sa.Column("is_public", sa.Boolean, nullable=False),
    sa.Column("is_disabled", sa.Boolean, nullable=False),
    sa.Column("description", sa.Text, nullable=True),
    sa.Column("extra_specs", sa.JSON, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("updated_at", sa.Float, nullable=True),
)

flavor_access = sa.Table(
    "flavor_access",
    metadata,
    sa.Column("flavor_id", sa.String(255), sa.ForeignKey("flavor.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("project_id", sa.String(64), primary_key=True),
)
"""Projects that may use a flavor that is not public."""

keypair = sa.Table(
    "keypair",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),  # Shown by the API, used by nobody.
    sa.Column("user_id", sa.String(64), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("type", sa.String(8), nullable=False),  # ssh | x509
    sa.Column("fingerprint", sa.String(255), nullable=False),
    sa.Column("public_key", sa.Text, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.UniqueConstraint("user_id", "name"),
)

server = sa.Table(
    "server",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("project_id", sa.String(64), nullable=False),
    sa.Column("user_id", sa.String(64), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("hostname", sa.String(255), nullable=False),
    sa.Column("description", sa.String(255), nullable=True),
    # Life: see controller/compute/model.py.
    sa.Column("vm_state", sa.String(32), nullable=False),
    sa.Column("task_state", sa.String(32), nullable=True),
    sa.Column("power_state", sa.Integer, nullable=False),
    sa.Column("desired", sa.String(16), nullable=False),  # running | shutoff: what its host is told.
    sa.Column("generation", sa.Integer, nullable=False),  # Rises with everything that its host must know.
    sa.Column("pushed_generation", sa.Integer, nullable=False),  # What its host has confirmed.
    sa.Column("is_deleting", sa.Boolean, nullable=False),  # A delete was accepted; nothing else starts any more.
    sa.Column("locked_by", sa.String(16), nullable=True),  # owner | admin
    sa.Column("locked_reason", sa.String(255), nullable=True),
    # Place.
    sa.Column("host_id", sa.String(36), nullable=True),
    sa.Column("host_name", sa.String(255), nullable=True),
    sa.Column("availability_zone", sa.String(255), nullable=True),  # Where it runs.
    sa.Column("requested_zone", sa.String(255), nullable=True),  # What was asked for.
    sa.Column("requested_host", sa.String(255), nullable=True),  # By an administrator: a host's name.
    sa.Column("is_forced_host", sa.Boolean, nullable=False),  # `zone:host`: no filter is asked.
    # What it is.
    sa.Column("image_id", sa.String(36), nullable=True),
    sa.Column("flavor_id", sa.String(255), nullable=False),
    sa.Column("flavor_name", sa.String(255), nullable=False),
    sa.Column("vcpus", sa.Integer, nullable=False),
    sa.Column("memory_mib", sa.Integer, nullable=False),
    sa.Column("disk_gib", sa.Integer, nullable=False),  # The flavor's; 0: as large as the image.
    sa.Column("ephemeral_gib", sa.Integer, nullable=False),
    sa.Column("swap_mib", sa.Integer, nullable=False),
    sa.Column("extra_specs", sa.JSON, nullable=False),
    sa.Column("root_gib", sa.Integer, nullable=False),  # The root disk as it is.
    sa.Column("arch", sa.String(16), nullable=True),  # The image's instruction set, if it says.
    sa.Column("hardware", sa.JSON, nullable=False),  # Asked for, and from the first boot on as the host resolved it.
    sa.Column("key_name", sa.String(255), nullable=True),
    sa.Column("key_type", sa.String(8), nullable=True),
    sa.Column("public_key", sa.Text, nullable=True),
    sa.Column("meta", sa.JSON, nullable=False),  # The user's metadata; `metadata` is taken by SQLAlchemy.
    sa.Column("config_drive", sa.Boolean, nullable=False),
    sa.Column("has_user_data", sa.Boolean, nullable=False),
    sa.Column("is_auto_disk", sa.Boolean, nullable=False),  # OS-DCF:diskConfig AUTO
    sa.Column("access_ip_v4", sa.String(45), nullable=True),
    sa.Column("access_ip_v6", sa.String(45), nullable=True),
    sa.Column("hints", sa.JSON, nullable=False),
    sa.Column("reservation_id", sa.String(16), nullable=False),
    sa.Column("launch_index", sa.Integer, nullable=False),
    sa.Column("progress", sa.Integer, nullable=False),
    # Times and the last fault.
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("updated_at", sa.Float, nullable=False),
    sa.Column("launched_at", sa.Float, nullable=True),
    sa.Column("terminated_at", sa.Float, nullable=True),
    sa.Column("deleted_at", sa.Float, nullable=True),
    sa.Column("fault_code", sa.Integer, nullable=True),
    sa.Column("fault_message", sa.String(255), nullable=True),
    sa.Column("fault_details", sa.Text, nullable=True),
    sa.Column("fault_at", sa.Float, nullable=True),
    # What it is in the middle of.
    sa.Column("rescue_image_id", sa.String(36), nullable=True),  # A rescue disk is on its host, or may be.
    sa.Column("is_rescued", sa.Boolean, nullable=False, server_default=sa.false()),  # It boots from that.
    sa.Column("shelved_image_id", sa.String(36), nullable=True),  # What its disk is made from when it comes back.
    sa.Column("shelved_at", sa.Float, nullable=True),
    sa.Column("is_disk_whole", sa.Boolean, nullable=False, server_default=sa.false()),  # The root disk, upon no image.
)

_live = server.c.deleted_at.is_(None)
sa.Index(
    "ix_server_live",
    server.c.project_id,
    server.c.created_at,
    server.c.id,
    sqlite_where=_live,
    postgresql_where=_live,
)
sa.Index("ix_server_live_all", server.c.created_at, server.c.id, sqlite_where=_live, postgresql_where=_live)
sa.Index(
    "ix_server_usage",  # Covering: quota usage is counted from the index alone.
    server.c.project_id,
    server.c.vcpus,
    server.c.memory_mib,
    sqlite_where=_live,
    postgresql_where=_live,
)
sa.Index("ix_server_host_id", server.c.host_id, server.c.id, sqlite_where=_live, postgresql_where=_live)
_unpushed = sa.and_(_live, server.c.host_id.is_not(None), server.c.pushed_generation < server.c.generation)
sa.Index("ix_server_unpushed", server.c.host_id, sqlite_where=_unpushed, postgresql_where=_unpushed)
sa.Index("ix_server_changes", server.c.project_id, server.c.updated_at)  # changes-since also wants the deleted.

server_nic = sa.Table(
    "server_nic",
    metadata,
    sa.Column("server_id", sa.String(36), sa.ForeignKey("server.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("port_id", sa.String(36), nullable=False, index=True),
    sa.Column("is_ours", sa.Boolean, nullable=False),  # We made the port, so we remove it with the server.
    sa.Column("network_id", sa.String(36), nullable=True),  # Of a port that we make.
    sa.Column("fixed_ip", sa.String(45), nullable=True),
    sa.Column("groups", sa.JSON, nullable=False),  # Ids of the security groups of a port that we make.
    sa.Column("tag", sa.String(60), nullable=True),
    sa.Column("mac", sa.String(17), nullable=True),  # Known once it is bound.
    sa.Column("mtu", sa.Integer, nullable=True),
    sa.Column("addresses", sa.JSON, nullable=False),  # As of the server's generation: what its guest is told.
)
"""Which ports a server was given, in order. The ports themselves belong to the network service."""

server_guest = sa.Table(
    "server_guest",
    metadata,
    sa.Column("server_id", sa.String(36), sa.ForeignKey("server.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("user_data", sa.Text, nullable=True),  # Base64, as it came.
    sa.Column("network_data", sa.Text, nullable=True),  # network_data.json, written when the ports were bound.
)
"""What the guest reads that is too large for the row, and that no list ever shows."""

server_resize = sa.Table(
    "server_resize",
    metadata,
    sa.Column("server_id", sa.String(36), sa.ForeignKey("server.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("id", sa.String(36), nullable=False, unique=True),  # Who holds the claim of the size that it had.
    sa.Column("project_id", sa.String(64), nullable=False, index=True),
    sa.Column("old", sa.JSON, nullable=False),  # controller.compute.sizes.Size: what it had,
    sa.Column("new", sa.JSON, nullable=False),  # and what it gets.
    sa.Column("from_host_id", sa.String(36), nullable=False),
    sa.Column("from_host_name", sa.String(255), nullable=False),
    sa.Column("to_host_id", sa.String(36), nullable=True),  # Once it is placed.
    sa.Column("to_host_name", sa.String(255), nullable=True),
    sa.Column("was_on", sa.Boolean, nullable=False),
    sa.Column("extra_vcpus", sa.Integer, nullable=False),  # Counts against the quota beyond the server's row:
    sa.Column("extra_memory_mib", sa.Integer, nullable=False),  # the larger size counts until it is settled.
    sa.Column("created_at", sa.Float, nullable=False),
)
"""A change of size from its request until it is confirmed or reverted: both sizes are claimed meanwhile."""

server_group = sa.Table(
    "server_group",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("project_id", sa.String(64), nullable=False),
    sa.Column("user_id", sa.String(64), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("policy", sa.String(32), nullable=False),  # affinity | anti-affinity | soft-affinity | soft-…
    sa.Column("max_per_host", sa.Integer, nullable=True),  # rules: max_server_per_host
    sa.Column("created_at", sa.Float, nullable=False),
)
sa.Index("ix_server_group_project", server_group.c.project_id, server_group.c.created_at, server_group.c.id)

server_group_member = sa.Table(
    "server_group_member",
    metadata,
    sa.Column("server_id", sa.String(36), sa.ForeignKey("server.id", ondelete="CASCADE"), primary_key=True),
    sa.Column(
        "group_id", sa.String(36), sa.ForeignKey("server_group.id", ondelete="CASCADE"), nullable=False, index=True
    ),
)
"""A server is in one group at most, from its request on."""

server_tag = sa.Table(
    "server_tag",
    metadata,
    sa.Column("server_id", sa.String(36), sa.ForeignKey("server.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("tag", sa.String(60), primary_key=True),
)

server_action = sa.Table(
    "server_action",
    metadata,
    sa.Column("server_id", sa.String(36), sa.ForeignKey("server.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("request_id", sa.String(64), primary_key=True),
    sa.Column("action", sa.String(64), nullable=False),
    sa.Column("user_id", sa.String(64), nullable=True),
    sa.Column("project_id", sa.String(64), nullable=True),
    sa.Column("saga_id", sa.String(36), nullable=True),  # Its log has the events.
    sa.Column("started_at", sa.Float, nullable=False),
    sa.Column("updated_at", sa.Float, nullable=False),
    sa.Column("message", sa.String(255), nullable=True),  # "Error", or nothing.
)
sa.Index("ix_server_action_started", server_action.c.server_id, server_action.c.started_at)
