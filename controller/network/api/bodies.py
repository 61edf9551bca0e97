"""Request bodies of the network API. An attribute that was not sent is UNSET: that is not the same as null.

Source: https://docs.openstack.org/api-ref/network/v2/
"""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from controller.errors import Invalid
from controller.http.bodies import Body

S = TypeVar("S", bound=msgspec.Struct)
T = TypeVar("T")

Text = Annotated[str, Meta(max_length=255)]
Id = Annotated[str, Meta(min_length=1, max_length=64)]
Uuid = Annotated[str, Meta(pattern="^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")]
Address = Annotated[str, Meta(max_length=64)]
Number = int | Annotated[str, Meta(max_length=10)]
"""Older clients send numbers as text."""

LIST_MAX = 1000
"""Entries of a list within an object. Each list has a smaller bound of its own meaning; this one is met before any
entry is looked at, for whoever sends a megabyte of them."""

BULK_MAX = 1000
"""Objects of one POST. More would hold the writer for long, and no client sends them."""


Many = Annotated[list[T], Meta(max_length=LIST_MAX)]


class Described(Body, frozen=True, kw_only=True):
    """What every resource takes, at create and at update."""

    name: Text | UnsetType = UNSET
    description: Text | UnsetType = UNSET


class Owned(Described, frozen=True, kw_only=True):
    """What every resource takes at create: an admin may name the owner, by the new name or the old."""

    project_id: Id | UnsetType = UNSET
    tenant_id: Id | UnsetType = UNSET


# Networks.


class NetworkCreate(Owned, frozen=True, kw_only=True):
    """A new network."""

    admin_state_up: bool = True
    shared: bool = False
    external: bool = msgspec.field(name="router:external", default=False)
    port_security_enabled: bool = True
    mtu: Number | UnsetType = UNSET
    network_type: str | None = msgspec.field(name="provider:network_type", default=None)
    physical_network: str | None = msgspec.field(name="provider:physical_network", default=None)
    segmentation_id: Number | None = msgspec.field(name="provider:segmentation_id", default=None)


class NetworkUpdate(Described, frozen=True, kw_only=True):
    """What may change of a network."""

    admin_state_up: bool | UnsetType = UNSET
    shared: bool | UnsetType = UNSET
    external: bool | UnsetType = msgspec.field(name="router:external", default=UNSET)
    port_security_enabled: bool | UnsetType = UNSET
    mtu: Number | UnsetType = UNSET
    network_type: str | UnsetType | None = msgspec.field(name="provider:network_type", default=UNSET)
    physical_network: str | UnsetType | None = msgspec.field(name="provider:physical_network", default=UNSET)
    segmentation_id: Number | UnsetType | None = msgspec.field(name="provider:segmentation_id", default=UNSET)


class NetworkPost(Body, frozen=True, kw_only=True):
    """One network, or several: all or none."""

    network: NetworkCreate | UnsetType = UNSET
    networks: list[NetworkCreate] | UnsetType = UNSET


class NetworkPut(Body, frozen=True, kw_only=True):
    """A changed network."""

    network: NetworkUpdate


# Subnets.


class PoolBody(Body, frozen=True, kw_only=True):
    """A range of addresses, both ends included."""

    start: Address
    end: Address


class RouteBody(Body, frozen=True, kw_only=True):
    """A route."""

    destination: Address
    nexthop: Address


class SubnetCreate(Owned, frozen=True, kw_only=True):
    """A new subnet."""

    network_id: Id
    ip_version: Number
    cidr: Address | None = None
    gateway_ip: Address | UnsetType | None = UNSET
    enable_dhcp: bool = True
    allocation_pools: Many[PoolBody] | None = None
    dns_nameservers: Many[Address] | None = None
    host_routes: Many[RouteBody] | None = None
    ipv6_ra_mode: str | None = None
    ipv6_address_mode: str | None = None
    subnetpool_id: None = None  # Horizon sends it empty.


class SubnetUpdate(Described, frozen=True, kw_only=True):
    """What may change of a subnet."""

    gateway_ip: Address | UnsetType | None = UNSET
    enable_dhcp: bool | UnsetType = UNSET
    allocation_pools: Many[PoolBody] | UnsetType = UNSET
    dns_nameservers: Many[Address] | UnsetType | None = UNSET
    host_routes: Many[RouteBody] | UnsetType | None = UNSET


class SubnetPost(Body, frozen=True, kw_only=True):
    """One subnet, or several: all or none."""

    subnet: SubnetCreate | UnsetType = UNSET
    subnets: list[SubnetCreate] | UnsetType = UNSET


class SubnetPut(Body, frozen=True, kw_only=True):
    """A changed subnet."""

    subnet: SubnetUpdate


# Ports.


class FixedBody(Body, frozen=True, kw_only=True):
    """An address of a port: by subnet, by address, or both."""

    subnet_id: Id | None = None
    ip_address: Address | None = None


class PairBody(Body, frozen=True, kw_only=True):
    """A source that anti-spoofing lets pass; without a MAC the port's own."""

    ip_address: Address
    mac_address: Address | None = None


class PortShape(Described, frozen=True, kw_only=True):
    """What a port takes at create and at update."""

    admin_state_up: bool | UnsetType = UNSET
    mac_address: Address | UnsetType = UNSET
    fixed_ips: Many[FixedBody] | UnsetType | None = UNSET
    security_groups: Many[Id] | UnsetType | None = UNSET
    allowed_address_pairs: Many[PairBody] | UnsetType | None = UNSET
    port_security_enabled: bool | UnsetType = UNSET
    device_id: Text | UnsetType = UNSET
    device_owner: Text | UnsetType = UNSET
    vnic_type: str | UnsetType = msgspec.field(name="binding:vnic_type", default=UNSET)
    host_id: Text | UnsetType | None = msgspec.field(name="binding:host_id", default=UNSET)
    profile: dict[str, Any] | UnsetType | None = msgspec.field(name="binding:profile", default=UNSET)


class PortCreate(PortShape, frozen=True, kw_only=True):
    """A new port."""

    network_id: Id
    project_id: Id | UnsetType = UNSET
    tenant_id: Id | UnsetType = UNSET


class PortUpdate(PortShape, frozen=True, kw_only=True):
    """What may change of a port."""


class PortPost(Body, frozen=True, kw_only=True):
    """One port, or several: all or none."""

    port: PortCreate | UnsetType = UNSET
    ports: list[PortCreate] | UnsetType = UNSET


class PortPut(Body, frozen=True, kw_only=True):
    """A changed port."""

    port: PortUpdate


# Routers.


class GatewayBody(Body, frozen=True, kw_only=True):
    """A router's way out. Without a network: none."""

    network_id: Id | None = None
    enable_snat: bool | UnsetType = UNSET
    external_fixed_ips: Many[FixedBody] | UnsetType = UNSET


class RouterCreate(Owned, frozen=True, kw_only=True):
    """A new router."""

    admin_state_up: bool = True
    external_gateway_info: GatewayBody | None = None


class RouterUpdate(Described, frozen=True, kw_only=True):
    """What may change of a router."""

    admin_state_up: bool | UnsetType = UNSET
    external_gateway_info: GatewayBody | UnsetType | None = UNSET
    routes: Many[RouteBody] | UnsetType | None = UNSET


class RouterPost(Body, frozen=True, kw_only=True):
    """One router."""

    router: RouterCreate


class RouterPut(Body, frozen=True, kw_only=True):
    """A changed router."""

    router: RouterUpdate


class RouterRoutes(Body, frozen=True, kw_only=True):
    """Routes to add or to take away."""

    routes: Many[RouteBody]


class RouterRoutesPut(Body, frozen=True, kw_only=True):
    """Routes to add or to take away."""

    router: RouterRoutes


class InterfaceBody(Body, frozen=True, kw_only=True):
    """A router's interface: by subnet or by port."""

    subnet_id: Uuid | None = None
    port_id: Uuid | None = None


# Floating IPs.


class FloatingIpCreate(Described, frozen=True, kw_only=True):
    """A new floating IP."""

    floating_network_id: Id
    subnet_id: Id | None = None
    floating_ip_address: Address | None = None
    port_id: Id | None = None
    fixed_ip_address: Address | None = None
    project_id: Id | UnsetType = UNSET
    tenant_id: Id | UnsetType = UNSET


class FloatingIpUpdate(Described, frozen=True, kw_only=True):
    """What may change of a floating IP; port_id null takes it off."""

    port_id: Id | UnsetType | None = UNSET
    fixed_ip_address: Address | UnsetType | None = UNSET


class FloatingIpPost(Body, frozen=True, kw_only=True):
    """One floating IP."""

    floatingip: FloatingIpCreate


class FloatingIpPut(Body, frozen=True, kw_only=True):
    """A changed floating IP."""

    floatingip: FloatingIpUpdate


# Security groups.


class GroupPost(Body, frozen=True, kw_only=True):
    """One group, or several."""

    security_group: Owned | UnsetType = UNSET
    security_groups: list[Owned] | UnsetType = UNSET


class GroupPut(Body, frozen=True, kw_only=True):
    """A changed group."""

    security_group: Described


class RuleCreate(Body, frozen=True, kw_only=True):
    """A new rule."""

    security_group_id: Id
    direction: str
    ethertype: str | None = None
    protocol: str | int | None = None
    port_range_min: Number | None = None
    port_range_max: Number | None = None
    remote_ip_prefix: Address | None = None
    remote_group_id: Id | None = None
    description: Text = ""
    project_id: Id | UnsetType = UNSET
    tenant_id: Id | UnsetType = UNSET


class RulePost(Body, frozen=True, kw_only=True):
    """One rule, or several of one group: all or none."""

    security_group_rule: RuleCreate | UnsetType = UNSET
    security_group_rules: list[RuleCreate] | UnsetType = UNSET


# Quotas.


class QuotaLimits(Body, frozen=True, kw_only=True):
    """Limits by resource; -1 is none. `check_limit` refuses limits below what is used, unless there is `force`."""

    network: Number | UnsetType = UNSET
    subnet: Number | UnsetType = UNSET
    port: Number | UnsetType = UNSET
    router: Number | UnsetType = UNSET
    floatingip: Number | UnsetType = UNSET
    security_group: Number | UnsetType = UNSET
    security_group_rule: Number | UnsetType = UNSET
    check_limit: bool = False
    force: bool = False
    project_id: Id | UnsetType = UNSET
    tenant_id: Id | UnsetType = UNSET


class QuotaPut(Body, frozen=True, kw_only=True):
    """Changed limits."""

    quota: QuotaLimits


def posted(noun: str, one: S | UnsetType, many: list[S] | UnsetType) -> tuple[list[S], bool]:
    """(what to make, whether it came as a list). Raises Invalid."""
    if not isinstance(one, UnsetType) and not isinstance(many, UnsetType):
        raise Invalid(f"The body holds both '{noun}' and '{noun}s'.")
    if not isinstance(one, UnsetType):
        return [one], False
    if isinstance(many, UnsetType):
        raise Invalid(f"Unable to find '{noun}' in request body")
    if not many:
        raise Invalid("Resources required")
    if len(many) > BULK_MAX:
        raise Invalid(f"At most {BULK_MAX} objects can be made by one request.")
    return many, True


def given(body: msgspec.Struct) -> Mapping[str, Any]:
    """The attributes that were sent, by our names."""
    found = ((name, getattr(body, name)) for name in body.__struct_fields__)
    return {name: value for name, value in found if value is not UNSET}


def number(attribute: str, value: int | str) -> int:
    """A number that may have come as text. Raises Invalid."""
    try:
        return int(value)
    except ValueError:
        raise Invalid(f"Invalid input for {attribute}. Reason: '{value}' is not an integer.") from None
