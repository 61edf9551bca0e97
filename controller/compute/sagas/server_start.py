"""Powering a server on."""

from typing import Final

from agent.wire.domain import DomainStatus
from controller.compute.model import Event
from controller.compute.sagas import power
from controller.compute.sagas.power import PowerParams
from controller.db.tx import Tx
from controller.saga.model import Cause, Commit, Run, Saga, Step


async def start_domain(run: Run[PowerParams]) -> Commit:
    """The domain runs."""
    status = await power.push(run)
    return Commit(_started, (run.params, status, run.deps.world.clock.now()))


def _started(tx: Tx, params: PowerParams, status: DomainStatus, now: float) -> None:
    power.succeeded(tx, params, Event.STARTED, status, now)


def undone(tx: Tx, params: PowerParams, cause: Cause, now: float) -> None:
    """It could not be started."""
    power.failed(tx, params, Event.START_FAILED, cause, now)


START: Final = Saga("server-start", 1, PowerParams, steps=(Step("domain", start_domain),), undone=undone)
