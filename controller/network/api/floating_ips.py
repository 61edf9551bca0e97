"""Handlers of floating IPs."""

from typing import Any, Final

from controller.db.tables.network import floating_ip
from controller.http.filters import Filter
from controller.http.op import Call
from controller.network import floating_ips
from controller.network.api import lists, views
from controller.network.api.bodies import given
from controller.network.api.lists import Listed, standard_filters, standard_sortable
from controller.network.api.requests import authorize, owned, owner, revision, settle, standard
from controller.network.floating_ips import Draft
from controller.network.store import floating_ips as store

LISTED: Final = Listed(
    collection="floatingips",
    table=floating_ip,
    filters={
        **standard_filters(floating_ip, "port_id", "router_id", "status"),
        "floating_network_id": Filter(floating_ip.c.network_id),
        "floating_ip_address": Filter(floating_ip.c.address),
        "fixed_ip_address": Filter(floating_ip.c.fixed_address),
    },
    sortable={
        **standard_sortable("port_id", "router_id", "status"),
        "floating_network_id": "network_id",
        "floating_ip_address": "address",
        "fixed_ip_address": "fixed_address",
    },
    visible=store.visible,
    complete=store.complete,
)


async def index(call: Call) -> dict[str, Any]:
    """GET /floatingips."""
    return await lists.listed(call, LISTED, views.floating_ip)


async def show(call: Call) -> dict[str, Any]:
    """GET /floatingips/{id}."""
    found = await call.cloud.db.read(store.get, call.ctx, call.params["floatingip_id"])
    return {"floatingip": lists.chosen(call, views.floating_ip(found))}


async def create(call: Call) -> dict[str, Any]:
    """POST /floatingips."""
    body = call.body.floatingip
    project_id = owner(call, body)
    attributes = ["floating_ip_address"] if body.floating_ip_address else []
    authorize(call, "create_floatingip", {"project_id": project_id}, attributes)
    now = call.cloud.world.clock.now()
    draft = Draft(
        **standard(call, body, project_id, now),
        network_id=body.floating_network_id,
        floating_port_id=call.cloud.world.entropy.uuid(),
        subnet_id=body.subnet_id,
        address=body.floating_ip_address,
        port_id=body.port_id,
        fixed_address=body.fixed_ip_address,
    )
    made = await call.cloud.db.write(floating_ips.create, call.ctx, draft, now)
    settle(call)
    return {"floatingip": views.floating_ip(made)}


async def update(call: Call) -> dict[str, Any]:
    """PUT /floatingips/{id}."""
    found = await call.cloud.db.read(store.get, call.ctx, call.params["floatingip_id"])
    authorize(call, "update_floatingip", owned(found))
    sent = given(call.body.floatingip)
    changes = {{"fixed_ip_address": "fixed_address"}.get(name, name): value for name, value in sent.items()}
    now = call.cloud.world.clock.now()
    made = await call.cloud.db.write(floating_ips.update, call.ctx, found.id, changes, revision(call), now)
    settle(call)
    return {"floatingip": views.floating_ip(made)}


async def delete(call: Call) -> None:
    """DELETE /floatingips/{id}."""
    found = await call.cloud.db.read(store.get, call.ctx, call.params["floatingip_id"])
    authorize(call, "delete_floatingip", owned(found))
    await call.cloud.db.write(floating_ips.delete, found.id, revision(call), call.cloud.world.clock.now())
    settle(call)
