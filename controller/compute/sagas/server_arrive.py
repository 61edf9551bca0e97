"""A server has come to another host while its guest runs: what is left to be done there.

    step      does
    reach     only that host reaches its volumes
    domain    the guest goes on, if it does not already, and its host holds the newest intent

Only forward: the guest is nowhere else, so there is no way back. For a server that is being deleted nothing is made;
its own saga waits for this one, and removes what is there.
"""

from typing import Final

from agent.wire.domain import DomainStatus
from controller.compute import carrying, domains, migration_store, store
from controller.compute.model import Event, Server
from controller.compute.sagas import power, turning
from controller.compute.sagas.power import PowerParams
from controller.db.tx import Tx
from controller.network import wiring
from controller.saga.model import Cause, Commit, Run, Saga, Step
from controller.schedule import claim


class ArriveParams(PowerParams, frozen=True, kw_only=True):
    """`host_id` is where it is now. `migration_id` holds the claim where it was."""

    migration_id: str


async def reach(run: Run[ArriveParams]) -> None:
    """Nobody else reaches its volumes any more. Their secrets stay: the guest goes on with them."""
    params = run.params
    run.deps.tasks.kick(wiring.SPREAD)
    if await _find(run) is not None:
        await carrying.reach(run, params.server_id, (params.host_id,), params.host_name, is_alive=True)


async def go_on(run: Run[ArriveParams]) -> Commit:
    """It is as it was, elsewhere."""
    run.notes["host"] = run.params.host_name
    status = None
    if await _find(run) is not None:
        status = await domains.push(run.deps, run.params.server_id, run.params.host_id, run.deadline)
    return Commit(_arrived, (run.params, status, run.deps.world.clock.now()))


async def _find(run: Run[ArriveParams]) -> Server | None:
    found: Server | None = await run.deps.db.read(turning.find_wanted, run.params.server_id)
    return found


def _arrived(tx: Tx, params: ArriveParams, status: DomainStatus | None, now: float) -> None:
    claim.release(tx, params.migration_id)
    migration_store.change(tx, params.migration_id, now, status="completed")
    if status is not None:
        for nic in store.nics(tx, params.server_id):
            wiring.plugged(tx, nic.port_id, now)
        turning.ended(tx, params, Event.LIVE_ARRIVED, status, now)


def overdue(tx: Tx, params: ArriveParams, cause: Cause, now: float) -> None:
    """Its host is silent. It is tried on."""
    power.failed(tx, params, Event.MIGRATE_FAILED, cause, now)


ARRIVE: Final = Saga(
    "server-arrive",
    1,
    ArriveParams,
    steps=(Step("reach", reach, deferred=True), Step("domain", go_on)),
    overdue=overdue,
    rested=power.network_rested,
    forward_only=True,
)
