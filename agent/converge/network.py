"""A network on this host: its bridge, its namespace, DHCP for the local ports, and where metadata is asked for."""

from agent.effects import NETWORK, Effects
from agent.nouns import Key, Noun
from agent.tracks import Waiting
from agent.turn import Turn
from agent.wire.lifecycle import Progress
from agent.wire.network import NetworkSpec, NetworkStatus
from agent.wire.router import RouterSpec


async def ensure(fx: Effects, turn: Turn) -> NetworkStatus:
    """Bridge and namespace; then what hangs on the network's addresses follows."""
    spec = turn.spec(NetworkSpec)
    await fx.run(NETWORK, turn.key, fx.drivers.fabric.ensure_network, spec)
    if spec.dhcp is not None:
        fx.guard.serve(spec.id, fx.drivers.fabric.namespace(spec.id))
    else:
        fx.guard.withdraw(spec.id)
    if any(port.network_id == spec.id for port in fx.wired.values()):
        await fx.apply_filter()
        await fx.apply_dhcp(spec.id)
    if turn.track.done is not None:
        _redo_users(fx, spec)
    return NetworkStatus(id=spec.id, generation=spec.generation, progress=Progress.READY)


async def absent(fx: Effects, turn: Turn) -> None:
    """Gone, after everything that is plugged into it."""
    for port in sorted(fx.wired.values(), key=lambda port: port.id):
        if port.network_id == turn.key.id:
            raise _still(turn.key, Key(Noun.PORT, port.id))
    for router in fx.unfinished(Noun.ROUTER, RouterSpec).values():
        if turn.key.id in networks_of(router):
            raise _still(turn.key, Key(Noun.ROUTER, router.id))
    fx.guard.withdraw(turn.key.id)
    await fx.run(NETWORK, turn.key, fx.drivers.dhcp.absent, turn.key.id)
    await fx.run(NETWORK, turn.key, fx.drivers.fabric.absent_network, turn.key.id)


def _redo_users(fx: Effects, spec: NetworkSpec) -> None:
    """The network changed (its MTU, its subnets): what is plugged into it is looked over."""
    for port in sorted(fx.wired.values(), key=lambda port: port.id):
        if port.network_id == spec.id:
            fx.redo(Key(Noun.PORT, port.id))
    fx.redo(Key(Noun.FORWARDING, spec.id))
    for router in fx.present(Noun.ROUTER, RouterSpec).values():
        if spec.id in networks_of(router):
            fx.redo(Key(Noun.ROUTER, router.id))


def networks_of(router: RouterSpec) -> list[str]:
    """The networks in which a router has a leg."""
    gateway = [] if router.gateway is None else [router.gateway.network_id]
    return sorted({leg.network_id for leg in router.legs} | set(gateway))


def _still(key: Key, user: Key) -> Waiting:
    return Waiting(user, f"{key} is still used by {user}", is_coming=False)
