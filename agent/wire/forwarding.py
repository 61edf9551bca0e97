"""Who is behind which tunnel end: what a host must know of a tenant network's ports on other hosts.

Nobody floods to ask and nobody learns: the controller tells each host that has the network, and no other. The whole
state comes once (`ensure`), then each change as a delta on the generation before. A host that does not hold that
generation answers Conflict, and is sent the whole state again.
"""

import msgspec

from agent.wire.errors import Conflict
from agent.wire.lifecycle import Generation
from agent.wire.specs import Absence, Call, ObjectSpec, ObjectStatus, Ref


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """A port on another host, or a router's leg there that is the way to the outside (`is_guest` False).

    `end` is that host's address in the underlay. What is sent to everybody goes to the ends of guests.
    """

    port_id: str
    mac: str
    addresses: tuple[str, ...]
    end: str
    is_guest: bool = True


class ForwardingSpec(ObjectSpec, frozen=True, kw_only=True):
    """All of a network's peers, sorted by port. `id` is the network's, which must be on the host, else `Failed`.

    A host has it while another host has the network, also without peers: a router there sends to guests here.
    """

    peers: tuple[Peer, ...]


class ForwardingDelta(ObjectSpec, frozen=True, kw_only=True):
    """What changed since the generation `base`: peers that are new or other than before, ports that are gone."""

    base: Generation
    changed: tuple[Peer, ...] = ()
    gone: tuple[str, ...] = ()


class ForwardingStatus(ObjectStatus, frozen=True, kw_only=True):
    """How far it is."""


def applied(held: ForwardingSpec, delta: ForwardingDelta) -> ForwardingSpec:
    """The state after a delta, the same as if it had come whole. Raises Conflict for a gap."""
    if held.generation != delta.base:
        raise Conflict(f"forwarding {held.id}: a change since {delta.base} came, and {held.generation} is held")
    peers = {peer.port_id: peer for peer in held.peers if peer.port_id not in delta.gone}
    peers |= {peer.port_id: peer for peer in delta.changed}
    return ForwardingSpec(
        id=held.id,
        generation=delta.generation,
        labels=held.labels,
        peers=tuple(peers[port_id] for port_id in sorted(peers)),
    )


ENSURE = Call("forwarding.ensure", ForwardingSpec, ForwardingStatus)
DELTA = Call("forwarding.delta", ForwardingDelta, ForwardingStatus)
ABSENT = Call("forwarding.absent", Absence, ForwardingStatus)
GET = Call("forwarding.get", Ref, ForwardingStatus)
