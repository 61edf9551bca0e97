"""A router on this host: its namespace with a leg in every network it joins."""

import msgspec

from agent.converge.network import networks_of
from agent.effects import NETWORK, Effects
from agent.nouns import Key, Noun
from agent.turn import Turn
from agent.wire.lifecycle import Progress
from agent.wire.network import NetworkSpec
from agent.wire.router import RouterSpec, RouterStatus


async def ensure(fx: Effects, turn: Turn) -> RouterStatus:
    """Legs, routes, NAT, floating IPs. No guest may speak as a leg, from before the leg is there."""
    spec = turn.spec(RouterSpec)
    networks = {name: fx.need(Key(Noun.NETWORK, name), NetworkSpec) for name in networks_of(spec)}
    if fx.wired:
        await fx.apply_filter()
    await fx.run(NETWORK, turn.key, fx.drivers.fabric.ensure_router, _permitted(fx, spec), networks)
    return RouterStatus(id=spec.id, generation=spec.generation, progress=Progress.READY)


def _permitted(fx: Effects, spec: RouterSpec) -> RouterSpec:
    """The router as it may be now: a host that is cut off has no gateway."""
    if spec.gateway is None or fx.has_gateway(spec.id):
        return spec
    return msgspec.structs.replace(spec, gateway=None, floating=())


async def absent(fx: Effects, turn: Turn) -> None:
    """Gone, with its namespace."""
    await fx.run(NETWORK, turn.key, fx.drivers.fabric.absent_router, turn.key.id)
    fx.ledger.settle(turn.key, turn.entry.generation)  # Its legs' addresses are free from here on.
    if fx.wired:
        await fx.apply_filter()
