"""Handlers of /os-hypervisors: hosts as rows, with what is promised of them."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from controller.compute import store, texts
from controller.compute.api import fleet_ids, links, queries
from controller.compute.api.fleet_ids import hypervisor_number, hypervisor_uuid
from controller.db.tx import Tx
from controller.errors import Invalid, NotFound
from controller.fleet import store as fleet
from controller.fleet.model import Host
from controller.http.op import Call
from controller.http.paging import Page
from controller.schedule import claim
from controller.schedule.model import Room

BY_UUID: Final = (2, 53)


class Hypervisor(msgspec.Struct, frozen=True):
    """One host with its usage. `servers` None: not asked for."""

    host: Host
    room: Room
    servers: list[tuple[str, str]] | None = None


def _read(tx: Tx, with_servers: bool) -> list[Hypervisor]:
    hosts = fleet.list_hosts(tx)
    rooms = {room.host_id: room for room in claim.snapshot(tx)}
    held = store.of_host(tx, [host.id for host in hosts]) if with_servers and hosts else {}
    return [Hypervisor(host, rooms[host.id], held.get(host.id) if with_servers else None) for host in hosts]


async def index(call: Call) -> dict[str, Any]:
    """GET /os-hypervisors"""
    return await _listed(call, is_detailed=False)


async def detail(call: Call) -> dict[str, Any]:
    """GET /os-hypervisors/detail"""
    return await _listed(call, is_detailed=True)


async def _listed(call: Call, *, is_detailed: bool) -> dict[str, Any]:
    queries.check_keys(call, ("limit", "marker", "hypervisor_hostname_pattern", "with_servers"), BY_UUID)
    pattern = call.query.get("hypervisor_hostname_pattern") if call.version >= BY_UUID else None
    found = await call.cloud.db.read(_read, _with_servers(call))
    if pattern is not None:
        if "limit" in call.query or "marker" in call.query:
            raise Invalid(
                "Paging over hypervisors with the hypervisor_hostname_pattern query parameter is not supported."
            )
        return {"hypervisors": [_view(call, one, is_detailed) for one in _matching(found, pattern)]}
    if call.version < (2, 33):
        return {"hypervisors": [_view(call, one, is_detailed) for one in found]}
    page = queries.page_of(call)
    found = _page(call, found, page)
    last = str(_id(call, found[-1])) if found else None
    shown = [_view(call, one, is_detailed) for one in found]
    return {"hypervisors": shown, **links.next_page(call, "hypervisors", last, len(found), page)}


def _with_servers(call: Call) -> bool:
    value = call.query.get("with_servers") if call.version >= BY_UUID else None
    return value is not None and texts.boolean(value, "with_servers")


def _matching(found: Sequence[Hypervisor], pattern: str) -> list[Hypervisor]:
    """Hosts whose name has the text in it. Raises NotFound when there is none."""
    hits = [one for one in found if pattern.lower() in one.host.hostname.lower()]
    if not hits:
        raise NotFound(f"No hypervisor matching '{pattern}' could be found.")
    return hits


def _page(call: Call, found: list[Hypervisor], page: Page) -> list[Hypervisor]:
    start = 0
    if page.marker is not None:
        ids = [str(_id(call, one)) for one in found]
        if page.marker not in ids:
            raise Invalid(f"marker [{page.marker}] not found")
        start = ids.index(page.marker) + 1
    return found[start : start + page.limit]


async def show(call: Call) -> dict[str, Any]:
    """GET /os-hypervisors/{hypervisor_id}"""
    queries.check_keys(call, ("with_servers",), BY_UUID)
    return {"hypervisor": _view(call, await _one(call), is_detailed=True)}


async def _one(call: Call) -> Hypervisor:
    wanted = call.params["hypervisor_id"]
    if call.version >= BY_UUID and not texts.is_uuid(wanted):
        raise Invalid(f"Invalid uuid {wanted}")
    found = await call.cloud.db.read(_read, _with_servers(call))
    one = next((one for one in found if str(_id(call, one)) == wanted.lower()), None)
    if one is None:
        raise NotFound(f"Hypervisor with ID '{wanted}' could not be found.")
    return one


async def uptime(call: Call) -> dict[str, Any]:
    """GET /os-hypervisors/{hypervisor_id}/uptime: what its heartbeat tells of what `uptime` would print.

    Of a host that is not heard it is empty, as from 2.88 on in Nova; a refusal makes clients show nothing at all.
    """
    one = await _one(call)
    heartbeat = call.cloud.hosts.heartbeat(one.host.id) if one.room.is_up else None
    text = "" if heartbeat is None else f" load average: {heartbeat.load_1:.2f}"
    return {"hypervisor": {**_view(call, one, is_detailed=False), "uptime": text}}


async def search(call: Call) -> dict[str, Any]:
    """GET /os-hypervisors/{pattern}/search, until 2.52"""
    found = _matching(await call.cloud.db.read(_read, False), call.params["hypervisor_id"])
    return {"hypervisors": [_view(call, one, is_detailed=False) for one in found]}


async def servers(call: Call) -> dict[str, Any]:
    """GET /os-hypervisors/{pattern}/servers, until 2.52"""
    found = _matching(await call.cloud.db.read(_read, True), call.params["hypervisor_id"])
    return {"hypervisors": [_view(call, one, is_detailed=False) for one in found]}


async def statistics(call: Call) -> dict[str, Any]:
    """GET /os-hypervisors/statistics: the sums over hosts that are not disabled."""
    found = [one for one in await call.cloud.db.read(_read, False) if not one.host.disabled]
    sums: dict[str, int] = {"count": len(found)}
    for one in found:
        for key, value in _usage(one).items():
            sums[key] = sums.get(key, 0) + value
    return {"hypervisor_statistics": {key: sums.get(key, 0) for key in ("count", *_USAGE_KEYS)}}


def _id(call: Call, one: Hypervisor) -> str | int:
    return hypervisor_uuid(one.host.id) if call.version >= BY_UUID else hypervisor_number(one.host.id)


def _view(call: Call, one: Hypervisor, is_detailed: bool) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": _id(call, one),
        "hypervisor_hostname": one.host.hostname,
        "state": "up" if one.room.is_up else "down",
        "status": "disabled" if one.host.disabled else "enabled",
    }
    if is_detailed:
        found.update(_details(call, one))
    if one.servers or (one.servers is not None and call.version >= (2, 75)):
        found["servers"] = [{"uuid": server_id, "name": name} for server_id, name in one.servers]
    return found


def _details(call: Call, one: Hypervisor) -> dict[str, Any]:
    host = one.host
    by_uuid = call.version >= BY_UUID
    identify = fleet_ids.service_uuid if by_uuid else fleet_ids.service_number
    cpu = {"arch": host.cpu_arch, "model": host.cpu_model}
    return {
        "hypervisor_type": "QEMU",  # As Nova names what libvirt drives, with KVM or without.
        "hypervisor_version": host.hypervisor_version,
        "host_ip": host.underlay_address,
        "service": {
            "id": identify("nova-compute", host.id),
            "host": host.hostname,
            "disabled_reason": host.disabled_reason or None,
        },
        "cpu_info": cpu if call.version >= (2, 28) else msgspec.json.encode(cpu).decode(),
        **_usage(one),
    }


_USAGE_KEYS: Final = (
    "vcpus", "memory_mb", "local_gb", "vcpus_used", "memory_mb_used", "local_gb_used", "free_ram_mb", "free_disk_gb",
    "current_workload", "running_vms", "disk_available_least",
)  # fmt: skip


def _usage(one: Hypervisor) -> dict[str, int]:
    total, used = one.room.total, one.room.used
    values = (
        total.vcpus,
        total.memory_mib,
        total.disk_gib,
        used.vcpus,
        used.memory_mib,
        used.disk_gib,
        total.memory_mib - used.memory_mib,
        total.disk_gib - used.disk_gib,
        0,
        one.room.servers,
        total.disk_gib - used.disk_gib,
    )
    return dict(zip(_USAGE_KEYS, values, strict=True))
