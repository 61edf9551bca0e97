"""From a network's peers on other hosts to the tables of its tunnel and its bridge. Pure; `bridge.py` writes them.

A frame for a peer's MAC goes to the peer's tunnel end, one for everybody to the end of every guest once. The bridge
knows the peers' addresses as well, so that questions after them (ARP, neighbour solicitation) are answered here and
never flooded.
"""

from collections.abc import Iterator
from typing import Final

from agent.wire.forwarding import ForwardingSpec, Peer
from drivers.network.filter import ip_address, mac_address

EVERYBODY: Final = "00:00:00:00:00:00"
"""In a tunnel's table: where frames go that no other entry is about."""
OVERHEAD_V4: Final = 50
OVERHEAD_V6: Final = 70
"""Bytes that VXLAN puts around a packet: Ethernet, outer IP, UDP, its own header (RFC 7348)."""


def overhead(underlay_address: str) -> int:
    """What a tunnel over this underlay adds to a packet."""
    return OVERHEAD_V4 if ip_address(underlay_address).version == 4 else OVERHEAD_V6


def entries(spec: ForwardingSpec) -> set[tuple[str, str]]:
    """(MAC, tunnel end) for the tunnel's table. Raises Invalid."""
    known = {(mac_address(peer.mac), str(ip_address(peer.end))) for peer in spec.peers}
    return known | {(EVERYBODY, str(ip_address(peer.end))) for peer in _guests(spec)}


def macs(spec: ForwardingSpec) -> set[str]:
    """The MACs that the bridge must look for behind the tunnel. Raises Invalid."""
    return {mac_address(peer.mac) for peer in spec.peers}


def neighbours(spec: ForwardingSpec) -> dict[str, str]:
    """MACs by address, for the bridge to answer with. Raises Invalid."""
    return {str(ip_address(address)): mac_address(peer.mac) for peer in _guests(spec) for address in peer.addresses}


def _guests(spec: ForwardingSpec) -> Iterator[Peer]:
    return (peer for peer in spec.peers if peer.is_guest)
