"""Handlers of ports."""

from collections.abc import Iterable
from typing import Any, Final

import sqlalchemy as sa
from msgspec import UnsetType

from controller.db.tables.fleet import host
from controller.db.tables.network import ip_allocation, port, port_security_group
from controller.db.tx import Tx
from controller.fleet import store as fleet
from controller.http.filters import Filter
from controller.http.op import Call
from controller.network import user_ports
from controller.network.api import lists, views
from controller.network.api.bodies import FixedBody, PairBody, PortCreate, PortShape, given, posted
from controller.network.api.lists import Listed, flag, standard_filters, standard_sortable
from controller.network.api.requests import authorize, owner, revision, settle, standard
from controller.network.errors import bad_value
from controller.network.model import Fixed, Network, Port
from controller.network.store import networks as network_store
from controller.network.store import ports as store
from controller.network.user_ports import Draft


def _by_address(column: sa.ColumnElement[Any], values: list[Any]) -> sa.ColumnElement[bool]:
    """`fixed_ips=ip_address=10.0.0.5&fixed_ips=subnet_id=…`: any of the addresses, on any of the subnets."""
    wanted: dict[str, list[str]] = {}
    for value in values:
        key, separator, text = value.partition("=")
        if not separator or key not in ("ip_address", "subnet_id"):
            raise bad_value("fixed_ips", f"'{value}' is neither ip_address=<address> nor subnet_id=<id>")
        wanted.setdefault(key, []).append(text)
    query = sa.select(ip_allocation.c.port_id)
    if "ip_address" in wanted:
        query = query.where(ip_allocation.c.address.in_(wanted["ip_address"]))
    if "subnet_id" in wanted:
        query = query.where(ip_allocation.c.subnet_id.in_(wanted["subnet_id"]))
    return column.in_(query)


def _by_group(column: sa.ColumnElement[Any], values: list[Any]) -> sa.ColumnElement[bool]:
    return column.in_(sa.select(port_security_group.c.port_id).where(port_security_group.c.group_id.in_(values)))


def _by_host(column: sa.ColumnElement[Any], values: list[Any]) -> sa.ColumnElement[bool]:
    named = column.in_(sa.select(host.c.id).where(host.c.hostname.in_(values)))
    return sa.or_(named, column == "") if "" in values else named


LISTED: Final = Listed(
    collection="ports",
    table=port,
    filters={
        **standard_filters(port, "network_id", "mac_address", "device_id", "device_owner", "status"),
        "admin_state_up": flag(port.c.admin_state_up),
        "port_security_enabled": flag(port.c.port_security_enabled),
        "fixed_ips": Filter(port.c.id, where=_by_address),
        "security_groups": Filter(port.c.id, where=_by_group),
        "security_group_ids": Filter(port.c.id, where=_by_group),
        "binding:vnic_type": Filter(port.c.vnic_type),
        "binding:host_id": Filter(port.c.host_id, where=_by_host),
    },
    sortable=standard_sortable("network_id", "mac_address", "admin_state_up", "status", "device_id", "device_owner"),
    visible=store.visible,
    complete=store.complete,
    hidden=frozenset({"binding:host_id"}),
)


async def index(call: Call) -> dict[str, Any]:
    """GET /ports."""
    found, page, is_reverse = await lists.fetched(call, LISTED)
    return lists.shown(call, LISTED, await _views(call, found), page, is_reverse=is_reverse)


async def show(call: Call) -> dict[str, Any]:
    """GET /ports/{id}."""
    found = await call.cloud.db.read(store.get, call.ctx, call.params["port_id"])
    return {"port": lists.chosen(call, (await _views(call, [found]))[0])}


async def create(call: Call) -> dict[str, Any]:
    """POST /ports."""
    bodies, is_bulk = posted("port", call.body.port, call.body.ports)
    now = call.cloud.world.clock.now()
    drafts = [await _draft(call, body, now) for body in bodies]
    made = await call.cloud.db.write(user_ports.create, call.ctx, drafts, now)
    settle(call)
    shown = await _views(call, made)
    return {"ports": shown} if is_bulk else {"port": shown[0]}


async def update(call: Call) -> dict[str, Any]:
    """PUT /ports/{id}."""
    found = await call.cloud.db.read(store.get, call.ctx, call.params["port_id"])
    around = await call.cloud.db.read(network_store.find, found.network_id)
    assert around is not None, "a port has a network"
    body = call.body.port
    target = _target(found.project_id, around, _text(body.device_owner, found.device_owner))
    authorize(call, "update_port", target, _attributes(body))
    _check_binding(body)
    now = call.cloud.world.clock.now()
    made = await call.cloud.db.write(user_ports.update, call.ctx, found.id, _changes(body), revision(call), now)
    settle(call)
    return {"port": (await _views(call, [made]))[0]}


async def delete(call: Call) -> None:
    """DELETE /ports/{id}."""
    found = await call.cloud.db.read(store.get, call.ctx, call.params["port_id"])
    around = await call.cloud.db.read(network_store.find, found.network_id)
    assert around is not None, "a port has a network"
    authorize(call, "delete_port", _target(found.project_id, around, found.device_owner))
    await call.cloud.db.write(user_ports.delete, found.id, revision(call), call.cloud.world.clock.now())
    settle(call)


async def _views(call: Call, found: Iterable[Port]) -> list[dict[str, Any]]:
    if not call.ctx.is_admin:
        return [views.port(one, None) for one in found]
    names = await call.cloud.db.read(_hostnames)
    return [views.port(one, names) for one in found]


def _hostnames(tx: Tx) -> dict[str, str]:
    return {one.id: one.hostname for one in fleet.list_hosts(tx)}


def _target(project_id: str, around: Network, device_owner: str) -> dict[str, Any]:
    return {
        "project_id": project_id,
        "network_project_id": around.project_id,
        "network_shared": around.shared,
        "device_owner": device_owner,
    }


_PUBLIC_NAMES: Final = {"host_id": "binding:host_id", "profile": "binding:profile"}


def _attributes(body: PortShape) -> list[str]:
    """What a request sets, by the names that rules have."""
    sent = given(body)
    names = [_PUBLIC_NAMES.get(name, name) for name, value in sent.items() if not (name == "fixed_ips" and not value)]
    if any(one.ip_address for one in sent.get("fixed_ips") or ()):
        names.append("fixed_ips:ip_address")
    return names


async def _draft(call: Call, body: PortCreate, now: float) -> Draft:
    around: Network = await call.cloud.db.read(network_store.get, call.ctx, body.network_id)
    project_id = owner(call, body)
    unset = {"binding:host_id"} if not _optional(body.host_id) else set()
    unset |= {"binding:profile"} if not _optional(body.profile) else set()
    attributes = [name for name in _attributes(body) if name not in unset]
    authorize(call, "create_port", _target(project_id, around, _text(body.device_owner, "")), attributes)
    _check_binding(body)
    return Draft(**standard(call, body, project_id, now), network_id=around.id, **_changes(body, is_new=True))


def _changes(body: PortShape, *, is_new: bool = False) -> dict[str, Any]:
    """What a request sets, by the names of `Draft`."""
    sent = given(body)
    same = (
        "name",
        "description",
        "admin_state_up",
        "port_security_enabled",
        "mac_address",
        "device_id",
        "device_owner",
    )
    changes = {name: sent[name] for name in same if name in sent}
    if sent.get("fixed_ips") is not None:
        changes["fixed_ips"] = tuple(_fixed(one) for one in sent["fixed_ips"])
    if "security_groups" in sent:
        changes["security_groups"] = tuple(sent["security_groups"] or ())
    if "allowed_address_pairs" in sent:
        changes["pairs"] = tuple(_pair(one) for one in sent["allowed_address_pairs"] or ())
    if "host_id" in sent:
        changes["host"] = sent["host_id"] or ""
    if is_new:
        changes.pop("name", None)
        changes.pop("description", None)
    return changes


def _fixed(one: FixedBody) -> Fixed:
    return Fixed(subnet_id=one.subnet_id or "", ip_address=one.ip_address or "")


def _pair(one: PairBody) -> tuple[str, str | None]:
    return one.ip_address, one.mac_address


def _check_binding(body: PortShape) -> None:
    """There is one kind of port here, and nothing to tell a device behind it."""
    if _optional(body.vnic_type) not in (None, "normal"):
        raise bad_value("binding:vnic_type", f"'{body.vnic_type}' is not in ['normal']")
    if _optional(body.profile):
        raise bad_value("binding:profile", "no profile is offered")


def _optional(value: Any) -> Any:
    return None if isinstance(value, UnsetType) else value


def _text(value: str | UnsetType, otherwise: str) -> str:
    return otherwise if isinstance(value, UnsetType) else value
