"""Handlers of what hangs on one server: metadata, tags, addresses, interfaces, groups."""

from typing import Any

from controller.compute import edits, nets, store, texts
from controller.compute import interfaces as wanted_interfaces
from controller.compute.api import links, views
from controller.compute.interfaces import WantedInterface
from controller.compute.model import Nic, Server
from controller.context import Context
from controller.db.tx import Tx
from controller.errors import Invalid, NotFound
from controller.http.op import Call, Reply
from controller.network.model import Group, Rule


async def _server(call: Call) -> Server:
    return await call.cloud.db.read(store.get, call.ctx, call.params["server_id"])


# Metadata.


async def metadata(call: Call) -> dict[str, Any]:
    """GET /servers/{server_id}/metadata"""
    return {"metadata": (await _server(call)).meta}


async def metadata_item(call: Call) -> dict[str, Any]:
    """GET /servers/{server_id}/metadata/{key}"""
    key, found = call.params["key"], (await _server(call)).meta
    if key not in found:
        raise NotFound("Metadata item was not found")
    return {"meta": {key: found[key]}}


async def extend_metadata(call: Call) -> dict[str, Any]:
    """POST /servers/{server_id}/metadata"""
    return {"metadata": await _set(call, call.body.metadata, replaces=False)}


async def replace_metadata(call: Call) -> dict[str, Any]:
    """PUT /servers/{server_id}/metadata"""
    return {"metadata": await _set(call, call.body.metadata, replaces=True)}


async def set_metadata_item(call: Call) -> dict[str, Any]:
    """PUT /servers/{server_id}/metadata/{key}"""
    if call.params["key"] not in call.body.meta:
        raise Invalid("Request body and URI mismatch")
    await _set(call, call.body.meta, replaces=False)
    return {"meta": call.body.meta}


async def delete_metadata_item(call: Call) -> None:
    """DELETE /servers/{server_id}/metadata/{key}"""
    await edits.drop_metadata(call.cloud, call.ctx, call.params["server_id"], call.params["key"])


async def _set(call: Call, values: dict[str, str], *, replaces: bool) -> dict[str, str]:
    wanted = texts.metadata(values)
    return await edits.set_metadata(call.cloud, call.ctx, call.params["server_id"], wanted, replaces=replaces)


# Tags.


async def tags(call: Call) -> dict[str, Any]:
    """GET /servers/{server_id}/tags"""
    return {"tags": await _tags(call)}


async def has_tag(call: Call) -> None:
    """GET /servers/{server_id}/tags/{tag}"""
    if call.params["tag"] not in await _tags(call):
        raise NotFound(f"Server {call.params['server_id']} has no tag '{call.params['tag']}'")


async def replace_tags(call: Call) -> dict[str, Any]:
    """PUT /servers/{server_id}/tags"""
    wanted = texts.tags(call.body.tags)
    await edits.set_tags(call.cloud, call.ctx, call.params["server_id"], wanted)
    return {"tags": sorted(wanted)}


async def add_tag(call: Call) -> Reply:
    """PUT /servers/{server_id}/tags/{tag}"""
    server_id, tag = call.params["server_id"], texts.tag(call.params["tag"])
    is_new = await edits.add_tag(call.cloud, call.ctx, server_id, tag)
    if not is_new:
        return Reply(status=204)
    location = f"{call.base_url}/servers/{server_id}/tags/{links.quoted(tag)}"
    return Reply(status=201, headers={"Location": location})


async def delete_tag(call: Call) -> None:
    """DELETE /servers/{server_id}/tags/{tag}"""
    await edits.drop_tag(call.cloud, call.ctx, call.params["server_id"], call.params["tag"])


async def delete_tags(call: Call) -> None:
    """DELETE /servers/{server_id}/tags"""
    await edits.set_tags(call.cloud, call.ctx, call.params["server_id"], ())


async def _tags(call: Call) -> list[str]:
    return await call.cloud.db.read(_tags_of, call.ctx, call.params["server_id"])


def _tags_of(tx: Tx, ctx: Context, server_id: str) -> list[str]:
    store.get(tx, ctx, server_id)
    return store.tags(tx, server_id)


# Addresses and interfaces.


def _network(tx: Tx, ctx: Context, server_id: str) -> tuple[nets.Shown, list[Nic]]:
    store.get(tx, ctx, server_id)
    return nets.shown(tx, [server_id]).get(server_id, nets.NOTHING), store.nics(tx, server_id)


async def _shown(call: Call) -> tuple[nets.Shown, list[Nic]]:
    return await call.cloud.db.read(_network, call.ctx, call.params["server_id"])


async def addresses(call: Call) -> dict[str, Any]:
    """GET /servers/{server_id}/ips"""
    shown, _ = await _shown(call)
    return {"addresses": views.addresses(shown, extended=False)}


async def addresses_of_network(call: Call) -> dict[str, Any]:
    """GET /servers/{server_id}/ips/{label}"""
    shown, _ = await _shown(call)
    found = views.addresses(shown, extended=False)
    label = call.params["label"]
    if label not in found:
        raise NotFound("Instance is not a member of specified network")
    return {label: found[label]}


async def interfaces(call: Call) -> dict[str, Any]:
    """GET /servers/{server_id}/os-interface"""
    shown, nics = await _shown(call)
    return {"interfaceAttachments": [_interface(call, port, nics) for port in shown.ports]}


async def interface(call: Call) -> dict[str, Any]:
    """GET /servers/{server_id}/os-interface/{port_id}"""
    shown, nics = await _shown(call)
    port_id = call.params["port_id"]
    found = next((port for port in shown.ports if port.port_id == port_id), None)
    if found is None:
        raise NotFound(f"Instance {call.params['server_id']} does not have a port with id {port_id}")
    return {"interfaceAttachment": _interface(call, found, nics)}


async def attach_interface(call: Call) -> dict[str, Any]:
    """POST /servers/{server_id}/os-interface: the port as it is now; it turns ACTIVE when the guest has it."""
    port_id = await wanted_interfaces.attach(call.cloud, call.ctx, call.params["server_id"], _wanted(call))
    shown, nics = await _shown(call)
    found = next((port for port in shown.ports if port.port_id == port_id), None)
    if found is None:
        raise NotFound(f"Port {port_id} is gone already.")
    return {"interfaceAttachment": _interface(call, found, nics)}


def _wanted(call: Call) -> WantedInterface:
    row = call.body.interface
    if row.net_id is not None and row.port_id is not None:
        raise Invalid("Must not input both network_id and port_id")
    if row.fixed_ips is not None and row.net_id is None:
        raise Invalid("Must input network_id when request IP address")
    tag = getattr(row, "tag", None)
    return WantedInterface(
        port_id=None if row.port_id is None else texts.uuid(row.port_id, "port_id"),
        network_id=None if row.net_id is None else texts.uuid(row.net_id, "net_id"),
        fixed_ip=None if row.fixed_ips is None else texts.address(row.fixed_ips[0].ip_address, "ip_address"),
        tag=None if tag is None else texts.tag(tag),
    )


async def detach_interface(call: Call) -> None:
    """DELETE /servers/{server_id}/os-interface/{port_id}"""
    await wanted_interfaces.detach(call.cloud, call.ctx, call.params["server_id"], call.params["port_id"])


def _interface(call: Call, port: nets.PortShown, nics: list[Nic]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "net_id": port.network_id,
        "port_id": port.port_id,
        "mac_addr": port.mac,
        "port_state": port.status,
        "fixed_ips": [{"subnet_id": one.subnet_id, "ip_address": one.address} for one in port.addresses],
    }
    if call.version >= (2, 70):
        found["tag"] = next((nic.tag for nic in nics if nic.port_id == port.port_id), None)
    return found


async def groups(call: Call) -> dict[str, Any]:
    """GET /servers/{server_id}/os-security-groups: Nova's old form, which knows incoming rules only."""
    found, named = await call.cloud.db.read(_groups, call.ctx, call.params["server_id"])
    return {"security_groups": [_group(group, named) for group in found]}


def _groups(tx: Tx, ctx: Context, server_id: str) -> tuple[list[Group], dict[str, Group]]:
    store.get(tx, ctx, server_id)
    found = nets.groups_of(tx, server_id)
    remote = {rule.remote_group_id for group in found for rule in group.rules if rule.remote_group_id is not None}
    return found, nets.named_groups(tx, remote)


def _group(group: Group, named: dict[str, Group]) -> dict[str, Any]:
    incoming = [rule for rule in group.rules if rule.direction == "ingress"]
    return {
        "id": group.id,
        "name": group.name,
        "description": group.description,
        "tenant_id": group.project_id,
        "rules": [_rule(rule, named) for rule in incoming],
    }


def _rule(rule: Rule, named: dict[str, Group]) -> dict[str, Any]:
    remote = named.get(rule.remote_group_id or "")
    anywhere = "::/0" if rule.ethertype == "IPv6" else "0.0.0.0/0"
    return {
        "id": rule.id,
        "parent_group_id": rule.group_id,
        "ip_protocol": rule.protocol,
        "from_port": rule.port_min,
        "to_port": rule.port_max,
        "group": {"name": remote.name, "tenant_id": remote.project_id} if remote is not None else {},
        "ip_range": {} if remote is not None else {"cidr": rule.remote_ip_prefix or anywhere},
    }
