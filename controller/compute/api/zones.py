"""Handlers of /os-availability-zone and /os-aggregates. There is one zone, and hosts are in no aggregate."""

from typing import Any

from controller.compute.api import queries, services
from controller.compute.api.links import micros
from controller.http.op import Call


async def index(call: Call) -> dict[str, Any]:
    """GET /os-availability-zone: zones that have a host, without saying which."""
    queries.check_keys(call, (), (2, 102))
    zones = _by_zone(await services.listed(call))
    shown = [
        {"zoneName": zone, "zoneState": {"available": _is_available(found)}, "hosts": None}
        for zone, found in zones.items()
        if zone != services.INTERNAL_ZONE
    ]
    return {"availabilityZoneInfo": shown}


async def detail(call: Call) -> dict[str, Any]:
    """GET /os-availability-zone/detail: with hosts and services."""
    shown = []
    for zone, found in _by_zone(await services.listed(call)).items():
        is_available = _is_available(found)
        hosts: dict[str, dict[str, Any]] = {}
        for one in found:
            if not one.is_disabled:
                hosts.setdefault(one.host, {})[one.binary] = _service(one)
        shown.append(
            {
                "zoneName": zone,
                "zoneState": {"available": is_available},
                "hosts": hosts if is_available else None,
            }
        )
    return {"availabilityZoneInfo": shown}


async def aggregates(call: Call) -> dict[str, Any]:
    """GET /os-aggregates: none can be made, so there is none. Clients ask for it when they show a hypervisor."""
    return {"aggregates": []}


def _service(one: services.Service) -> dict[str, Any]:
    return {"active": not one.is_disabled, "available": one.is_up, "updated_at": micros(one.updated_at)}


def _by_zone(found: list[services.Service]) -> dict[str, list[services.Service]]:
    zones: dict[str, list[services.Service]] = {}
    for one in found:
        zones.setdefault(one.zone, []).append(one)
    return zones


def _is_available(found: list[services.Service]) -> bool:
    """As Nova counts: a zone is there while any of its services is enabled, up or not."""
    return any(not one.is_disabled for one in found)
