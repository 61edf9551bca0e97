"""What GET /extensions says: exactly what works here. Clients branch on it, so an alias is a promise.

Version documents are here as well: Neutron has no microversions, extensions are what it has instead.
"""

from typing import Any, Final

from controller.errors import NotFound
from controller.http.op import Call

_UPDATED: Final = "2026-01-01T00:00:00-00:00"

EXTENSIONS: Final[dict[str, tuple[str, str]]] = {
    "allowed-address-pairs": ("Allowed Address Pairs", "Provides allowed address pairs"),
    "binding": ("Port Binding", "Expose port bindings of a virtual port to external application"),
    "empty-string-filtering": ("Empty String Filtering Extension", "Allow filtering by attributes with empty values"),
    "ext-gw-mode": ("Neutron L3 Configurable external gateway mode", "SNAT of a router's gateway can be disabled"),
    "external-net": ("Neutron external network", "Adds external network attribute to network resource"),
    "extraroute": ("Neutron Extra Route", "Extra routes configuration for L3 router"),
    "extraroute-atomic": ("Atomically add/remove extra routes", "Edit extra routes of a router on the server side"),
    "filter-validation": ("Filter parameters validation", "Provides validation on filter parameters"),
    "net-mtu": ("Network MTU", "Provides MTU attribute for a network resource"),
    "net-mtu-writable": ("Network MTU (writable)", "Provides a writable MTU attribute for a network resource"),
    "pagination": ("Pagination support", "Extension that indicates that pagination is enabled"),
    "port-security": ("Port Security", "Provides port security"),
    "project-id": ("project_id field enabled", "Extension that indicates that project_id field is enabled"),
    "provider": ("Provider Network", "Expose mapping of virtual networks to physical networks"),
    "quota_details": ("Quota details management support", "Expose functions for quotas usage statistics per project"),
    "quotas": ("Quota management support", "Expose functions for quotas management per project"),
    "revision-if-match": ("If-Match constraints based on revision_number", "Extension indicating that If-Match works"),
    "router": ("Neutron L3 Router", "Router abstraction for basic L3 forwarding between L2 networks, and NAT"),
    "security-group": ("security-group", "The security groups extension"),
    "security-groups-normalized-cidr": (
        "Normalized CIDR field for security group rules",
        "Add new field with normalized remote_ip_prefix cidr in SG rule",
    ),
    "sorting": ("Sorting support", "Extension that indicates that sorting is enabled"),
    "standard-attr-description": ("standard-attr-description", "Adds descriptions to standard attributes"),
    "standard-attr-revisions": ("Resource revision numbers", "The revision_number of resources"),
    "standard-attr-timestamp": ("Resource timestamps", "Adds created_at and updated_at to all resources"),
}

_COLLECTIONS: Final = (
    ("network", "networks"),
    ("subnet", "subnets"),
    ("port", "ports"),
    ("router", "routers"),
    ("floatingip", "floatingips"),
    ("security_group", "security-groups"),
    ("security_group_rule", "security-group-rules"),
    ("quota", "quotas"),
    ("extension", "extensions"),
)


async def index(call: Call) -> dict[str, Any]:
    """GET /extensions."""
    return {"extensions": [_view(alias) for alias in EXTENSIONS]}


async def show(call: Call) -> dict[str, Any]:
    """GET /extensions/{alias}."""
    alias = call.params["alias"]
    if alias not in EXTENSIONS:
        raise NotFound(f"Extension with alias {alias} does not exist")
    return {"extension": _view(alias)}


async def versions(call: Call) -> dict[str, Any]:
    """GET / of the service."""
    self_link = {"rel": "self", "href": f"{call.base_url}/"}
    return {"versions": [{"id": "v2.0", "status": "CURRENT", "links": [self_link]}]}


async def resources(call: Call) -> dict[str, Any]:
    """GET /v2.0: what there is below."""
    return {
        "resources": [
            {"name": name, "collection": path, "links": [{"rel": "self", "href": f"{call.base_url}/{path}"}]}
            for name, path in _COLLECTIONS
        ]
    }


def _view(alias: str) -> dict[str, Any]:
    name, description = EXTENSIONS[alias]
    return {"alias": alias, "name": name, "description": description, "updated": _UPDATED, "links": []}
