"""Handlers of networks."""

from functools import partial
from typing import Any, Final

import sqlalchemy as sa
from msgspec import UnsetType

from controller.db.tables.network import network, subnet
from controller.http.filters import Filter
from controller.http.op import Call
from controller.network import networks
from controller.network.api import lists, views
from controller.network.api.bodies import NetworkCreate, given, number, posted
from controller.network.api.lists import Listed, flag, standard_filters, standard_sortable
from controller.network.api.requests import authorize, owned, owner, revision, settle, standard
from controller.network.errors import InvalidInput
from controller.network.networks import Draft
from controller.network.store import networks as store

_PROVIDER: Final = {
    "provider:network_type": Filter(network.c.network_type),
    "provider:physical_network": Filter(network.c.physical_network),
    "provider:segmentation_id": Filter(network.c.segment, lists.number),
}
_PUBLIC_NAMES: Final = {
    "external": "router:external",
    "network_type": "provider:network_type",
    "physical_network": "provider:physical_network",
    "segmentation_id": "provider:segmentation_id",
}


def _status(column: sa.ColumnElement[Any], values: list[Any]) -> sa.ColumnElement[bool]:
    return sa.true() if "ACTIVE" in values else sa.false()


def _with_subnet(column: sa.ColumnElement[Any], values: list[Any]) -> sa.ColumnElement[bool]:
    return column.in_(sa.select(subnet.c.network_id).where(subnet.c.id.in_(values)))


LISTED: Final = Listed(
    collection="networks",
    table=network,
    filters={
        **standard_filters(network),
        **_PROVIDER,
        "admin_state_up": flag(network.c.admin_state_up),
        "shared": flag(network.c.shared),
        "router:external": flag(network.c.external),
        "port_security_enabled": flag(network.c.port_security_enabled),
        "mtu": Filter(network.c.mtu, lists.number),
        "status": Filter(network.c.id, where=_status),
        "subnets": Filter(network.c.id, where=_with_subnet),
    },
    sortable=standard_sortable("admin_state_up", "mtu"),
    visible=store.visible,
    complete=store.complete,
    hidden=frozenset(_PROVIDER),
)


async def index(call: Call) -> dict[str, Any]:
    """GET /networks."""
    return await lists.listed(call, LISTED, partial(views.network, is_admin=call.ctx.is_admin))


async def show(call: Call) -> dict[str, Any]:
    """GET /networks/{id}."""
    found = await call.cloud.db.read(store.get, call.ctx, call.params["network_id"])
    return {"network": lists.chosen(call, views.network(found, is_admin=call.ctx.is_admin))}


async def create(call: Call) -> dict[str, Any]:
    """POST /networks."""
    bodies, is_bulk = posted("network", call.body.network, call.body.networks)
    now = call.cloud.world.clock.now()
    drafts = [_draft(call, body, now) for body in bodies]
    made = await call.cloud.db.write(networks.create, drafts)
    settle(call)
    shown = [views.network(one, is_admin=call.ctx.is_admin) for one in made]
    return {"networks": shown} if is_bulk else {"network": shown[0]}


async def update(call: Call) -> dict[str, Any]:
    """PUT /networks/{id}."""
    found = await call.cloud.db.read(store.get, call.ctx, call.params["network_id"])
    changes = dict(given(call.body.network))
    authorize(call, "update_network", owned(found), [_PUBLIC_NAMES.get(name, name) for name in changes])
    for name in ("network_type", "physical_network", "segmentation_id"):
        if name in changes:
            raise InvalidInput("Plugin does not support updating provider attributes")
    if "mtu" in changes:
        changes["mtu"] = number("mtu", changes["mtu"])
    now = call.cloud.world.clock.now()
    made = await call.cloud.db.write(networks.update, found.id, changes, revision(call), now)
    settle(call)
    return {"network": views.network(made, is_admin=call.ctx.is_admin)}


async def delete(call: Call) -> None:
    """DELETE /networks/{id}."""
    found = await call.cloud.db.read(store.get, call.ctx, call.params["network_id"])
    authorize(call, "delete_network", owned(found))
    await call.cloud.db.write(networks.delete, found.id, revision(call), call.cloud.world.clock.now())
    settle(call)


def _draft(call: Call, body: NetworkCreate, now: float) -> Draft:
    project_id = owner(call, body)
    asked = {
        "shared": body.shared,
        "router:external": body.external,
        "provider:network_type": body.network_type is not None,
        "provider:physical_network": body.physical_network is not None,
        "provider:segmentation_id": body.segmentation_id is not None,
    }
    authorize(call, "create_network", {"project_id": project_id}, [name for name, is_set in asked.items() if is_set])
    segment = body.segmentation_id
    return Draft(
        **standard(call, body, project_id, now),
        admin_state_up=body.admin_state_up,
        shared=body.shared,
        external=body.external,
        port_security_enabled=body.port_security_enabled,
        mtu=number("mtu", body.mtu) if not isinstance(body.mtu, UnsetType) else None,
        network_type=body.network_type,
        physical_network=body.physical_network,
        segment=number("provider:segmentation_id", segment) if segment is not None else None,
    )
