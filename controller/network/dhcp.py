"""The one DHCP port of a network: same MAC and addresses on every host, answering the guests of that host only.

It exists while a subnet of its network has DHCP, with an address in each such subnet. Its id follows from the
network's, so that two transactions that find it missing make the same one.
"""

import uuid
from typing import Final

from controller.db.tx import Tx
from controller.network import addresses
from controller.network.errors import IpAddressGenerationFailure
from controller.network.model import DHCP_OWNER, Network, Port, Status, Subnet
from controller.network.store import networks, ports, subnets

_IDS: Final = uuid.UUID("3c0a3f5e-9f0f-4d51-8f5b-6f7f2b6f0a44")


def port_id(network_id: str) -> str:
    """The id of a network's DHCP port, whether there is one or not."""
    return str(uuid.uuid5(_IDS, network_id))


def align(tx: Tx, around: Network, now: float) -> None:
    """Give the network the DHCP port that its subnets ask for, or none. Raises its generation.

    Raises IpAddressGenerationFailure when a subnet has no address left for it.
    """
    served = [part for part in subnets.of_networks(tx, [around.id]) if part.enable_dhcp]
    found = ports.find(tx, port_id(around.id))
    if not served:
        if found is not None:
            ports.delete(tx, found.id)
    else:
        if found is None:
            found = _make(tx, around, now)
        have = {fixed.subnet_id: fixed.ip_address for fixed in found.fixed_ips}
        for subnet_id in have.keys() - {part.id for part in served}:
            subnets.take(tx, found.id, have[subnet_id])
        for part in served:
            if part.id not in have:
                subnets.give(tx, part, _address(tx, part, found.mac_address), found.id)
    networks.raise_generation(tx, around.id)


def _make(tx: Tx, around: Network, now: float) -> Port:
    made = Port(
        id=port_id(around.id),
        project_id=around.project_id,
        network_id=around.id,
        mac_address=ports.free_mac(tx, around.id, port_id(around.id)),
        status=Status.ACTIVE,
        device_id=f"dhcp-{around.id}",
        device_owner=DHCP_OWNER,
        port_security_enabled=False,
        created_at=now,
        updated_at=now,
    )
    ports.insert(tx, made)
    return made


def _address(tx: Tx, part: Subnet, mac: str) -> str:
    cidr = addresses.cidr_of(part.cidr)
    if part.ipv6_address_mode in addresses.AUTOMATIC:
        return str(addresses.eui64(cidr, mac))
    free = addresses.free_address(tx, part.id, addresses.pools_of(part.allocation_pools))
    if free is None:
        raise IpAddressGenerationFailure(part.network_id)
    return str(free)
