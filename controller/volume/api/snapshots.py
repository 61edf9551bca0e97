"""Handlers of /snapshots."""

from typing import Any

from controller.db.tables.volume import snapshot as table
from controller.errors import Invalid
from controller.http.op import Call
from controller.http.paging import next_links
from controller.volume import snapshots
from controller.volume.api import queries, texts, views
from controller.volume.api.volumes import item, names_of
from controller.volume.model import Snapshot
from controller.volume.snapshots import NewSnapshot
from controller.volume.store import snapshots as store


async def create(call: Call) -> dict[str, Any]:
    """POST /snapshots"""
    row = call.body.snapshot
    force = row.force is not None and texts.boolean(row.force, "force")
    if row.force is not None and not force and call.version >= (3, 66):
        raise Invalid("Invalid value 'False' for force: from 3.66 on it is not needed, and means nothing.")
    new = NewSnapshot(
        volume_id=str(row.volume_id),
        name=texts.name(texts.first(row.name, row.display_name)),
        description=texts.first(row.description, row.display_description),
        meta=texts.metadata(row.metadata),
        is_forced=force or call.version >= (3, 66),
    )
    made = await snapshots.create(call.cloud, call.ctx, new)
    return {"snapshot": views.snapshot(call, made, whole=False)}


async def index(call: Call) -> dict[str, Any]:
    """GET /snapshots"""
    return await _listed(call, whole=False)


async def detail(call: Call) -> dict[str, Any]:
    """GET /snapshots/detail"""
    return await _listed(call, whole=True)


async def _listed(call: Call, *, whole: bool) -> dict[str, Any]:
    asked = queries.asked(call, table, queries.SNAPSHOTS, queries.SNAPSHOT_SORTS, store.OF_PROJECT)
    rows = asked.cut(await call.cloud.db.read(store.page, asked.where, asked.page, asked.project_id))
    found: dict[str, Any] = {"snapshots": [views.snapshot(call, row, whole=whole) for row in rows]}
    if queries.wants_count(call):
        found["count"] = await call.cloud.db.read(store.count, asked.where, asked.project_id)
    return {**found, **next_links(call, "snapshots", rows, asked.page)}


async def _one(call: Call) -> Snapshot:
    return await call.cloud.db.read(store.get, call.ctx, call.params["snapshot_id"])


async def show(call: Call) -> dict[str, Any]:
    """GET /snapshots/{snapshot_id}"""
    return {"snapshot": views.snapshot(call, await _one(call), whole=True)}


async def update(call: Call) -> dict[str, Any]:
    """PUT /snapshots/{snapshot_id}"""
    values = names_of(call.body.snapshot)
    given = (call.ctx, call.params["snapshot_id"], values, call.cloud.world.clock.now())
    row: Snapshot = await call.cloud.db.write(snapshots.update, *given)
    return {"snapshot": views.snapshot(call, row, whole=False)}


async def delete(call: Call) -> None:
    """DELETE /snapshots/{snapshot_id}"""
    await snapshots.delete(call.cloud, call.ctx, call.params["snapshot_id"])


async def force_delete(call: Call) -> None:
    """os-force_delete"""
    await snapshots.delete(call.cloud, call.ctx, call.params["snapshot_id"], force=True)


async def reset_status(call: Call) -> None:
    """os-reset_status"""
    given = (call.ctx, call.params["snapshot_id"], call.body.status, call.cloud.world.clock.now())
    await call.cloud.db.write(snapshots.reset_status, *given)


# Metadata.


async def metadata(call: Call) -> dict[str, Any]:
    """GET /snapshots/{snapshot_id}/metadata"""
    return {"metadata": (await _one(call)).meta}


async def metadata_item(call: Call) -> dict[str, Any]:
    """GET /snapshots/{snapshot_id}/metadata/{key}"""
    return {"meta": item((await _one(call)).meta, call.params["key"])}


async def extend_metadata(call: Call) -> dict[str, Any]:
    """POST /snapshots/{snapshot_id}/metadata"""
    return {"metadata": await _set(call, texts.metadata(call.body.metadata), replaces=False)}


async def replace_metadata(call: Call) -> dict[str, Any]:
    """PUT /snapshots/{snapshot_id}/metadata"""
    return {"metadata": await _set(call, texts.metadata(call.body.metadata), replaces=True)}


async def set_metadata_item(call: Call) -> dict[str, Any]:
    """PUT /snapshots/{snapshot_id}/metadata/{key}"""
    if call.params["key"] not in call.body.meta:
        raise Invalid("Request body and URI mismatch.")
    await _set(call, texts.metadata(call.body.meta), replaces=False)
    return {"meta": call.body.meta}


async def _set(call: Call, wanted: dict[str, str], *, replaces: bool) -> dict[str, str]:
    given = (call.ctx, call.params["snapshot_id"], wanted, replaces, call.cloud.world.clock.now())
    row: Snapshot = await call.cloud.db.write(snapshots.set_meta, *given)
    return row.meta


async def delete_metadata_item(call: Call) -> None:
    """DELETE /snapshots/{snapshot_id}/metadata/{key}"""
    given = (call.ctx, call.params["snapshot_id"], call.params["key"], call.cloud.world.clock.now())
    await call.cloud.db.write(snapshots.drop_meta, *given)
