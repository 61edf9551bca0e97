"""Handlers of /servers: make, list, show, change, delete."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from controller.compute import edits, group_store, listing, nets, servers, store, texts, volumes
from controller.compute.api import links, queries, requests, views
from controller.compute.api.views import Card
from controller.compute.edits import Changes
from controller.compute.listing import Asked
from controller.compute.model import Server
from controller.compute.plugs import Plug
from controller.context import Context
from controller.db.tx import Tx
from controller.fleet import store as fleet
from controller.http.op import Call, Reply
from controller.http.paging import Page
from controller.http.policy import is_allowed

_EXTENDED = "os_compute_api:os-extended-server-attributes"


class Extras(msgspec.Struct, frozen=True):
    """What views take from other tables than the servers'."""

    shown: Mapping[str, nets.Shown]
    volumes: Mapping[str, list[Plug]]
    tags: Mapping[str, list[str]]
    user_data: Mapping[str, str | None]
    host_statuses: Mapping[str, str]
    groups: Mapping[str, list[str]] = {}  # Of one server alone: lists do not show them.


async def create(call: Call) -> Reply:
    """POST /servers."""
    new = requests.new_server(call)
    created = await servers.create(call.cloud, call.ctx, new)
    asked = call.body.server.return_reservation_id
    if asked is not None and texts.boolean(asked, "return_reservation_id"):
        return Reply({"reservation_id": created.servers[0].reservation_id})
    groups = [{"name": name} for name in new.groups or ("default",)]
    body = views.created_server(created.servers[0], call.base_url, groups)
    return Reply({"server": body}, headers={"Location": body["links"][0]["href"]})


async def index(call: Call) -> dict[str, Any]:
    """GET /servers: names."""
    asked = queries.servers(call, "os_compute_api:servers:index:get_all_tenants")
    page = queries.server_page(call)
    if asked.patterns:
        rows: Sequence[Any] = await listing.servers(call.cloud, asked, page)
    else:
        rows = await call.cloud.db.read(store.page_names, asked.where, page, asked.params)
    lines = [views.server_name(row, call.base_url) for row in rows]
    return {"servers": lines, **links.next_page(call, "servers", links.last_id(rows), len(rows), page)}


async def detail(call: Call) -> dict[str, Any]:
    """GET /servers/detail: whole servers."""
    asked = queries.servers(call, "os_compute_api:servers:detail:get_all_tenants")
    page = queries.server_page(call)
    is_admin = is_allowed(call.ctx, _EXTENDED)
    wanted = (is_admin, call.version >= (2, 26))
    if asked.patterns:
        rows = await listing.servers(call.cloud, asked, page)
        extras = await call.cloud.db.read(_extras, rows, *wanted)
    else:
        rows, extras = await call.cloud.db.read(_page, asked, page, *wanted)
    cards = [_card(call, row, extras, is_admin) for row in rows]
    shown = [views.server(card, call.version, is_admin=is_admin, is_alone=False) for card in cards]
    return {"servers": shown, **links.next_page(call, "servers", links.last_id(rows), len(rows), page)}


async def show(call: Call) -> dict[str, Any]:
    """GET /servers/{server_id}."""
    card, is_admin = await _looked_at(call)
    return {"server": views.server(card, call.version, is_admin=is_admin, is_alone=True)}


async def update(call: Call) -> dict[str, Any]:
    """PUT /servers/{server_id}."""
    await edits.update(call.cloud, call.ctx, call.params["server_id"], _changes(call.body.server))
    card, is_admin = await _looked_at(call)
    return {"server": views.updated_server(card, call.version, is_admin=is_admin)}


async def rebuilt(call: Call) -> Reply:
    """The answer to `rebuild`: the server as PUT shows it."""
    card, is_admin = await _looked_at(call)
    body = views.updated_server(card, call.version, is_admin=is_admin)
    if call.version >= (2, 54):
        body["key_name"] = card.server.key_name
    if call.version >= (2, 57):
        body["user_data"] = await call.cloud.db.read(_user_data, card.server.id)
        body.pop("OS-EXT-SRV-ATTR:user_data", None)  # Said once, as in Nova.
    return Reply({"server": body}, headers={"Location": body["links"][0]["href"]})


async def delete(call: Call) -> None:
    """DELETE /servers/{server_id}."""
    await servers.delete(call.cloud, call.ctx, call.params["server_id"])


def _changes(row: Any) -> Changes:
    found: dict[str, Any] = {}
    if row.name is not msgspec.UNSET:
        found["name"] = texts.name(row.name)
    if row.access_ip_v4 is not msgspec.UNSET:
        found["access_ip_v4"] = texts.address(row.access_ip_v4, "accessIPv4", 4)
    if row.access_ip_v6 is not msgspec.UNSET:
        found["access_ip_v6"] = texts.address(row.access_ip_v6, "accessIPv6", 6)
    if row.disk_config is not msgspec.UNSET:
        found["is_auto_disk"] = row.disk_config == "AUTO"
    description = getattr(row, "description", msgspec.UNSET)
    if description is not msgspec.UNSET:
        found["description"] = texts.description(description)
    return Changes(**found)


async def _looked_at(call: Call) -> tuple[Card, bool]:
    is_admin = is_allowed(call.ctx, _EXTENDED)
    row, extras = await call.cloud.db.read(_one, call.ctx, call.params["server_id"], is_admin, call.version >= (2, 26))
    return _card(call, row, extras, is_admin), is_admin


def _user_data(tx: Tx, server_id: str) -> str | None:
    return store.guest(tx, server_id).user_data


def _page(tx: Tx, asked: Asked, page: Page, is_admin: bool, with_tags: bool) -> tuple[list[Server], Extras]:
    rows = store.page(tx, asked.where, page, asked.params)
    return rows, _extras(tx, rows, is_admin, with_tags)


def _one(tx: Tx, ctx: Context, server_id: str, is_admin: bool, with_tags: bool) -> tuple[Server, Extras]:
    row = store.get(tx, ctx, server_id)
    groups = {server_id: group_store.ids_of(tx, server_id)}
    return row, msgspec.structs.replace(_extras(tx, [row], is_admin, with_tags), groups=groups)


def _extras(tx: Tx, rows: Sequence[Server], is_admin: bool, with_tags: bool) -> Extras:
    ids = [row.id for row in rows]
    return Extras(
        nets.shown(tx, ids),
        volumes.shown(tx, ids),
        store.tags_of(tx, ids) if with_tags and ids else {},
        store.user_data_of(tx, [row.id for row in rows if row.has_user_data]) if is_admin else {},
        views.host_statuses(fleet.list_hosts(tx)) if is_admin else {},
    )


def _card(call: Call, row: Server, extras: Extras, is_admin: bool) -> Card:
    return Card(
        row,
        call.base_url,
        extras.shown.get(row.id, nets.NOTHING),
        extras.volumes.get(row.id, []),
        extras.tags.get(row.id, []),
        extras.user_data.get(row.id),
        extras.host_statuses.get(row.host_id or "", "DOWN" if row.host_id else ""),
        groups=extras.groups.get(row.id, []),
        shows_details=is_admin,
        shows_specs=True,
    )
