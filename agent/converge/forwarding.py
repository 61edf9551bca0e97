"""The way to a network's ports on other hosts: a tunnel, and who is behind which end of it."""

from agent.effects import NETWORK, Effects
from agent.nouns import Key, Noun
from agent.turn import Turn
from agent.wire.forwarding import ForwardingSpec, ForwardingStatus
from agent.wire.lifecycle import Progress
from agent.wire.network import NetworkSpec


async def ensure(fx: Effects, turn: Turn) -> ForwardingStatus:
    """The tunnel's table says what the ledger says."""
    spec = turn.spec(ForwardingSpec)
    network = fx.need(Key(Noun.NETWORK, spec.id), NetworkSpec)
    await fx.run(NETWORK, turn.key, fx.drivers.fabric.ensure_forwarding, spec, network)
    return ForwardingStatus(id=spec.id, generation=spec.generation, progress=Progress.READY)


async def absent(fx: Effects, turn: Turn) -> None:
    """No tunnel; the network stays what it is on this host."""
    await fx.run(NETWORK, turn.key, fx.drivers.fabric.absent_forwarding, turn.key.id)
