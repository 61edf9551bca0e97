"""Addresses: pools, what is free, and what a subnet may look like. Pure, but for the one query that finds a free one.

The next address of a pool is the highest given one plus one, found by index, so that allocation costs the same
in a full subnet as in an empty one; only when a pool's end is reached is its lowest gap looked for. Two
transactions that pick the same address cannot both insert it: (subnet, address) is the primary key.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import sqlalchemy as sa

from controller.db.tables.network import ip_allocation
from controller.db.tx import Tx

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Pool: TypeAlias = tuple[Address, Address]
"""First and last address, both included."""

_HIGHEST = sa.select(sa.func.max(ip_allocation.c.number)).where(
    ip_allocation.c.subnet_id == sa.bindparam("subnet_id"),
    ip_allocation.c.number.between(sa.bindparam("low"), sa.bindparam("high")),
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


def stored_pools(pools: Sequence[dict[str, Any]]) -> list[Pool]:
    """Pools as a subnet's row holds them."""
    return [(ipaddress.ip_address(pool["start"]), ipaddress.ip_address(pool["end"])) for pool in pools]


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
