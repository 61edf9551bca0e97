"""Starting a server from another disk, with its own as the second: to repair what does not boot.

    step      do                                             undo
    image     the rescue image is in the host's cache        (a cache)
    disk      the rescue disk is on the host                 absent
    turn      intent: boots from it, and off                 (that of `off`)
    off       the guest is off, and defined anew             its own definition, as it was
    on        intent: on                                     (that of `domain`)
    domain    the guest runs                                 off

`rescue_image_id` in the row says that there may be a rescue disk, from the request on: a deletion removes it then.
"""

from typing import Final

from agent.wire import disk as disk_calls
from agent.wire.domain import DomainStatus
from agent.wire.lifecycle import Generation
from controller.compute import domains, store
from controller.compute.model import Event, Server, VmState, rescue_disk_id
from controller.compute.sagas import patience, power, turning
from controller.compute.sagas.turning import TurnParams
from controller.db.tx import Tx
from controller.errors import Conflict
from controller.image import distribution
from controller.saga.model import Cause, Commit, Run, Saga, Step

GIB: Final = 1 << 30


class RescueParams(TurnParams, frozen=True, kw_only=True):
    """`size_gib`: of the rescue disk. `was_error`: what it is again if it cannot be rescued."""

    image_id: str
    image_sha256: str
    size_gib: int
    was_error: bool


async def fetch_image(run: Run[RescueParams]) -> None:
    """The image is in the host's cache."""
    run.notes["host"] = run.params.host_name
    await distribution.ensure_on_host(run.deps, run.params.host_id, run.params.image_id, run.deadline)


async def make_disk(run: Run[RescueParams]) -> None:
    """The rescue disk; one that is there from an earlier try is kept."""
    cloud, params = run.deps, run.params
    server: Server | None = await cloud.db.read(turning.find_wanted, params.server_id)
    if server is None:
        raise Conflict("The server is being deleted.")
    spec = disk_calls.DiskSpec(
        id=rescue_disk_id(params.server_id),
        generation=Generation(cloud.epoch, server.generation),
        domain_id=params.server_id,
        image_id=params.image_sha256,
        image_sha256=params.image_sha256,
        size_gib=params.size_gib,
    )
    await patience.ensure(run, params.host_id, disk_calls.ENSURE, disk_calls.GET, spec)


async def remove_disk(run: Run[RescueParams]) -> None:
    """The rescue disk is gone, unless the host's domain still has it."""
    cloud, params = run.deps, run.params
    server: Server | None = await cloud.db.read(turning.find_wanted, params.server_id)
    if server is None or server.is_rescued:
        return
    generation: int = await cloud.db.write(store.bump, params.server_id)
    await domains.remove_rescue_disk(cloud, params.server_id, params.host_id, generation, run.deadline)


async def turn(run: Run[RescueParams]) -> Commit:
    """From now on it boots from the rescue disk; first it has to be off."""
    return Commit(turning.intend, (run.params.server_id, {**turning.OFF, "is_rescued": True}))


async def turn_back(run: Run[RescueParams]) -> None:
    """From its own disk, as it was. A host that refuses has a domain with the rescue disk still: so says the row."""
    own = {**turning.desired(run.params.was_on), "is_rescued": False}
    if not await turning.back(run, own, Event.RESCUE_FAILED):
        still = {**turning.OFF, "is_rescued": True}
        await run.deps.db.write(store.intend, run.params.server_id, still)


async def on(run: Run[RescueParams]) -> Commit:
    """It is to run."""
    return Commit(turning.intend, (run.params.server_id, turning.desired(True)))


async def run_domain(run: Run[RescueParams]) -> Commit:
    """It runs."""
    status = await power.push(run)
    return Commit(_rescued, (run.params, status, run.deps.world.clock.now()))


def _rescued(tx: Tx, params: RescueParams, status: DomainStatus, now: float) -> None:
    turning.ended(tx, params, Event.RESCUED, status, now)


async def switch_off(run: Run[RescueParams]) -> None:
    """Off, so that it can become another machine."""
    await turning.back(run, turning.OFF, Event.RESCUE_FAILED)


def undone(tx: Tx, params: RescueParams, cause: Cause, now: float) -> None:
    """It is as it was, or in ERROR where its host did not take it back."""
    server = turning.find_wanted(tx, params.server_id)
    if server is not None and not server.is_rescued:
        store.change(tx, params.server_id, {"rescue_image_id": None})
    if params.was_error:
        power.failed(tx, params, Event.RESCUE_FAILED, cause, now)
    else:
        turning.undone(tx, params, (Event.UNRESCUED_ON, Event.UNRESCUED_OFF), now)


def overdue(tx: Tx, params: RescueParams, cause: Cause, now: float) -> None:
    """The way back waits for a silent host."""
    power.failed(tx, params, Event.RESCUE_FAILED, cause, now)


def was_error(server: Server) -> bool:
    """Whether there is nothing better to come back to."""
    return server.vm_state == VmState.ERROR


RESCUE: Final = Saga(
    "server-rescue",
    1,
    RescueParams,
    steps=(
        Step("image", fetch_image, deferred=True),
        Step("disk", make_disk, remove_disk, deferred=True),
        Step("turn", turn),
        Step("off", turning.push, turn_back, deferred=True),
        Step("on", on),
        Step("domain", run_domain, switch_off),
    ),
    undone=undone,
    overdue=overdue,
)
