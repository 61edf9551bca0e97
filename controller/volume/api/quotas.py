"""Handlers of /limits, /os-quota-sets and /os-quota-class-sets: the numbers that requests are charged against."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from controller import quota
from controller.db.tx import Tx
from controller.errors import Invalid, NotFound
from controller.http.filters import boolean
from controller.http.op import Call
from controller.identity import projects
from controller.volume import types
from controller.volume.api import texts
from controller.volume.store import types as type_store
from controller.volume.store import volumes as store
from controller.volume.usage import SERVICE, names

_LIMITS: Final = {
    "maxTotalVolumes": "volumes",
    "maxTotalSnapshots": "snapshots",
    "maxTotalVolumeGigabytes": "gigabytes",
    "maxTotalBackups": "backups",
    "maxTotalBackupGigabytes": "backup_gigabytes",
}
_USED: Final = {
    "totalVolumesUsed": "volumes",
    "totalSnapshotsUsed": "snapshots",
    "totalGigabytesUsed": "gigabytes",
    "totalBackupsUsed": "backups",
    "totalBackupGigabytesUsed": "backup_gigabytes",
}

RESOURCE_MAX: Final = 64
"""Characters of a resource's name: what the column holds."""


class Numbers(msgspec.Struct, frozen=True):
    """Limits and usage of one project."""

    limits: dict[str, int]
    used: dict[str, int]


def _numbers(tx: Tx, project_id: str) -> Numbers:
    return Numbers(types.limits_of(tx, project_id), store.used(tx, project_id))


async def limits(call: Call) -> dict[str, Any]:
    """GET /limits"""
    project_id = call.ctx.project_id or ""
    asked = call.query.get("project_id") or call.query.get("tenant_id")
    if asked and asked != project_id and call.version >= (3, 39):
        call.authorize("limits_extension:other_project", {})
        project_id = asked
    found: Numbers = await call.cloud.db.read(_numbers, project_id)
    absolute = {key: found.limits[name] for key, name in _LIMITS.items()}
    absolute |= {key: found.used.get(name, 0) for key, name in _USED.items()}
    return {"limits": {"rate": [], "absolute": absolute}}


async def show(call: Call) -> dict[str, Any]:
    """GET /os-quota-sets/{project_id}, with `usage` how much of it is used."""
    project_id = call.params["project_id"]
    call.authorize("volume_extension:quotas:show", {"project_id": project_id})
    usage = call.query.get("usage")
    found: Numbers = await call.cloud.db.read(_numbers, project_id)
    shown: Mapping[str, Any] = found.limits
    if usage is not None and boolean("usage", usage):
        shown = {
            name: {"limit": limit, "in_use": found.used.get(name, 0), "reserved": 0}
            for name, limit in found.limits.items()
        }
    return {"quota_set": {"id": project_id, **shown}}


async def defaults(call: Call) -> dict[str, Any]:
    """GET /os-quota-sets/{project_id}/defaults"""
    project_id = call.params["project_id"]
    call.authorize("volume_extension:quotas:show", {"project_id": project_id})
    return {"quota_set": {"id": project_id, **await _defaults(call)}}


async def _defaults(call: Call) -> dict[str, int]:
    known = await call.cloud.db.read(type_store.names)
    return {name: quota.DEFAULTS[SERVICE].get(name, quota.UNLIMITED) for name in names(sorted(known.values()))}


async def classes(call: Call) -> dict[str, Any]:
    """GET /os-quota-class-sets/{class_name}: there is one class, and its limits are settled."""
    if call.params["class_name"] != "default":
        raise NotFound(f"Quota class {call.params['class_name']} could not be found.")
    return {"quota_class_set": {"id": "default", **await _defaults(call)}}


async def update(call: Call) -> dict[str, Any]:
    """PUT /os-quota-sets/{project_id}"""
    project_id = call.params["project_id"]
    if not await call.cloud.db.read(projects.exists, project_id):
        raise Invalid(f"Project ID {project_id} is not a valid project.")
    wanted = {name: limit for name, limit in call.body.quota_set.items() if name != "tenant_id" and limit is not None}
    known = await _defaults(call)
    wrong = sorted(name for name in wanted if name not in known)
    if wrong:
        raise Invalid(f"Bad key(s) in quota set: {', '.join(wrong)}")
    if any(len(name) > RESOURCE_MAX for name in wanted):
        raise Invalid(f"A resource whose name has more than {RESOURCE_MAX} characters cannot be limited.")
    changed = {name: texts.number(limit, name, quota.UNLIMITED) for name, limit in wanted.items()}
    await call.cloud.db.write(quota.set_limits, project_id, SERVICE, changed)
    found: Numbers = await call.cloud.db.read(_numbers, project_id)
    return {"quota_set": found.limits}


async def reset(call: Call) -> None:
    """DELETE /os-quota-sets/{project_id}"""
    await call.cloud.db.write(quota.reset, call.params["project_id"], SERVICE)
