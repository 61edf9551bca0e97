"""Handlers of /flavors, their extra specs, and who may use private ones."""

import re
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from controller.compute import flavor_store as store
from controller.compute import texts
from controller.compute.api import links, queries, views
from controller.compute.model import Flavor
from controller.context import Context
from controller.db.tables.compute import flavor
from controller.db.tx import Tx
from controller.errors import Conflict, Invalid, NotFound
from controller.http import filters
from controller.http.op import Call
from controller.http.paging import Page
from controller.identity import projects

_ID: Final = re.compile(r"(?! )[a-zA-Z0-9. _-]{1,255}(?<! )")
_SPEC_KEY: Final = re.compile(r"[a-zA-Z0-9-_:. ]{1,255}")
_DESCRIPTION_MAX: Final = 65535
_SPECS_MAX: Final = 128
"""Extra specs of one flavor. Every server that uses it keeps a copy."""

_SORTABLE: Final = {
    "created_at": "created_at",
    "description": "description",
    "disabled": "is_disabled",
    "ephemeral_gb": "ephemeral_gib",
    "flavorid": "id",
    "id": "created_at",  # Nova's own number, which rises with every flavor.
    "is_public": "is_public",
    "memory_mb": "memory_mib",
    "name": "name",
    "root_gb": "disk_gib",
    "rxtx_factor": "rxtx_factor",
    "swap": "swap_mib",
    "updated_at": "updated_at",
    "vcpu_weight": "created_at",
    "vcpus": "vcpus",
}

_KEYS: Final = ("limit", "marker", "is_public", "minRam", "minDisk", "sort_key", "sort_dir")


async def index(call: Call) -> dict[str, Any]:
    """GET /flavors"""
    rows, page = await _listed(call)
    lines = [views.flavor_name(row, call.base_url, call.version) for row in rows]
    return {"flavors": lines, **links.next_page(call, "flavors", links.last_id(rows), len(rows), page)}


async def detail(call: Call) -> dict[str, Any]:
    """GET /flavors/detail"""
    rows, page = await _listed(call)
    lines = [views.flavor(row, call.base_url, call.version) for row in rows]
    return {"flavors": lines, **links.next_page(call, "flavors", links.last_id(rows), len(rows), page)}


async def _listed(call: Call) -> tuple[list[Flavor], Page]:
    queries.check_keys(call, _KEYS)
    page = queries.page_of(call, _sort(call))
    where: list[sa.ColumnElement[bool]] = []
    for key, column in (("minRam", flavor.c.memory_mib), ("minDisk", flavor.c.disk_gib)):
        value = call.query.get(key)
        if value is not None:
            where.append(column >= _least(key, value))
    is_public: bool | None = True
    if call.ctx.is_admin:
        is_public = _is_public(call.query.get("is_public"))
    else:
        where.append(store.ENABLED)
    rows = await call.cloud.db.read(store.list_flavors, call.ctx, page, where, is_public)
    return rows, page


def _sort(call: Call) -> tuple[tuple[str, bool], ...]:
    key, direction = call.query.get("sort_key") or "flavorid", call.query.get("sort_dir") or "asc"
    if key not in _SORTABLE:
        raise Invalid(f"Invalid input for query parameters sort_key. Value: {key}. '{key}' is not one of the keys.")
    if direction not in ("asc", "desc"):
        raise Invalid(f"Invalid input for query parameters sort_dir. Value: {direction}.")
    return ((_SORTABLE[key], direction == "desc"),)


def _least(key: str, value: str) -> int:
    try:
        return filters.integer(key, value)
    except Invalid as error:
        raise Invalid(f"Invalid {key} filter [{value}]") from error


def _is_public(value: str | None) -> bool | None:
    """None: public and private ones."""
    if value is None:
        return True
    if value.lower() == "none":
        return None
    try:
        return filters.boolean("is_public", value)
    except Invalid as error:
        raise Invalid(f"Invalid is_public filter [{value}]") from error


async def show(call: Call) -> dict[str, Any]:
    """GET /flavors/{flavor_id}"""
    return {"flavor": views.flavor(await _flavor(call), call.base_url, call.version)}


async def _flavor(call: Call) -> Flavor:
    return await call.cloud.db.read(store.get_flavor, call.ctx, call.params["flavor_id"])


async def create(call: Call) -> dict[str, Any]:
    """POST /flavors"""
    new = _new(call)
    await call.cloud.db.write(store.insert_flavor, new)
    return {"flavor": views.flavor(new, call.base_url, call.version)}


def _new(call: Call) -> Flavor:
    row = call.body.flavor
    flavor_id = call.cloud.world.entropy.uuid() if row.id is None else str(row.id)
    if not _ID.fullmatch(flavor_id):
        raise Invalid(f"Invalid input for field/attribute id. Value: {flavor_id}.")
    return Flavor(
        id=flavor_id,
        name=texts.name(row.name),
        vcpus=texts.number(row.vcpus, "vcpus", 1),
        memory_mib=texts.number(row.ram, "ram", 1),
        disk_gib=texts.number(row.disk, "disk", 0),
        ephemeral_gib=texts.number(row.ephemeral, "OS-FLV-EXT-DATA:ephemeral", 0),
        swap_mib=texts.number(row.swap, "swap", 0),
        rxtx_factor=_factor(row.rxtx_factor),
        is_public=texts.boolean(row.is_public, "os-flavor-access:is_public"),
        is_disabled=False,
        description=texts.description(getattr(row, "description", None), _DESCRIPTION_MAX),
        extra_specs={},
        created_at=call.cloud.world.clock.now(),
        updated_at=None,
    )


def _factor(value: float | str) -> float:
    if not re.fullmatch(r"[0-9]{1,38}(\.[0-9]{1,38})?", str(value)) or not 0 < float(value) <= 3.40282e38:
        raise Invalid(f"Invalid input for field/attribute rxtx_factor. Value: {value}.")
    return float(value)


async def update(call: Call) -> dict[str, Any]:
    """PUT /flavors/{flavor_id}"""
    values = {"description": texts.description(call.body.flavor.description, _DESCRIPTION_MAX)}
    await call.cloud.db.write(store.change_flavor, call.params["flavor_id"], call.cloud.world.clock.now(), values)
    return await show(call)


async def delete(call: Call) -> None:
    """DELETE /flavors/{flavor_id}"""
    await call.cloud.db.write(store.delete_flavor, call.params["flavor_id"])


# Extra specs.


async def specs(call: Call) -> dict[str, Any]:
    """GET /flavors/{flavor_id}/os-extra_specs"""
    return {"extra_specs": (await _flavor(call)).extra_specs}


async def spec(call: Call) -> dict[str, Any]:
    """GET /flavors/{flavor_id}/os-extra_specs/{key}"""
    found, key = (await _flavor(call)).extra_specs, call.params["key"]
    if key not in found:
        raise _no_spec(call)
    return {key: found[key]}


async def extend_specs(call: Call) -> dict[str, Any]:
    """POST /flavors/{flavor_id}/os-extra_specs"""
    wanted = _checked(call.body.extra_specs)
    await _change(call, wanted, None)
    return {"extra_specs": wanted}


async def set_spec(call: Call) -> dict[str, Any]:
    """PUT /flavors/{flavor_id}/os-extra_specs/{key}"""
    wanted = _checked(call.body)
    if len(wanted) != 1 or call.params["key"] not in wanted:
        raise Invalid("Request body and URI mismatch")
    await _change(call, wanted, None)
    return wanted


async def delete_spec(call: Call) -> None:
    """DELETE /flavors/{flavor_id}/os-extra_specs/{key}"""
    if call.params["key"] not in (await _flavor(call)).extra_specs:
        raise _no_spec(call)
    await _change(call, {}, call.params["key"])


def _no_spec(call: Call) -> NotFound:
    return NotFound(f"Flavor {call.params['flavor_id']} has no extra specs with key {call.params['key']}.")


def _checked(values: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in values.items():
        if not _SPEC_KEY.fullmatch(key):
            raise Invalid(f"Invalid input for field/attribute extra_specs: '{key}' is not a legal key.")
        found[key] = str(value)
        if len(found[key]) > texts.NAME_MAX:
            raise Invalid(f"extra_specs value has {len(found[key])} characters, more than {texts.NAME_MAX}.")
    return found


async def _change(call: Call, adds: dict[str, str], drops: str | None) -> None:
    now = call.cloud.world.clock.now()
    await call.cloud.db.write(_change_specs, call.ctx, call.params["flavor_id"], (adds, drops), now)


def _change_specs(tx: Tx, ctx: Context, flavor_id: str, change: tuple[dict[str, str], str | None], now: float) -> None:
    adds, drops = change
    merged = {**store.get_flavor(tx, ctx, flavor_id).extra_specs, **adds}
    if len(merged) > _SPECS_MAX:
        raise Invalid(f"A flavor has at most {_SPECS_MAX} extra specs.")
    kept = {key: value for key, value in merged.items() if key != drops}
    store.change_flavor(tx, flavor_id, now, {"extra_specs": kept})


# Access.


class Access(msgspec.Struct, frozen=True):
    """A private flavor and the projects that were given it."""

    flavor: Flavor
    project_ids: list[str]


def _access_of(tx: Tx, ctx: Context, flavor_id: str) -> Access:
    return Access(store.get_flavor(tx, ctx, flavor_id), store.list_access(tx, flavor_id))


def _access_view(found: Access) -> dict[str, Any]:
    pairs = [{"flavor_id": found.flavor.id, "tenant_id": project_id} for project_id in found.project_ids]
    return {"flavor_access": pairs}


async def access(call: Call) -> dict[str, Any]:
    """GET /flavors/{flavor_id}/os-flavor-access"""
    found = await call.cloud.db.read(_access_of, call.ctx, call.params["flavor_id"])
    if found.flavor.is_public:
        raise NotFound("Access list not available for public flavors.")
    return _access_view(found)


async def add_access(call: Call) -> dict[str, Any]:
    """addTenantAccess"""
    refuses_public = call.version >= (2, 7)
    flavor_id, project_id = call.params["flavor_id"], call.body.tenant
    return _access_view(await call.cloud.db.write(_add_access, call.ctx, flavor_id, project_id, refuses_public))


def _add_access(tx: Tx, ctx: Context, flavor_id: str, project_id: str, refuses_public: bool) -> Access:
    found = store.get_flavor(tx, ctx, flavor_id)
    if not projects.exists(tx, project_id):
        raise Invalid(f"Project ID {project_id} is not a valid project.")
    if refuses_public and found.is_public:
        raise Conflict("Can not add access to a public flavor.")
    store.add_access(tx, flavor_id, project_id)
    return _access_of(tx, ctx, flavor_id)


async def remove_access(call: Call) -> dict[str, Any]:
    """removeTenantAccess"""
    flavor_id, project_id = call.params["flavor_id"], call.body.tenant
    return _access_view(await call.cloud.db.write(_remove_access, call.ctx, flavor_id, project_id))


def _remove_access(tx: Tx, ctx: Context, flavor_id: str, project_id: str) -> Access:
    store.get_flavor(tx, ctx, flavor_id)
    store.remove_access(tx, flavor_id, project_id)
    return _access_of(tx, ctx, flavor_id)
