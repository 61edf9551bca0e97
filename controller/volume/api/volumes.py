"""Handlers of /volumes."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from controller.context import Context
from controller.db.tables.volume import volume as table
from controller.db.tx import Tx
from controller.errors import Invalid, NotFound
from controller.http.filters import boolean
from controller.http.op import Call
from controller.http.paging import next_links
from controller.http.policy import is_allowed
from controller.volume import volumes
from controller.volume.api import queries, texts, views
from controller.volume.api.links import links
from controller.volume.model import Attachment, Source, Volume
from controller.volume.store import attachments, types
from controller.volume.store import volumes as store
from controller.volume.volumes import NewVolume

_HOST_RULE = "volume_extension:volume_host_attribute"


class Extras(msgspec.Struct, frozen=True):
    """What views take from other tables than the volumes'."""

    types: Mapping[str, str]
    attachments: Mapping[str, Sequence[Attachment]]


async def create(call: Call) -> dict[str, Any]:
    """POST /volumes"""
    made = await volumes.create(call.cloud, call.ctx, _wanted(call.body.volume))
    extras = await call.cloud.db.read(_extras, [made])
    return {"volume": views.changed_volume(call, _card(call, made, extras))}


def _wanted(row: Any) -> NewVolume:
    if row.consistencygroup_id or row.group_id:
        raise Invalid("Volume groups are not supported yet.")
    if row.backup_id:
        raise Invalid("Backups are not supported yet.")
    source, source_id = _source(row)
    return NewVolume(
        name=texts.name(texts.first(row.name, row.display_name)),
        description=texts.first(row.description, row.display_description),
        size_gib=None if row.size is None else texts.number(row.size, "size", 1, volumes.SIZE_MAX),
        type_name=row.volume_type or None,
        zone=row.availability_zone or None,
        meta=texts.metadata(row.metadata),
        source=source,
        source_id=source_id,
        wants_multiattach=row.multiattach is not None and texts.boolean(row.multiattach, "multiattach"),
    )


def _source(row: Any) -> tuple[Source, str | None]:
    image_ref = (row.image_ref or row.image_id or "").rpartition("/")[2]
    named = [
        (kind, value)
        for kind, value in (
            (Source.IMAGE, image_ref),
            (Source.SNAPSHOT, row.snapshot_id),
            (Source.VOLUME, row.source_volid),
        )
        if value
    ]
    if len(named) > 1:
        raise Invalid("A volume is made of one source: an image, a snapshot or a volume.")
    if not named and row.size is None:
        raise Invalid("Invalid input received: a volume without a source needs a size.")
    if named and named[0][0] is Source.IMAGE and row.size is None:
        raise Invalid("Invalid input received: a volume made of an image needs a size.")
    return named[0] if named else (Source.NONE, None)


async def index(call: Call) -> dict[str, Any]:
    """GET /volumes: names."""
    asked = _asked(call)
    rows = asked.cut(await call.cloud.db.read(store.page, asked.where, asked.page, asked.project_id))
    found: dict[str, Any] = {"volumes": [views.named(call, "volumes", row) for row in rows]}
    return await _with_count(call, asked, {**found, **next_links(call, "volumes", rows, asked.page)})


async def detail(call: Call) -> dict[str, Any]:
    """GET /volumes/detail: whole volumes."""
    asked = _asked(call)
    page, extras = await call.cloud.db.read(_page, asked)
    rows = asked.cut(page)
    found: dict[str, Any] = {"volumes": [views.volume(call, _card(call, row, extras)) for row in rows]}
    return await _with_count(call, asked, {**found, **next_links(call, "volumes", rows, asked.page)})


def _asked(call: Call) -> queries.Asked:
    return queries.asked(call, table, queries.VOLUMES, queries.VOLUME_SORTS, store.OF_PROJECT)


async def _with_count(call: Call, asked: queries.Asked, found: dict[str, Any]) -> dict[str, Any]:
    if queries.wants_count(call):
        found["count"], _ = await call.cloud.db.read(store.count, asked.where, asked.project_id)
    return found


def _page(tx: Tx, asked: queries.Asked) -> tuple[list[Volume], Extras]:
    rows = store.page(tx, asked.where, asked.page, asked.project_id)
    return rows, _extras(tx, rows)


def _extras(tx: Tx, rows: Sequence[Volume]) -> Extras:
    return Extras(types.names(tx), attachments.of_volumes(tx, [row.id for row in rows]))


def _card(call: Call, row: Volume, extras: Extras) -> views.Card:
    return views.Card(
        row,
        links(call, "volumes", row.id),
        extras.types.get(row.type_id or ""),
        extras.attachments.get(row.id, ()),
        is_allowed(call.ctx, _HOST_RULE),
    )


async def summary(call: Call) -> dict[str, Any]:
    """GET /volumes/summary (3.12)"""
    where, project_id = queries.scope(call, table, store.OF_PROJECT)
    where += queries.conditions(call, queries.VOLUMES)
    count, total = await call.cloud.db.read(store.count, where, project_id)
    found: dict[str, Any] = {"total_size": total, "total_count": count}
    if call.version >= (3, 36):
        found["metadata"] = await call.cloud.db.read_aside(5.0, store.summarized, where, project_id)
    return {"volume-summary": found}


async def show(call: Call) -> dict[str, Any]:
    """GET /volumes/{volume_id}"""
    row, extras = await call.cloud.db.read(_one, call.ctx, call.params["volume_id"])
    return {"volume": views.volume(call, _card(call, row, extras))}


def _one(tx: Tx, ctx: Context, volume_id: str) -> tuple[Volume, Extras]:
    row = store.get(tx, ctx, volume_id)
    return row, _extras(tx, [row])


async def update(call: Call) -> dict[str, Any]:
    """PUT /volumes/{volume_id}"""
    values = names_of(call.body.volume)
    now = call.cloud.world.clock.now()
    await call.cloud.db.write(volumes.update, call.ctx, call.params["volume_id"], values, now)
    row, extras = await call.cloud.db.read(_one, call.ctx, call.params["volume_id"])
    return {"volume": views.changed_volume(call, _card(call, row, extras))}


def names_of(row: Any) -> dict[str, Any]:
    """What PUT changes: of the two spellings of a name the newer one counts."""
    found: dict[str, Any] = {}
    for key, (newer, older) in {
        "name": (row.name, row.display_name),
        "description": (row.description, row.display_description),
    }.items():
        given = newer if newer is not msgspec.UNSET else older
        if given is not msgspec.UNSET:
            found[key] = texts.name(given) if key == "name" else given
    if row.metadata is not msgspec.UNSET:
        found["meta"] = texts.metadata(row.metadata)
    return found


async def delete(call: Call) -> None:
    """DELETE /volumes/{volume_id}"""
    cascade = _flag(call, "cascade")
    force = call.version >= (3, 23) and _flag(call, "force")
    if force:
        call.authorize("volume:force_delete", {})
    await volumes.delete(call.cloud, call.ctx, call.params["volume_id"], force=force, cascade=cascade)


def _flag(call: Call, key: str) -> bool:
    value = call.query.get(key)
    return value is not None and (value == "" or boolean(key, value))


# Metadata.


async def metadata(call: Call) -> dict[str, Any]:
    """GET /volumes/{volume_id}/metadata"""
    return {"metadata": (await call.cloud.db.read(store.get, call.ctx, call.params["volume_id"])).meta}


async def metadata_item(call: Call) -> dict[str, Any]:
    """GET /volumes/{volume_id}/metadata/{key}"""
    found = (await metadata(call))["metadata"]
    return {"meta": item(found, call.params["key"])}


def item(found: dict[str, str], key: str) -> dict[str, str]:
    """One key. Raises NotFound."""
    if key not in found:
        raise NotFound(f"There is no metadata with key {key}.")
    return {key: found[key]}


async def extend_metadata(call: Call) -> dict[str, Any]:
    """POST /volumes/{volume_id}/metadata"""
    return {"metadata": await _set_metadata(call, texts.metadata(call.body.metadata), replaces=False)}


async def replace_metadata(call: Call) -> dict[str, Any]:
    """PUT /volumes/{volume_id}/metadata"""
    return {"metadata": await _set_metadata(call, texts.metadata(call.body.metadata), replaces=True)}


async def set_metadata_item(call: Call) -> dict[str, Any]:
    """PUT /volumes/{volume_id}/metadata/{key}"""
    if call.params["key"] not in call.body.meta:
        raise Invalid("Request body and URI mismatch.")
    await _set_metadata(call, texts.metadata(call.body.meta), replaces=False)
    return {"meta": call.body.meta}


async def _set_metadata(call: Call, wanted: dict[str, str], *, replaces: bool) -> dict[str, str]:
    given = (call.ctx, call.params["volume_id"], wanted, replaces, call.cloud.world.clock.now())
    row: Volume = await call.cloud.db.write(volumes.set_meta, *given)
    return row.meta


async def delete_metadata_item(call: Call) -> None:
    """DELETE /volumes/{volume_id}/metadata/{key}"""
    given = (call.ctx, call.params["volume_id"], call.params["key"], call.cloud.world.clock.now())
    await call.cloud.db.write(volumes.drop_meta, *given)
