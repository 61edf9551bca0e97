"""Back to a server's own disk.

    step      does
    off       the guest is off (the request's intent)
    turn      intent: its own disk, and on
    domain    the guest runs, and has the rescue disk no more
    disk      the rescue disk is absent; the row turns ACTIVE

A failure leaves the row in ERROR, from where a hard reboot, a rebuild or another rescue lead on.
"""

from typing import Final

from agent.wire.domain import DomainStatus
from controller.compute import domains, store
from controller.compute.model import Event
from controller.compute.sagas import power, turning
from controller.compute.sagas.power import PowerParams
from controller.db.tx import Tx
from controller.saga.model import Cause, Commit, Run, Saga, Step


async def turn(run: Run[PowerParams]) -> Commit:
    """It boots from its own disk again."""
    return Commit(turning.intend, (run.params.server_id, {**turning.desired(True), "is_rescued": False}))


async def remove_disk(run: Run[PowerParams]) -> Commit:
    """It runs, and the rescue disk is gone."""
    status = await power.push(run)
    cloud, params = run.deps, run.params
    generation = status.generation.n
    await domains.remove_rescue_disk(cloud, params.server_id, params.host_id, generation, run.deadline)
    return Commit(_unrescued, (params, status, cloud.world.clock.now()))


def _unrescued(tx: Tx, params: PowerParams, status: DomainStatus, now: float) -> None:
    store.change(tx, params.server_id, {"rescue_image_id": None})
    turning.ended(tx, params, Event.UNRESCUED_ON, status, now)


def undone(tx: Tx, params: PowerParams, cause: Cause, now: float) -> None:
    """It could not be brought back."""
    power.failed(tx, params, Event.UNRESCUE_FAILED, cause, now)


UNRESCUE: Final = Saga(
    "server-unrescue",
    1,
    PowerParams,
    steps=(
        Step("off", turning.push, deferred=True),
        Step("turn", turn),
        Step("domain", turning.push, deferred=True),
        Step("disk", remove_disk),
    ),
    undone=undone,
)
