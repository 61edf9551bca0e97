"""Back to the size that a server had.

    step      does
    off       the guest is off (the request's intent)
    turn      the row has the old size and the intent that it had; only that is claimed and counted any more
    domain    the domain is defined anew, on or off

A root disk that has grown stays so. A failure leaves the row in ERROR; from `turn` on it has the old size.
"""

from typing import Final

from agent.wire.domain import DomainStatus
from controller.compute import resize_store, store
from controller.compute.model import Event
from controller.compute.sagas import power, turning
from controller.compute.sagas.turning import TurnParams
from controller.db.tx import Tx
from controller.saga.model import Cause, Commit, Run, Saga, Step
from controller.schedule import claim


class RevertParams(TurnParams, frozen=True, kw_only=True):
    """Who holds the claim of the old size."""

    resize_id: str


async def turn(run: Run[RevertParams]) -> Commit:
    """It is the old one from now on."""
    return Commit(_turn, (run.params,))


def _turn(tx: Tx, params: RevertParams) -> None:
    resize = resize_store.get(tx, params.server_id)
    server = store.find(tx, params.server_id)
    assert server is not None, "rows of servers outlive their sagas"
    turning.intend(tx, params.server_id, {**resize.old_size.columns(), **turning.desired(params.was_on)})
    claim.take_back(tx, params.server_id, params.resize_id, server.root_gib)
    resize_store.drop(tx, params.server_id)


async def run_domain(run: Run[RevertParams]) -> Commit:
    """It is as it was."""
    status = await power.push(run)
    return Commit(_reverted, (run.params, status, run.deps.world.clock.now()))


def _reverted(tx: Tx, params: RevertParams, status: DomainStatus, now: float) -> None:
    event = Event.REVERTED_ON if params.was_on else Event.REVERTED_OFF
    turning.ended(tx, params, event, status, now)


def undone(tx: Tx, params: RevertParams, cause: Cause, now: float) -> None:
    """It could not be brought back."""
    power.failed(tx, params, Event.REVERT_FAILED, cause, now)


REVERT: Final = Saga(
    "server-revert-resize",
    1,
    RevertParams,
    steps=(
        Step("off", turning.push, deferred=True),
        Step("turn", turn),
        Step("domain", run_domain),
    ),
    undone=undone,
)
