"""Rules of routers: gateways, interfaces, extra routes. Transaction functions."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from controller.context import Context
from controller.db.tx import Tx
from controller.network import addresses, addressing, gateways, usage
from controller.network.errors import (
    BadRequest,
    InvalidRoutes,
    NetworkNotFound,
    PortInUse,
    RouterExternalGatewayInUseByFloatingIp,
    RouterInterfaceInUseByFloatingIP,
    RouterInterfaceInUseByRoute,
    RouterInterfaceNotFound,
    RouterInterfaceNotFoundForSubnet,
    RouterInUse,
    RouterNotFound,
    RoutesExhausted,
    SubnetMismatchForPort,
)
from controller.network.model import (
    GATEWAY_OWNER,
    ROUTER_OWNER,
    Fixed,
    HostRoute,
    Port,
    Router,
    Standard,
    Status,
    Subnet,
)
from controller.network.store import floating_ips, forwarding, members, networks, ports, routers, subnets
from controller.network.store.rows import check_revision

ROUTES_MAX: Final = 30


class Gateway(msgspec.Struct, frozen=True, kw_only=True):
    """A way out that somebody asks for. `snat` None: as it is, at first on; `fixed_ips` None: as they are, or any."""

    network_id: str
    port_id: str  # Of the port that is made if there is none yet.
    snat: bool | None = None
    fixed_ips: tuple[Fixed, ...] | None = None


class Draft(Standard, frozen=True, kw_only=True):
    """A router that somebody asks for."""

    admin_state_up: bool = True
    gateway: Gateway | None = None


class Interface(msgspec.Struct, frozen=True, kw_only=True):
    """What adding or removing an interface was about."""

    router: Router
    port_id: str
    network_id: str
    subnet_ids: tuple[str, ...]


def create(tx: Tx, ctx: Context, draft: Draft, now: float) -> Router:
    """A router, with its gateway if one is asked for."""
    usage.charge(tx, draft.project_id, "router")
    new = Router(
        id=draft.id,
        project_id=draft.project_id,
        name=draft.name,
        description=draft.description,
        created_at=draft.created_at,
        updated_at=draft.updated_at,
        admin_state_up=draft.admin_state_up,
    )
    routers.insert(tx, new)
    if draft.gateway is not None:
        _set_gateway(tx, ctx, new, draft.gateway, now)
    return _again(tx, new.id)


def update(
    tx: Tx, ctx: Context, router_id: str, changes: Mapping[str, Any], expected: int | None, now: float
) -> Router:
    """Change what may be changed. `changes` may hold `gateway` (a Gateway or None) and `routes`."""
    found = _get(tx, router_id, expected)
    values = {name: value for name, value in changes.items() if name in ("name", "description", "admin_state_up")}
    routers.revise(tx, router_id, now, values)
    if "gateway" in changes:
        if changes["gateway"] is None:
            _clear_gateway(tx, found, now)
        else:
            _set_gateway(tx, ctx, found, changes["gateway"], now)
    if "routes" in changes:
        _set_routes(tx, router_id, changes["routes"], now)
    return _again(tx, router_id)


def change_routes(
    tx: Tx, router_id: str, routes: Sequence[HostRoute], *, is_added: bool, expected: int | None, now: float
) -> Router:
    """Add routes to those there are, or take some away; what is there already, or not, does not matter."""
    found = _get(tx, router_id, expected)
    named = checked_routes(router_id, routes)
    kept = [route for route in found.routes if route not in named]
    _set_routes(tx, router_id, [*kept, *named] if is_added else kept, now)
    return _again(tx, router_id)


def delete(tx: Tx, router_id: str, expected: int | None, now: float) -> None:
    """A router without interfaces; its gateway goes with it. Raises RouterInUse."""
    found = _get(tx, router_id, expected)
    if _legs(tx, router_id):
        raise RouterInUse(router_id)
    _clear_gateway(tx, msgspec.structs.replace(found, routes=()), now)
    routers.delete(tx, router_id)


def add_subnet(tx: Tx, ctx: Context, router_id: str, subnet_id: str, port_id: str, now: float) -> Interface:
    """Give the router the subnet's gateway address, on a new port. Raises Invalid, NotFound or Conflict."""
    found = _get(tx, router_id, None)
    part = subnets.get(tx, ctx, subnet_id)
    if part.gateway_ip is None:
        raise BadRequest("router", "Subnet for router interface must have a gateway IP")
    if not ctx.is_admin and part.project_id != ctx.project_id:
        raise BadRequest(
            "router",
            f"Cannot add interface to router because subnet {subnet_id} is not owned by project making the request",
        )
    _check_joinable(tx, found, [part])
    leg = Port(
        id=port_id,
        project_id=found.project_id,
        network_id=part.network_id,
        mac_address=ports.free_mac(tx, part.network_id, port_id),
        status=Status.ACTIVE,
        device_id=router_id,
        device_owner=ROUTER_OWNER,
        port_security_enabled=False,
        created_at=now,
        updated_at=now,
    )
    wanted = [Fixed(subnet_id=part.id, ip_address=part.gateway_ip)]
    addressing.create(tx, leg, fixed_ip_wanted=wanted, group_ids=(), now=now)
    forwarding.changed(tx, leg.network_id, leg.id)
    routers.revise(tx, router_id, now, {})
    return Interface(router=found, port_id=leg.id, network_id=part.network_id, subnet_ids=(part.id,))


def add_port(tx: Tx, ctx: Context, router_id: str, port_id: str, now: float) -> Interface:
    """Make a port that exists the router's. Raises Invalid, NotFound or Conflict."""
    found = _get(tx, router_id, None)
    leg = ports.get(tx, ctx, port_id)
    if not ctx.is_admin and leg.project_id != ctx.project_id:
        raise BadRequest(
            "router",
            f"Cannot add interface to router because port {port_id} is not owned by project making the request",
        )
    if leg.device_id or leg.host_id:
        raise PortInUse(port_id, leg.network_id, leg.device_id or leg.host_id)
    if not leg.fixed_ips:
        raise BadRequest("router", "Router port must have at least one fixed IP")
    by_id = {part.id: part for part in subnets.of_networks(tx, [leg.network_id])}
    parts = [by_id[fixed.subnet_id] for fixed in leg.fixed_ips]
    if sum(part.ip_version == 4 for part in parts) > 1:
        raise BadRequest("router", "Cannot have multiple IPv4 subnets on router port")
    _check_joinable(tx, found, parts)
    owned = {"device_id": router_id, "device_owner": ROUTER_OWNER, "status": Status.ACTIVE}
    ports.set_groups(tx, port_id, ())
    members.changed(tx, leg.security_groups, leg.id)
    ports.update(tx, port_id, now, **owned, port_security_enabled=False, allowed_address_pairs=())
    forwarding.changed(tx, leg.network_id, leg.id)
    routers.revise(tx, router_id, now, {})
    return Interface(router=found, port_id=leg.id, network_id=leg.network_id, subnet_ids=_subnet_ids(leg))


def remove_interface(tx: Tx, router_id: str, subnet_id: str | None, port_id: str | None, now: float) -> Interface:
    """Take an interface away, with its port. Raises NotFound, or Conflict if something needs it."""
    found = _get(tx, router_id, None)
    leg = _leg(tx, router_id, subnet_id, port_id)
    for fixed in leg.fixed_ips:
        _check_unneeded(tx, found, fixed.subnet_id)
    forwarding.changed(tx, leg.network_id, leg.id, found.gateway_host_id)
    addressing.remove(tx, leg, now)
    routers.revise(tx, router_id, now, {})
    return Interface(router=found, port_id=leg.id, network_id=leg.network_id, subnet_ids=_subnet_ids(leg))


def checked_routes(router_id: str, routes: Iterable[HostRoute]) -> list[HostRoute]:
    """Extra routes as they are stored. Raises Invalid."""
    found: list[HostRoute] = []
    for route in routes:
        destination = addresses.parsed_cidr("routes", route.destination)
        nexthop = addresses.parsed("routes", route.nexthop)
        if destination.version != nexthop.version:
            raise InvalidRoutes("destination and nexthop are of different IP versions")
        one = HostRoute(destination=str(destination), nexthop=str(nexthop))
        if one not in found:
            found.append(one)
    if len(found) > ROUTES_MAX:
        raise RoutesExhausted(router_id, ROUTES_MAX)
    return found


def _get(tx: Tx, router_id: str, expected: int | None) -> Router:
    found = routers.find(tx, router_id)
    if found is None:
        raise RouterNotFound(router_id)
    check_revision(found.revision, expected)
    return found


def _again(tx: Tx, router_id: str) -> Router:
    made = routers.find(tx, router_id)
    assert made is not None, "it was just written"
    return made


def _subnet_ids(leg: Port) -> tuple[str, ...]:
    return tuple(dict.fromkeys(fixed.subnet_id for fixed in leg.fixed_ips))


def _attached(tx: Tx, router_id: str) -> list[Port]:
    """Interfaces and gateway. Anyone may write any device into a port of their own; these owners only we write."""
    found = ports.of_devices(tx, [router_id])
    return [leg for leg in found if leg.device_owner in (ROUTER_OWNER, GATEWAY_OWNER)]


def _legs(tx: Tx, router_id: str) -> list[Port]:
    return [leg for leg in _attached(tx, router_id) if leg.device_owner == ROUTER_OWNER]


def _leg(tx: Tx, router_id: str, subnet_id: str | None, port_id: str | None) -> Port:
    legs = _legs(tx, router_id)
    if port_id is not None:
        named = next((leg for leg in legs if leg.id == port_id), None)
        if named is None:
            raise RouterInterfaceNotFound(router_id, port_id)
        if subnet_id is not None and subnet_id not in _subnet_ids(named):
            raise SubnetMismatchForPort(port_id, subnet_id)
        return named
    assert subnet_id is not None, "one of the two names the interface"
    on_subnet = next((leg for leg in legs if subnet_id in _subnet_ids(leg)), None)
    if on_subnet is None:
        raise RouterInterfaceNotFoundForSubnet(router_id, subnet_id)
    return on_subnet


def _check_joinable(tx: Tx, found: Router, parts: Sequence[Subnet]) -> None:
    """A router knows each address once: its subnets are distinct and do not overlap."""
    attached = _attached(tx, found.id)
    taken_ids = {fixed.subnet_id for leg in attached for fixed in leg.fixed_ips}
    known = {part.id: part for part in subnets.of_networks(tx, {leg.network_id for leg in attached})}
    for part in parts:
        if part.id in taken_ids:
            raise BadRequest("router", f"Router already has a port on subnet {part.id}")
        for other in (known[one] for one in sorted(taken_ids)):
            if addresses.cidr_of(part.cidr).overlaps(addresses.cidr_of(other.cidr)):
                raise BadRequest(
                    "router",
                    f"Cidr {part.cidr} of subnet {part.id} overlaps with cidr {other.cidr} of subnet {other.id}",
                )


def _check_unneeded(tx: Tx, found: Router, subnet_id: str) -> None:
    part = subnets.find(tx, subnet_id)
    assert part is not None, "a port's address is of a subnet"
    cidr = addresses.cidr_of(part.cidr)
    for front in floating_ips.through(tx, found.id):
        fixed = addresses.parsed("fixed_ip_address", front.fixed_address) if front.fixed_address else None
        if fixed is not None and fixed in cidr:
            raise RouterInterfaceInUseByFloatingIP(found.id, subnet_id)
    if any(addresses.parsed("nexthop", route.nexthop) in cidr for route in found.routes):
        raise RouterInterfaceInUseByRoute(found.id, subnet_id)


# The gateway.


def _set_gateway(tx: Tx, ctx: Context, found: Router, wanted: Gateway, now: float) -> None:
    around = networks.find_visible(tx, ctx, wanted.network_id)
    if around is None:
        raise NetworkNotFound(wanted.network_id)
    if not around.external:
        raise BadRequest("router", f"Network {around.id} is not an external network")
    old = ports.find(tx, found.gateway_port_id) if found.gateway_port_id else None
    is_same = old is not None and old.network_id == around.id
    if old is not None and not is_same:
        _clear_gateway(tx, found, now)
        old = None
    snat = wanted.snat if wanted.snat is not None else (found.enable_snat if is_same else True)
    host_id = found.gateway_host_id if is_same else ""
    if old is None:
        old = _make_gateway(tx, found, wanted, now)
    elif wanted.fixed_ips is not None and addressing.change(tx, old, wanted.fixed_ips, now):
        ports.update(tx, old.id, now)
    _check_gateway_subnets(tx, found, old.id)
    if not host_id:
        host_id = gateways.choose(tx, found.id, around.id)
        forwarding.way_out_changed(tx, found.id, "")
    values = {"gateway_network_id": around.id, "gateway_port_id": old.id, "enable_snat": snat}
    routers.revise(tx, found.id, now, {**values, "gateway_host_id": host_id})


def _make_gateway(tx: Tx, found: Router, wanted: Gateway, now: float) -> Port:
    leg = Port(
        id=wanted.port_id,
        project_id="",  # Nobody's: users neither see it nor count it.
        network_id=wanted.network_id,
        mac_address=ports.free_mac(tx, wanted.network_id, wanted.port_id),
        status=Status.ACTIVE,
        device_id=found.id,
        device_owner=GATEWAY_OWNER,
        port_security_enabled=False,
        created_at=now,
        updated_at=now,
    )
    addressing.create(tx, leg, fixed_ip_wanted=wanted.fixed_ips or None, group_ids=(), now=now)
    return leg


def _check_gateway_subnets(tx: Tx, found: Router, gateway_port_id: str) -> None:
    outside = ports.find(tx, gateway_port_id)
    assert outside is not None, "it was just written"
    known = {
        part.id: addresses.cidr_of(part.cidr)
        for part in subnets.of_networks(tx, {leg.network_id for leg in _attached(tx, found.id)})
    }
    inner = {fixed.subnet_id for leg in _legs(tx, found.id) for fixed in leg.fixed_ips}
    for fixed in outside.fixed_ips:
        for other in sorted(inner):
            if known[fixed.subnet_id].overlaps(known[other]):
                raise BadRequest(
                    "router",
                    f"Cidr {known[fixed.subnet_id]} of subnet {fixed.subnet_id} overlaps "
                    f"with cidr {known[other]} of subnet {other}",
                )


def _clear_gateway(tx: Tx, found: Router, now: float) -> None:
    """Raises Conflict while a floating IP or an extra route needs it."""
    old = ports.find(tx, found.gateway_port_id) if found.gateway_port_id else None
    if old is None:
        return
    if floating_ips.through(tx, found.id):
        raise RouterExternalGatewayInUseByFloatingIp(found.id, old.network_id)
    parts = {part.id: part for part in subnets.of_networks(tx, [old.network_id])}
    for fixed in old.fixed_ips:
        cidr = addresses.cidr_of(parts[fixed.subnet_id].cidr)
        if any(addresses.parsed("nexthop", route.nexthop) in cidr for route in found.routes):
            raise RouterInterfaceInUseByRoute(found.id, fixed.subnet_id)
    addressing.remove(tx, old, now)
    forwarding.way_out_changed(tx, found.id, found.gateway_host_id)
    cleared = {"gateway_network_id": None, "gateway_port_id": None, "enable_snat": True, "gateway_host_id": ""}
    routers.revise(tx, found.id, now, cleared)


def _set_routes(tx: Tx, router_id: str, routes: Iterable[HostRoute], now: float) -> None:
    """Every next hop must be a neighbour: on a subnet of an interface or of the gateway, and not the router itself."""
    checked = checked_routes(router_id, routes)
    attached = _attached(tx, router_id)
    own = {fixed.ip_address for leg in attached for fixed in leg.fixed_ips}
    parts = {part.id: part for part in subnets.of_networks(tx, {leg.network_id for leg in attached})}
    near = [addresses.cidr_of(parts[fixed.subnet_id].cidr) for leg in attached for fixed in leg.fixed_ips]
    for route in checked:
        if not any(addresses.parsed("nexthop", route.nexthop) in cidr for cidr in near):
            raise InvalidRoutes(f"{route.destination} via {route.nexthop}: the nexthop is not connected with router")
        if route.nexthop in own:
            raise InvalidRoutes(f"{route.destination} via {route.nexthop}: the nexthop is used by router")
    routers.revise(tx, router_id, now, {"routes": checked})
