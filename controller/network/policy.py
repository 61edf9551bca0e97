"""Who may do what with the network API: Neutron's rule names and defaults.

Targets: `project_id` of the object, `network_project_id` of the network a port or subnet is on, `device_owner` of a
port. A row's rule is checked with no target first: then only scope and role count. Rules `<verb>_<noun>:<attribute>`
are asked for every attribute that a request sets to something else than its default (at create) or at all (at update).
"""

from collections.abc import Mapping
from typing import Any, Final

from controller.context import Context
from controller.http.op import Predicate
from controller.http.policy import (
    admin,
    any_of,
    authenticated,
    project_member_or_admin,
    project_reader_or_admin,
)


def _network_owner(ctx: Context, target: Mapping[str, Any]) -> bool:
    """A member of the project that owns the network."""
    if ctx.project_id is None or "member" not in ctx.roles:
        return False
    return bool(target.get("network_project_id", ctx.project_id) == ctx.project_id)


def _network_reader(ctx: Context, target: Mapping[str, Any]) -> bool:
    if ctx.project_id is None or "reader" not in ctx.roles:
        return False
    return bool(target.get("network_project_id", ctx.project_id) == ctx.project_id)


def _on_shared(ctx: Context, target: Mapping[str, Any]) -> bool:
    """On shared networks everyone may choose the subnet, not the address."""
    return bool(target.get("network_shared", True))


def _plain_owner(ctx: Context, target: Mapping[str, Any]) -> bool:
    """Ports of `network:…` are the network owner's; everyone may name other devices."""
    return not str(target.get("device_owner", "")).startswith("network:")


def _named(predicate: Predicate, *names: str) -> dict[str, Predicate]:
    return dict.fromkeys(names, predicate)


_ADMIN_OR_NETWORK_OWNER: Final = any_of(admin, _network_owner)

RULES: Final[Mapping[str, Predicate]] = {
    **_named(authenticated, "get_extension", "get_extensions"),
    **_named(
        project_reader_or_admin,
        "get_network",
        "get_router",
        "get_floatingip",
        "get_security_group",
        "get_security_group_rule",
        "get_quota",
        "get_availability_zone",
    ),
    **_named(any_of(project_reader_or_admin, _network_reader), "get_port", "get_subnet"),
    **_named(
        project_member_or_admin,
        "create_network",
        "update_network",
        "delete_network",
        "create_network:port_security_enabled",
        "update_network:port_security_enabled",
        "create_port",
        "create_router",
        "update_router",
        "delete_router",
        "add_router_interface",
        "remove_router_interface",
        "add_extraroutes",
        "remove_extraroutes",
        "create_floatingip",
        "update_floatingip",
        "delete_floatingip",
        "create_security_group",
        "update_security_group",
        "delete_security_group",
        "create_security_group_rule",
        "delete_security_group_rule",
    ),
    **_named(any_of(project_member_or_admin, _network_owner), "update_port", "delete_port"),
    **_named(
        _ADMIN_OR_NETWORK_OWNER,
        "create_subnet",
        "update_subnet",
        "delete_subnet",
        "create_port:mac_address",
        "create_port:fixed_ips:ip_address",
        "create_port:port_security_enabled",
        "create_port:allowed_address_pairs",
        "update_port:fixed_ips:ip_address",
        "update_port:port_security_enabled",
        "update_port:allowed_address_pairs",
    ),
    **_named(any_of(_on_shared, _ADMIN_OR_NETWORK_OWNER), "create_port:fixed_ips", "update_port:fixed_ips"),
    **_named(any_of(_plain_owner, _ADMIN_OR_NETWORK_OWNER), "create_port:device_owner", "update_port:device_owner"),
    **_named(
        admin,
        "create_network:shared",
        "create_network:router:external",
        "create_network:provider:network_type",
        "create_network:provider:physical_network",
        "create_network:provider:segmentation_id",
        "update_network:shared",
        "update_network:router:external",
        "update_network:provider:network_type",
        "update_network:provider:physical_network",
        "update_network:provider:segmentation_id",
        "get_network:provider:network_type",
        "create_port:binding:host_id",
        "create_port:binding:profile",
        "update_port:mac_address",
        "update_port:binding:host_id",
        "update_port:binding:profile",
        "get_port:binding:host_id",
        "create_router:external_gateway_info:enable_snat",
        "create_router:external_gateway_info:external_fixed_ips",
        "update_router:external_gateway_info:enable_snat",
        "update_router:external_gateway_info:external_fixed_ips",
        "create_floatingip:floating_ip_address",
        "update_quota",
        "delete_quota",
        "list_quotas",
    ),
}
