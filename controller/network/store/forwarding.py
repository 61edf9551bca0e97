"""SQL of who is where in a network: what hosts are told about each other's ports, and what of it changed since when.

A version rises with every port that comes, goes or moves, with a router's gateway that moves, and with every host
that begins or ceases to have the network. What a version was about is kept for a while: a host that is not far behind
is told the difference.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

import sqlalchemy as sa

from agent.wire.forwarding import Peer
from agent.wire.router import tunnel_mac
from controller.db.tables.fleet import host
from controller.db.tables.network import (
    forwarding,
    forwarding_change,
    host_object,
    ip_allocation,
    network,
    port,
    router,
    security_group,
)
from controller.db.tx import Tx
from controller.network.model import INFRASTRUCTURE_OWNERS, ROUTER_OWNER
from controller.network.store.host_objects import Key

KEPT: Final = 1000
"""Versions whose changes are remembered. Fewer: a host that was away is sent everything. More: rows."""

NETWORK, FORWARDING, ADDRESSES = "network", "forwarding", "addresses"

_RAISE = (
    sa.update(forwarding)
    .where(forwarding.c.network_id == sa.bindparam("id"))
    .values(version=forwarding.c.version + 1)
    .returning(forwarding.c.version)
)
_NOTE = sa.insert(forwarding_change)
_FORGET = sa.delete(forwarding_change).where(
    forwarding_change.c.network_id == sa.bindparam("id"), forwarding_change.c.version <= sa.bindparam("last")
)
_SINCE = sa.select(forwarding_change).where(
    forwarding_change.c.network_id == sa.bindparam("id"), forwarding_change.c.version > sa.bindparam("since")
)
_VERSIONS = sa.select(forwarding.c.network_id, forwarding.c.version).where(
    forwarding.c.network_id.in_(sa.bindparam("ids", expanding=True))
)
_OF_PORT = sa.select(port.c.network_id, port.c.host_id).where(port.c.id == sa.bindparam("id"))
_LEGS = sa.select(port.c.network_id, port.c.id).where(
    port.c.device_id == sa.bindparam("router_id"), port.c.device_owner == ROUTER_OWNER
)

_ELSEWHERE: sa.BindParameter[str] = sa.bindparam("host_id")
_GUESTS = (
    sa.select(port.c.id, port.c.mac_address, host.c.underlay_address)
    .join(host, host.c.id == port.c.host_id)
    .where(
        port.c.network_id == sa.bindparam("id"),
        port.c.host_id.not_in(("", _ELSEWHERE)),
        port.c.device_owner.not_in(sorted(INFRASTRUCTURE_OWNERS)),
    )
)
_WAYS_OUT = (
    sa.select(port.c.id, host.c.underlay_address)
    .join(router, router.c.id == port.c.device_id)
    .join(host, host.c.id == router.c.gateway_host_id)
    .where(
        port.c.network_id == sa.bindparam("id"),
        port.c.device_owner == ROUTER_OWNER,
        router.c.gateway_network_id.is_not(None),
        router.c.gateway_host_id.not_in(("", _ELSEWHERE)),
    )
)
_SOME = port.c.id.in_(sa.bindparam("only", expanding=True))
_ADDRESSES = sa.select(ip_allocation.c.port_id, ip_allocation.c.address).where(
    ip_allocation.c.network_id == sa.bindparam("id")
)
_SOME_ADDRESSES = _ADDRESSES.where(ip_allocation.c.port_id.in_(sa.bindparam("only", expanding=True)))

_other = host_object.alias()
_own = host_object.alias()
_SHARED = (
    sa.select(_other.c.object_id)
    .where(
        _other.c.noun == NETWORK,
        _other.c.object_id.in_(sa.bindparam("ids", expanding=True)),
        _other.c.is_wanted,
        _other.c.host_id != sa.bindparam("host_id"),
    )
    .distinct()
)
_BEHIND = (
    sa.select(host_object.c.host_id, host_object.c.noun, host_object.c.object_id)
    .join(forwarding, forwarding.c.network_id == host_object.c.object_id)
    .where(host_object.c.noun == FORWARDING, host_object.c.is_wanted, host_object.c.version != forwarding.c.version)
    .union_all(
        sa.select(host_object.c.host_id, host_object.c.noun, host_object.c.object_id)
        .join(security_group, security_group.c.id == host_object.c.object_id)
        .where(
            host_object.c.noun == ADDRESSES,
            host_object.c.is_wanted,
            host_object.c.version != security_group.c.members_generation,
        )
    )
)
_NEWLY_SHARED = (
    sa.select(host_object.c.host_id, host_object.c.object_id)
    .join(network, network.c.id == host_object.c.object_id)
    .outerjoin(
        _own,
        sa.and_(
            _own.c.host_id == host_object.c.host_id,
            _own.c.noun == FORWARDING,
            _own.c.object_id == host_object.c.object_id,
            _own.c.is_wanted,
        ),
    )
    .where(
        host_object.c.noun == NETWORK,
        host_object.c.is_wanted,
        network.c.network_type == "vxlan",
        _own.c.host_id.is_(None),
        sa.exists().where(
            _other.c.noun == NETWORK,
            _other.c.object_id == host_object.c.object_id,
            _other.c.is_wanted,
            _other.c.host_id != host_object.c.host_id,
        ),
    )
)


_GATEWAY_LACKING = (
    sa.select(router.c.gateway_host_id)
    .join(_other, sa.and_(_other.c.noun == "router", _other.c.object_id == router.c.id, _other.c.is_wanted))
    .outerjoin(
        _own,
        sa.and_(
            _own.c.host_id == router.c.gateway_host_id,
            _own.c.noun == "router",
            _own.c.object_id == router.c.id,
            _own.c.is_wanted,
        ),
    )
    .where(router.c.gateway_host_id != "", router.c.gateway_network_id.is_not(None), _own.c.host_id.is_(None))
    .distinct()
)


def begin(tx: Tx, network_id: str) -> None:
    """A new network."""
    tx.execute(sa.insert(forwarding).values(network_id=network_id, version=1))


def end(tx: Tx, network_id: str) -> None:
    """The network goes."""
    for table in (forwarding, forwarding_change):
        tx.execute(sa.delete(table).where(table.c.network_id == network_id))


def changed(tx: Tx, network_id: str, port_id: str = "", left_host_id: str = "") -> None:
    """Something about a port (or, without one, which hosts have the network) is other than before."""
    version = tx.execute(_RAISE, {"id": network_id}).scalar()
    if version is not None:
        noted = {"network_id": network_id, "version": version, "port_id": port_id, "left_host_id": left_host_id}
        tx.execute(_NOTE, noted)
        if version % KEPT == 0:
            tx.execute(_FORGET, {"id": network_id, "last": version - KEPT})


def port_changed(tx: Tx, port_id: str, *, is_leaving: bool = False) -> None:
    """A port is other than before, or (said before it) leaves its host. Nobody is told of a port on no host."""
    row = tx.execute(_OF_PORT, {"id": port_id}).one_or_none()
    if row is not None and row.host_id:
        changed(tx, row.network_id, port_id, row.host_id if is_leaving else "")


def way_out_changed(tx: Tx, router_id: str, left_host_id: str) -> None:
    """The router's gateway is on another host than before."""
    for network_id, leg_id in tx.execute(_LEGS, {"router_id": router_id}).all():
        changed(tx, network_id, leg_id, left_host_id)


def versions(tx: Tx, network_ids: Iterable[str]) -> dict[str, int]:
    """The version of each network."""
    return {row.network_id: row.version for row in tx.execute(_VERSIONS, {"ids": sorted(network_ids)})}


def shared(tx: Tx, host_id: str, network_ids: Iterable[str]) -> set[str]:
    """Those of the networks that another host has, too."""
    return set(tx.execute(_SHARED, {"ids": sorted(network_ids), "host_id": host_id}).scalars())


def change(
    tx: Tx, network_id: str, host_id: str, since: int, until: int
) -> tuple[tuple[Peer, ...], tuple[str, ...]] | None:
    """(peers that are new or changed, ports that are gone) for a host that knows a version; None if forgotten."""
    rows = tx.execute(_SINCE, {"id": network_id, "since": since}).all()
    if len(rows) != until - since:
        return None
    some = sorted({row.port_id for row in rows if row.port_id})
    found = peers(tx, network_id, host_id, some) if some else []
    left = {row.port_id for row in rows if row.left_host_id not in ("", host_id)}
    return tuple(found), tuple(sorted(left - {peer.port_id for peer in found}))


def peers(tx: Tx, network_id: str, host_id: str, only: list[str] | None = None) -> list[Peer]:
    """What one host should know of a network's ports on others, sorted; all of them, or some."""
    where: dict[str, Any] = {"id": network_id, "host_id": host_id}
    some: Mapping[str, Any] = where if only is None else {**where, "only": only}
    addresses: defaultdict[str, list[str]] = defaultdict(list)
    listed = tx.execute(
        _ADDRESSES if only is None else _SOME_ADDRESSES, {key: some[key] for key in some if key != "host_id"}
    )
    for row in listed:
        addresses[row.port_id].append(row.address)
    found = [
        Peer(port_id=port_id, mac=mac, addresses=tuple(sorted(addresses[port_id])), end=end)
        for port_id, mac, end in tx.execute(_GUESTS if only is None else _GUESTS.where(_SOME), some)
    ]
    found += [
        Peer(port_id=leg_id, mac=tunnel_mac(leg_id, end), addresses=(), end=end, is_guest=False)
        for leg_id, end in tx.execute(_WAYS_OUT if only is None else _WAYS_OUT.where(_SOME), some)
    ]
    return sorted(found, key=lambda peer: peer.port_id)


def behind(tx: Tx) -> list[tuple[str, Key]]:
    """(host, what it was told of others and is not so any more), of all hosts."""
    found = [(row.host_id, (row.noun, row.object_id)) for row in tx.execute(_BEHIND)]
    found += [(row.host_id, (FORWARDING, row.object_id)) for row in tx.execute(_NEWLY_SHARED)]
    return sorted(found)


def gateways_lacking(tx: Tx) -> list[str]:
    """The hosts that should have the gateway of a router which others have, and have not been told of that router."""
    return sorted(tx.execute(_GATEWAY_LACKING).scalars())
