"""Powering a server off: the guest is asked, and after its grace time cut off, by the host."""

from typing import Final

from agent.wire.domain import DomainStatus
from controller.compute.model import Event
from controller.compute.sagas import power
from controller.compute.sagas.power import PowerParams
from controller.db.tx import Tx
from controller.saga.model import Cause, Commit, Run, Saga, Step


async def stop_domain(run: Run[PowerParams]) -> Commit:
    """The domain is off."""
    status = await power.push(run)
    return Commit(_stopped, (run.params, status, run.deps.world.clock.now()))


def _stopped(tx: Tx, params: PowerParams, status: DomainStatus, now: float) -> None:
    power.succeeded(tx, params, Event.STOPPED, status, now)


def undone(tx: Tx, params: PowerParams, cause: Cause, now: float) -> None:
    """It could not be stopped."""
    power.failed(tx, params, Event.STOP_FAILED, cause, now)


STOP: Final = Saga("server-stop", 1, PowerParams, steps=(Step("domain", stop_domain),), undone=undone)
