"""Handlers of servers' moves between hosts: migrate, live-migrate, evacuate, and the lists of what moves and moved."""

from typing import Any, Final

from controller.compute import migration_store, moves, texts
from controller.compute.api import fleet_ids, links, queries
from controller.compute.api.links import micros
from controller.compute.migration_store import Migration
from controller.errors import Invalid
from controller.http.op import Call

TYPED: Final = (2, 23)
ANY_DISKS: Final = (2, 25)
PAGED: Final = (2, 59)
OWNED: Final = (2, 80)

_FILTERS: Final = {
    "host": None,
    "instance_uuid": "server_id",
    "migration_type": "kind",
    "source_compute": "source_host_name",
    "status": "status",
}


async def migrate(call: Call) -> None:
    """migrate"""
    host = call.body.host if call.body is not None else None
    await moves.migrate(call.cloud, call.ctx, call.params["server_id"], host)


async def evacuate(call: Call) -> dict[str, Any] | None:
    """evacuate. A password is never set: guests take keys."""
    body = call.body
    force = getattr(body, "force", None)
    is_forced = False if force is None else texts.boolean(force, "force")
    if is_forced and body.host is None:
        raise Invalid("Can't force to a non-provided destination")
    await moves.evacuate(call.cloud, call.ctx, call.params["server_id"], body.host, is_forced=is_forced)
    return {} if call.version < (2, 14) else None


async def live_migrate(call: Call) -> None:
    """os-migrateLive"""
    body = call.body
    force = getattr(body, "force", None)
    is_forced = False if force is None else texts.boolean(force, "force")
    if is_forced and body.host is None:
        raise Invalid("Can't force to a non-provided destination")
    if hasattr(body, "disk_over_commit"):
        texts.boolean(body.disk_over_commit, "disk_over_commit")
    is_auto = call.version >= ANY_DISKS and body.block_migration == "auto"
    has_disks = None if is_auto else texts.boolean(body.block_migration, "block_migration")
    wish = moves.LiveWish(host=body.host, is_forced=is_forced, has_disks=has_disks)
    await moves.live_migrate(call.cloud, call.ctx, call.params["server_id"], wish)


async def server_index(call: Call) -> dict[str, Any]:
    """GET /servers/{id}/migrations: those that go on."""
    found = await call.cloud.db.read(moves.under_way, call.ctx, call.params["server_id"])
    return {"migrations": [await _progress(call, one) for one in found]}


async def server_show(call: Call) -> dict[str, Any]:
    """GET /servers/{id}/migrations/{number}"""
    found = await call.cloud.db.read(moves.get_under_way, call.ctx, call.params["server_id"], call.params["number"])
    return {"migration": await _progress(call, found)}


async def server_delete(call: Call) -> None:
    """DELETE /servers/{id}/migrations/{number}"""
    await moves.call_off(call.cloud, call.ctx, call.params["server_id"], call.params["number"])


async def force_complete(call: Call) -> None:
    """POST /servers/{id}/migrations/{number}/action"""
    await moves.hasten(call.cloud, call.ctx, call.params["server_id"], call.params["number"])


async def _progress(call: Call, one: Migration) -> dict[str, Any]:
    """A live migration as its server's; how far it is its host knows, if it answers."""
    known = await moves.transfer(call.cloud, one)
    shown: dict[str, Any] = {
        "id": one.id,
        "server_uuid": one.server_id,
        "status": one.status,
        "source_compute": one.source_host_name,
        "source_node": one.source_host_name,
        "dest_compute": one.target_host_name,
        "dest_node": one.target_host_name,
        "dest_host": None,
        "created_at": micros(one.created_at),
        "updated_at": micros(one.updated_at),
    }
    for what in ("memory", "disk"):
        for how in ("total", "processed", "remaining"):
            shown[f"{what}_{how}_bytes"] = None if known is None else getattr(known, f"{what}_{how}")
    if call.version >= PAGED:
        shown["uuid"] = one.uuid
    if call.version >= OWNED:
        shown |= {"user_id": one.user_id, "project_id": one.project_id}
    return shown


async def index(call: Call) -> dict[str, Any]:
    """GET /os-migrations"""
    known = [*_FILTERS, *(queries.PAGING if call.version >= PAGED else ())]
    known += ["user_id", "project_id"] if call.version >= OWNED else []
    queries.check_keys(call, known)
    page = queries.page_of(call)
    wanted = {key: value for key in known if key not in queries.PAGING and (value := call.query.get(key)) is not None}
    marker = page.marker if call.version >= PAGED else None
    found = await call.cloud.db.read(migration_store.page, wanted, marker, page.limit)
    last = found[-1].uuid if found else None
    following = links.next_page(call, "migrations", last, len(found), page) if call.version >= PAGED else {}
    return {"migrations": [_view(call, one) for one in found], **following}


def _view(call: Call, one: Migration) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": one.id,
        "instance_uuid": one.server_id,
        "status": one.status,
        "source_compute": one.source_host_name,
        "source_node": one.source_host_name,
        "dest_compute": one.target_host_name,
        "dest_node": one.target_host_name,
        "dest_host": None,
        "old_instance_type_id": fleet_ids.hypervisor_number(one.flavor_id),
        "new_instance_type_id": fleet_ids.hypervisor_number(one.new_flavor_id or one.flavor_id),
        "created_at": micros(one.created_at),
        "updated_at": micros(one.updated_at),
    }
    if call.version >= TYPED:
        shown["migration_type"] = one.kind
        if one.is_open:
            path = f"servers/{one.server_id}/migrations"
            shown["links"] = links.links(call.base_url, path, str(one.id))
    if call.version >= PAGED:
        shown["uuid"] = one.uuid
    if call.version >= OWNED:
        shown |= {"user_id": one.user_id, "project_id": one.project_id}
    return shown
