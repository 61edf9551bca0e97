"""The new size, or host, is kept: the old claim is given back, and the disk that stayed on another host goes.

What goes waits for its host as long as it takes (`server-leave`); nobody waits for that.
"""

from typing import Final

from controller.compute import migration_store, resize_store, store
from controller.compute.model import Event, PowerState
from controller.compute.sagas import moving
from controller.compute.sagas.power import PowerParams
from controller.db.tx import Tx
from controller.saga.model import Cause, Commit, Run, Saga, Step
from controller.schedule import claim


class ConfirmParams(PowerParams, frozen=True, kw_only=True):
    """Who holds the claim of the old size, and the saga that removes what stayed elsewhere."""

    resize_id: str
    leave_id: str


async def finish(run: Run[ConfirmParams]) -> Commit:
    """The row, the claim and the quota."""
    run.notes["host"] = run.params.host_name
    return Commit(_confirmed, (run.params, run.deps.world.clock.now()))


def _confirmed(tx: Tx, params: ConfirmParams, now: float) -> None:
    server = store.find(tx, params.server_id)
    assert server is not None, "rows of servers outlive their sagas"
    resize = resize_store.get(tx, params.server_id)
    if server.image_id is not None:  # Else nothing stayed.
        moving.leave_other_size(tx, server, resize, server.generation, params.leave_id, params.request_id, now)
    claim.release(tx, params.resize_id)
    migration_store.change(tx, params.resize_id, now, status="confirmed")
    resize_store.drop(tx, params.server_id)
    is_on = server.power_state in (PowerState.RUNNING, PowerState.PAUSED)
    store.report(tx, params.server_id, Event.CONFIRMED_ON if is_on else Event.CONFIRMED_OFF, now)
    store.end_action(tx, params.server_id, params.request_id, now, is_error=False)


def undone(tx: Tx, params: ConfirmParams, cause: Cause, now: float) -> None:
    """It was not confirmed: it still waits for a word."""
    migration_store.change(tx, params.resize_id, now, status="finished")
    store.report(tx, params.server_id, Event.WAITS_FOR_WORD, now)
    store.end_action(tx, params.server_id, params.request_id, now, is_error=True)


CONFIRM: Final = Saga("server-confirm-resize", 1, ConfirmParams, steps=(Step("finish", finish),), undone=undone)
