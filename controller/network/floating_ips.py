"""Rules of floating IPs: an address outside, in front of an address inside. Transaction functions."""

from collections.abc import Mapping
from typing import Any

from controller.context import Context
from controller.db.tx import Tx
from controller.network import addressing, usage
from controller.network.errors import (
    BadRequest,
    ExternalGatewayForFloatingIPNotFound,
    FloatingIPNotFound,
    FloatingIPPortAlreadyAssociated,
    NetworkNotFound,
)
from controller.network.model import FLOATING_OWNER, INFRASTRUCTURE_OWNERS, Fixed, FloatingIp, Port, Standard, Status
from controller.network.store import floating_ips, networks, ports, routers, subnets
from controller.network.store.rows import check_revision


class Draft(Standard, frozen=True, kw_only=True):
    """A floating IP that somebody asks for. What is None is ours to choose."""

    network_id: str
    floating_port_id: str
    subnet_id: str | None = None
    address: str | None = None
    port_id: str | None = None
    fixed_address: str | None = None


def create(tx: Tx, ctx: Context, draft: Draft, now: float) -> FloatingIp:
    """An address of an external network, put in front of a port if one is named."""
    usage.charge(tx, draft.project_id, "floatingip")
    around = networks.find_visible(tx, ctx, draft.network_id)
    if around is None:
        raise NetworkNotFound(draft.network_id)
    if not around.external:
        raise BadRequest("floatingip", f"Network {around.id} is not a valid external network")
    new = FloatingIp(
        id=draft.id,
        project_id=draft.project_id,
        description=draft.description,
        created_at=draft.created_at,
        updated_at=draft.updated_at,
        network_id=draft.network_id,
        address=_address(tx, draft, now),
        floating_port_id=draft.floating_port_id,
    )
    floating_ips.insert(tx, new)
    if draft.port_id is not None:
        _associate(tx, ctx, new, draft.port_id, draft.fixed_address, now)
    elif draft.fixed_address is not None:
        raise BadRequest("floatingip", "fixed_ip_address cannot be specified without a port_id")
    return _again(tx, new.id)


def update(
    tx: Tx, ctx: Context, floating_ip_id: str, changes: Mapping[str, Any], expected: int | None, now: float
) -> FloatingIp:
    """Put it in front of another port, or of none, or describe it. `changes`: port_id, fixed_address, description.

    No change at all takes it off its port, as in Neutron: floating IPs once had nothing else to change.
    """
    changes = changes or {"port_id": None}
    found = floating_ips.find(tx, floating_ip_id)
    if found is None:
        raise FloatingIPNotFound(floating_ip_id)
    check_revision(found.revision, expected)
    values = {name: value for name, value in changes.items() if name in ("name", "description")}
    if values:
        floating_ips.revise(tx, found.id, now, values)
    port_id, fixed = changes.get("port_id", found.port_id), changes.get("fixed_address")
    if fixed is not None and port_id is None:
        raise BadRequest("floatingip", "fixed_ip_address cannot be specified without a port_id")
    if "port_id" in changes or fixed is not None:
        if found.port_id is not None:
            floating_ips.take_off(tx, found, now)
        if port_id is not None:
            _associate(tx, ctx, found, port_id, fixed, now)
        elif found.port_id is None and not values:
            floating_ips.revise(tx, found.id, now, {})
    return _again(tx, found.id)


def delete(tx: Tx, floating_ip_id: str, expected: int | None, now: float) -> None:
    """Give the address back."""
    found = floating_ips.find(tx, floating_ip_id)
    if found is None:
        raise FloatingIPNotFound(floating_ip_id)
    check_revision(found.revision, expected)
    floating_ips.take_off(tx, found, now)
    floating_ips.delete(tx, found.id)
    held = ports.find(tx, found.floating_port_id)
    if held is not None:
        addressing.remove(tx, held, now)


def _again(tx: Tx, floating_ip_id: str) -> FloatingIp:
    made = floating_ips.find(tx, floating_ip_id)
    assert made is not None, "it was just written"
    return made


def _address(tx: Tx, draft: Draft, now: float) -> str:
    """The address, held by a port of nobody's, so that no one else gets it."""
    parts = [part for part in subnets.of_networks(tx, [draft.network_id]) if part.ip_version == 4]
    if not parts:
        raise BadRequest("floatingip", f"External network {draft.network_id} does not contain any IPv4 subnet")
    holder = Port(
        id=draft.floating_port_id,
        project_id="",
        network_id=draft.network_id,
        mac_address=ports.free_mac(tx, draft.network_id, draft.floating_port_id),
        status=Status.UNBOUND,
        device_id=draft.id,
        device_owner=FLOATING_OWNER,
        port_security_enabled=False,
        created_at=now,
        updated_at=now,
    )
    wanted: list[Fixed] | None = None
    if draft.address is not None:
        wanted = [Fixed(subnet_id=draft.subnet_id or "", ip_address=draft.address)]
    elif draft.subnet_id is not None:
        wanted = [Fixed(subnet_id=draft.subnet_id, ip_address="")]
    addressing.create(tx, holder, fixed_ip_wanted=wanted, group_ids=(), now=now)
    held = ports.find(tx, holder.id)
    assert held is not None, "it was just written"
    address = next((fixed.ip_address for fixed in held.fixed_ips if "." in fixed.ip_address), None)
    if address is None:
        raise BadRequest("floatingip", "a floating IP is an IPv4 address")
    return address


def _associate(tx: Tx, ctx: Context, found: FloatingIp, port_id: str, fixed_address: str | None, now: float) -> None:
    inside = ports.get(tx, ctx, port_id)
    if inside.device_owner in INFRASTRUCTURE_OWNERS:
        raise BadRequest("floatingip", f"Port {port_id} is the service's own and cannot have a floating IP")
    if not ctx.is_admin and inside.project_id != found.project_id:
        raise BadRequest(
            "floatingip",
            f"Cannot process floating IP association with Port {port_id}, "
            "since that port is owned by a different project",
        )
    fixed = _fixed(inside, fixed_address)
    for other in floating_ips.on_port(tx, port_id):
        if other.fixed_address == fixed.ip_address and other.id != found.id:
            raise FloatingIPPortAlreadyAssociated(found.address, found.id, port_id, fixed.ip_address, found.network_id)
    part = subnets.find(tx, fixed.subnet_id)
    assert part is not None, "a port's address is of a subnet"
    router_id = routers.joining(tx, part.id, found.network_id, part.gateway_ip)
    if router_id is None:
        raise ExternalGatewayForFloatingIPNotFound(found.network_id, part.id, port_id)
    values = {"port_id": port_id, "fixed_address": fixed.ip_address, "router_id": router_id}
    floating_ips.revise(tx, found.id, now, {**values, "status": Status.ACTIVE})
    routers.raise_generations(tx, [router_id])


def _fixed(inside: Port, asked: str | None) -> Fixed:
    """Which address of the port."""
    v4 = [fixed for fixed in inside.fixed_ips if "." in fixed.ip_address]
    if asked is not None:
        named = next((fixed for fixed in v4 if fixed.ip_address == asked), None)
        if named is None:
            raise BadRequest("floatingip", f"Port {inside.id} does not have fixed ip {asked}")
        return named
    if not v4:
        raise BadRequest("floatingip", f"Cannot add floating IP to port {inside.id} that has no fixed IPv4 addresses")
    if len(v4) > 1:
        raise BadRequest(
            "floatingip",
            f"Port {inside.id} has multiple fixed IPv4 addresses. "
            "Must provide a specific IPv4 address when assigning a floating IP",
        )
    return v4[0]
