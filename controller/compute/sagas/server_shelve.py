"""Putting a server on the shelf: off, its disk kept as an image. Then, as a rule at once, it leaves its host.

    step       do                                           undo
    off        the guest is off (the request's intent)      on again, if it was
    capture    its disk is an image                         nothing of it
    release    the host keeps nothing of the copy           (that of `capture`)
    finish     the row is SHELVED; offloading begins        -

A server that boots from a volume has no disk to be kept: the two steps in the middle are none.
"""

from typing import Final

from agent.wire.domain import DomainStatus
from controller.compute import store
from controller.compute.model import Event
from controller.compute.sagas import capturing, power, turning
from controller.compute.sagas.server_offload import OFFLOAD, OffloadParams
from controller.compute.sagas.turning import TurnParams
from controller.db.tx import Tx
from controller.saga.log import start
from controller.saga.model import Cause, Commit, Run, Saga, Step


class ShelveParams(TurnParams, frozen=True, kw_only=True):
    """`image_id` empty: there is no disk to be kept. `offload_id` empty: it stays on its host until somebody asks."""

    project_id: str
    image_id: str
    offload_id: str


async def switch_on(run: Run[ShelveParams]) -> None:
    """As it was; a memory that it had is lost."""
    await turning.back(run, turning.desired(run.params.was_on), Event.SHELVE_FAILED)


async def finish(run: Run[ShelveParams]) -> Commit:
    """It is on the shelf."""
    status = await power.push(run)
    return Commit(_shelved, (run.params, status, run.deps.world.clock.now()))


def _shelved(tx: Tx, params: ShelveParams, status: DomainStatus, now: float) -> None:
    store.pushed(tx, params.server_id, status.generation.n)
    values = {"shelved_image_id": params.image_id or None, "shelved_at": now}
    if not params.offload_id:
        store.report(tx, params.server_id, Event.SHELVED, now, **values)
        store.end_action(tx, params.server_id, params.request_id, now, is_error=False)
        return
    if not store.report(tx, params.server_id, Event.OFFLOADING, now, **values):
        return
    following = OffloadParams(
        server_id=params.server_id, request_id=params.request_id, host_id=params.host_id, host_name=params.host_name
    )
    start(
        tx,
        OFFLOAD,
        saga_id=params.offload_id,
        params=following,
        target=params.server_id,
        project_id=params.project_id,
        request_id=params.request_id,
        now=now,
    )


def undone(tx: Tx, params: ShelveParams, cause: Cause, now: float) -> None:
    """It is off the shelf again."""
    turning.undone(tx, params, (Event.SHELVE_UNDONE_ON, Event.SHELVE_UNDONE_OFF), now)


def overdue(tx: Tx, params: ShelveParams, cause: Cause, now: float) -> None:
    """The way back waits for a silent host."""
    power.failed(tx, params, Event.SHELVE_FAILED, cause, now)


def _disks(params: ShelveParams) -> int:
    return 1 if params.image_id else 0


SHELVE: Final = Saga(
    "server-shelve",
    1,
    ShelveParams,
    steps=(
        Step("off", turning.push, switch_on, deferred=True),
        Step("capture", capturing.capture, capturing.discard, each=_disks, deferred=True),
        Step("release", capturing.release, each=_disks, deferred=True),
        Step("finish", finish),
    ),
    deadline_s=3600.0,
    undone=undone,
    overdue=overdue,
    rested=capturing.rested,
)
