"""Handlers of /os-services: what works where, and whether it is up.

Hosts are `nova-compute`, up or down by their heartbeats. The controller that answers is `nova-scheduler` and
`nova-conductor` in one, and as it answers, it is up.
"""

import socket
from typing import Any, Final

import msgspec

from controller.compute import texts
from controller.compute.api import fleet_ids, queries
from controller.compute.api.links import micros
from controller.errors import Invalid, NotFound
from controller.fleet import store as fleet
from controller.fleet.model import Host
from controller.http.op import Call
from controller.schedule.model import DEFAULT_ZONE

BY_UUID: Final = (2, 53)
COMPUTE: Final = "nova-compute"
CONTROLLER_BINARIES: Final = ("nova-scheduler", "nova-conductor")
INTERNAL_ZONE: Final = "internal"


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the list. `key` is what its ids follow from."""

    binary: str
    host: str
    key: str
    zone: str
    is_up: bool
    updated_at: float | None
    is_disabled: bool = False
    disabled_reason: str | None = None
    forced_down: bool = False
    host_id: str | None = None


async def listed(call: Call) -> list[Service]:
    """Every service."""
    hosts = await call.cloud.db.read(fleet.list_hosts)
    now, name = call.cloud.world.clock.now(), controller_name()
    own = [
        Service(binary=binary, host=name, key=name, zone=INTERNAL_ZONE, is_up=True, updated_at=now)
        for binary in CONTROLLER_BINARIES
    ]
    return [*own, *(_compute(call, host, now) for host in hosts)]


def controller_name() -> str:
    """What this machine is called."""
    return socket.gethostname()


def _compute(call: Call, host: Host, now: float) -> Service:
    is_up = host.up and not host.forced_down
    return Service(
        binary=COMPUTE,
        host=host.hostname,
        key=host.id,
        zone=DEFAULT_ZONE,
        is_up=is_up,
        # While a host is up its heartbeats are seconds old; they are kept in memory, transitions in its row.
        updated_at=now if is_up else host.seen_at,
        is_disabled=host.disabled,
        disabled_reason=host.disabled_reason or None,
        forced_down=host.forced_down,
        host_id=host.id,
    )


async def index(call: Call) -> dict[str, Any]:
    """GET /os-services"""
    queries.check_keys(call, ("host", "binary"))
    found = await listed(call)
    for key in ("host", "binary"):
        wanted = call.query.get(key)
        if wanted:
            found = [one for one in found if getattr(one, key) == wanted]
    return {"services": [_view(call, one) for one in found]}


def _view(call: Call, one: Service) -> dict[str, Any]:
    identify: Any = fleet_ids.service_uuid if call.version >= BY_UUID else fleet_ids.service_number
    found = {
        "id": identify(one.binary, one.key),
        "binary": one.binary,
        "host": one.host,
        "zone": one.zone,
        "status": "disabled" if one.is_disabled else "enabled",
        "state": "up" if one.is_up else "down",
        "updated_at": micros(one.updated_at),
        "disabled_reason": one.disabled_reason,
    }
    if call.version >= (2, 11):
        found["forced_down"] = one.forced_down
    return found


# Until 2.52: PUT /os-services/{enable,disable,disable-log-reason,force-down}.


async def act(call: Call) -> dict[str, Any]:
    """One of four actions, named in the path."""
    action, body = call.params["service_id"], call.body
    if action not in ("enable", "disable", "disable-log-reason", "force-down") or (
        action == "force-down" and call.version < (2, 11)
    ):
        raise NotFound("Unknown action")
    host_id = await _host_id(call, body.host, body.binary)
    shown: dict[str, Any] = {"host": body.host, "binary": body.binary}
    if action == "force-down":
        if body.forced_down is None:
            raise Invalid("Missing forced_down field")
        shown["forced_down"] = texts.boolean(body.forced_down, "forced_down")
        await _force(call, host_id, shown["forced_down"])
        return {"service": shown}
    if action == "disable-log-reason" and body.disabled_reason is None:
        raise Invalid("Missing disabled reason field")
    reason = body.disabled_reason if action == "disable-log-reason" else ""
    await _disable(call, host_id, action != "enable", reason)
    shown["status"] = "enabled" if action == "enable" else "disabled"
    return {"service": {**shown, "disabled_reason": reason} if reason else shown}


async def _host_id(call: Call, host: str, binary: str) -> str:
    if binary != COMPUTE:
        raise Invalid(f"Updating a {binary} service is not supported. Only nova-compute services can be updated.")
    for one in await listed(call):
        if one.host == host and one.host_id is not None:
            return one.host_id
    raise NotFound(f"Could not find binary {binary} on host {host}.")


# From 2.53: PUT /os-services/{uuid}.


async def update(call: Call) -> dict[str, Any]:
    """Enable, disable, force down, or several of these."""
    one, body = await _one(call), call.body
    if body.status is None and body.forced_down is None:
        raise Invalid("No updates were requested. Fields 'status' or 'forced_down' should be specified.")
    if body.status == "enabled" and body.disabled_reason:
        raise Invalid("Specifying 'disabled_reason' with status 'enabled' is invalid.")
    if one.host_id is None:
        raise Invalid(f"Updating a {one.binary} service is not supported. Only nova-compute services can be updated.")
    if body.status is not None:
        await _disable(call, one.host_id, body.status == "disabled", body.disabled_reason or "")
    if body.forced_down is not None:
        await _force(call, one.host_id, texts.boolean(body.forced_down, "forced_down"))
    return {"service": _view(call, await _one(call))}


async def _one(call: Call) -> Service:
    wanted = call.params["service_id"]
    if not texts.is_uuid(wanted):
        raise Invalid(f"Invalid uuid {wanted}")
    for one in await listed(call):
        if fleet_ids.service_uuid(one.binary, one.key) == wanted.lower():
            return one
    raise NotFound(f"Service {wanted} could not be found.")


async def _disable(call: Call, host_id: str, disabled: bool, reason: str) -> None:
    await call.cloud.db.write(fleet.set_disabled, host_id, disabled, reason, call.cloud.world.clock.now())


async def _force(call: Call, host_id: str, forced_down: bool) -> None:
    await call.cloud.db.write(fleet.set_forced_down, host_id, forced_down, call.cloud.world.clock.now())
