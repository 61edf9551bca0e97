"""What the network API speaks of, as frozen structs. Rows become these in `store`, these become JSON in `api/views`."""

import enum
import functools
from typing import Any

import msgspec

DHCP_OWNER = "network:distributed"
ROUTER_OWNER = "network:router_interface"
GATEWAY_OWNER = "network:router_gateway"
FLOATING_OWNER = "network:floatingip"
COMPUTE_OWNER_PREFIX = "compute:"

INFRASTRUCTURE_OWNERS = frozenset({DHCP_OWNER, ROUTER_OWNER, GATEWAY_OWNER, FLOATING_OWNER})
"""Ports that Hostler makes for itself: users cannot delete them, security groups do not apply to them."""


class Status(enum.StrEnum):
    """Status of ports, routers and floating IPs."""

    ACTIVE = "ACTIVE"
    DOWN = "DOWN"
    ERROR = "ERROR"
    UNBOUND = "N/A"


class Standard(msgspec.Struct, frozen=True, kw_only=True):
    """What every resource has. Times are seconds UTC."""

    id: str
    project_id: str
    name: str = ""
    description: str = ""
    revision: int = 0
    created_at: float
    updated_at: float


class Network(Standard, frozen=True, kw_only=True):
    """A layer-2 segment. `segment` is the VXLAN identifier or VLAN id, 0 for flat."""

    admin_state_up: bool = True
    shared: bool = False
    external: bool = False
    is_default: bool = False
    port_security_enabled: bool = True
    mtu: int
    network_type: str
    physical_network: str | None = None
    segment: int
    generation: int = 1
    subnet_ids: tuple[str, ...] = ()


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """A range of addresses, both ends included."""

    start: str
    end: str


class HostRoute(msgspec.Struct, frozen=True, kw_only=True):
    """A route that DHCP hands to guests, or an extra route of a router."""

    destination: str
    nexthop: str


class Subnet(Standard, frozen=True, kw_only=True):
    """A range of addresses on a network."""

    network_id: str
    ip_version: int
    cidr: str
    gateway_ip: str | None
    enable_dhcp: bool = True
    allocation_pools: tuple[Pool, ...] = ()
    dns_nameservers: tuple[str, ...] = ()
    host_routes: tuple[HostRoute, ...] = ()
    ipv6_ra_mode: str | None = None
    ipv6_address_mode: str | None = None


class Fixed(msgspec.Struct, frozen=True, kw_only=True):
    """One address of a port."""

    subnet_id: str
    ip_address: str


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """An extra source address that anti-spoofing lets pass."""

    ip_address: str
    mac_address: str


class Port(Standard, frozen=True, kw_only=True):
    """Where something is attached to a network. `host_id` is empty while it is unbound.

    `moving_to` is the host where a server that moves will have it: it is wired there as well, and waits.
    """

    network_id: str
    mac_address: str
    admin_state_up: bool = True
    status: Status = Status.DOWN
    device_id: str = ""
    device_owner: str = ""
    port_security_enabled: bool = True
    allowed_address_pairs: tuple[Pair, ...] = ()
    hostname: str = ""
    host_id: str = ""
    moving_to: str = ""
    vnic_type: str = "normal"
    generation: int = 1
    fixed_ips: tuple[Fixed, ...] = ()
    security_groups: tuple[str, ...] = ()


class Router(Standard, frozen=True, kw_only=True):
    """Routes between its networks, and through its gateway to an external one."""

    admin_state_up: bool = True
    status: Status = Status.ACTIVE
    gateway_network_id: str | None = None
    gateway_port_id: str | None = None
    enable_snat: bool = True
    routes: tuple[HostRoute, ...] = ()
    gateway_host_id: str = ""
    generation: int = 1
    gateway_fixed_ips: tuple[Fixed, ...] = ()


class FloatingIp(Standard, frozen=True, kw_only=True):
    """An external address that may be put in front of a port's fixed address."""

    network_id: str
    address: str
    floating_port_id: str
    port_id: str | None = None
    fixed_address: str | None = None
    router_id: str | None = None
    status: Status = Status.DOWN


class Rule(Standard, frozen=True, kw_only=True):
    """One thing that a security group lets pass."""

    group_id: str
    direction: str
    ethertype: str
    protocol: str | None = None
    port_min: int | None = None
    port_max: int | None = None
    remote_ip_prefix: str | None = None
    remote_group_id: str | None = None


class Group(Standard, frozen=True, kw_only=True):
    """A security group with its rules."""

    is_default: bool = False
    stateful: bool = True
    generation: int = 1
    members_generation: int = 1
    rules: tuple[Rule, ...] = ()


def from_row(kind: Any, row: Any, **extra: Any) -> Any:
    """The struct of a row: columns of the same names, JSON columns converted, plus what other tables gave."""
    return msgspec.convert(dict(zip(_names(row._fields), row, strict=True), **extra), kind)


@functools.cache
def _names(columns: tuple[str, ...]) -> tuple[str, ...]:
    """SQLAlchemy's column names are a subclass of str, which msgspec does not take for a key."""
    return tuple(str(name) for name in columns)
