"""Stopping a guest's clock. Its memory stays where it is."""

from typing import Final

from agent.wire.domain import DomainStatus
from agent.wire.lifecycle import Power
from controller.compute.model import Event
from controller.compute.sagas import power
from controller.compute.sagas.power import PowerParams
from controller.db.tx import Tx
from controller.saga.model import Cause, Commit, Run, Saga, Step


async def pause_domain(run: Run[PowerParams]) -> Commit:
    """It stands still, or is off already."""
    status = await power.push(run)
    return Commit(_paused, (run.params, status, run.deps.world.clock.now()))


def _paused(tx: Tx, params: PowerParams, status: DomainStatus, now: float) -> None:
    if status.power is Power.PAUSED:
        power.succeeded(tx, params, Event.PAUSED, status, now)
    else:
        power.was_off(tx, params, status, now)


def undone(tx: Tx, params: PowerParams, cause: Cause, now: float) -> None:
    """It could not be paused."""
    power.failed(tx, params, Event.PAUSE_FAILED, cause, now)


PAUSE: Final = Saga(
    "server-pause", 1, PowerParams, steps=(Step("domain", pause_domain),), undone=undone, rested=power.rested
)
