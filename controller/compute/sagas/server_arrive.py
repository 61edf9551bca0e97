"""A server has come to another host while its guest runs: what is left to be done there.

    step      does
    spread    other hosts are told where its addresses are
    domain    the guest goes on, and its host holds the newest intent
    reach     only that host reaches its volumes

Only forward: the guest is nowhere else, so there is no way back. For a server that is being deleted nothing is made;
its own saga waits for this one, and removes what is there.
"""

from typing import Final

from agent.wire.domain import DomainStatus
from controller.compute import carrying, domains, migration_store, store
from controller.compute.model import Event, Server
from controller.compute.sagas import moving, power, turning
from controller.compute.sagas.power import PowerParams
from controller.db.tx import Tx
from controller.network import wiring
from controller.saga.model import Cause, Commit, Run, Saga, Step
from controller.schedule import claim

SPREAD_S: Final = 1.5
"""Longer: the guest stands still for a host that does not answer. Shorter: its connections lose more."""


class ArriveParams(PowerParams, frozen=True, kw_only=True):
    """`host_id` is where it is now. `migration_id` holds the claim where it was."""

    migration_id: str


async def spread(run: Run[ArriveParams]) -> None:
    """What the guest sends first finds its way back. Hosts that are slow to hear of it are not waited for."""
    found = await run.deps.db.read(store.nics, run.params.server_id)
    await wiring.tell_of(run.deps, {nic.network_id for nic in found if nic.network_id is not None}, SPREAD_S)
    run.deps.tasks.kick(wiring.SPREAD)


async def go_on(run: Run[ArriveParams]) -> None:
    """It is as it was, elsewhere."""
    run.notes["host"] = run.params.host_name
    if await _find(run) is not None:
        await domains.push(run.deps, run.params.server_id, run.params.host_id, run.deadline)


async def reach(run: Run[ArriveParams]) -> Commit:
    """Nobody else reaches its volumes any more. Their secrets stay: the guest goes on with them."""
    params = run.params
    status = None
    if await _find(run) is not None:
        await carrying.reach(run, params.server_id, (params.host_id,), params.host_name, is_alive=True)
        status = await domains.push(run.deps, params.server_id, params.host_id, run.deadline)
    return Commit(_arrived, (run.params, status, run.deps.world.clock.now()))


async def _find(run: Run[ArriveParams]) -> Server | None:
    found: Server | None = await run.deps.db.read(turning.find_wanted, run.params.server_id)
    return found


def _arrived(tx: Tx, params: ArriveParams, status: DomainStatus | None, now: float) -> None:
    claim.release(tx, params.migration_id)
    migration_store.change(tx, params.migration_id, now, status="completed")
    if status is not None:
        moving.ports_plugged(tx, params.server_id, now)
        turning.ended(tx, params, Event.LIVE_ARRIVED, status, now)


def overdue(tx: Tx, params: ArriveParams, cause: Cause, now: float) -> None:
    """Its host is silent. It is tried on."""
    power.failed(tx, params, Event.MIGRATE_FAILED, cause, now)


ARRIVE: Final = Saga(
    "server-arrive",
    1,
    ArriveParams,
    steps=(Step("spread", spread, deferred=True), Step("domain", go_on, deferred=True), Step("reach", reach)),
    overdue=overdue,
    rested=power.network_rested,
    forward_only=True,
)
