"""Letting a paused guest go on."""

from typing import Final

from agent.wire.domain import DomainStatus
from controller.compute.model import Event
from controller.compute.sagas import power
from controller.compute.sagas.power import PowerParams
from controller.db.tx import Tx
from controller.saga.model import Cause, Commit, Run, Saga, Step


async def unpause_domain(run: Run[PowerParams]) -> Commit:
    """It goes on."""
    status = await power.push(run)
    return Commit(_unpaused, (run.params, status, run.deps.world.clock.now()))


def _unpaused(tx: Tx, params: PowerParams, status: DomainStatus, now: float) -> None:
    power.succeeded(tx, params, Event.UNPAUSED, status, now)


def undone(tx: Tx, params: PowerParams, cause: Cause, now: float) -> None:
    """It could not be unpaused."""
    power.failed(tx, params, Event.UNPAUSE_FAILED, cause, now)


UNPAUSE: Final = Saga("server-unpause", 1, PowerParams, steps=(Step("domain", unpause_domain),), undone=undone)
