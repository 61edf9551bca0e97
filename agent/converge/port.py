"""A port on this host: filtered before it exists, and filtered until it is gone."""

from agent.coalesce import together
from agent.effects import NETWORK, Effects
from agent.nouns import Key, Noun
from agent.turn import Turn
from agent.wire.group import GroupSpec
from agent.wire.lifecycle import Progress
from agent.wire.network import NetworkSpec
from agent.wire.port import PortSpec, PortStatus


async def ensure(fx: Effects, turn: Turn) -> PortStatus:
    """Filter, then tap and DHCP, then metadata: no packet passes before its rules are there."""
    spec = turn.spec(PortSpec)
    network = fx.need(Key(Noun.NETWORK, spec.network_id), NetworkSpec)
    for group in sorted(spec.groups):
        fx.need(Key(Noun.GROUP, group), GroupSpec)
    earlier = fx.wired.get(spec.id)
    fx.wired[spec.id] = spec
    await fx.apply_filter()
    tap = fx.run(NETWORK, turn.key, fx.drivers.fabric.ensure_port, spec, network)
    device, _ = await together(tap, fx.apply_dhcp(spec.network_id))
    if earlier is not None and earlier.network_id != spec.network_id:
        await fx.apply_dhcp(earlier.network_id)
    fx.publish_documents()
    return PortStatus(id=spec.id, generation=spec.generation, progress=Progress.READY, device=device)


async def absent(fx: Effects, turn: Turn) -> None:
    """The tap goes first, its rules after it."""
    fx.publish_documents()
    await fx.run(NETWORK, turn.key, fx.drivers.fabric.absent_port, turn.key.id)
    gone = fx.wired.pop(turn.key.id, None)
    await fx.apply_filter()
    network_id = gone.network_id if gone is not None else _network_of(turn)
    if network_id is not None:
        await fx.apply_dhcp(network_id)


def _network_of(turn: Turn) -> str | None:
    return turn.entry.spec.network_id if isinstance(turn.entry.spec, PortSpec) else None
