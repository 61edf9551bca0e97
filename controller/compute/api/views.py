"""What the API shows of servers, flavors and keypairs, and in which versions."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from controller.compute.api.links import bookmark, links, micros, seconds
from controller.compute.model import Flavor, Keypair, Server, VmState, host_digest, instance_name
from controller.compute.nets import NOTHING, Shown
from controller.compute.plugs import Plug
from controller.http.fields import Field, render
from controller.http.op import Version


class Card(msgspec.Struct, frozen=True):
    """A server with what its view takes from elsewhere."""

    server: Server
    base_url: str
    shown: Shown = NOTHING
    volumes: list[Plug] = []
    tags: list[str] = []
    user_data: str | None = None
    host_status: str = ""
    groups: list[str] = []
    shows_details: bool = False  # Of a fault, to an admin.
    shows_specs: bool = True


def addresses(shown: Shown, *, extended: bool = True) -> dict[str, list[dict[str, Any]]]:
    """Addresses by the network's name: fixed ones, then the floating ones in front of them."""
    found: dict[str, list[dict[str, Any]]] = {}
    for port in shown.ports:
        mine = found.setdefault(port.network_name, [])
        mine += [_address(one.address, "fixed", port.mac, extended) for one in port.addresses]
    for port in shown.ports:
        for one in port.addresses:
            found[port.network_name] += [_address(text, "floating", port.mac, extended) for text in one.floating]
    return found


def _address(text: str, kind: str, mac: str, extended: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"version": 6 if ":" in text else 4, "addr": text}
    if extended:
        found["OS-EXT-IPS:type"] = kind
        found["OS-EXT-IPS-MAC:mac_addr"] = mac
    return found


def _addresses(card: Card) -> dict[str, Any]:
    """A server that is still being built shows none: they may yet change."""
    return {} if card.server.vm_state == VmState.BUILDING else addresses(card.shown)


def _image(card: Card) -> Any:
    image_id = card.server.image_id
    return "" if image_id is None else {"id": image_id, "links": bookmark(card.base_url, "images", image_id)}


def _flavor_link(card: Card) -> dict[str, Any]:
    flavor_id = card.server.flavor_id
    return {"id": flavor_id, "links": bookmark(card.base_url, "flavors", flavor_id)}


def _flavor(card: Card) -> dict[str, Any]:
    row = card.server
    found: dict[str, Any] = {
        "vcpus": row.vcpus,
        "ram": row.memory_mib,
        "disk": row.disk_gib,
        "ephemeral": row.ephemeral_gib,
        "swap": row.swap_mib,
        "original_name": row.flavor_name,
    }
    if card.shows_specs:
        found["extra_specs"] = row.extra_specs
    return found


def _groups(card: Card) -> list[dict[str, str]]:
    return [{"name": name} for name in card.shown.groups]


def _volume(plug: Plug) -> dict[str, Any]:
    return {"id": plug.volume_id, "delete_on_termination": plug.is_ended_with_server}


_VOLUMES: Final = "os-extended-volumes:volumes_attached"

SERVER: Final = (
    Field("id", "server.id"),
    Field("name", "server.name"),
    Field("status", "server.status"),
    Field("tenant_id", "server.project_id"),
    Field("user_id", "server.user_id"),
    Field("metadata", "server.meta"),
    Field("hostId", lambda card: host_digest(card.server.project_id, card.server.host_name)),
    Field("image", _image),
    Field("flavor", _flavor_link, until=(2, 46)),
    Field("flavor", _flavor, since=(2, 47)),
    Field("created", lambda card: seconds(card.server.created_at)),
    Field("updated", lambda card: seconds(card.server.updated_at)),
    Field("addresses", _addresses),
    Field("accessIPv4", lambda card: card.server.access_ip_v4 or ""),
    Field("accessIPv6", lambda card: card.server.access_ip_v6 or ""),
    Field("links", lambda card: links(card.base_url, "servers", card.server.id)),
    Field("OS-DCF:diskConfig", lambda card: "AUTO" if card.server.is_auto_disk else "MANUAL"),
    Field("OS-EXT-AZ:availability_zone", lambda card: card.server.availability_zone or ""),
    Field("config_drive", lambda card: "True" if card.server.config_drive else ""),
    Field("key_name", "server.key_name"),
    Field("OS-SRV-USG:launched_at", lambda card: micros(card.server.launched_at)),
    Field("OS-SRV-USG:terminated_at", lambda card: micros(card.server.terminated_at)),
    Field("OS-EXT-STS:task_state", "server.task_state"),
    Field("OS-EXT-STS:vm_state", "server.vm_state"),
    Field("OS-EXT-STS:power_state", "server.power_state"),
    Field(_VOLUMES, lambda card: [{"id": plug.volume_id} for plug in card.volumes], until=(2, 2)),
    Field(_VOLUMES, lambda card: [_volume(plug) for plug in card.volumes], since=(2, 3)),
    Field("locked", lambda card: card.server.locked_by is not None, since=(2, 9)),
    Field("description", "server.description", since=(2, 19)),
    Field("tags", "tags", since=(2, 26)),
    Field("trusted_image_certificates", lambda card: None, since=(2, 63)),
    Field("locked_reason", "server.locked_reason", since=(2, 73)),
)

SERVER_ALONE: Final = (*SERVER, Field("server_groups", "groups", since=(2, 71)))
"""GET and PUT of one server; lists do not show its groups."""

_PREFIX: Final = "OS-EXT-SRV-ATTR:"

SERVER_ADMIN: Final = (
    Field(_PREFIX + "host", "server.host_name"),
    Field(_PREFIX + "instance_name", lambda card: instance_name(card.server.id)),
    Field(_PREFIX + "hypervisor_hostname", "server.host_name"),
    Field(_PREFIX + "hostname", "server.hostname", since=(2, 3)),
    Field(_PREFIX + "kernel_id", lambda card: "", since=(2, 3)),
    Field(_PREFIX + "ramdisk_id", lambda card: "", since=(2, 3)),
    Field(_PREFIX + "launch_index", "server.launch_index", since=(2, 3)),
    Field(_PREFIX + "reservation_id", "server.reservation_id", since=(2, 3)),
    Field(_PREFIX + "root_device_name", lambda card: "/dev/vda", since=(2, 3)),
    Field(_PREFIX + "user_data", "user_data", since=(2, 3)),
    Field("host_status", "host_status", since=(2, 16)),
)

_SHORT: Final = frozenset(
    {
        "accessIPv4", "accessIPv6", "addresses", "created", "description", "fault", "flavor", "hostId", "id", "image",
        "links", "locked", "locked_reason", "metadata", "name", "OS-DCF:diskConfig", "progress", "server_groups",
        "status", "tags", "tenant_id", "trusted_image_certificates", "updated", "user_id",
    }
)  # fmt: skip
"""What PUT answers before 2.75."""

_WITH_PROGRESS: Final = frozenset({"ACTIVE", "BUILD"})
_WITH_FAULT: Final = frozenset({"ERROR", "DELETED"})


def server(card: Card, version: Version, *, is_admin: bool, is_alone: bool) -> dict[str, Any]:
    """A whole server."""
    found = render(SERVER_ALONE if is_alone else SERVER, card, version)
    status = found["status"]
    if card.shown.groups:
        found["security_groups"] = _groups(card)
    if status in _WITH_PROGRESS:
        found["progress"] = card.server.progress
    if status in _WITH_FAULT and card.server.fault_code is not None:
        found["fault"] = _fault(card)
    if is_admin:
        found.update(render(SERVER_ADMIN, card, version))
    return found


def updated_server(card: Card, version: Version, *, is_admin: bool) -> dict[str, Any]:
    """What PUT answers: all of it from 2.75 on, before that without the extensions."""
    found = server(card, version, is_admin=is_admin, is_alone=True)
    if version >= (2, 75):
        return found
    short = {key: value for key, value in found.items() if key in _SHORT}
    if card.server.vm_state != VmState.BUILDING:
        short["addresses"] = addresses(card.shown, extended=False)
    return short


def _fault(card: Card) -> dict[str, Any]:
    row = card.server
    found: dict[str, Any] = {
        "code": row.fault_code,
        "created": seconds(row.fault_at),
        "message": row.fault_message,
    }
    if row.fault_details and card.shows_details:
        found["details"] = row.fault_details
    return found


def server_name(row: Any, base_url: str) -> dict[str, Any]:
    """One line of a list of names. `row` has id and name."""
    return {"id": row.id, "name": row.name, "links": links(base_url, "servers", row.id)}


def created_server(row: Server, base_url: str, groups: list[dict[str, str]]) -> dict[str, Any]:
    """The answer to POST. There is no adminPass: hosts set no passwords, so there is none to tell."""
    return {
        "id": row.id,
        "links": links(base_url, "servers", row.id),
        "OS-DCF:diskConfig": "AUTO" if row.is_auto_disk else "MANUAL",
        "security_groups": groups,
    }


class FlavorCard(msgspec.Struct, frozen=True):
    """A flavor and where it is shown."""

    flavor: Flavor
    base_url: str


FLAVOR_NAME: Final = (
    Field("id", "flavor.id"),
    Field("name", "flavor.name"),
    Field("links", lambda card: links(card.base_url, "flavors", card.flavor.id)),
    Field("description", "flavor.description", since=(2, 55)),
)

FLAVOR: Final = (
    *FLAVOR_NAME,
    Field("ram", "flavor.memory_mib"),
    Field("disk", "flavor.disk_gib"),
    Field("vcpus", "flavor.vcpus"),
    Field("swap", lambda card: card.flavor.swap_mib or "", until=(2, 74)),
    Field("swap", "flavor.swap_mib", since=(2, 75)),
    Field("OS-FLV-EXT-DATA:ephemeral", "flavor.ephemeral_gib"),
    Field("OS-FLV-DISABLED:disabled", "flavor.is_disabled"),
    Field("os-flavor-access:is_public", "flavor.is_public"),
    Field("rxtx_factor", "flavor.rxtx_factor"),
    Field("extra_specs", "flavor.extra_specs", since=(2, 61)),
)


def flavor(row: Flavor, base_url: str, version: Version) -> dict[str, Any]:
    """A whole flavor."""
    return render(FLAVOR, FlavorCard(row, base_url), version)


def flavor_name(row: Flavor, base_url: str, version: Version) -> dict[str, Any]:
    """One line of a list of names."""
    return render(FLAVOR_NAME, FlavorCard(row, base_url), version)


KEYPAIR_LINE: Final = (
    Field("name", "name"),
    Field("public_key", "public_key"),
    Field("fingerprint", "fingerprint"),
    Field("type", "type", since=(2, 2)),
)

KEYPAIR_MADE: Final = (*KEYPAIR_LINE, Field("user_id", "user_id"))

KEYPAIR: Final = (
    *KEYPAIR_MADE,
    Field("id", "id"),
    Field("created_at", lambda key: micros(key.created_at)),
    Field("deleted", lambda key: False),
    Field("deleted_at", lambda key: None),
    Field("updated_at", lambda key: None),
)


def keypair_line(row: Keypair, version: Version) -> dict[str, Any]:
    """One line of a list, in the envelope that Nova puts around each."""
    return {"keypair": render(KEYPAIR_LINE, row, version)}


def host_statuses(hosts: Any) -> Mapping[str, str]:
    """Host id → what `host_status` says of its servers: UP, DOWN, or MAINTENANCE when an operator disabled it."""
    return {host.id: _host_status(host) for host in hosts}


def _host_status(host: Any) -> str:
    if host.disabled:
        return "MAINTENANCE"
    return "UP" if host.up and not host.forced_down else "DOWN"
