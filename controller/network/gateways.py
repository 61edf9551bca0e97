"""Which host has a router's gateway: one of those that have the external network, and a ranked standby.

The ranking follows from ids alone (rendezvous hashing), so gateways are spread over hosts and few move when one comes
or goes. A gateway stays where it is as long as its host can keep it: moving it cuts connections. A host that was down
has dropped its gateways by itself when its lease ended, before it was found to be down here.
"""

import hashlib
from collections.abc import Collection, Iterable
from typing import Any

import sqlalchemy as sa

from controller.db.tables.network import network, router
from controller.db.tx import Tx
from controller.fleet import store as fleet
from controller.fleet.model import Host
from controller.network.store import forwarding, routers


def ranked(router_id: str, hosts: Iterable[Host]) -> list[Host]:
    """Best first. Pure."""
    return sorted(hosts, key=lambda one: hashlib.sha256(f"{router_id} {one.id}".encode()).digest())


def can_keep(one: Host, physical_network: str | None, up: Collection[str]) -> bool:
    """Whether a host may have a gateway to this network. Pure."""
    has_network = physical_network is None or physical_network in one.physical_networks
    return has_network and one.id in up and not one.forced_down


def choose(tx: Tx, router_id: str, network_id: str, up: Collection[str] | None = None) -> str:
    """The best host for a gateway to this network; empty if there is none now.

    `up` are the hosts that live; None: as their rows say.
    """
    hosts = fleet.list_hosts(tx)
    living = {one.id for one in hosts if one.up} if up is None else up
    physical = tx.execute(sa.select(network.c.physical_network).where(network.c.id == network_id)).scalar()
    fit = [one for one in hosts if can_keep(one, physical, living) and not one.disabled]
    return next((one.id for one in ranked(router_id, fit)), "")


def is_any_misplaced(tx: Tx, up: Collection[str]) -> bool:
    """Whether `elect` would have something to look into."""
    return bool(_misplaced(tx, up))


def elect(tx: Tx, up: Collection[str], now: float) -> int:
    """Move every gateway whose host cannot keep it, or should not; how many moved."""
    moved = 0
    for row in _misplaced(tx, up):
        better = choose(tx, row.id, row.gateway_network_id, up)
        if better and better != row.gateway_host_id:
            move(tx, row.id, row.gateway_host_id, better, now)
            moved += 1
    return moved


_GATEWAYS = (
    sa.select(router.c.id, router.c.gateway_network_id, router.c.gateway_host_id, network.c.physical_network)
    .join(network, network.c.id == router.c.gateway_network_id)
    .order_by(router.c.id)
)


def _misplaced(tx: Tx, up: Collection[str]) -> list[Any]:
    hosts = {one.id: one for one in fleet.list_hosts(tx)}

    def is_well_placed(row: Any) -> bool:
        here = hosts.get(row.gateway_host_id)
        return here is not None and can_keep(here, row.physical_network, up) and not here.disabled

    return [row for row in tx.execute(_GATEWAYS) if not is_well_placed(row)]


def move(tx: Tx, router_id: str, old_host_id: str, new_host_id: str, now: float) -> None:
    """The gateway is on another host from now on."""
    routers.revise(tx, router_id, now, {"gateway_host_id": new_host_id})
    forwarding.way_out_changed(tx, router_id, old_host_id)


def of_host(tx: Tx, host_id: str) -> tuple[str, ...]:
    """The routers whose gateway a host has."""
    query = sa.select(router.c.id).where(router.c.gateway_host_id == host_id, router.c.gateway_network_id.is_not(None))
    return tuple(tx.execute(query.order_by(router.c.id)).scalars())
