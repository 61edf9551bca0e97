"""An interface goes from a server that is on a host.

    step      do                                             undo
    domain    the guest has let go of it                     part of the intent again, and the guest has it
    unplug    the port is off the host, and released         wired again

Since the request it is no part of the domain's intent. A guest that does not let go keeps it: the request fails, and
nothing has changed.
"""

from typing import Final

import structlog

from controller.compute import domains, store
from controller.compute.sagas import power, turning
from controller.compute.sagas.interface_attach import InterfaceParams, host, join, push_unless_going, release, undone
from controller.db.tx import Tx
from controller.errors import CloudError, Conflict
from controller.network import ports, wiring
from controller.saga.model import Commit, Run, Saga, Step

log = structlog.get_logger()


async def let_go(run: Run[InterfaceParams]) -> None:
    """The guest has it no more."""
    run.notes["host"] = run.params.host_name
    status = await domains.push_patiently(run, run.params.server_id, run.params.host_id)
    await run.deps.db.write(store.pushed, run.params.server_id, status.generation.n)


async def keep(run: Run[InterfaceParams]) -> None:
    """The guest has it, as before."""
    try:
        await run.deps.db.write(join, run.params, run.deps.world.clock.now())
    except Conflict:
        return  # The server is being deleted.
    try:
        await push_unless_going(run)
    except CloudError as error:  # The row says so, and its host is told again until it takes it.
        log.warning("an interface could not be given back yet", server_id=run.params.server_id, why=error.message)


async def unplug(run: Run[InterfaceParams]) -> Commit:
    """Off the host, and the server's no more."""
    params = run.params
    await wiring.unplug(run.deps, await host(run), params.port_id, run.deadline)
    return Commit(_released, (params, run.deps.world.clock.now()))


def _released(tx: Tx, params: InterfaceParams, now: float) -> None:
    release(tx, params, now)
    store.end_action(tx, params.server_id, params.request_id, now, is_error=False)


async def plug(run: Run[InterfaceParams]) -> None:
    """On the host again: newer than its removal."""
    params, db, now = run.params, run.deps.db, run.deps.world.clock.now()
    if not await db.write(_touch, params, now):
        return
    try:
        await wiring.plug(run.deps, await host(run), params.port_id, run.deadline)
    except CloudError:
        if await db.read(turning.find_wanted, params.server_id) is None:
            return
        raise
    await db.write(wiring.plugged, params.port_id, now)


def _touch(tx: Tx, params: InterfaceParams, now: float) -> bool:
    if turning.find_wanted(tx, params.server_id) is None:
        return False
    return ports.touch(tx, params.port_id, now)


DETACH_INTERFACE: Final = Saga(
    "interface-detach",
    1,
    InterfaceParams,
    steps=(Step("domain", let_go, keep), Step("unplug", unplug, plug)),
    deadline_s=300.0,
    undone=undone,
    rested=power.network_rested,
)
