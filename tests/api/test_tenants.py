"""One tenant's ids in another tenant's hands: on every row that takes them, they are ids of nothing."""

import json
import re
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from controller.http.op import Op, Service
from controller.volume import attachments
from controller.volume.attachments import Wanted
from controller.volume.store import snapshots, volumes
from tests.api import minimal, rows
from tests.api.clouds import ApiCloud
from tests.sagas import volume as volume_rows

Builder = Callable[[ApiCloud, str], Awaitable[dict[str, str]]]
"""(cloud, the owner's token) → ids by the names that rows give their parameters."""


async def an_image(cloud: ApiCloud, token: str) -> dict[str, str]:
    body = {"name": "theirs", "disk_format": "raw", "container_format": "bare"}
    reply = await cloud.call("POST", "/image/v2/images", token, json=body)
    assert reply.status_code == 201, reply.text
    return {"image_id": reply.json()["id"]}


async def a_keypair(cloud: ApiCloud, token: str) -> dict[str, str]:
    reply = await cloud.call("POST", "/compute/v2.1/os-keypairs", token, json={"keypair": {"name": "theirs"}})
    assert reply.status_code == 200, reply.text
    return {"name": "theirs"}


async def a_server(cloud: ApiCloud, token: str) -> dict[str, str]:
    admin = await cloud.admin()
    flavor = {"name": "f", "id": "f", "ram": 64, "disk": 1, "vcpus": 1}
    reply = await cloud.call("POST", "/compute/v2.1/flavors", admin, json={"flavor": flavor})
    assert reply.status_code == 200, reply.text
    image_id = await uploaded(cloud, token)
    body = {"server": {"name": "theirs", "flavorRef": "f", "imageRef": image_id, "networks": "none"}}
    newer = {"OpenStack-API-Version": "compute 2.37"}
    reply = await cloud.call("POST", "/compute/v2.1/servers", token, json=body, headers=newer)
    assert reply.status_code == 202, reply.text
    return {"server_id": reply.json()["server"]["id"], "request_id": reply.headers["x-openstack-request-id"]}


async def made(cloud: ApiCloud, token: str, path: str, key: str, **values: Any) -> dict[str, Any]:
    """POST to the network service; the new object."""
    reply = await cloud.call("POST", f"/network/v2.0/{path}", token, json={key: values})
    assert reply.status_code == 201, reply.text
    return dict(reply.json()[key])


async def a_network(cloud: ApiCloud, token: str) -> dict[str, str]:
    network = await made(cloud, token, "networks", "network", name="theirs")
    cidr = {"network_id": network["id"], "cidr": "10.1.2.0/24", "ip_version": 4}
    subnet = await made(cloud, token, "subnets", "subnet", **cidr)
    port = await made(cloud, token, "ports", "port", network_id=network["id"])
    return {"network_id": network["id"], "subnet_id": subnet["id"], "port_id": port["id"]}


async def a_router(cloud: ApiCloud, token: str) -> dict[str, str]:
    admin = await cloud.admin()
    physical = {"provider:network_type": "flat", "provider:physical_network": "external"}
    outside = await made(cloud, admin, "networks", "network", **{"router:external": True, **physical})
    cidr = {"network_id": outside["id"], "cidr": "203.0.113.0/24", "ip_version": 4, "enable_dhcp": False}
    await made(cloud, admin, "subnets", "subnet", **cidr)
    gateway = {"network_id": outside["id"]}
    router = await made(cloud, token, "routers", "router", name="theirs", external_gateway_info=gateway)
    floating = await made(cloud, token, "floatingips", "floatingip", floating_network_id=outside["id"])
    return {"router_id": router["id"], "floatingip_id": floating["id"]}


async def a_group(cloud: ApiCloud, token: str) -> dict[str, str]:
    group = await made(cloud, token, "security-groups", "security_group", name="theirs")
    rule = {"security_group_id": group["id"], "direction": "ingress", "protocol": "tcp", "port_range_min": 22}
    found = await made(cloud, token, "security-group-rules", "security_group_rule", **rule, port_range_max=22)
    return {"group_id": group["id"], "rule_id": found["id"]}


async def a_server_group(cloud: ApiCloud, token: str) -> dict[str, str]:
    body = {"server_group": {"name": "theirs", "policies": ["affinity"]}}
    reply = await cloud.call("POST", "/compute/v2.1/os-server-groups", token, json=body)
    assert reply.status_code == 200, reply.text
    return {"group_id": reply.json()["server_group"]["id"]}


async def a_volume(cloud: ApiCloud, token: str) -> dict[str, str]:
    body = {"volume": {"size": 1, "name": "theirs", "metadata": {"color": "blue"}}}
    reply = await cloud.call("POST", "/volume/v3/volumes", token, json=body)
    assert reply.status_code == 202, reply.text
    volume_id = reply.json()["volume"]["id"]
    shown = await cloud.call("GET", f"/volume/v3/volumes/{volume_id}", token)
    owner = shown.json()["volume"]["os-vol-tenant-attr:tenant_id"]
    snapshot = volume_rows.a_snapshot(id=str(uuid.uuid4()), volume_id=volume_id, project_id=owner)
    await cloud.cloud.db.write(snapshots.insert, snapshot)
    found = await cloud.cloud.db.read(volumes.find, volume_id)
    assert found is not None
    made_for = Wanted(id=str(uuid.uuid4()), volume_id=volume_id, server_id="s", is_ours=False, is_made_for=True)
    await cloud.cloud.db.write(attachments.reserve, found, made_for, 1.0)
    return {"volume_id": volume_id, "snapshot_id": snapshot.id, "attachment_id": made_for.id}


BUILDERS: dict[str, tuple[Builder, ...]] = {
    "image": (an_image,),
    "compute": (a_keypair, a_server, a_server_group),
    "network": (a_network, a_router, a_group),
    "volume": (a_volume,),
}
"""What each service's tenants own. Identity's nouns belong to domains; its own tests speak of them."""

NOBODYS = "11111111-2222-4333-8444-555555555555"

BODIES: dict[str, Any] = {
    "PATCH /image/v2/images/{image_id}": [{"op": "replace", "path": "/name", "value": "mine"}],
    "PUT /image/v2/images/{image_id}/file": "bytes",
    "PUT /image/v2/images/{image_id}/members/{member_id}": {"status": "accepted"},
    "PUT /network/v2.0/routers/{router_id}/add_router_interface": {"subnet_id": NOBODYS},
    "PUT /network/v2.0/routers/{router_id}/remove_router_interface": {"subnet_id": NOBODYS},
    "PUT /compute/v2.1/servers/{server_id}/metadata/{key}": {"meta": {rows.SOME_ID: "x"}},
    "POST /compute/v2.1/servers/{server_id}/action [os-resetState]": {"state": "active"},
    "POST /compute/v2.1/servers/{server_id}/action [rebuild]": {"imageRef": NOBODYS},
    "POST /compute/v2.1/servers/{server_id}/os-volume_attachments": {"volumeAttachment": {"volumeId": NOBODYS}},
    "POST /volume/v3/volumes/{volume_id}/action [os-attach]": {"instance_uuid": NOBODYS, "mountpoint": "/dev/vdb"},
    "POST /volume/v3/volumes/{volume_id}/action [os-reset_status]": {"status": "error"},
    "PUT /volume/v3/volumes/{volume_id}/metadata/{key}": {"meta": {rows.SOME_ID: "x"}},
    "PUT /volume/v3/snapshots/{snapshot_id}/metadata/{key}": {"meta": {rows.SOME_ID: "x"}},
    "PUT /volume/v3/attachments/{attachment_id}": {"attachment": {"connector": {"initiator": "iqn.x:y"}}},
}
"""Where the smallest body of the type says nothing that the row could take."""


def content_of(service: Service, op: Op) -> bytes | None:
    given = BODIES.get(rows.name(service, op))
    if op.streams:
        return b"bytes"
    if op.body is None and op.action is None:
        return None
    inner = json.dumps(given if given is not None else None if op.body is None else minimal.value(op.body))
    return rows.wrapped(op, inner).encode()


def filled(service: Service, op: Op, ids: dict[str, str]) -> str:
    """The row's path with these ids, and with nobody's where there is none."""
    return service.prefix + re.sub(r"\{(\w+)\}", lambda match: ids.get(match[1], rows.SOME_ID), op.path)


async def test_another_tenants_ids_are_404_on_every_row(cloud: ApiCloud) -> None:
    admin = await cloud.admin()
    _, _, owner = await cloud.a_member(admin, "owner")
    _, _, stranger = await cloud.a_member(admin, "stranger")
    ctx = await cloud.cloud.tokens.authenticate(stranger, "", "")
    tried, wrong = 0, []
    ids = {name: [await build(cloud, owner) for build in builders] for name, builders in BUILDERS.items()}
    for service, op, _ in rows.private_rows():
        for theirs in ids.get(service.name, []):
            if not set(re.findall(r"\{(\w+)\}", op.path)) & theirs.keys():
                continue
            path = filled(service, op, theirs)
            headers = {**rows.version_headers(service, op), **rows.media(op)}
            reply = await cloud.call(op.method, path, stranger, headers=headers, content=content_of(service, op))
            expected = 404 if service.policies[op.policy](ctx, {}) else 403
            tried += 1
            if reply.status_code != expected:
                wrong.append(f"{rows.name(service, op)}: {reply.status_code} {reply.text[:200]}")
    assert wrong == []
    assert tried > 40


async def test_lists_show_nothing_of_another_tenant(cloud: ApiCloud) -> None:
    admin = await cloud.admin()
    _, _, owner = await cloud.a_member(admin, "owner")
    _, _, stranger = await cloud.a_member(admin, "stranger")
    theirs = [
        found for builders in BUILDERS.values() for build in builders for found in (await build(cloud, owner)).values()
    ]
    for service, op, path in rows.private_rows():
        if op.method != "GET" or "{" in op.path or service.name == "identity":
            continue
        for query in ("", "?all_tenants=1", "?visibility=all", f"?project_id={rows.SOME_ID}", "?deleted=true"):
            reply = await cloud.call("GET", path + query, stranger, headers=rows.version_headers(service, op))
            shown = [found for found in theirs if found in reply.text]
            assert shown == [], f"{rows.name(service, op)}{query}"


async def test_another_tenants_ids_in_a_body_are_ids_of_nothing(cloud: ApiCloud) -> None:
    """Neutron and Nova differ in whether that is 404 or 400; it is never a success, and leaves nothing behind."""
    admin = await cloud.admin()
    _, _, owner = await cloud.a_member(admin, "owner")
    _, _, stranger = await cloud.a_member(admin, "stranger")
    theirs = {**await a_network(cloud, owner), **await a_router(cloud, owner), **await a_group(cloud, owner)}
    image = (await a_server(cloud, owner), await an_image(cloud, owner))[1]["image_id"]
    await a_keypair(cloud, owner)
    own = {**await a_network(cloud, stranger), **await a_group(cloud, stranger)}
    router = await made(cloud, stranger, "routers", "router", name="own")
    cidr = {"cidr": "10.7.7.0/24", "ip_version": 4}
    attempts: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "subnets", {"subnet": {"network_id": theirs["network_id"], **cidr}}),
        ("POST", "ports", {"port": {"network_id": theirs["network_id"]}}),
        ("POST", "ports", {"port": {"network_id": own["network_id"], "security_groups": [theirs["group_id"]]}}),
        (
            "POST",
            "ports",
            {"port": {"network_id": own["network_id"], "fixed_ips": [{"subnet_id": theirs["subnet_id"]}]}},
        ),
        ("PUT", f"ports/{own['port_id']}", {"port": {"security_groups": [theirs["group_id"]]}}),
        ("PUT", f"routers/{router['id']}/add_router_interface", {"subnet_id": theirs["subnet_id"]}),
        ("PUT", f"routers/{router['id']}/add_router_interface", {"port_id": theirs["port_id"]}),
        ("PUT", f"routers/{router['id']}", {"router": {"external_gateway_info": {"network_id": theirs["network_id"]}}}),
        ("POST", "routers", {"router": {"external_gateway_info": {"network_id": theirs["network_id"]}}}),
        ("PUT", f"floatingips/{theirs['floatingip_id']}", {"floatingip": {"port_id": own["port_id"]}}),
        ("POST", "security-group-rules", rule(theirs["group_id"])),
        ("POST", "security-group-rules", rule(own["group_id"], remote_group_id=theirs["group_id"])),
    ]
    for method, path, body in attempts:
        reply = await cloud.call(method, f"/network/v2.0/{path}", stranger, json=body)
        assert reply.status_code in (400, 404), f"{method} {path} {body}: {reply.status_code} {reply.text}"
    good = {"name": "own", "flavorRef": "f", "imageRef": (await uploaded(cloud, stranger)), "networks": "none"}
    newer = {"OpenStack-API-Version": "compute 2.37"}
    for change in (
        {"imageRef": image},
        {"networks": [{"uuid": theirs["network_id"]}]},
        {"networks": [{"port": theirs["port_id"]}]},
        {"networks": [{"uuid": own["network_id"]}], "security_groups": [{"name": theirs["group_id"]}]},
        {"key_name": "theirs"},
    ):
        reply = await cloud.call(
            "POST", "/compute/v2.1/servers", stranger, json={"server": {**good, **change}}, headers=newer
        )
        assert reply.status_code in (400, 404), f"{change}: {reply.status_code} {reply.text}"
    assert (await cloud.call("GET", "/compute/v2.1/servers", stranger)).json()["servers"] == []
    reply = await cloud.call("POST", "/compute/v2.1/servers", stranger, json={"server": good}, headers=newer)
    assert reply.status_code == 202, reply.text


def rule(group_id: str, **more: Any) -> dict[str, Any]:
    return {"security_group_rule": {"security_group_id": group_id, "direction": "ingress", **more}}


async def uploaded(cloud: ApiCloud, token: str) -> str:
    image_id = (await an_image(cloud, token))["image_id"]
    octets = {"Content-Type": "application/octet-stream"}
    path = f"/image/v2/images/{image_id}/file"
    assert (await cloud.call("PUT", path, token, content=bytes(4096), headers=octets)).status_code == 204
    return image_id
