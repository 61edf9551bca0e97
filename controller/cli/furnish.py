"""What `hostler up` puts into an empty cloud, through the same API as everybody: images, networks, a server.

Every function looks before it makes, so that a second `up` (or one after a crash) changes nothing.
"""

import json
from pathlib import Path
from typing import Any

from controller.cli.api import Client, wait_for
from controller.cli.trial import Trial

KEY_NAME = "hostler"
SERVER_NAME = "first"
IMAGE_NAME = "hostler-tiny"


def images(admin: Client, folder: Path) -> None:
    """Upload every image that the builder left in `folder`."""
    have = {image["name"] for image in admin.get("/image/v2/images")["images"]}
    for description in sorted(folder.glob("*.json")):
        about = json.loads(description.read_text())
        if about["name"] in have:
            continue
        body = {
            "name": about["name"],
            "disk_format": "qcow2",
            "container_format": "bare",
            "visibility": "public",
            "min_ram": about["min_ram_mib"],
            "min_disk": about["min_disk_gib"],
            **about["properties"],
        }
        image = admin.post("/image/v2/images", body)
        admin.upload(f"/image/v2/images/{image['id']}/file", description.with_suffix(".qcow2"))


def external_network(admin: Client, trial: Trial) -> str:
    """The flat network `public` on the physical network `external`; returns its id."""
    network = _named(admin, "networks", "public") or _made(
        admin,
        "networks",
        {
            "name": "public",
            "router:external": True,
            "provider:network_type": "flat",
            "provider:physical_network": "external",
        },
    )
    if not network["subnets"]:
        _made(
            admin,
            "subnets",
            {
                "name": "public",
                "network_id": network["id"],
                "ip_version": 4,
                "cidr": trial.external,
                "gateway_ip": trial.external_gateway,
                "enable_dhcp": False,
            },
        )
    return str(network["id"])


def demo_network(demo: Client, external_id: str) -> str:
    """The tenant network `demo` behind the router `demo`; returns the network's id."""
    network = _named(demo, "networks", "demo") or _made(demo, "networks", {"name": "demo"})
    subnet = _named(demo, "subnets", "demo") or _made(
        demo, "subnets", {"name": "demo", "network_id": network["id"], "ip_version": 4, "cidr": "10.0.0.0/24"}
    )
    router = _named(demo, "routers", "demo") or _made(
        demo, "routers", {"name": "demo", "external_gateway_info": {"network_id": external_id}}
    )
    ports = demo.get(f"/network/v2.0/ports?device_id={router['id']}&network_id={network['id']}")["ports"]
    if not ports:
        demo.put(f"/network/v2.0/routers/{router['id']}/add_router_interface", {"subnet_id": subnet["id"]})
    return str(network["id"])


def login_rules(demo: Client) -> None:
    """SSH and ping into the project's default group."""
    group = demo.get("/network/v2.0/security-groups?name=default")["security_groups"][0]
    have = {(rule["protocol"], rule["port_range_min"]) for rule in group["security_group_rules"]}
    for protocol, port in (("tcp", 22), ("icmp", None)):
        if (protocol, port) not in have:
            rule = {"direction": "ingress", "ethertype": "IPv4", "protocol": protocol, "security_group_id": group["id"]}
            if port is not None:
                rule |= {"port_range_min": port, "port_range_max": port}
            _made(demo, "security-group-rules", rule)


def keypair(demo: Client, public_key: str) -> None:
    """The key pair that `first` is reached with."""
    if KEY_NAME not in {item["keypair"]["name"] for item in demo.get("/compute/v2.1/os-keypairs")["keypairs"]}:
        demo.post("/compute/v2.1/os-keypairs", {"keypair": {"name": KEY_NAME, "public_key": public_key}})


def server(demo: Client, network_id: str, image_name: str) -> str:
    """The server `first`, accepted if it is not there yet; returns its id."""
    found = demo.get(f"/compute/v2.1/servers?name=^{SERVER_NAME}$")["servers"]
    if found:
        return str(found[0]["id"])
    image = demo.get(f"/image/v2/images?name={image_name}")["images"][0]
    body = {
        "name": SERVER_NAME,
        "imageRef": image["id"],
        "flavorRef": "42",
        "key_name": KEY_NAME,
        "networks": [{"uuid": network_id}],
    }
    return str(demo.post("/compute/v2.1/servers", {"server": body})["server"]["id"])


def started(demo: Client, server_id: str) -> None:
    """A server that was stopped, by whomever, is started."""
    if demo.get(f"/compute/v2.1/servers/{server_id}")["server"]["status"] == "SHUTOFF":
        demo.post(f"/compute/v2.1/servers/{server_id}/action", {"os-start": None})


def active(demo: Client, server_id: str, timeout_s: float) -> dict[str, Any]:
    """Wait until the server is ACTIVE; an ERROR ends the wait with its cause."""

    def probe() -> dict[str, Any] | None:
        shown: dict[str, Any] = demo.get(f"/compute/v2.1/servers/{server_id}")["server"]
        if shown["status"] == "ERROR":
            raise RuntimeError(
                f"server {SERVER_NAME}: {shown.get('fault', {}).get('message', 'ERROR without a cause')}"
            )
        return shown if shown["status"] == "ACTIVE" else None

    return wait_for(f"server {SERVER_NAME} ACTIVE", probe, timeout_s)


def floating_ip(demo: Client, external_id: str, server_id: str) -> str:
    """The floating IP of the server's port, made if it has none; returns its address."""
    port = demo.get(f"/network/v2.0/ports?device_id={server_id}")["ports"][0]
    have = demo.get(f"/network/v2.0/floatingips?port_id={port['id']}")["floatingips"]
    if have:
        return str(have[0]["floating_ip_address"])
    body = {"floating_network_id": external_id, "port_id": port["id"]}
    return str(_made(demo, "floatingips", body)["floating_ip_address"])


def _named(client: Client, collection: str, name: str) -> dict[str, Any] | None:
    found: list[dict[str, Any]] = client.get(f"/network/v2.0/{collection}?name={name}")[collection]
    return found[0] if found else None


def _made(client: Client, collection: str, body: dict[str, Any]) -> dict[str, Any]:
    noun = collection.removesuffix("s").replace("-", "_")
    made: dict[str, Any] = client.post(f"/network/v2.0/{collection}", {noun: body})[noun]
    return made
