"""Handlers of routers."""

from typing import Any, Final

import sqlalchemy as sa
from msgspec import UnsetType

from controller.db.tables.network import router
from controller.errors import Invalid
from controller.http.filters import Filter
from controller.http.op import Call
from controller.network import routers
from controller.network.api import lists, views
from controller.network.api.bodies import GatewayBody, RouteBody, given
from controller.network.api.lists import Listed, flag, standard_filters, standard_sortable
from controller.network.api.requests import authorize, owned, owner, revision, settle, standard
from controller.network.errors import BadRequest, bad_value
from controller.network.model import Fixed, HostRoute, Router
from controller.network.routers import Draft, Gateway, Interface
from controller.network.store import routers as store


def _by_gateway(column: sa.ColumnElement[Any], values: list[Any]) -> sa.ColumnElement[bool]:
    """`external_gateway_info=network_id=…`, or the network's id alone."""
    networks = [value.removeprefix("network_id=") for value in values]
    return column.in_(networks)


LISTED: Final = Listed(
    collection="routers",
    table=router,
    filters={
        **standard_filters(router, "status"),
        "admin_state_up": flag(router.c.admin_state_up),
        "external_gateway_info": Filter(router.c.gateway_network_id, where=_by_gateway),
    },
    sortable=standard_sortable("admin_state_up", "status"),
    visible=store.visible,
    complete=store.complete,
)


async def index(call: Call) -> dict[str, Any]:
    """GET /routers."""
    return await lists.listed(call, LISTED, views.router)


async def show(call: Call) -> dict[str, Any]:
    """GET /routers/{id}."""
    found = await call.cloud.db.read(store.get, call.ctx, call.params["router_id"])
    return {"router": lists.chosen(call, views.router(found))}


async def create(call: Call) -> dict[str, Any]:
    """POST /routers."""
    body = call.body.router
    project_id = owner(call, body)
    info = body.external_gateway_info
    authorize(call, "create_router", {"project_id": project_id}, _gateway_attributes(info))
    now = call.cloud.world.clock.now()
    draft = Draft(
        **standard(call, body, project_id, now),
        admin_state_up=body.admin_state_up,
        gateway=_gateway(call, info),
    )
    made = await call.cloud.db.write(routers.create, call.ctx, draft, now)
    settle(call)
    return {"router": views.router(made)}


async def update(call: Call) -> dict[str, Any]:
    """PUT /routers/{id}."""
    found = await call.cloud.db.read(store.get, call.ctx, call.params["router_id"])
    changes = dict(given(call.body.router))
    attributes: list[str] = []
    if "external_gateway_info" in changes:
        info = changes.pop("external_gateway_info")
        attributes = _gateway_attributes(info)
        changes["gateway"] = _gateway(call, info)
    authorize(call, "update_router", owned(found), attributes)
    if "routes" in changes:
        changes["routes"] = _routes(changes["routes"] or [])
    now = call.cloud.world.clock.now()
    made = await call.cloud.db.write(routers.update, call.ctx, found.id, changes, revision(call), now)
    settle(call)
    return {"router": views.router(made)}


async def delete(call: Call) -> None:
    """DELETE /routers/{id}."""
    found = await call.cloud.db.read(store.get, call.ctx, call.params["router_id"])
    authorize(call, "delete_router", owned(found))
    await call.cloud.db.write(routers.delete, found.id, revision(call), call.cloud.world.clock.now())
    settle(call)


async def add_interface(call: Call) -> dict[str, Any]:
    """PUT /routers/{id}/add_router_interface."""
    found = await _found(call, "add_router_interface")
    subnet_id, port_id = call.body.subnet_id, call.body.port_id
    now = call.cloud.world.clock.now()
    if subnet_id and port_id:
        raise BadRequest("router", "Cannot specify both subnet-id and port-id")
    if port_id:
        made = await call.cloud.db.write(routers.add_port, call.ctx, found.id, port_id, now)
    elif subnet_id:
        fresh = call.cloud.world.entropy.uuid()
        made = await call.cloud.db.write(routers.add_subnet, call.ctx, found.id, subnet_id, fresh, now)
    else:
        raise BadRequest("router", "Either subnet_id or port_id must be specified")
    settle(call)
    return _interface(made)


async def remove_interface(call: Call) -> dict[str, Any]:
    """PUT /routers/{id}/remove_router_interface."""
    found = await _found(call, "remove_router_interface")
    subnet_id, port_id = call.body.subnet_id, call.body.port_id
    if not subnet_id and not port_id:
        raise Invalid("Either subnet_id or port_id must be specified")
    now = call.cloud.world.clock.now()
    made = await call.cloud.db.write(routers.remove_interface, found.id, subnet_id, port_id, now)
    settle(call)
    return _interface(made)


async def add_routes(call: Call) -> dict[str, Any]:
    """PUT /routers/{id}/add_extraroutes."""
    return await _change_routes(call, "add_extraroutes", is_added=True)


async def remove_routes(call: Call) -> dict[str, Any]:
    """PUT /routers/{id}/remove_extraroutes."""
    return await _change_routes(call, "remove_extraroutes", is_added=False)


async def _change_routes(call: Call, rule: str, *, is_added: bool) -> dict[str, Any]:
    found = await _found(call, rule)
    routes, now = _routes(call.body.router.routes), call.cloud.world.clock.now()
    made = await call.cloud.db.write(
        routers.change_routes, found.id, routes, is_added=is_added, expected=revision(call), now=now
    )
    settle(call)
    return {"router": views.router(made)}


async def _found(call: Call, rule: str) -> Router:
    found = await call.cloud.db.read(store.get, call.ctx, call.params["router_id"])
    authorize(call, rule, owned(found))
    return found


def _interface(made: Interface) -> dict[str, Any]:
    return {
        "id": made.router.id,
        "tenant_id": made.router.project_id,
        "project_id": made.router.project_id,
        "port_id": made.port_id,
        "network_id": made.network_id,
        "subnet_id": made.subnet_ids[0] if made.subnet_ids else None,
        "subnet_ids": list(made.subnet_ids),
    }


def _gateway_attributes(info: GatewayBody | None) -> list[str]:
    """What a request says of the gateway, by the names that rules have."""
    if info is None:
        return []
    sent = [name for name in given(info) if name in ("enable_snat", "external_fixed_ips")]
    return [f"external_gateway_info:{name}" for name in sent]


def _gateway(call: Call, info: GatewayBody | None) -> Gateway | None:
    """Null and {} both mean none."""
    if info is None or (info.network_id is None and not _gateway_attributes(info)):
        return None
    if info.network_id is None:
        raise bad_value("external_gateway_info", "Validation of dictionary's keys failed: network_id is missing")
    fixed = info.external_fixed_ips
    return Gateway(
        network_id=info.network_id,
        port_id=call.cloud.world.entropy.uuid(),
        snat=None if isinstance(info.enable_snat, UnsetType) else info.enable_snat,
        fixed_ips=None
        if isinstance(fixed, UnsetType)
        else tuple(Fixed(subnet_id=one.subnet_id or "", ip_address=one.ip_address or "") for one in fixed),
    )


def _routes(asked: list[RouteBody]) -> tuple[HostRoute, ...]:
    return tuple(HostRoute(destination=route.destination, nexthop=route.nexthop) for route in asked)
