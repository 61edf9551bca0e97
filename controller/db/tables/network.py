"""Networks, subnets, ports, routers, floating IPs and security groups.

`generation` columns are the second half of the generation that hosts see: they rise in the very transaction
that changes what a host must do. `revision` is what users see as revision_number and rises with every change.
A network's generation covers its subnets and its DHCP port, a router's its interfaces, gateway, routes and
floating IPs, a group's its rules; a group's `members_generation` covers which addresses belong to it.
"""

import sqlalchemy as sa

from controller.db.tables.metadata import metadata


def _standard() -> tuple[sa.Column[object], ...]:
    """What every resource of the network API has."""
    return (
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("description", sa.String(255), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
    )


network = sa.Table(
    "network",
    metadata,
    *_standard(),
    sa.Column("admin_state_up", sa.Boolean, nullable=False),
    sa.Column("shared", sa.Boolean, nullable=False),
    sa.Column("external", sa.Boolean, nullable=False),
    sa.Column("is_default", sa.Boolean, nullable=False),
    sa.Column("port_security_enabled", sa.Boolean, nullable=False),
    sa.Column("mtu", sa.Integer, nullable=False),
    sa.Column("network_type", sa.String(16), nullable=False),  # vxlan | flat | vlan
    sa.Column("physical_network", sa.String(64)),
    sa.Column("segment", sa.Integer, nullable=False),  # VXLAN network identifier or VLAN id; 0 for flat.
    sa.Column("generation", sa.Integer, nullable=False),
    sa.UniqueConstraint("network_type", "physical_network", "segment"),
    sa.Index("ix_network_project", "project_id", "id"),
)
"""NULL physical networks do not compare, so tenant segments are unique by the partial index below."""

sa.Index(
    "uq_network_vxlan",
    network.c.segment,
    unique=True,
    sqlite_where=network.c.network_type == "vxlan",
    postgresql_where=network.c.network_type == "vxlan",
)

for _offered in (network.c.shared, network.c.external):
    # Few are, and everyone may see them: a member's list starts from here. SQLite takes a partial index only for the
    # very words of its condition, and SQLAlchemy writes `= 1` there.
    _is_offered = sa.text(f"{_offered.name} = 1")
    sa.Index(f"ix_network_{_offered.name}", network.c.id, sqlite_where=_is_offered, postgresql_where=_offered)

subnet = sa.Table(
    "subnet",
    metadata,
    *_standard(),
    sa.Column("network_id", sa.ForeignKey("network.id"), nullable=False, index=True),
    sa.Column("ip_version", sa.Integer, nullable=False),
    sa.Column("cidr", sa.String(64), nullable=False),
    sa.Column("gateway_ip", sa.String(45)),
    sa.Column("enable_dhcp", sa.Boolean, nullable=False),
    sa.Column("allocation_pools", sa.JSON, nullable=False),  # [{"start": …, "end": …}]
    sa.Column("dns_nameservers", sa.JSON, nullable=False),
    sa.Column("host_routes", sa.JSON, nullable=False),
    sa.Column("ipv6_ra_mode", sa.String(16)),
    sa.Column("ipv6_address_mode", sa.String(16)),
    sa.Index("ix_subnet_project", "project_id", "id"),
)

port = sa.Table(
    "port",
    metadata,
    *_standard(),
    sa.Column("network_id", sa.ForeignKey("network.id"), nullable=False),
    sa.Column("mac_address", sa.String(17), nullable=False),
    sa.Column("admin_state_up", sa.Boolean, nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("device_id", sa.String(255), nullable=False),
    sa.Column("device_owner", sa.String(255), nullable=False),
    sa.Column("port_security_enabled", sa.Boolean, nullable=False),
    sa.Column("allowed_address_pairs", sa.JSON, nullable=False),
    sa.Column("hostname", sa.String(255), nullable=False),  # What DHCP and DNS call its guest.
    sa.Column("host_id", sa.String(36), nullable=False),  # Where it is bound; empty: unbound.
    sa.Column("moving_to", sa.String(36), nullable=False, server_default=""),  # Wired there too, not yet at work.
    sa.Column("vnic_type", sa.String(16), nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.UniqueConstraint("network_id", "mac_address"),
    sa.Index("ix_port_project", "project_id", "id"),
    sa.Index("ix_port_network", "network_id", "project_id", "id"),
    sa.Index("ix_port_device", "device_id", "project_id", "id"),
    sa.Index("ix_port_host", "host_id"),
    sa.Index("ix_port_moving", "moving_to"),
)

ip_allocation = sa.Table(
    "ip_allocation",
    metadata,
    sa.Column("subnet_id", sa.ForeignKey("subnet.id"), primary_key=True),
    sa.Column("address", sa.String(45), primary_key=True),
    sa.Column("port_id", sa.ForeignKey("port.id"), nullable=False, index=True),
    sa.Column("network_id", sa.String(36), nullable=False, index=True),
    sa.Column("number", sa.LargeBinary(16), nullable=False),  # The address as 16 bytes, so that order is numeric.
    sa.Index("ix_ip_allocation_number", "subnet_id", "number"),
)

router = sa.Table(
    "router",
    metadata,
    *_standard(),
    sa.Column("admin_state_up", sa.Boolean, nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("gateway_network_id", sa.String(36), index=True),
    sa.Column("gateway_port_id", sa.String(36)),
    sa.Column("enable_snat", sa.Boolean, nullable=False),
    sa.Column("routes", sa.JSON, nullable=False),
    sa.Column("gateway_host_id", sa.String(36), nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Index("ix_router_project", "project_id", "id"),
)

floating_ip = sa.Table(
    "floating_ip",
    metadata,
    *_standard(),
    sa.Column("network_id", sa.ForeignKey("network.id"), nullable=False),
    sa.Column("address", sa.String(45), nullable=False),
    sa.Column("floating_port_id", sa.String(36), nullable=False),
    sa.Column("port_id", sa.String(36), index=True),
    sa.Column("fixed_address", sa.String(45)),
    sa.Column("router_id", sa.String(36), index=True),
    sa.Column("status", sa.String(16), nullable=False),
    sa.UniqueConstraint("network_id", "address"),
    sa.UniqueConstraint("port_id", "fixed_address"),
    sa.Index("ix_floating_ip_project", "project_id", "id"),
)

security_group = sa.Table(
    "security_group",
    metadata,
    *_standard(),
    sa.Column("is_default", sa.Boolean, nullable=False),
    sa.Column("stateful", sa.Boolean, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("members_generation", sa.Integer, nullable=False),
    sa.Index("ix_security_group_project", "project_id", "id"),
)

sa.Index(
    "uq_security_group_default",
    security_group.c.project_id,
    unique=True,
    sqlite_where=security_group.c.is_default,
    postgresql_where=security_group.c.is_default,
)

security_group_rule = sa.Table(
    "security_group_rule",
    metadata,
    *_standard(),
    sa.Column("group_id", sa.ForeignKey("security_group.id"), nullable=False, index=True),
    sa.Column("direction", sa.String(8), nullable=False),
    sa.Column("ethertype", sa.String(4), nullable=False),
    sa.Column("protocol", sa.String(16)),
    sa.Column("port_min", sa.Integer),
    sa.Column("port_max", sa.Integer),
    sa.Column("remote_ip_prefix", sa.String(64)),
    sa.Column("remote_group_id", sa.ForeignKey("security_group.id"), index=True),
    sa.Index("ix_security_group_rule_project", "project_id", "id"),
)

port_security_group = sa.Table(
    "port_security_group",
    metadata,
    sa.Column("port_id", sa.ForeignKey("port.id"), primary_key=True),
    sa.Column("group_id", sa.ForeignKey("security_group.id"), primary_key=True, index=True),
)

host_object = sa.Table(
    "host_object",
    metadata,
    sa.Column("host_id", sa.String(36), primary_key=True),
    sa.Column("noun", sa.String(16), primary_key=True),  # network | forwarding | group | addresses | router
    sa.Column("object_id", sa.String(36), primary_key=True),
    sa.Column("generation", sa.Integer, nullable=False),  # What the host is told; rises with the next two.
    sa.Column("version", sa.Integer, nullable=False),  # The object's own generation when that was decided.
    sa.Column("is_wanted", sa.Boolean, nullable=False),
    sa.Index("ix_host_object_object", "noun", "object_id"),
)
"""Which shared objects each host should have. Ports are not here: a port is on one host, its row says which."""

forwarding = sa.Table(
    "forwarding",
    metadata,
    sa.Column("network_id", sa.String(36), primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
)
"""Who is where in a network, as hosts are told: the version rises in the transaction that changes it.

Beside `network`, because it changes with every port and the network's row is read by everybody.
"""

forwarding_change = sa.Table(
    "forwarding_change",
    metadata,
    sa.Column("network_id", sa.String(36), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("port_id", sa.String(36), nullable=False),  # Empty: a host has the network from now on, or no more.
    sa.Column("left_host_id", sa.String(36), nullable=False),  # Where the port was and is no more; else empty.
)
"""What each of the last versions was about, so that a host can be told the difference."""

member_change = sa.Table(
    "member_change",
    metadata,
    sa.Column("group_id", sa.String(36), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),  # The group's members_generation.
    sa.Column("addresses", sa.JSON, nullable=False),  # That came, or went, or are a member's that changed otherwise.
)
"""Which addresses each of the last generations of a group's members was about, for the same purpose."""
