"""An interface comes to a server that is on a host.

    step      do                                                          undo
    plug      the port is wired and filtered on the host; it is part of   off the host; released, and not the server's
              the domain's intent
    domain    the guest has the interface                                 no part of the intent, and the guest let go

The port is the server's, with its addresses, since the request. If the server is being deleted meanwhile, all this is
left to its deletion, which takes the domain first and the ports then.
"""

from typing import Any, Final

from agent.wire.domain import DomainStatus
from controller.compute import domains, nets, store
from controller.compute.model import Server
from controller.compute.sagas import power, turning
from controller.compute.sagas.power import PowerParams
from controller.db.tx import Tx
from controller.errors import CloudError
from controller.network import ports, wiring
from controller.saga.model import Cause, Commit, Run, Saga, Step, Transient


class InterfaceParams(PowerParams, frozen=True, kw_only=True):
    """`is_ours`: the port was made for the server, and goes with it. The rest is what the guest sees."""

    port_id: str
    is_ours: bool
    mac: str
    mtu: int
    addresses: tuple[str, ...]


async def plug(run: Run[InterfaceParams]) -> Commit:
    """The port is on the host; from now on the intent has it."""
    params = run.params
    await wiring.plug(run.deps, await host(run), params.port_id, run.deadline)
    return Commit(join, (params, run.deps.world.clock.now()))


async def host(run: Run[InterfaceParams]) -> str:
    """Where the server is: its host may have died meanwhile, and the server been evacuated. Raises Transient."""
    found, is_moving = await run.deps.db.read(_where, run.params)
    if is_moving:
        raise Transient("the server is on its way to another host")
    run.notes["host"] = found.host_name or run.params.host_name
    return found.host_id or run.params.host_id


def _where(tx: Tx, params: InterfaceParams) -> tuple[Server, bool]:
    server = store.find(tx, params.server_id)
    assert server is not None, "rows of servers outlive their sagas"
    return server, ports.is_moving(tx, params.port_id)


def join(tx: Tx, params: InterfaceParams, now: float) -> None:
    """Part of the intent. Raises Conflict for a server that is being deleted."""
    turning.intend(tx, params.server_id, {})
    seen = {"mac": params.mac, "mtu": params.mtu, "addresses": list(params.addresses)}
    store.set_nic(tx, params.port_id, params.server_id, seen)
    nets.note_network(tx, params.server_id)


def leave(tx: Tx, params: InterfaceParams) -> bool:
    """No part of the intent any more; False for a server that is being deleted."""
    if not store.intend(tx, params.server_id, {}):
        return False
    store.set_nic(tx, params.port_id, params.server_id, {"mac": None, "mtu": None})
    nets.note_network(tx, params.server_id)
    return True


async def unplug(run: Run[InterfaceParams]) -> Commit:
    """Off the host, and the server's no more."""
    params = run.params
    if await run.deps.db.read(turning.find_wanted, params.server_id) is None:
        return Commit(_nothing)
    await wiring.unplug(run.deps, await host(run), params.port_id, run.deadline)
    return Commit(release, (params, run.deps.world.clock.now()))


def _nothing(tx: Tx) -> None:
    return None


def release(tx: Tx, params: InterfaceParams, now: float) -> None:
    """The port is gone if it was made for the server, else its owner's; nothing for a server that is being deleted."""
    if turning.find_wanted(tx, params.server_id) is None:
        return
    ports.release_for_server(tx, port_id=params.port_id, created=params.is_ours, server_id=params.server_id, now=now)
    store.drop_nic(tx, params.server_id, params.port_id)


async def run_domain(run: Run[InterfaceParams]) -> Commit:
    """The guest has it."""
    status = await domains.push_patiently(run, run.params.server_id, run.params.host_id)
    return Commit(_attached, (run.params, status, run.deps.world.clock.now()))


def _attached(tx: Tx, params: InterfaceParams, status: DomainStatus, now: float) -> None:
    wiring.plugged(tx, params.port_id, now)
    store.pushed(tx, params.server_id, status.generation.n)
    store.end_action(tx, params.server_id, params.request_id, now, is_error=False)


async def take_out(run: Run[InterfaceParams]) -> None:
    """The guest has let go of it."""
    if await run.deps.db.write(leave, run.params):
        await push_unless_going(run)


async def push_unless_going(run: Run[Any]) -> None:
    """The host holds the newest intent; nothing for a server whose deletion sees to the rest."""
    params, db = run.params, run.deps.db
    try:
        status = await domains.push(run.deps, params.server_id, params.host_id, run.deadline)
    except CloudError:
        if await db.read(turning.find_wanted, params.server_id) is None:
            return
        raise
    await db.write(store.pushed, params.server_id, status.generation.n)


def undone(tx: Tx, params: InterfaceParams, cause: Cause, now: float) -> None:
    """The server goes on as it was."""
    store.end_action(tx, params.server_id, params.request_id, now, is_error=True)


ATTACH_INTERFACE: Final = Saga(
    "interface-attach",
    1,
    InterfaceParams,
    steps=(Step("plug", plug, unplug), Step("domain", run_domain, take_out)),
    deadline_s=300.0,
    undone=undone,
    rested=power.network_rested,
)
