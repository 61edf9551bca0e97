"""Handlers of subnets."""

from typing import Any, Final

import sqlalchemy as sa

from controller.db.tables.network import network, subnet
from controller.http.filters import Filter, boolean
from controller.http.op import Call
from controller.network import subnets
from controller.network.api import lists, views
from controller.network.api.bodies import PoolBody, RouteBody, SubnetCreate, given, number, posted
from controller.network.api.lists import Listed, flag, standard_filters, standard_sortable
from controller.network.api.requests import authorize, owner, revision, settle, standard
from controller.network.errors import InvalidInput
from controller.network.model import HostRoute, Network, Subnet
from controller.network.store import networks as network_store
from controller.network.store import subnets as store
from controller.network.subnets import Draft


def _of_networks(column: sa.ColumnElement[Any], values: list[Any]) -> sa.ColumnElement[bool]:
    return column.in_(sa.select(network.c.id).where(network.c.shared.in_(set(values))))


LISTED: Final = Listed(
    collection="subnets",
    table=subnet,
    filters={
        **standard_filters(subnet, "network_id", "cidr", "gateway_ip", "ipv6_ra_mode", "ipv6_address_mode"),
        "ip_version": Filter(subnet.c.ip_version, lists.number),
        "enable_dhcp": flag(subnet.c.enable_dhcp),
        "shared": Filter(subnet.c.network_id, boolean, where=_of_networks),
    },
    sortable=standard_sortable("network_id", "ip_version", "cidr", "gateway_ip", "enable_dhcp"),
    visible=store.visible,
    complete=store.complete,
)


async def index(call: Call) -> dict[str, Any]:
    """GET /subnets."""
    return await lists.listed(call, LISTED, views.subnet)


async def show(call: Call) -> dict[str, Any]:
    """GET /subnets/{id}."""
    found = await call.cloud.db.read(store.get, call.ctx, call.params["subnet_id"])
    return {"subnet": lists.chosen(call, views.subnet(found))}


async def create(call: Call) -> dict[str, Any]:
    """POST /subnets."""
    bodies, is_bulk = posted("subnet", call.body.subnet, call.body.subnets)
    now = call.cloud.world.clock.now()
    drafts = [await _draft(call, body, now) for body in bodies]
    made = await call.cloud.db.write(subnets.create, drafts, now)
    settle(call)
    shown = [views.subnet(one) for one in made]
    return {"subnets": shown} if is_bulk else {"subnet": shown[0]}


async def update(call: Call) -> dict[str, Any]:
    """PUT /subnets/{id}."""
    found = await _changeable(call, "update_subnet")
    changes = dict(given(call.body.subnet))
    if "allocation_pools" in changes:
        changes["allocation_pools"] = _pools(changes["allocation_pools"])
    if "host_routes" in changes:
        changes["host_routes"] = _routes(changes["host_routes"])
    if "dns_nameservers" in changes:
        changes["dns_nameservers"] = tuple(changes["dns_nameservers"] or ())
    now = call.cloud.world.clock.now()
    made = await call.cloud.db.write(subnets.update, found.id, changes, revision(call), now)
    settle(call)
    return {"subnet": views.subnet(made)}


async def delete(call: Call) -> None:
    """DELETE /subnets/{id}."""
    found = await _changeable(call, "delete_subnet")
    await call.cloud.db.write(subnets.delete, found.id, revision(call), call.cloud.world.clock.now())
    settle(call)


async def _changeable(call: Call, rule: str) -> Subnet:
    found = await call.cloud.db.read(store.get, call.ctx, call.params["subnet_id"])
    around = await call.cloud.db.read(network_store.get, call.ctx, found.network_id)
    authorize(call, rule, {"project_id": found.project_id, "network_project_id": around.project_id})
    return found


async def _draft(call: Call, body: SubnetCreate, now: float) -> Draft:
    around: Network = await call.cloud.db.read(network_store.get, call.ctx, body.network_id)
    project_id = owner(call, body)
    authorize(call, "create_subnet", {"project_id": project_id, "network_project_id": around.project_id})
    if body.cidr is None:
        raise InvalidInput("a subnetpool must be specified in the absence of a cidr")
    return Draft(
        **standard(call, body, project_id, now),
        network_id=around.id,
        ip_version=number("ip_version", body.ip_version),
        cidr=body.cidr,
        gateway=body.gateway_ip,
        enable_dhcp=body.enable_dhcp,
        pools=_pools(body.allocation_pools) if body.allocation_pools is not None else None,
        dns_nameservers=tuple(body.dns_nameservers or ()),
        host_routes=_routes(body.host_routes),
        ipv6_ra_mode=body.ipv6_ra_mode,
        ipv6_address_mode=body.ipv6_address_mode,
    )


def _pools(asked: list[PoolBody]) -> tuple[tuple[str, str], ...]:
    return tuple((pool.start, pool.end) for pool in asked)


def _routes(asked: list[RouteBody] | None) -> tuple[HostRoute, ...]:
    return tuple(HostRoute(destination=route.destination, nexthop=route.nexthop) for route in asked or ())
