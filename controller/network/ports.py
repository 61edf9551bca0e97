"""Ports: choosing addresses, and being bound to servers. What the compute slice calls is here.

Functions that take `tx` are parts of somebody's transaction: a saga step runs them with its event, so each may
run twice and comes to the same end.
"""

import hashlib
import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from controller import quota
from controller.context import Context
from controller.db.tx import Tx
from controller.errors import Conflict, Invalid, NotFound
from controller.network import usage
from controller.network.addresses import Network as Cidr
from controller.network.addresses import eui64, free_address, stored_pools
from controller.network.model import COMPUTE_OWNER_PREFIX, Fixed, Port, Status, Subnet
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


class NoAddress(Conflict):
    """A subnet's pools are used up."""


class AddressInUse(Conflict):
    """Somebody has that address."""


def check_requested(tx: Tx, ctx: Context, wanted: Sequence[Wanted]) -> list[str]:
    """Refuse, before anything is made, what a server cannot be attached to; returns the network of each.

    Raises Invalid, NotFound, Conflict or OverQuota with the sentence for the user.
    """
    found: list[str] = []
    fresh = 0
    for one in wanted:
        if one.port_id is not None:
            found.append(_attachable(tx, ctx, one.port_id).network_id)
            continue
        assert one.network_id is not None, "a wanted interface names a port or a network"
        network = networks.find_visible(tx, ctx, one.network_id)
        if network is None:
            raise Invalid(f"Network {one.network_id} could not be found.")
        if network.external and not network.shared and not ctx.is_admin and network.project_id != ctx.project_id:
            raise Conflict(f"It is not allowed to create an interface on external network {network.id}.")
        parts = subnets.of_networks(tx, [network.id])
        if not parts:
            raise Invalid(f"Network {network.id} requires a subnet in order to boot instances on.")
        if one.fixed_ip is not None:
            _in_subnets(tx, parts, one.fixed_ip)
        found.append(network.id)
        fresh += 1
    quota.charge(tx, ctx.project, "network", {"port": fresh}, usage.used)
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
        ports.members_changed(tx, existing.security_groups)
    elif created:
        new = Port(
            id=port_id,
            project_id=project_id,
            network_id=network_id,
            mac_address=mac_address(port_id),
            port_security_enabled=network.port_security_enabled,
            created_at=now,
            updated_at=now,
            **bound,
        )
        create(tx, new, fixed_ip_wanted=[fixed_ip] if fixed_ip else None, group_ids=groups_wanted or None, now=now)
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


def release_for_server(tx: Tx, *, port_id: str, created: bool, server_id: str, now: float) -> None:
    """Delete the server's port if it was made for it, unbind the user's own (its MAC and addresses stay)."""
    existing = ports.find(tx, port_id)
    if existing is None or existing.device_id not in ("", server_id):
        return
    if created:
        remove(tx, existing, now)
    elif existing.device_id == server_id:
        ports.update(tx, port_id, now, device_id="", device_owner="", host_id="", hostname="", status=Status.DOWN)
        ports.members_changed(tx, existing.security_groups)


def list_for_server(tx: Tx, server_ids: Iterable[str]) -> dict[str, list[PortView]]:
    """The ports of each server, in the order they were made, with floating IPs: a constant number of queries."""
    found = ports.of_devices(tx, server_ids)
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
    ids = {group for one in ports.of_devices(tx, [server_id]) for group in one.security_groups}
    return sorted(group.name for group in groups.some(tx, ids))


def create(
    tx: Tx,
    new: Port,
    *,
    fixed_ip_wanted: Sequence[str | Fixed] | None,
    group_ids: Sequence[str] | None,
    now: float,
) -> None:
    """Insert a port with addresses and groups.

    `fixed_ip_wanted` None means one address of each family that the network has, `group_ids` None the project's
    default group (none if port security is off or the port is infrastructure).
    """
    ports.insert(tx, new)
    parts = subnets.of_networks(tx, [new.network_id])
    for part, address in choose(tx, new, parts, fixed_ip_wanted):
        subnets.give(tx, part, address, new.id)
    if group_ids is None and new.port_security_enabled and new.project_id:
        group_ids = [groups.ensure_default(tx, new.project_id, now)]
    if group_ids:
        ports.set_groups(tx, new.id, group_ids)
        ports.members_changed(tx, group_ids)


def remove(tx: Tx, old: Port, now: float) -> None:
    """Delete a port with all that hangs on it; floating IPs fall back to DOWN."""
    floating_ips.dissociate(tx, old.id, now)
    ports.members_changed(tx, old.security_groups)
    ports.delete(tx, old.id)


def choose(
    tx: Tx, new: Port, parts: Sequence[Subnet], wanted: Sequence[str | Fixed] | None
) -> list[tuple[Subnet, str]]:
    """Which address of which subnet a port gets. Raises NoAddress, AddressInUse or Invalid."""
    if wanted is None:
        return _one_of_each_family(tx, new, parts)
    chosen: list[tuple[Subnet, str]] = []
    for one in wanted:
        if isinstance(one, Fixed):
            part = next((part for part in parts if part.id == one.subnet_id), None)
            if part is None:
                raise Invalid(f"Subnet {one.subnet_id} is not on network {new.network_id}.")
            if one.ip_address:
                _in_subnets(tx, [part], one.ip_address)
            chosen.append((part, one.ip_address or _free(tx, new, [part])[1]))
        else:
            chosen.append((_in_subnets(tx, parts, one), str(ipaddress.ip_address(one))))
    return chosen


def mac_address(port_id: str) -> str:
    """A MAC that follows from the port's id: locally administered, under OpenStack's usual prefix."""
    digest = hashlib.sha256(port_id.encode()).hexdigest()
    return f"fa:16:3e:{digest[0:2]}:{digest[2:4]}:{digest[4:6]}"


def _attachable(tx: Tx, ctx: Context, port_id: str) -> Port:
    found = ports.find(tx, port_id)
    if found is None or not (ctx.is_admin or found.project_id == ctx.project_id):
        raise NotFound(f"Port {port_id} could not be found.")
    if found.device_id:
        raise Conflict(f"Port {port_id} is still in use.")
    if not found.fixed_ips:
        raise Invalid(f"Port {port_id} requires a FixedIP in order to be used.")
    return found


def _one_of_each_family(tx: Tx, new: Port, parts: Sequence[Subnet]) -> list[tuple[Subnet, str]]:
    chosen: list[tuple[Subnet, str]] = []
    for version in (4, 6):
        family = [part for part in parts if part.ip_version == version]
        automatic = [part for part in family if part.ipv6_address_mode in ("slaac", "dhcpv6-stateless")]
        chosen += [(part, str(eui64(_cidr(part), new.mac_address))) for part in automatic]
        managed = [part for part in family if part not in automatic]
        if managed:
            chosen.append(_free(tx, new, managed))
    return chosen


def _free(tx: Tx, new: Port, parts: Sequence[Subnet]) -> tuple[Subnet, str]:
    for part in parts:
        if part.ipv6_address_mode in ("slaac", "dhcpv6-stateless"):
            return part, str(eui64(_cidr(part), new.mac_address))
        pools = stored_pools([{"start": pool.start, "end": pool.end} for pool in part.allocation_pools])
        address = free_address(tx, part.id, pools)
        if address is not None:
            return part, str(address)
    raise NoAddress(f"No more IP addresses available on network {new.network_id}.")


def _in_subnets(tx: Tx, parts: Sequence[Subnet], text: str) -> Subnet:
    """The subnet that an address belongs to, if nobody has it."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise Invalid(f"'{text}' is not a valid IP address.") from None
    part = next((part for part in parts if address in _cidr(part)), None)
    if part is None:
        raise Invalid(f"IP address {text} is not a valid IP for any of the subnets on the specified network.")
    if part.gateway_ip == str(address) or subnets.holder(tx, part.id, str(address)) is not None:
        raise AddressInUse(f"IP address {text} is already in use on network {part.network_id}.")
    return part


def _cidr(part: Subnet) -> Cidr:
    return ipaddress.ip_network(part.cidr)


def _version(address: str) -> int:
    return 6 if ":" in address else 4
