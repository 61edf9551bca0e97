"""From the body of POST /servers, of whatever version, to what the use-case takes."""

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import msgspec

from controller.compute import texts
from controller.compute.api import block_devices, bodies
from controller.compute.rebuilds import Rebuilt
from controller.compute.servers import NewServer, WantedNic
from controller.errors import Invalid, OverQuota
from controller.http.op import Call

HINTS_BYTES_MAX: Final = 16384
"""Scheduler hints are kept with the server."""

NICS_MAX: Final = 32
"""Interfaces of one server. A machine has few more slots, and each is looked up while others wait to write."""


def new_server(call: Call) -> NewServer:
    """The request, checked as far as that needs nothing but itself. Raises Invalid, Forbidden, OverQuota."""
    body = call.body
    row = body.server
    name = texts.name(row.name)
    hints = body.hints or body.older_hints
    zone, host, is_forced = _place(call, row)
    _refuse_what_is_not_offered(row)
    image_id, devices = block_devices.wanted(row, may_share=call.version >= (2, 60))
    min_count = texts.number(row.min_count, "min_count", 1) if row.min_count is not None else 1
    max_count = texts.number(row.max_count, "max_count", 1) if row.max_count is not None else min_count
    return NewServer(
        name=name,
        description=texts.description(getattr(row, "description", None)) if call.version >= (2, 19) else name,
        flavor_id=flavor_id(row.flavor_ref),
        image_id=image_id,
        devices=devices,
        networks=_networks(call, row),
        groups=_groups(row),
        key_name=row.key_name,
        meta=texts.metadata(row.metadata),
        tags=texts.tags(getattr(row, "tags", ())),
        user_data=texts.user_data(row.user_data) if row.user_data else None,
        config_drive=texts.boolean(row.config_drive, "config_drive") if row.config_drive not in (None, "") else False,
        zone=zone,
        host=host,
        is_forced_host=is_forced,
        is_auto_disk=row.disk_config == "AUTO",
        access_ip_v4=texts.address(row.access_ip_v4, "accessIPv4", 4) if row.access_ip_v4 else None,
        access_ip_v6=texts.address(row.access_ip_v6, "accessIPv6", 6) if row.access_ip_v6 else None,
        min_count=min_count,
        max_count=max_count,
        hints=_hints(hints),
        group_id=_group_id(hints),
        different_host=_server_ids(hints, "different_host") or (),
        same_host=_server_ids(hints, "same_host"),
    )


def _refuse_what_is_not_offered(row: Any) -> None:
    """Said plainly, so that nobody waits for what will not come."""
    if getattr(row, "personality", ()):
        raise OverQuota(
            "Personality file limit exceeded",
            why={"quota": {"injected_files": {"limit": 0, "used": 0, "requested": len(row.personality)}}},
        )
    if getattr(row, "trusted_image_certificates", None):
        raise Invalid("Signed images are not supported yet: trusted_image_certificates must be empty.")


def flavor_id(ref: str | int) -> str:
    """An id, or a link that ends in one."""
    found = str(ref).rpartition("/")[2]
    if not found:
        raise Invalid("Invalid input for field/attribute flavorRef.")
    return found


def _networks(call: Call, row: Any) -> Any:
    """`networks` as a tuple, `auto`, `none`, or None for what nothing meant before 2.37."""
    asked = row.networks
    if asked is None or isinstance(asked, str):
        return asked
    if not asked:
        return None
    if len(asked) > NICS_MAX:
        raise Invalid(f"A server has at most {NICS_MAX} interfaces, not {len(asked)}.")
    nics = tuple(_nic(net) for net in asked)
    twice = [port_id for port_id, times in Counter(nic.port_id for nic in nics).items() if port_id and times > 1]
    if twice:
        raise Invalid(f"Port ID '{twice[0]}' was specified twice: you cannot attach a port multiple times.")
    return nics


def _nic(net: bodies.Net) -> WantedNic:
    tag = getattr(net, "tag", None)
    if tag is not None:
        texts.tag(tag)
    if net.port is not None:
        if net.fixed_ip is not None:
            raise Invalid(
                f"Specified Fixed IP '{net.fixed_ip}' cannot be used with port '{net.port}': "
                "the two cannot be specified together."
            )
        return WantedNic(port_id=texts.uuid(net.port, "port"), tag=tag)
    if net.uuid is None:
        raise Invalid("Bad network format: missing 'uuid'")
    if not texts.is_uuid(net.uuid):
        raise Invalid(f"Bad networks format: network uuid is not in proper format ({net.uuid})")
    fixed_ip = None if net.fixed_ip is None else texts.address(net.fixed_ip, "fixed_ip")
    return WantedNic(network_id=texts.uuid(net.uuid, "uuid"), fixed_ip=fixed_ip, tag=tag)


def _groups(row: Any) -> tuple[str, ...] | None:
    if row.security_groups is None:
        return None
    return tuple(dict.fromkeys(group.name for group in row.security_groups if group.name)) or None


def _place(call: Call, row: Any) -> tuple[str | None, str | None, bool]:
    """(zone, host, is the host forced). `zone:host` and `zone:host:node` are an administrator's."""
    zone, host, is_forced = row.availability_zone, None, False
    if zone is not None and ":" in zone:
        call.authorize("os_compute_api:servers:create:forced_host", {"project_id": call.ctx.project_id})
        zone, host = _forced(zone)
        is_forced = True
    named = getattr(row, "host", None) or getattr(row, "hypervisor_hostname", None)
    if named is None:
        return zone or None, host, is_forced
    call.authorize("compute:servers:create:requested_destination", {"project_id": call.ctx.project_id})
    if is_forced:
        raise Invalid(
            "One mechanism with host and/or hypervisor_hostname and another mechanism with zone:host:node "
            "are mutually exclusive."
        )
    if row.host and row.hypervisor_hostname and row.host != row.hypervisor_hostname:
        raise Invalid(f"Compute host {row.host} could not be found.")
    return zone or None, named, False


def _forced(text: str) -> tuple[str | None, str]:
    zone, *names = text.split(":")
    found = {name for name in names if name}
    if len(names) > 2 or len(found) != 1:
        raise Invalid("Unable to parse availability_zone")
    return zone or None, found.pop()


def _hints(hints: dict[str, Any]) -> dict[str, Any]:
    if len(msgspec.json.encode(hints)) > HINTS_BYTES_MAX:
        raise Invalid(f"Invalid input for field/attribute os:scheduler_hints: more than {HINTS_BYTES_MAX} bytes.")
    return hints


def _group_id(hints: dict[str, Any]) -> str | None:
    """The server group that the server is to be in."""
    value = hints.get("group")
    if value is None:
        return None
    if not isinstance(value, str) or not texts.is_uuid(value):
        raise Invalid("Invalid input for field/attribute group: it is the id of a server group.")
    return texts.uuid(value, "group")


def rebuilt(call: Call) -> Rebuilt:
    """What a rebuild asks for. Raises Invalid, OverQuota."""
    row = call.body
    _refuse_what_is_not_offered(row)
    if texts.boolean(row.preserve_ephemeral, "preserve_ephemeral"):
        raise Invalid("There are no ephemeral disks that could be preserved yet.")
    given: dict[str, Any] = {}
    for name, convert in _REBUILD.items():
        value = getattr(row, name, msgspec.UNSET)
        if value is not msgspec.UNSET:
            given[name] = value if value is None else convert(value)
    if (config := row.disk_config) is not msgspec.UNSET:
        given["is_auto_disk"] = config == "AUTO"
    if row.metadata is not msgspec.UNSET:
        given["meta"] = texts.metadata(row.metadata)
    return Rebuilt(image_id=texts.uuid(row.image_ref.rpartition("/")[2], "imageRef"), **given)


_REBUILD: Final[dict[str, Callable[[str], Any]]] = {
    "name": texts.name,
    "description": texts.description,
    "access_ip_v4": lambda value: texts.address(value, "accessIPv4", 4),
    "access_ip_v6": lambda value: texts.address(value, "accessIPv6", 6),
    "key_name": lambda value: value,
    "user_data": texts.user_data,
}


def _server_ids(hints: dict[str, Any], key: str) -> tuple[str, ...] | None:
    """One server id or a list of them; None when the hint is absent."""
    value = hints.get(key)
    if value is None:
        return None
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(one, str) for one in values):
        raise Invalid(f"Invalid input for field/attribute {key}: server ids are strings.")
    return tuple(texts.uuid(one, key) for one in values)
