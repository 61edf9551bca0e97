"""Tunnel ends: hosts' addresses in the underlay, which all that share a network with a host were told."""

from controller.db.tx import Tx
from controller.network import gateways
from controller.network.store import forwarding, ports, routers


def host_moved(tx: Tx, host_id: str) -> None:
    """The host has another address: part of the transaction that writes it."""
    for one in ports.on_host(tx, host_id):
        forwarding.changed(tx, one.network_id, one.id)
    found = gateways.of_host(tx, host_id)
    for router_id in found:
        forwarding.way_out_changed(tx, router_id, "")
    routers.raise_generations(tx, found)
