"""Handlers of /limits and /os-quota-sets: the numbers that requests are charged against.

What the network service keeps (floating IPs, groups) shows in old versions with its limits there. Injected files
do not exist, so their limit is 0.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from controller import quota
from controller.compute import flavor_store, group_store, store, texts
from controller.compute.api import queries
from controller.db.tx import Tx
from controller.errors import Invalid
from controller.http.op import Call, Version
from controller.identity import projects
from controller.network import usage

_OWN: Final = (
    "instances", "cores", "ram", "metadata_items", "key_pairs", "server_groups", "server_group_members",
)  # fmt: skip
_FILES: Final = ("injected_files", "injected_file_content_bytes", "injected_file_path_bytes")
_NETWORK: Final = {
    "floating_ips": "floatingip",
    "security_groups": "security_group",
    "security_group_rules": "security_group_rule",
}

_LIMITS: Final[tuple[tuple[str, str, Version | None], ...]] = (
    # (key, resource, last version)
    ("maxTotalInstances", "instances", None),
    ("maxTotalCores", "cores", None),
    ("maxTotalRAMSize", "ram", None),
    ("maxTotalKeypairs", "key_pairs", None),
    ("maxServerMeta", "metadata_items", None),
    ("maxImageMeta", "metadata_items", (2, 38)),
    ("maxPersonality", "injected_files", (2, 56)),
    ("maxPersonalitySize", "injected_file_content_bytes", (2, 56)),
    ("maxServerGroups", "server_groups", None),
    ("maxServerGroupMembers", "server_group_members", None),
    ("maxTotalFloatingIps", "floating_ips", (2, 35)),
    ("maxSecurityGroups", "security_groups", (2, 35)),
    ("maxSecurityGroupRules", "security_group_rules", (2, 35)),
)

_USED: Final[tuple[tuple[str, str, Version | None], ...]] = (
    ("totalInstancesUsed", "instances", None),
    ("totalCoresUsed", "cores", None),
    ("totalRAMUsed", "ram", None),
    ("totalServerGroupsUsed", "server_groups", None),
    ("totalFloatingIpsUsed", "floating_ips", (2, 35)),
    ("totalSecurityGroupsUsed", "security_groups", (2, 35)),
)


class Numbers(msgspec.Struct, frozen=True):
    """Limits and usage of one project, by Nova's names."""

    limits: dict[str, int]
    used: dict[str, int]


def _numbers(tx: Tx, project_id: str, user_id: str, with_network: bool) -> Numbers:
    limits = {**quota.limits(tx, project_id, "compute"), **dict.fromkeys(_FILES, 0), "fixed_ips": quota.UNLIMITED}
    used = {
        **dict.fromkeys(limits, 0),
        **store.used(tx, project_id),
        **group_store.used(tx, project_id),
        **flavor_store.keypairs_used(tx, user_id),
    }
    if with_network:
        theirs, counted = quota.limits(tx, project_id, "network"), usage.used(tx, project_id)
        limits.update({name: theirs[resource] for name, resource in _NETWORK.items()})
        used.update({name: counted[resource] for name, resource in _NETWORK.items()})
    return Numbers(limits, used)


async def limits(call: Call) -> dict[str, Any]:
    """GET /limits"""
    queries.check_keys(call, ("tenant_id",))
    project_id = call.ctx.project_id or ""
    asked = call.query.get("tenant_id")
    if asked is not None and asked != project_id:
        call.authorize("os_compute_api:limits:other_project", {})
        project_id = asked
    found = await _read(call, project_id)
    absolute = {key: found.limits[name] for key, name, until in _LIMITS if until is None or call.version <= until}
    absolute |= {key: found.used[name] for key, name, until in _USED if until is None or call.version <= until}
    return {"limits": {"rate": [], "absolute": absolute}}


async def _read(call: Call, project_id: str) -> Numbers:
    return await call.cloud.db.read(_numbers, project_id, call.ctx.user_id, call.version <= (2, 35))


def _names(version: Version) -> tuple[str, ...]:
    if version <= (2, 35):
        return (*_OWN, *_FILES, *_NETWORK, "fixed_ips")
    return (*_OWN, *_FILES) if version <= (2, 56) else _OWN


async def show(call: Call) -> dict[str, Any]:
    """GET /os-quota-sets/{project_id}"""
    project_id = await _project(call, "os_compute_api:os-quota-sets:show")
    found = (await _read(call, project_id)).limits
    return {"quota_set": {"id": project_id, **{name: found[name] for name in _names(call.version)}}}


async def detail(call: Call) -> dict[str, Any]:
    """GET /os-quota-sets/{project_id}/detail"""
    project_id = await _project(call, "os_compute_api:os-quota-sets:detail")
    found = await _read(call, project_id)
    shown = {
        name: {"limit": found.limits[name], "in_use": found.used[name], "reserved": 0} for name in _names(call.version)
    }
    return {"quota_set": {"id": project_id, **shown}}


async def defaults(call: Call) -> dict[str, Any]:
    """GET /os-quota-sets/{project_id}/defaults"""
    project_id = call.params["project_id"]
    await _check_project(call, project_id)
    network = {name: quota.DEFAULTS["network"][resource] for name, resource in _NETWORK.items()}
    own = {**quota.DEFAULTS["compute"], **dict.fromkeys(_FILES, 0), "fixed_ips": quota.UNLIMITED, **network}
    return {"quota_set": {"id": project_id, **{name: own[name] for name in _names(call.version)}}}


async def update(call: Call) -> dict[str, Any]:
    """PUT /os-quota-sets/{project_id}"""
    project_id = await _project(call, "os_compute_api:os-quota-sets:update")
    row = call.body.quota_set
    changed = {
        name: texts.number(getattr(row, name), name, quota.UNLIMITED) for name in _OWN if getattr(row, name) is not None
    }
    await call.cloud.db.write(_change, project_id, changed, texts.boolean(row.force, "force"))
    found = (await _read(call, project_id)).limits
    return {"quota_set": {name: found[name] for name in _names(call.version)}}


def _change(tx: Tx, project_id: str, changed: Mapping[str, int], is_forced: bool) -> None:
    used = store.used(tx, project_id)
    for name, limit in changed.items():
        if not is_forced and limit != quota.UNLIMITED and limit < used.get(name, 0):
            raise Invalid(
                f"Quota limit {limit} for {name} must be greater than or equal to already used and "
                f"reserved {used[name]}."
            )
    quota.set_limits(tx, project_id, "compute", changed)


async def reset(call: Call) -> None:
    """DELETE /os-quota-sets/{project_id}"""
    await call.cloud.db.write(quota.reset, call.params["project_id"], "compute")


async def _project(call: Call, rule: str) -> str:
    queries.check_keys(call, ("user_id",))
    project_id = call.params["project_id"]
    call.authorize(rule, {"project_id": project_id})
    await _check_project(call, project_id)
    return project_id


async def _check_project(call: Call, project_id: str) -> None:
    if project_id != call.ctx.project_id and not await call.cloud.db.read(projects.exists, project_id):
        raise Invalid(f"Project ID {project_id} is not a valid project.")
