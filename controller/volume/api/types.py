"""Handlers of /types, of their extra specs and of who may use them, and of /default-types."""

from typing import Any

import msgspec
import sqlalchemy as sa

from controller.context import Context
from controller.db.tables.volume import volume_type as table
from controller.db.tx import Tx
from controller.errors import Invalid, NotFound
from controller.http.filters import boolean
from controller.http.op import Call
from controller.http.paging import next_links
from controller.identity import projects
from controller.volume import types
from controller.volume.api import queries, texts, views
from controller.volume.model import VolumeType
from controller.volume.store import types as store


async def index(call: Call) -> dict[str, Any]:
    """GET /types"""
    page, offset = queries.paged(call, queries.TYPE_SORTS)
    rows = (await call.cloud.db.read(store.page, _where(call), page))[offset:]
    shown = [views.volume_type(call, row) for row in rows]
    return {"volume_types": shown, **next_links(call, "volume_types", rows, page)}


def _where(call: Call) -> list[sa.ColumnElement[bool]]:
    where: list[sa.ColumnElement[bool]] = []
    if not call.ctx.is_admin:
        where.append(sa.or_(store.PUBLIC, store.granted(call.ctx.project_id)))
    wanted = call.query.get("is_public")
    if wanted is not None and wanted.lower() != "none":
        where.append(table.c.is_public.is_(boolean("is_public", wanted)))
    if "name" in call.query:
        where.append(table.c.name == call.query.get("name"))
    specs = call.query.get("extra_specs")
    if specs is not None and call.version >= (3, 52):
        where.append(queries.of_dict(table.c.extra_specs, "extra_specs", specs))
    return where


async def show(call: Call) -> dict[str, Any]:
    """GET /types/{type_id}; `default` is what nothing means."""
    row = await call.cloud.db.read(_one, call)
    return {"volume_type": views.volume_type(call, row)}


def _one(tx: Tx, call: Call) -> VolumeType:
    type_id = call.params["type_id"]
    if type_id != "default":
        return store.get(tx, call.ctx, type_id)
    found = types.default(tx, call.ctx.project_id, call.cloud.settings.volume)
    if found is None:
        raise NotFound("Default volume type can not be found.")
    return found


async def create(call: Call) -> dict[str, Any]:
    """POST /types"""
    row, now = call.body.volume_type, call.cloud.world.clock.now()
    name = row.name.strip()
    if not name:
        raise Invalid("Volume type name can not be empty.")
    new = VolumeType(
        call.cloud.world.entropy.uuid(),
        name,
        row.description,
        texts.boolean(row.is_public, "is_public"),
        texts.metadata(row.extra_specs),
        now,
        None,
    )
    return {"volume_type": views.volume_type(call, await call.cloud.db.write(types.create, new), views.TYPE_MADE)}


async def update(call: Call) -> dict[str, Any]:
    """PUT /types/{type_id}"""
    row = call.body.volume_type
    values: dict[str, Any] = {}
    if row.name not in (msgspec.UNSET, None):
        values["name"] = row.name.strip()
        if not values["name"]:
            raise Invalid("Volume type name can not be empty.")
    if row.description is not msgspec.UNSET:
        values["description"] = row.description
    if row.is_public is not msgspec.UNSET:
        values["is_public"] = texts.boolean(row.is_public, "is_public")
    given = (call.ctx, call.params["type_id"], values, call.cloud.world.clock.now())
    await call.cloud.db.read(store.get, call.ctx, call.params["type_id"])
    if not values:
        raise Invalid("Specify volume type name, description, is_public or a combination thereof.")
    changed: VolumeType = await call.cloud.db.write(types.update, *given)
    return {"volume_type": views.volume_type(call, changed, views.TYPE_CHANGED)}


async def delete(call: Call) -> None:
    """DELETE /types/{type_id}"""
    await call.cloud.db.write(types.delete, call.ctx, call.params["type_id"], call.cloud.settings.volume)


async def encryption(call: Call) -> dict[str, Any]:
    """GET /types/{type_id}/encryption: volumes are not encrypted."""
    await call.cloud.db.read(store.get, call.ctx, call.params["type_id"])
    return {}


# Extra specs.


async def specs(call: Call) -> dict[str, Any]:
    """GET /types/{type_id}/extra_specs"""
    row: VolumeType = await call.cloud.db.read(store.get, call.ctx, call.params["type_id"])
    return {"extra_specs": views.specs(call, row)}


async def spec(call: Call) -> dict[str, Any]:
    """GET /types/{type_id}/extra_specs/{key}"""
    row: VolumeType = await call.cloud.db.read(store.get, call.ctx, call.params["type_id"])
    key, found = call.params["key"], views.specs(call, row)
    if key not in found:
        raise NotFound(f"Volume Type {row.id} has no extra specs with key {key}.")
    return {key: found[key]}


async def extend_specs(call: Call) -> dict[str, Any]:
    """POST /types/{type_id}/extra_specs"""
    wanted = texts.metadata(call.body.extra_specs)
    given = (call.ctx, call.params["type_id"], wanted, call.cloud.world.clock.now())
    await call.cloud.db.write(types.set_specs, *given)
    return {"extra_specs": wanted}


async def set_spec(call: Call) -> dict[str, Any]:
    """PUT /types/{type_id}/extra_specs/{key}"""
    key = call.params["key"]
    if set(call.body) != {key}:
        raise Invalid("Request body and URI mismatch.")
    wanted = texts.metadata(call.body)
    await call.cloud.db.write(types.set_specs, call.ctx, call.params["type_id"], wanted, call.cloud.world.clock.now())
    return wanted


async def delete_spec(call: Call) -> None:
    """DELETE /types/{type_id}/extra_specs/{key}"""
    given = (call.ctx, call.params["type_id"], call.params["key"], call.cloud.world.clock.now())
    await call.cloud.db.write(types.drop_spec, *given)


# Who may use a private type.


async def access(call: Call) -> dict[str, Any]:
    """GET /types/{type_id}/os-volume-type-access"""
    row, granted = await call.cloud.db.read(types.access, call.ctx, call.params["type_id"])
    return {"volume_type_access": [{"volume_type_id": row.id, "project_id": one} for one in granted]}


async def add_access(call: Call) -> None:
    """addProjectAccess"""
    await call.cloud.db.write(types.grant, call.ctx, call.params["type_id"], call.body.project)


async def remove_access(call: Call) -> None:
    """removeProjectAccess"""
    await call.cloud.db.write(types.revoke, call.ctx, call.params["type_id"], call.body.project)


# What nothing means for a project (3.62).


async def defaults(call: Call) -> dict[str, Any]:
    """GET /default-types"""
    found = await call.cloud.db.read(store.defaults)
    return {"default_types": [{"project_id": owner, "volume_type_id": kind} for owner, kind in found]}


async def default(call: Call) -> dict[str, Any]:
    """GET /default-types/{project_id}"""
    project_id = call.params["project_id"]
    found = await call.cloud.db.read(store.default_of, project_id)
    if found is None:
        raise NotFound(f"Default type for project {project_id} not found.")
    return {"default_type": {"project_id": project_id, "volume_type_id": found}}


async def set_default(call: Call) -> dict[str, Any]:
    """PUT /default-types/{project_id}"""
    project_id = call.params["project_id"]
    found: str = await call.cloud.db.write(_set_default, call.ctx, project_id, call.body.default_type.volume_type)
    return {"default_type": {"project_id": project_id, "volume_type_id": found}}


def _set_default(tx: Tx, ctx: Context, project_id: str, name_or_id: str) -> str:
    if not projects.exists(tx, project_id):
        raise NotFound(f"Project {project_id} could not be found.")
    found = types.named(tx, ctx, name_or_id)
    store.set_default(tx, project_id, found.id)
    return found.id


async def unset_default(call: Call) -> None:
    """DELETE /default-types/{project_id}"""
    if not await call.cloud.db.write(store.drop_default, call.params["project_id"]):
        raise NotFound(f"Default type for project {call.params['project_id']} not found.")
