"""Every endpoint of the network API (Neutron v2.0)."""

from typing import Any, Final

import msgspec

from controller.http import faults
from controller.http.op import PUBLIC, Fault, Handler, Op, Service
from controller.network.api import bodies, extensions, floating_ips, groups, networks, ports, quotas, routers, subnets
from controller.network.policy import RULES

_KINDS: Final = {
    "Invalid": "HTTPBadRequest",
    "NotFound": "HTTPNotFound",
    "UnknownMarkerNotFound": "HTTPNotFound",
    "Forbidden": "PolicyNotAuthorized",
    "MethodNotAllowed": "HTTPMethodNotAllowed",
    "UnsupportedMedia": "HTTPUnsupportedMediaType",
    "TooLarge": "HTTPRequestEntityTooLarge",
    "Unavailable": "HTTPServiceUnavailable",
    "DatabaseDown": "HTTPServiceUnavailable",
    "Unauthorized": "HTTPUnauthorized",
}
"""Neutron's names for the failures that all services share."""


def _envelope(fault: Fault) -> tuple[bytes, str]:
    return faults.neutron(msgspec.structs.replace(fault, kind=_KINDS.get(fault.kind, fault.kind)))


def _crud(noun: str, path: str, param: str, module: Any, post: Any, put: Any) -> tuple[Op, ...]:
    """The five rows that every collection has."""
    one = f"{path}/{{{param}}}"
    return (
        Op("GET", path, module.index, policy=f"get_{noun}"),
        Op("POST", path, module.create, policy=f"create_{noun}", body=post, status=201),
        Op("GET", one, module.show, policy=f"get_{noun}"),
        Op("PUT", one, module.update, policy=f"update_{noun}", body=put),
        Op("DELETE", one, module.delete, policy=f"delete_{noun}", status=204),
    )


def _router_put(verb: str, handler: Handler, body: Any) -> Op:
    return Op("PUT", f"/routers/{{router_id}}/{verb}", handler, policy=verb, body=body)


_OPS: Final = (
    Op("GET", "/extensions", extensions.index, policy="get_extensions"),
    Op("GET", "/extensions/{alias}", extensions.show, policy="get_extension"),
    *_crud("network", "/networks", "network_id", networks, bodies.NetworkPost, bodies.NetworkPut),
    *_crud("subnet", "/subnets", "subnet_id", subnets, bodies.SubnetPost, bodies.SubnetPut),
    *_crud("port", "/ports", "port_id", ports, bodies.PortPost, bodies.PortPut),
    *_crud("router", "/routers", "router_id", routers, bodies.RouterPost, bodies.RouterPut),
    _router_put("add_router_interface", routers.add_interface, bodies.InterfaceBody),
    _router_put("remove_router_interface", routers.remove_interface, bodies.InterfaceBody),
    _router_put("add_extraroutes", routers.add_routes, bodies.RouterRoutesPut),
    _router_put("remove_extraroutes", routers.remove_routes, bodies.RouterRoutesPut),
    *_crud("floatingip", "/floatingips", "floatingip_id", floating_ips, bodies.FloatingIpPost, bodies.FloatingIpPut),
    *_crud("security_group", "/security-groups", "group_id", groups, bodies.GroupPost, bodies.GroupPut),
    Op("GET", "/security-group-rules", groups.index_rules, policy="get_security_group_rule"),
    Op(
        "POST",
        "/security-group-rules",
        groups.create_rules,
        policy="create_security_group_rule",
        body=bodies.RulePost,
        status=201,
    ),
    Op("GET", "/security-group-rules/{rule_id}", groups.show_rule, policy="get_security_group_rule"),
    Op(
        "DELETE", "/security-group-rules/{rule_id}", groups.delete_rule, policy="delete_security_group_rule", status=204
    ),
    Op("GET", "/quotas", quotas.index, policy="list_quotas"),
    Op("GET", "/quotas/tenant", quotas.whose, policy="get_quota"),
    Op("GET", "/quotas/project", quotas.whose, policy="get_quota"),
    Op("GET", "/quotas/{project_id}", quotas.show, policy="get_quota"),
    Op("PUT", "/quotas/{project_id}", quotas.update, policy="update_quota", body=bodies.QuotaPut),
    Op("DELETE", "/quotas/{project_id}", quotas.delete, policy="delete_quota", status=204),
    Op("GET", "/quotas/{project_id}/default", quotas.default, policy="get_quota"),
    Op("GET", "/quotas/{project_id}/details", quotas.details, policy="get_quota"),
)


SERVICE: Final = Service(
    name="network",
    types=("network",),
    prefix="/network/v2.0",
    catalog_path="/network",
    ops=_OPS,
    policies=RULES,
    envelope=_envelope,
    over_quota_status=409,
    documents=(
        Op("GET", "/network", extensions.versions, policy=PUBLIC),
        Op("GET", "/network/v2.0", extensions.resources, policy=PUBLIC),
    ),
)
