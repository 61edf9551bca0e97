"""Letting a suspended guest go on where it stood."""

from typing import Final

from agent.wire.domain import DomainStatus
from controller.compute.model import Event
from controller.compute.sagas import power
from controller.compute.sagas.power import PowerParams
from controller.db.tx import Tx
from controller.saga.model import Cause, Commit, Run, Saga, Step


async def resume_domain(run: Run[PowerParams]) -> Commit:
    """It goes on."""
    status = await power.push(run)
    return Commit(_resumed, (run.params, status, run.deps.world.clock.now()))


def _resumed(tx: Tx, params: PowerParams, status: DomainStatus, now: float) -> None:
    power.succeeded(tx, params, Event.RESUMED, status, now)


def undone(tx: Tx, params: PowerParams, cause: Cause, now: float) -> None:
    """It could not be resumed."""
    power.failed(tx, params, Event.RESUME_FAILED, cause, now)


RESUME: Final = Saga("server-resume", 1, PowerParams, steps=(Step("domain", resume_domain),), undone=undone)
