"""What must be true at rest between hosts: who is behind which tunnel, and where routers have their gateways.

Said anew from the rows of ports, so that what renders the hosts' tables is not its own judge.
"""

from typing import TYPE_CHECKING

import sqlalchemy as sa

from agent.wire.router import RouterSpec
from controller.db.tables.fleet import host as host_table
from controller.db.tables.network import network, port, router
from controller.db.tx import Tx
from controller.network.model import INFRASTRUCTURE_OWNERS

if TYPE_CHECKING:
    from tests.sim.invariants import Host

_BOUND = sa.select(port.c.id, port.c.network_id, port.c.mac_address, port.c.host_id).where(
    port.c.host_id != "", port.c.device_owner.not_in(sorted(INFRASTRUCTURE_OWNERS))
)


def wrong(tx: Tx, hosts: "list[Host]") -> list[str]:
    """What is wrong."""
    return [*_tunnels(tx, hosts), *_gateways(tx, hosts), *_moves(tx)]


def _tunnels(tx: Tx, hosts: "list[Host]") -> list[str]:
    """A host knows each guest's port of its networks that is elsewhere, there; and nobody else's."""
    ends = {row.id: row.underlay_address for row in tx.execute(sa.select(host_table))}
    tenants = set(tx.execute(sa.select(network.c.id).where(network.c.network_type == "vxlan")).scalars())
    bound = tx.execute(_BOUND).all()
    found = []
    for host in hosts:
        net = host.party.site.net
        for network_id in sorted(tenants & set(net.networks.keys())):
            wanted = {
                (row.id, row.mac_address, ends[row.host_id])
                for row in bound
                if row.network_id == network_id and row.host_id != host.id
            }
            told = net.tunnels.get(network_id)
            have = set() if told is None else {(one.port_id, one.mac, one.end) for one in told.peers if one.is_guest}
            if have != wanted:
                more, less = sorted(have - wanted), sorted(wanted - have)
                found.append(f"{host.party.name} leads {more} of network {network_id} astray, and not to {less}")
    return found


def _gateways(tx: Tx, hosts: "list[Host]") -> list[str]:
    """One host has it, the one that the row says; nobody, where no guest is behind it."""
    found = []
    for row in tx.execute(sa.select(router).where(router.c.gateway_network_id.is_not(None)).order_by(router.c.id)):
        there = [(host, spec) for host in hosts if (spec := host.party.site.net.routers.get(row.id)) is not None]
        have = [host.party.name for host, spec in there if spec.gateway is not None]
        wanted = [host.party.name for host, _ in there if host.id == row.gateway_host_id]
        if have != wanted:
            found.append(f"the gateway of router {row.id} is on {have}, and should be on {wanted}")
        if there and not wanted:
            found.append(f"router {row.id} is on {[host.party.name for host, _ in there]}, and its gateway is nowhere")
        found += [f"router {row.id} has floating IPs beside its gateway" for _, spec in there if _is_astray(spec)]
    return found


def _is_astray(spec: RouterSpec) -> bool:
    return spec.gateway is None and bool(spec.floating)


def _moves(tx: Tx) -> list[str]:
    """No port is still on its way."""
    going = tx.execute(sa.select(port.c.id, port.c.moving_to).where(port.c.moving_to != "")).all()
    return [f"port {row.id} is still on its way to {row.moving_to}" for row in going]
