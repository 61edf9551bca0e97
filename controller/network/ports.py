"""Ports as servers have them: what may be attached, being bound and released. The compute slice calls this.

Functions that take `tx` are parts of somebody's transaction: a saga step runs them with its event, so each may
run twice and comes to the same end. What the network API itself does with ports is in `user_ports`.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from controller.context import Context
from controller.db.tx import Tx
from controller.errors import Conflict, Forbidden, Invalid, NotFound
from controller.http.policy import forbidden
from controller.network import addressing, usage
from controller.network.addressing import create, remove
from controller.network.model import COMPUTE_OWNER_PREFIX, Fixed, Network, Port, Status
from controller.network.policy import RULES
from controller.network.store import floating_ips, groups, networks, ports, subnets


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """One network interface that a new server asks for: a port of the user's, or a network to make one on."""

    port_id: str | None = None
    network_id: str | None = None
    fixed_ip: str | None = None


class PortView(msgspec.Struct, frozen=True, kw_only=True):
    """A server's port as the compute API shows it. `addresses` are (address, version); `floating` likewise."""

    port_id: str
    network_id: str
    network_name: str
    mac: str
    status: Status
    addresses: tuple[tuple[str, int], ...]
    floating: tuple[tuple[str, int], ...]


def check_requested(tx: Tx, ctx: Context, wanted: Sequence[Wanted], servers: int = 1) -> list[str]:
    """Refuse, before anything is made, what so many servers cannot be attached to; returns the network of each.

    Raises Invalid, NotFound, Conflict or OverQuota with the sentence for the user.
    """
    found: list[str] = []
    fresh = 0
    for one in wanted:
        if one.port_id is not None:
            found.append(_attachable(tx, ctx, one.port_id).network_id)
            continue
        assert one.network_id is not None, "a wanted interface names a port or a network"
        found.append(_joinable(tx, ctx, one.network_id, one.fixed_ip).id)
        fresh += 1
    if fresh:
        usage.charge(tx, ctx.project, "port", fresh * servers)
    return found


def default_networks(tx: Tx, ctx: Context) -> list[str]:
    """The one network that a server gets when none is named; none if there is none. Conflict if it is not clear."""
    found = networks.usable(tx, ctx)
    if len(found) > 1:
        raise Conflict("Multiple possible networks found, use a Network ID to be more specific.")
    return [one.id for one in found]


def bind_for_server(
    tx: Tx,
    *,
    port_id: str,
    created: bool,
    network_id: str,
    fixed_ip: str | None,
    groups_wanted: Sequence[str],
    project_id: str,
    server_id: str,
    hostname: str,
    host_id: str,
    zone: str,
    now: float,
) -> dict[str, Any]:
    """Make the server's port (`created`) or bind the user's own to the server and its host. Returns what plugs in."""
    network = networks.find(tx, network_id)
    if network is None:
        raise NotFound(f"Network {network_id} was deleted while the server was being made.")
    existing = ports.find(tx, port_id)
    bound: dict[str, Any] = {
        "device_id": server_id,
        "device_owner": f"{COMPUTE_OWNER_PREFIX}{zone}",
        "host_id": host_id,
        "hostname": hostname,
    }
    if existing is not None:
        if existing.device_id not in ("", server_id):
            raise Conflict(f"Port {port_id} is still in use.")
        ports.update(tx, port_id, now, **bound)
    elif created:
        new = Port(
            id=port_id,
            project_id=project_id,
            network_id=network_id,
            mac_address=ports.free_mac(tx, network_id, port_id),
            port_security_enabled=network.port_security_enabled,
            created_at=now,
            updated_at=now,
            **bound,
        )
        _check_groups(tx, groups_wanted)
        usage.charge(tx, project_id, "port")  # Many servers may have been accepted while there was room for one port.
        wanted = [Fixed(subnet_id="", ip_address=fixed_ip)] if fixed_ip else None
        create(tx, new, fixed_ip_wanted=wanted, group_ids=groups_wanted or None, now=now)
    else:
        raise NotFound(f"Port {port_id} was deleted while the server was being made.")
    made = ports.find(tx, port_id)
    assert made is not None, "it was just written"
    return {
        "port_id": made.id,
        "network_id": made.network_id,
        "mac": made.mac_address,
        "mtu": network.mtu,
        "fixed_ips": [fixed.ip_address for fixed in made.fixed_ips],
    }


def _check_groups(tx: Tx, wanted: Sequence[str]) -> None:
    """They were there when the server was asked for, and nobody had them yet: so they may have been deleted."""
    known = {group.id for group in groups.some(tx, wanted)}
    for missing in (group_id for group_id in wanted if group_id not in known):
        raise NotFound(f"Security group {missing} was deleted while the server was being made.")


def release_for_server(tx: Tx, *, port_id: str, created: bool, server_id: str, now: float) -> None:
    """Delete the server's port if it was made for it, unbind the user's own (its MAC and addresses stay)."""
    existing = ports.find(tx, port_id)
    if existing is None or existing.device_id not in ("", server_id):
        return
    if created:
        remove(tx, existing, now, is_unplugged=True)
    elif existing.device_id == server_id:
        ports.update(tx, port_id, now, device_id="", device_owner="", host_id="", hostname="", status=Status.DOWN)


def take_off_host(tx: Tx, *, server_id: str, now: float) -> None:
    """The server's ports stay its own, with their addresses, and are on no host."""
    for one in ports.of_devices(tx, [server_id]):
        if one.host_id and one.device_owner.startswith(COMPUTE_OWNER_PREFIX):
            ports.update(tx, one.id, now, host_id="", status=Status.DOWN)


def put_on_host(tx: Tx, *, port_id: str, server_id: str, host_id: str, zone: str, now: float) -> None:
    """A port that is the server's own is on that host from now on. Raises NotFound, Conflict."""
    existing = ports.find(tx, port_id)
    if existing is None:
        raise NotFound(f"Port {port_id} was deleted meanwhile.")
    if existing.device_id != server_id:
        raise Conflict(f"Port {port_id} is not the server's any more.")
    ports.update(tx, port_id, now, host_id=host_id, device_owner=f"{COMPUTE_OWNER_PREFIX}{zone}")


def move_towards(tx: Tx, *, port_id: str, server_id: str, host_id: str, now: float) -> None:
    """A server's port is also wired on that host, where it will be; empty: only where it is. Nothing if it is gone."""
    existing = ports.find(tx, port_id)
    if existing is not None and existing.device_id == server_id and existing.moving_to != host_id:
        ports.update(tx, port_id, now, moving_to=host_id)


def is_moving(tx: Tx, port_id: str) -> bool:
    """Whether the port is wired where it will be, and is not there yet."""
    existing = ports.find(tx, port_id)
    return existing is not None and bool(existing.moving_to)


def arrive(tx: Tx, *, port_id: str, server_id: str, host_id: str, zone: str, now: float) -> None:
    """A server's port is on that host from now on, and its neighbours are told so. Nothing if it is gone."""
    existing = ports.find(tx, port_id)
    if existing is not None and existing.device_id == server_id:
        owner = f"{COMPUTE_OWNER_PREFIX}{zone}"
        ports.update(tx, port_id, now, host_id=host_id, moving_to="", device_owner=owner)


def touch(tx: Tx, port_id: str, now: float) -> bool:
    """A new generation of the port, newer than its removal from a host; False if it is gone."""
    if ports.find(tx, port_id) is None:
        return False
    ports.update(tx, port_id, now)
    return True


def list_for_server(tx: Tx, server_ids: Iterable[str]) -> dict[str, list[PortView]]:
    """The ports of each server, in the order they were made, with floating IPs: a constant number of queries."""
    found = of_servers(tx, server_ids)
    if not found:
        return {}
    names = {one.id: one.name for one in networks.some(tx, {one.network_id for one in found})}
    fronted = floating_ips.of_ports(tx, [one.id for one in found])
    views: defaultdict[str, list[PortView]] = defaultdict(list)
    for one in found:
        views[one.device_id].append(
            PortView(
                port_id=one.id,
                network_id=one.network_id,
                network_name=names[one.network_id],
                mac=one.mac_address,
                status=one.status,
                addresses=tuple((fixed.ip_address, _version(fixed.ip_address)) for fixed in one.fixed_ips),
                floating=tuple((address, _version(address)) for address in fronted.get(one.id, ())),
            )
        )
    return dict(views)


def groups_of_server(tx: Tx, server_id: str) -> list[str]:
    """The names of the security groups of a server's ports."""
    ids = {group for one in of_servers(tx, [server_id]) for group in one.security_groups}
    return sorted(group.name for group in groups.some(tx, ids))


def of_servers(tx: Tx, server_ids: Iterable[str]) -> list[Port]:
    """The ports of some servers, oldest first.

    Anyone may write any device into a port of their own; bound to a host it is only by us.
    """
    found = ports.of_devices(tx, server_ids)
    return [one for one in found if one.host_id and one.device_owner.startswith(COMPUTE_OWNER_PREFIX)]


def _joinable(tx: Tx, ctx: Context, network_id: str, fixed_ip: str | None) -> Network:
    """The network, if a server of the caller's may have a new port there."""
    found = networks.find_visible(tx, ctx, network_id)
    if found is None:
        raise Invalid(f"Network {network_id} could not be found.")
    _check_external(ctx, found)
    parts = subnets.of_networks(tx, [found.id])
    if not parts:
        raise Invalid(f"Network {found.id} requires a subnet in order to boot instances on.")
    if fixed_ip is not None:
        _check_may_choose(ctx, found)
        part = addressing.part_of(tx, found.id, parts, fixed_ip)
        if part.gateway_ip == fixed_ip:
            raise Conflict(f"Fixed IP address {fixed_ip} is already in use on instance: it is the subnet's gateway.")
    return found


def _check_may_choose(ctx: Context, around: Network) -> None:
    """As for a port of the user's own making: on somebody else's network one takes the address that one gets."""
    rule = "create_port:fixed_ips:ip_address"
    if not RULES[rule](ctx, {"network_project_id": around.project_id}):
        raise forbidden(rule)


def _attachable(tx: Tx, ctx: Context, port_id: str) -> Port:
    found = ports.find(tx, port_id)
    if found is None or not (ctx.is_admin or found.project_id == ctx.project_id):
        raise NotFound(f"Port {port_id} could not be found.")
    if found.device_id:
        raise Conflict(f"Port {port_id} is still in use.")
    if not found.fixed_ips:
        raise Invalid(f"Port {port_id} requires a FixedIP in order to be used.")
    around = networks.find(tx, found.network_id)
    assert around is not None, "a port has a network"
    _check_external(ctx, around)
    return found


def _check_external(ctx: Context, around: Network) -> None:
    if around.external and not around.shared and not ctx.is_admin:
        raise Forbidden(f"It is not allowed to create an interface on external network {around.id}")


def _version(address: str) -> int:
    return 6 if ":" in address else 4
