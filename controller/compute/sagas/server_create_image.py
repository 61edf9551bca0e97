"""Making an image of a server's root disk. The guest goes on meanwhile, and is as it was in any case.

step       do                                 undo
capture    the image is active                nothing of it, on the host and in the store
release    the host keeps nothing of it       (that of `capture`)
"""

from typing import Final

from controller.compute import store
from controller.compute.model import Event
from controller.compute.sagas import capturing
from controller.compute.sagas.power import PowerParams
from controller.db.tx import Tx
from controller.saga.model import Cause, Commit, Run, Saga, Step


class CreateImageParams(PowerParams, frozen=True, kw_only=True):
    """Everything else is in the rows of the server and of the image."""

    image_id: str


async def release(run: Run[CreateImageParams]) -> Commit:
    """The server is free again."""
    await capturing.release(run)
    return Commit(_created, (run.params, run.deps.world.clock.now()))


def _created(tx: Tx, params: CreateImageParams, now: float) -> None:
    store.report(tx, params.server_id, Event.IMAGE_CREATED, now)
    store.end_action(tx, params.server_id, params.request_id, now, is_error=False)


def undone(tx: Tx, params: CreateImageParams, cause: Cause, now: float) -> None:
    """There is no image; the server is as it was."""
    store.report(tx, params.server_id, Event.IMAGE_CREATED, now)
    store.end_action(tx, params.server_id, params.request_id, now, is_error=True)


CREATE_IMAGE: Final = Saga(
    "server-create-image",
    1,
    CreateImageParams,
    steps=(
        Step("capture", capturing.capture, capturing.discard, deferred=True),
        Step("release", release),
    ),
    deadline_s=3600.0,
    undone=undone,
    overdue=undone,
    rested=capturing.rested,
)
