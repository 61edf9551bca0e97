"""What the network API shows: one table of fields a resource, and one more of what only administrators see."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from controller.http.fields import Field, render
from controller.network.groups import normalized_cidr
from controller.network.model import FloatingIp, Group, HostRoute, Network, Port, Router, Rule, Subnet


def moment(seconds: float) -> str:
    """A time as Neutron writes it."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


_STANDARD: Final = (
    Field("id", "id"),
    Field("tenant_id", "project_id"),
    Field("project_id", "project_id"),
    Field("description", "description"),
    Field("created_at", lambda one: moment(one.created_at)),
    Field("updated_at", lambda one: moment(one.updated_at)),
    Field("revision_number", "revision"),
)
_NAMED: Final = (Field("name", "name"), *_STANDARD)


def _routes(routes: Iterable[HostRoute]) -> list[dict[str, str]]:
    return [{"destination": route.destination, "nexthop": route.nexthop} for route in routes]


def _fixed_ips(one: Port) -> list[dict[str, str]]:
    return [{"subnet_id": fixed.subnet_id, "ip_address": fixed.ip_address} for fixed in one.fixed_ips]


def _gateway(one: Router) -> dict[str, Any] | None:
    if one.gateway_network_id is None:
        return None
    outside = [{"subnet_id": fixed.subnet_id, "ip_address": fixed.ip_address} for fixed in one.gateway_fixed_ips]
    return {"network_id": one.gateway_network_id, "enable_snat": one.enable_snat, "external_fixed_ips": outside}


_NETWORK: Final = (
    *_NAMED,
    Field("admin_state_up", "admin_state_up"),
    Field("status", lambda one: "ACTIVE"),
    Field("subnets", lambda one: list(one.subnet_ids)),
    Field("shared", "shared"),
    Field("router:external", "external"),
    Field("mtu", "mtu"),
    Field("port_security_enabled", "port_security_enabled"),
)
_NETWORK_ADMIN: Final = (
    Field("provider:network_type", "network_type"),
    Field("provider:physical_network", "physical_network"),
    Field("provider:segmentation_id", lambda one: one.segment if one.network_type != "flat" else None),
)

_SUBNET: Final = (
    *_NAMED,
    Field("network_id", "network_id"),
    Field("ip_version", "ip_version"),
    Field("cidr", "cidr"),
    Field("gateway_ip", "gateway_ip"),
    Field("enable_dhcp", "enable_dhcp"),
    Field("allocation_pools", lambda one: [{"start": pool.start, "end": pool.end} for pool in one.allocation_pools]),
    Field("dns_nameservers", lambda one: list(one.dns_nameservers)),
    Field("host_routes", lambda one: _routes(one.host_routes)),
    Field("ipv6_ra_mode", "ipv6_ra_mode"),
    Field("ipv6_address_mode", "ipv6_address_mode"),
    Field("subnetpool_id", lambda one: None),
)

_PORT: Final = (
    *_NAMED,
    Field("network_id", "network_id"),
    Field("mac_address", "mac_address"),
    Field("admin_state_up", "admin_state_up"),
    Field("status", "status"),
    Field("device_id", "device_id"),
    Field("device_owner", "device_owner"),
    Field("fixed_ips", _fixed_ips),
    Field("security_groups", lambda one: list(one.security_groups)),
    Field(
        "allowed_address_pairs",
        lambda one: [
            {"ip_address": pair.ip_address, "mac_address": pair.mac_address} for pair in one.allowed_address_pairs
        ],
    ),
    Field("port_security_enabled", "port_security_enabled"),
    Field("binding:vnic_type", "vnic_type"),
)

_ROUTER: Final = (
    *_NAMED,
    Field("admin_state_up", "admin_state_up"),
    Field("status", "status"),
    Field("external_gateway_info", _gateway),
    Field("routes", lambda one: _routes(one.routes)),
)

_FLOATING_IP: Final = (
    *_STANDARD,
    Field("floating_network_id", "network_id"),
    Field("floating_ip_address", "address"),
    Field("fixed_ip_address", "fixed_address"),
    Field("port_id", "port_id"),
    Field("router_id", "router_id"),
    Field("status", "status"),
)

_RULE: Final = (
    *_STANDARD,
    Field("security_group_id", "group_id"),
    Field("direction", "direction"),
    Field("ethertype", "ethertype"),
    Field("protocol", "protocol"),
    Field("port_range_min", "port_min"),
    Field("port_range_max", "port_max"),
    Field("remote_ip_prefix", "remote_ip_prefix"),
    Field("normalized_cidr", lambda one: normalized_cidr(one.remote_ip_prefix)),
    Field("remote_group_id", "remote_group_id"),
)

_GROUP: Final = (
    *_NAMED,
    Field("shared", lambda one: False),  # There is no way to share a group yet, and clients show the field.
    Field("security_group_rules", lambda one: [rule(each) for each in one.rules]),
)


def network(one: Network, *, is_admin: bool) -> dict[str, Any]:
    """One network."""
    shown = render(_NETWORK, one)
    return {**shown, **render(_NETWORK_ADMIN, one)} if is_admin else shown


def subnet(one: Subnet) -> dict[str, Any]:
    """One subnet."""
    return render(_SUBNET, one)


def port(one: Port, hostnames: Mapping[str, str] | None) -> dict[str, Any]:
    """One port. `hostnames` by host id, for administrators; None: the caller is none."""
    shown = render(_PORT, one)
    if hostnames is None:
        return shown
    return {
        **shown,
        "binding:host_id": hostnames.get(one.host_id, one.host_id),
        "binding:profile": {},
        "binding:vif_type": "bridge" if one.host_id else "unbound",
        "binding:vif_details": {"port_filter": True} if one.host_id else {},
    }


def router(one: Router) -> dict[str, Any]:
    """One router."""
    return render(_ROUTER, one)


def floating_ip(one: FloatingIp) -> dict[str, Any]:
    """One floating IP."""
    return render(_FLOATING_IP, one)


def rule(one: Rule) -> dict[str, Any]:
    """One rule of a security group."""
    return render(_RULE, one)


def group(one: Group) -> dict[str, Any]:
    """One security group with its rules."""
    return render(_GROUP, one)
