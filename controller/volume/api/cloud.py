"""Handlers of what the cloud is made of: pools, services, zones, what backends can, which filters there are."""

import socket
from collections.abc import Mapping
from typing import Any, Final

from controller.errors import NotFound
from controller.fleet import store as fleet
from controller.fleet.model import Host
from controller.http.filters import boolean
from controller.http.op import Call
from controller.schedule.model import DEFAULT_ZONE
from controller.volume import pools
from controller.volume.api import queries
from controller.volume.api.links import micros
from controller.volume.pools import Room

VERSION: Final = "1.0"

SCHEDULER: Final = "cinder-scheduler"
VOLUME: Final = "cinder-volume"


async def _rooms(call: Call) -> list[Room]:
    return await call.cloud.db.read(pools.rooms, pools.free_now(call.cloud))


async def get_pools(call: Call) -> dict[str, Any]:
    """GET /scheduler-stats/get_pools"""
    detail = call.query.get("detail")
    whole = detail is not None and boolean("detail", detail)
    found = await _rooms(call)
    if call.version >= (3, 28) and call.query.get("name"):
        found = [room for room in found if room.name == call.query.get("name")]
    return {"pools": [_pool(call, room) if whole else {"name": room.name} for room in found]}


def _pool(call: Call, room: Room) -> dict[str, Any]:
    limits = call.cloud.settings.volume
    capabilities = {
        "pool_name": room.pool.name,
        "volume_backend_name": room.pool.name,
        "storage_protocol": pools.PROTOCOL,
        "vendor_name": pools.VENDOR,
        "driver_version": VERSION,
        "total_capacity_gb": room.pool.total_gib,
        "free_capacity_gb": room.free_gib if room.free_gib is not None else "unknown",
        "allocated_capacity_gb": room.promised_gib,
        "provisioned_capacity_gb": room.promised_gib,
        "reserved_percentage": limits.reserved_percentage,
        "max_over_subscription_ratio": str(limits.over_subscription if room.pool.is_thin else 1.0),
        "thin_provisioning_support": room.pool.is_thin,
        "thick_provisioning_support": not room.pool.is_thin,
        "multiattach": True,
        "QoS_support": False,
        "online_extend_support": True,
        "total_volumes": room.volumes,
        "backend_state": "up" if room.host.up and not room.host.forced_down else "down",
        "timestamp": micros(call.cloud.world.clock.now()),
        "location_info": room.pool.driver,
    }
    return {"name": room.name, "capabilities": capabilities}


async def services(call: Call) -> dict[str, Any]:
    """GET /os-services: this controller schedules; every host with a pool is a cinder-volume."""
    now = call.cloud.world.clock.now()
    found = [_service(call, SCHEDULER, socket.gethostname(), None, now)]
    found += [_service(call, VOLUME, room.backend, room.host, now) for room in await _rooms(call)]
    binary, host = call.query.get("binary"), call.query.get("host")
    if binary:
        found = [one for one in found if one["binary"] == binary]
    if host:  # A host's name is for all its backends.
        found = [one for one in found if host in (one["host"], one["host"].partition("@")[0])]
    return {"services": found}


def _service(call: Call, binary: str, name: str, host: Host | None, now: float) -> dict[str, Any]:
    is_up = host is None or (host.up and not host.forced_down)
    is_disabled = host is not None and host.disabled
    found: dict[str, Any] = {
        "binary": binary,
        "host": name,
        "zone": DEFAULT_ZONE,
        "status": "disabled" if is_disabled else "enabled",
        "state": "up" if is_up else "down",
        "updated_at": micros(now if is_up or host is None else host.seen_at),
        "disabled_reason": (host.disabled_reason or None) if host is not None else None,
    }
    if host is not None:
        found |= {"replication_status": "disabled", "active_backend_id": None, "frozen": False}
    if call.version >= (3, 7):
        found["cluster"] = None
    if call.version >= (3, 49) and host is not None:
        found["backend_state"] = "up" if is_up else "down"
    return found


async def zones(call: Call) -> dict[str, Any]:
    """GET /os-availability-zone"""
    hosts = await call.cloud.db.read(fleet.list_hosts)
    available = any(host.up and not host.disabled for host in hosts)
    return {"availabilityZoneInfo": [{"zoneName": DEFAULT_ZONE, "zoneState": {"available": available}}]}


async def capabilities(call: Call) -> dict[str, Any]:
    """GET /capabilities/{host}: what a backend can; `host` is `hostname@backend`, or with `#pool` behind."""
    wanted = call.params["host"]
    for room in await _rooms(call):
        if wanted in (room.name, room.backend, room.host.hostname):
            return {
                "namespace": f"OS::Storage::Capabilities::{room.backend}",
                "vendor_name": pools.VENDOR,
                "volume_backend_name": room.pool.name,
                "pool_name": room.pool.name,
                "driver_version": VERSION,
                "storage_protocol": pools.PROTOCOL,
                "display_name": f"{room.pool.driver} on {room.host.hostname}",
                "description": "Volumes on a host, exported over iSCSI, each attachment with an account of its own.",
                "visibility": "public",
                "replication_targets": [],
                "properties": _properties(room),
            }
    raise NotFound(f"Host {wanted} could not be found.")


def _properties(room: Room) -> Mapping[str, Any]:
    return {
        "thin_provisioning": {
            "title": "Thin Provisioning",
            "description": "Sets thin provisioning.",
            "type": "boolean",
            "default": room.pool.is_thin,
        }
    }


async def resource_filters(call: Call) -> dict[str, Any]:
    """GET /resource_filters (3.33)"""
    every = {
        "volume": queries.known(queries.VOLUMES),
        "snapshot": queries.known(queries.SNAPSHOTS),
        "attachment": queries.known(queries.ATTACHMENTS),
        "message": queries.known(queries.MESSAGES),
    }
    wanted = call.query.get("resource")
    return {
        "resource_filters": [
            {"resource": name, "filters": list(filters)} for name, filters in every.items() if wanted in (None, name)
        ]
    }


_EXTENSIONS: Final = (
    ("os-availability-zone", "AvailabilityZones", "Zones."),
    ("os-extended-snapshot-attributes", "ExtendedSnapshotAttributes", "Project and progress of snapshots."),
    ("os-quota-class-sets", "QuotaClasses", "The default limits."),
    ("os-quota-sets", "Quotas", "Limits of projects."),
    ("os-services", "Services", "Services of the cloud."),
    ("os-types-extra-specs", "TypesExtraSpecs", "Extra specs of types."),
    ("os-types-manage", "TypesManage", "Managing types."),
    ("os-used-limits", "UsedLimits", "What is used of limits."),
    ("os-vol-host-attr", "VolumeHostAttribute", "Where volumes are, for admins."),
    ("os-vol-image-meta", "VolumeImageMetadata", "What is told of the image that a volume began as."),
    ("os-vol-tenant-attr", "VolumeTenantAttribute", "Whose volumes are."),
    ("os-volume-actions", "VolumeActions", "Acts on volumes."),
    ("os-volume-type-access", "VolumeTypeAccess", "Who may use private types."),
    ("scheduler-stats", "Scheduler_stats", "Pools."),
)


async def extensions(call: Call) -> dict[str, Any]:
    """GET /extensions: exactly what works."""
    return {
        "extensions": [
            {"alias": alias, "name": name, "description": what, "updated": "2026-11-22T00:00:00+00:00", "links": []}
            for alias, name, what in _EXTENSIONS
        ]
    }
