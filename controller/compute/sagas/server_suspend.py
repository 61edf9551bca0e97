"""Writing a guest's memory to a file of its host, and powering it off."""

from typing import Final

from agent.wire.domain import DomainStatus
from agent.wire.lifecycle import Power
from controller.compute.model import Event
from controller.compute.sagas import power
from controller.compute.sagas.power import PowerParams
from controller.db.tx import Tx
from controller.saga.model import Cause, Commit, Run, Saga, Step


async def suspend_domain(run: Run[PowerParams]) -> Commit:
    """Its memory is on disk, or it is off already."""
    status = await power.push(run)
    return Commit(_suspended, (run.params, status, run.deps.world.clock.now()))


def _suspended(tx: Tx, params: PowerParams, status: DomainStatus, now: float) -> None:
    if status.power is Power.SUSPENDED:
        power.succeeded(tx, params, Event.SUSPENDED, status, now)
    else:
        power.was_off(tx, params, status, now)


def undone(tx: Tx, params: PowerParams, cause: Cause, now: float) -> None:
    """It could not be suspended."""
    power.failed(tx, params, Event.SUSPEND_FAILED, cause, now)


SUSPEND: Final = Saga(
    "server-suspend", 1, PowerParams, steps=(Step("domain", suspend_domain),), undone=undone, rested=power.rested
)
