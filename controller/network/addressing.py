"""Ports as rows with addresses: choosing them, giving them, taking them back. Everyone who makes a port does it here.

Transaction functions. Two transactions that choose the same address cannot both insert it; on PostgreSQL the loser
runs again, on SQLite there is one writer.
"""

import ipaddress
from collections.abc import Iterable, Sequence

from controller.db.tx import Tx
from controller.network import addresses
from controller.network.errors import (
    InvalidInput,
    InvalidIpForNetwork,
    InvalidIpForSubnet,
    IpAddressAlreadyAllocated,
    IpAddressGenerationFailure,
)
from controller.network.model import INFRASTRUCTURE_OWNERS, Fixed, Port, Subnet
from controller.network.store import floating_ips, forwarding, groups, host_objects, members, ports, subnets


def create(
    tx: Tx,
    new: Port,
    *,
    fixed_ip_wanted: Sequence[Fixed] | None,
    group_ids: Sequence[str] | None,
    now: float,
) -> None:
    """Insert a port with addresses and groups.

    `fixed_ip_wanted` None means one address of each family that the network has; in a `Fixed` either part may be
    empty. `group_ids` None means the project's default group (none without port security, or for infrastructure).
    """
    ports.insert(tx, new)
    allot(tx, new, fixed_ip_wanted)
    if group_ids is None and new.port_security_enabled and new.project_id:
        group_ids = [groups.ensure_default(tx, new.project_id, now)]
    if group_ids:
        ports.set_groups(tx, new.id, group_ids)
        members.changed(tx, group_ids, new.id)


def remove(tx: Tx, old: Port, now: float, *, is_unplugged: bool = False) -> None:
    """Delete a port with all that hangs on it; floating IPs fall back to DOWN.

    If it is bound its host is told, unless the caller has unplugged it; and always the host where it was to go.
    """
    floating_ips.dissociate(tx, old.id, now)
    members.changed(tx, old.security_groups, old.id)
    if old.device_owner not in INFRASTRUCTURE_OWNERS:
        for host_id in filter(None, {"" if is_unplugged else old.host_id, old.moving_to}):
            host_objects.retire(tx, host_id, "port", old.id, old.generation + 1)
    ports.delete(tx, old.id)


def allot(tx: Tx, to: Port, wanted: Sequence[Fixed] | None) -> None:
    """Give a port addresses. Raises IpAddressGenerationFailure, IpAddressAlreadyAllocated or Invalid.

    Whoever asks for some also gets those of subnets with automatic addresses, as in Neutron: guests take them anyway.
    """
    parts = subnets.of_networks(tx, [to.network_id])
    if wanted is None:
        _one_of_each_family(tx, to, parts)
        return
    for one in wanted:  # What was asked for by address first, so that nothing automatic takes it.
        if one.ip_address:
            part, address = _asked(tx, to, parts, one)
            subnets.give(tx, part, address, to.id)
    for one in wanted:
        if not one.ip_address:
            _give_free(tx, to, [_of_network(to, parts, one.subnet_id)])
    for part in _automatic(to, parts) if wanted else ():
        if subnets.holder(tx, part.id, str(addresses.eui64(addresses.cidr_of(part.cidr), to.mac_address))) != to.id:
            _give_free(tx, to, [part])


def change(tx: Tx, found: Port, wanted: Sequence[Fixed], now: float) -> bool:
    """Give a port other addresses; what it has and keeps is not touched. Whether anything changed.

    A wanted `Fixed` of a subnet only keeps the address that the port has there, as in Neutron.
    """
    automatic = (
        {part.id for part in _automatic(found, subnets.of_networks(tx, [found.network_id]))} if wanted else set()
    )
    left = list(found.fixed_ips)
    fresh: list[Fixed] = []
    for one in sorted(wanted, key=lambda one: not one.ip_address):
        match = next((old for old in left if _satisfies(old, one)), None)
        if match is None:
            fresh.append(one)
        else:
            left.remove(match)
    left = [old for old in left if old.subnet_id not in automatic]
    for old in left:
        floating_ips.dissociate(tx, found.id, now, old.ip_address)
        subnets.take(tx, found.id, old.ip_address)
    allot(tx, found, fresh)
    if left or fresh:
        forwarding.port_changed(tx, found.id)
    return bool(left or fresh)


def _satisfies(old: Fixed, wanted: Fixed) -> bool:
    if wanted.subnet_id and wanted.subnet_id != old.subnet_id:
        return False
    return not wanted.ip_address or ipaddress.ip_address(wanted.ip_address) == ipaddress.ip_address(old.ip_address)


def part_of(tx: Tx, network_id: str, parts: Iterable[Subnet], text: str) -> Subnet:
    """The subnet that an address belongs to, if nobody has it. Raises Invalid or IpAddressAlreadyAllocated."""
    address = addresses.parsed("ip_address", text)
    part = next((part for part in parts if address in addresses.cidr_of(part.cidr)), None)
    if part is None:
        raise InvalidIpForNetwork(text)
    if not addresses.is_inside(addresses.cidr_of(part.cidr), address):
        raise InvalidIpForSubnet(text)
    if subnets.holder(tx, part.id, str(address)) is not None:
        raise IpAddressAlreadyAllocated(text, part.id)
    return part


def _asked(tx: Tx, to: Port, parts: Sequence[Subnet], one: Fixed) -> tuple[Subnet, str]:
    address = addresses.parsed("ip_address", one.ip_address)
    if one.subnet_id:
        named = _of_network(to, parts, one.subnet_id)
        if address not in addresses.cidr_of(named.cidr):
            raise InvalidIpForSubnet(one.ip_address)
        parts = [named]
    part = part_of(tx, to.network_id, parts, one.ip_address)
    if part.ipv6_address_mode in addresses.AUTOMATIC and to.device_owner not in INFRASTRUCTURE_OWNERS:
        own = addresses.eui64(addresses.cidr_of(part.cidr), to.mac_address)
        if address != own:
            raise InvalidInput(
                f"IPv6 address {address} can not be directly assigned to a port on subnet {part.id} "
                "since the subnet is configured for automatic addresses"
            )
    return part, str(address)


def _of_network(to: Port, parts: Iterable[Subnet], subnet_id: str) -> Subnet:
    for part in parts:
        if part.id == subnet_id:
            return part
    raise InvalidInput(
        f"Failed to create port on network {to.network_id}, because fixed_ips included invalid subnet {subnet_id}"
    )


def _automatic(to: Port, parts: Iterable[Subnet]) -> list[Subnet]:
    """The subnets whose addresses follow from a guest's MAC."""
    is_ours = to.device_owner in INFRASTRUCTURE_OWNERS
    return [] if is_ours else [part for part in parts if part.ipv6_address_mode in addresses.AUTOMATIC]


def _one_of_each_family(tx: Tx, to: Port, parts: Sequence[Subnet]) -> None:
    for version in (4, 6):
        family = [part for part in parts if part.ip_version == version]
        automatic = [part for part in family if part.ipv6_address_mode in addresses.AUTOMATIC]
        managed = [part for part in family if part not in automatic]
        for part in automatic:
            _give_free(tx, to, [part])
        if managed:
            _give_free(tx, to, managed)


def _give_free(tx: Tx, to: Port, parts: Sequence[Subnet]) -> None:
    """An address of the first of these subnets that has one left."""
    for part in parts:
        cidr = addresses.cidr_of(part.cidr)
        if part.ipv6_address_mode in addresses.AUTOMATIC and to.device_owner not in INFRASTRUCTURE_OWNERS:
            own = str(addresses.eui64(cidr, to.mac_address))
            if subnets.holder(tx, part.id, own) not in (None, to.id):
                raise IpAddressAlreadyAllocated(own, part.id)
            subnets.give(tx, part, own, to.id)
            return
        free = addresses.free_address(tx, part.id, addresses.pools_of(part.allocation_pools))
        if free is not None:
            subnets.give(tx, part, str(free), to.id)
            return
    raise IpAddressGenerationFailure(to.network_id)
