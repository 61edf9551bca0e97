"""Routers on a host: a namespace with a leg in each network, SNAT and floating IPs on the gateway host."""

import hashlib
from typing import Final

import msgspec

from agent.wire.specs import Absence, Call, ObjectSpec, ObjectStatus, Ref

TUNNEL_PREFIX: Final = "0e"
"""First byte of the MACs under which routed frames travel between hosts: locally administered."""


def tunnel_mac(port_id: str, end: str) -> str:
    """The MAC of a router's leg on one host, as the other hosts see it; `end` is that host's underlay address.

    The leg itself has the same MAC on every host, so no frame may travel under it.
    """
    digest = hashlib.sha256(f"{port_id} {end}".encode()).hexdigest()
    return ":".join((TUNNEL_PREFIX, *(digest[at : at + 2] for at in range(0, 10, 2))))


class LegSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A router's leg in a tenant network; the same MAC and addresses on every host that has the router."""

    port_id: str
    network_id: str
    mac: str
    addresses: tuple[str, ...]  # With prefix: 10.0.0.1/24


class GatewaySpec(msgspec.Struct, frozen=True, kw_only=True):
    """A router's leg in an external network, active on one host at a time."""

    port_id: str
    network_id: str
    mac: str
    addresses: tuple[str, ...]  # With prefix.
    next_hops: tuple[str, ...]
    snat: bool


class FloatingSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A floating IP: one-to-one NAT between `address` and `fixed`. The MAC is the gateway leg's."""

    id: str
    address: str
    fixed: str


class RouterSpec(ObjectSpec, frozen=True, kw_only=True):
    """A router. Networks of its legs must be on the host already, else `Failed`."""

    legs: tuple[LegSpec, ...] = ()
    gateway: GatewaySpec | None = None
    gateway_end: str = ""  # Underlay address of the host that has the gateway, where this one has not.
    floating: tuple[FloatingSpec, ...] = ()
    routes: tuple[tuple[str, str], ...] = ()  # (destination CIDR, next hop)
    is_up: bool = True


class RouterStatus(ObjectStatus, frozen=True, kw_only=True):
    """A router as the host sees it."""


ENSURE = Call("router.ensure", RouterSpec, RouterStatus)
ABSENT = Call("router.absent", Absence, RouterStatus)
GET = Call("router.get", Ref, RouterStatus)
