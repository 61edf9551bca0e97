"""What a failed test made is removed by force, so that the next one starts where this one did."""

import contextlib
from typing import Any

from controller.cli.api import ApiError, Client
from tests.walk.cloud import Cloud, eventually

NETWORK = "/network/v2.0"
COMPUTE = "/compute/v2.1"


def sweep(cloud: Cloud) -> None:
    """Everything that `hostler up` did not make goes; what resists is left to the next test's complaint."""
    admin, demo = cloud.admin(), cloud.demo()
    for one in _list(admin, f"{COMPUTE}/servers?all_tenants=1", "servers"):
        if one["name"] != "first":
            _delete(admin, f"{COMPUTE}/servers/{one['id']}")
    with contextlib.suppress(BaseException):
        eventually("servers gone", lambda: len(admin.get(f"{COMPUTE}/servers?all_tenants=1")["servers"]) <= 1)
    for one in _list(admin, f"{NETWORK}/floatingips", "floatingips"):
        if not one["port_id"]:
            _delete(admin, f"{NETWORK}/floatingips/{one['id']}")
    for one in _list(admin, f"{NETWORK}/routers", "routers"):
        if one["name"] != "demo":
            _remove_router(admin, one)
    for one in _list(admin, f"{NETWORK}/networks", "networks"):
        if one["name"] not in ("demo", "public"):
            for port in _list(admin, f"{NETWORK}/ports?network_id={one['id']}", "ports"):
                _delete(admin, f"{NETWORK}/ports/{port['id']}")
            _delete(admin, f"{NETWORK}/networks/{one['id']}")
    for one in _list(admin, f"{NETWORK}/security-groups", "security_groups"):
        _delete(admin, f"{NETWORK}/security-groups/{one['id']}")
    for one in _list(demo, f"{COMPUTE}/os-keypairs", "keypairs"):
        if one["keypair"]["name"] != "hostler":
            _delete(demo, f"{COMPUTE}/os-keypairs/{one['keypair']['name']}")
    for one in _list(demo, "/image/v2/images?visibility=shared", "images"):
        _delete(demo, f"/image/v2/images/{one['id']}")
    for one in _list(admin, f"{COMPUTE}/flavors", "flavors"):
        if not one["name"].startswith("m1."):
            _delete(admin, f"{COMPUTE}/flavors/{one['id']}")
    for noun in ("users", "projects"):
        for one in _list(admin, f"/identity/v3/{noun}", noun):
            if one["name"] not in ("admin", "demo"):
                _delete(admin, f"/identity/v3/{noun}/{one['id']}")


def _remove_router(admin: Client, router: dict[str, Any]) -> None:
    for port in _list(admin, f"{NETWORK}/ports?device_id={router['id']}", "ports"):
        with contextlib.suppress(ApiError):
            admin.put(f"{NETWORK}/routers/{router['id']}/remove_router_interface", {"port_id": port["id"]})
    _delete(admin, f"{NETWORK}/routers/{router['id']}")


def _list(client: Client, path: str, key: str) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = client.get(path)[key]
    except ApiError:
        return []
    return found


def _delete(client: Client, path: str) -> None:
    with contextlib.suppress(ApiError):
        client.delete(path)
