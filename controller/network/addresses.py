"""Addresses: pools, what is free, and what a subnet may look like. Pure, but for the queries that find a free one.

The next address of a pool is the highest given one plus one, found by index, so that allocation costs the same
in a full subnet as in an empty one; only when a pool's end is reached is its lowest gap looked for. Two
transactions that pick the same address cannot both insert it: (subnet, address) is the primary key.
"""

import ipaddress
import itertools
import re
from collections.abc import Iterable
from typing import Final, TypeAlias

import sqlalchemy as sa

from controller.db.tables.network import ip_allocation
from controller.db.tx import Tx
from controller.network import model
from controller.network.errors import (
    GatewayConflictWithAllocationPools,
    InvalidAllocationPool,
    InvalidInput,
    OutOfBoundsAllocationPool,
    OverlappingAllocationPools,
    bad_value,
)

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Pool: TypeAlias = tuple[Address, Address]
"""First and last address, both included."""

AUTOMATIC: Final = frozenset({"slaac", "dhcpv6-stateless"})
"""IPv6 address modes in which a guest makes its address of its MAC."""

_MAC: Final = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")

_HIGHEST = (
    sa.select(ip_allocation.c.number)
    .where(
        ip_allocation.c.subnet_id == sa.bindparam("subnet_id"),
        ip_allocation.c.number.between(sa.bindparam("low"), sa.bindparam("high")),
    )
    .order_by(ip_allocation.c.number.desc())
    .limit(1)
)
_TAKEN = (
    sa.select(ip_allocation.c.number)
    .where(
        ip_allocation.c.subnet_id == sa.bindparam("subnet_id"),
        ip_allocation.c.number.between(sa.bindparam("low"), sa.bindparam("high")),
    )
    .order_by(ip_allocation.c.number)
)


def number(address: Address) -> bytes:
    """An address as 16 bytes whose order is numeric, for both families."""
    return int(address).to_bytes(16, "big")


def free_address(tx: Tx, subnet_id: str, pools: Iterable[Pool]) -> Address | None:
    """An address of the pools that nobody has, or None when they are used up."""
    ranges = list(pools)
    for low, high in ranges:
        top = tx.execute(_HIGHEST, {"subnet_id": subnet_id, "low": number(low), "high": number(high)}).scalar()
        candidate = int(low) if top is None else int.from_bytes(top, "big") + 1
        if candidate <= int(high):
            return type(low)(candidate)
    for low, high in ranges:
        taken = tx.execute(_TAKEN, {"subnet_id": subnet_id, "low": number(low), "high": number(high)}).scalars()
        gap = _first_gap(int(low), int(high), (int.from_bytes(one, "big") for one in taken))
        if gap is not None:
            return type(low)(gap)
    return None


def _first_gap(low: int, high: int, taken: Iterable[int]) -> int | None:
    expected = low
    for one in taken:
        if one != expected:
            return expected
        expected += 1
    return expected if expected <= high else None


def pools_of(pools: Iterable[model.Pool]) -> list[Pool]:
    """A subnet's pools in numbers."""
    return [(ipaddress.ip_address(pool.start), ipaddress.ip_address(pool.end)) for pool in pools]


def cidr_of(text: str) -> Network:
    """A subnet's prefix in numbers."""
    return ipaddress.ip_network(text)


def default_gateway(cidr: Network) -> Address:
    """The first address of the subnet (the network address itself where there is no room)."""
    return cidr[1] if cidr.num_addresses > 2 else cidr[0]


def default_pools(cidr: Network, gateway: Address | None) -> list[Pool]:
    """Every usable address but the gateway's, as one or two pools."""
    first, last = usable(cidr)
    make = type(first)
    low, high = int(first), int(last)
    if gateway is None or not low <= int(gateway) <= high:
        return [(first, last)]
    pieces = ((low, int(gateway) - 1), (int(gateway) + 1, high))
    return [(make(start), make(end)) for start, end in pieces if start <= end]


def usable(cidr: Network) -> Pool:
    """First and last address that a port may have: no network address, and in IPv4 no broadcast."""
    if cidr.num_addresses <= 2:
        return cidr[0], cidr[-1]
    return cidr[1], cidr[-2] if cidr.version == 4 else cidr[-1]


def eui64(cidr: Network, mac: str) -> Address:
    """The address that SLAAC gives a MAC in an IPv6 /64 (RFC 4291, appendix A)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    suffix = bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return ipaddress.IPv6Address(int(cidr.network_address) | int.from_bytes(suffix, "big"))


def checked_gateway(cidr: Network, gateway: Address | None) -> None:
    """Raises for a gateway that cannot be one. It may be outside of the subnet, as in Neutron."""
    if gateway is None:
        return
    if gateway.version != cidr.version:
        raise InvalidInput(f"gateway_ip '{gateway}' does not match the ip_version '{cidr.version}'")
    is_edge = cidr.num_addresses > 2 and (
        gateway == cidr.network_address or (cidr.version == 4 and gateway == cidr.broadcast_address)
    )
    if is_edge or gateway.is_multicast or gateway.is_loopback or gateway.is_unspecified:
        raise InvalidInput("Gateway is not valid on subnet")


def checked_pools(cidr: Network, gateway: Address | None, pools: Iterable[tuple[str, str]]) -> list[Pool]:
    """Pools as a client gave them, in order. Raises for what no subnet can have."""
    low, high = usable(cidr)
    found: list[Pool] = []
    for start, end in pools:
        first, last = parsed("allocation_pools", start), parsed("allocation_pools", end)
        if first.version != cidr.version or last.version != cidr.version or int(last) < int(first):
            raise InvalidAllocationPool(pool_text((first, last)))
        if int(first) < int(low) or int(last) > int(high):
            raise OutOfBoundsAllocationPool(pool_text((first, last)), str(cidr))
        found.append((first, last))
    found.sort(key=lambda pool: int(pool[0]))
    for one, other in itertools.pairwise(found):
        if int(other[0]) <= int(one[1]):
            raise OverlappingAllocationPools(pool_text(one), pool_text(other), str(cidr))
    checked_conflict(gateway, found)
    return found


def checked_conflict(gateway: Address | None, pools: Iterable[Pool]) -> None:
    """Raises if the gateway's address would be given to a port."""
    for low, high in pools:
        if gateway is not None and gateway.version == low.version and int(low) <= int(gateway) <= int(high):
            raise GatewayConflictWithAllocationPools(str(gateway), pool_text((low, high)))


def pool_text(pool: Pool) -> str:
    """A pool as messages show it."""
    return f"{pool[0]}-{pool[1]}"


def parsed(attribute: str, text: str) -> Address:
    """An address from a request. Raises Invalid."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise bad_value(attribute, f"'{text}' is not a valid IP address") from None
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        raise bad_value(attribute, f"'{text}' is not a valid IP address")
    return address


def parsed_cidr(attribute: str, text: str) -> Network:
    """A prefix from a request, without host bits. Raises Invalid."""
    try:
        interface = ipaddress.ip_interface(text)
    except ValueError:
        raise bad_value(attribute, f"'{text}' is not a valid IP subnet") from None
    if "/" not in text or interface.ip != interface.network.network_address:
        reason = f"'{text}' isn't a recognized IP subnet cidr, '{interface.network}' is recommended"
        raise bad_value(attribute, reason)
    return interface.network


def parsed_mac(attribute: str, text: str) -> str:
    """A unicast MAC from a request, in lower case. Raises Invalid."""
    mac = text.lower().replace("-", ":")
    if not _MAC.fullmatch(mac) or mac == "00:00:00:00:00:00" or int(mac[1], 16) & 1:
        raise bad_value(attribute, f"'{text}' is not a valid MAC address")
    return mac


def is_inside(cidr: Network, address: Address) -> bool:
    """Whether a port may have this address of this subnet."""
    low, high = usable(cidr)
    return address.version == cidr.version and int(low) <= int(address) <= int(high)
