"""Making a server's root disk anew from an image. Its id, addresses, ports and volumes stay.

    step      does
    image     the image is in the host's cache
    seize     raises the generation for what follows
    domain    the domain is absent
    wipe      the root disk (and a rescue disk) is absent; the generation rises again
    disk      the root disk is on the host, from the image
    start     the domain is as it was: on, or off

What was wiped cannot be brought back: a failure leaves the row in ERROR, from where another rebuild leads on. Nobody
else pushes the domain before it was wiped (`domains.whole` refuses).
"""

from typing import Final

import msgspec

from agent.wire import disk as disk_calls
from agent.wire import domain as domain_calls
from agent.wire.domain import DomainStatus
from controller.compute import domains, store
from controller.compute.model import GONE, Event, Server
from controller.compute.sagas import patience, power, turning
from controller.compute.sagas.turning import TurnParams
from controller.db.tx import Tx
from controller.image import distribution
from controller.saga.model import Cause, Commit, Run, Saga, Step


class RebuildParams(TurnParams, frozen=True, kw_only=True):
    """Everything else is in the server's row, which is the new one since the request."""

    image_id: str
    image_sha256: str


async def fetch_image(run: Run[RebuildParams]) -> None:
    """The image is in the host's cache, before anything is lost."""
    run.notes["host"] = run.params.host_name
    await distribution.ensure_on_host(run.deps, run.params.host_id, run.params.image_id, run.deadline)


async def seize(run: Run[RebuildParams]) -> Commit:
    """A generation for the removals."""
    return Commit(_seize, (run.params.server_id,))


def _seize(tx: Tx, server_id: str) -> int:
    turning.intend(tx, server_id, {"desired": GONE})
    server = store.find(tx, server_id)
    assert server is not None, "it was just changed"
    return server.generation


async def remove_domain(run: Run[RebuildParams]) -> None:
    """The domain is gone."""
    params = run.params
    await domains.remove(run.deps, params.server_id, params.host_id, run.outputs["seize"], run.deadline)


async def wipe(run: Run[RebuildParams]) -> Commit:
    """The disk is gone."""
    cloud, params, generation = run.deps, run.params, run.outputs["seize"]
    server: Server | None = await cloud.db.read(turning.find_wanted, params.server_id)
    await domains.remove_disk(cloud, params.server_id, params.host_id, generation, run.deadline)
    if server is not None and server.rescue_image_id is not None:
        await domains.remove_rescue_disk(cloud, params.server_id, params.host_id, generation, run.deadline)
    return Commit(_wiped, (params, cloud.world.clock.now()))


def _wiped(tx: Tx, params: RebuildParams, now: float) -> None:
    bare = {"rescue_image_id": None, "is_rescued": False, "is_disk_whole": False, **turning.desired(params.was_on)}
    turning.intend(tx, params.server_id, bare)
    store.report(tx, params.server_id, Event.REBUILDING, now)


async def make_disk(run: Run[RebuildParams]) -> None:
    """The root disk, from the image."""
    cloud, params = run.deps, run.params
    server = (await cloud.db.read(domains.whole, params.server_id)).server
    spec = domains.disk_spec_of(server, params.image_sha256, cloud.epoch)
    await patience.ensure(run, params.host_id, disk_calls.ENSURE, disk_calls.GET, spec)


async def start_domain(run: Run[RebuildParams]) -> Commit:
    """The domain is there again."""
    cloud, params = run.deps, run.params
    found = await cloud.db.read(domains.whole, params.server_id)
    spec = domains.spec_of(found, cloud.epoch, cloud.fence)
    status = await patience.ensure(run, params.host_id, domain_calls.ENSURE, domain_calls.GET, spec)
    return Commit(_rebuilt, (params, status, cloud.world.clock.now()))


def _rebuilt(tx: Tx, params: RebuildParams, status: DomainStatus, now: float) -> None:
    event = Event.REBUILT_ON if params.was_on else Event.REBUILT_OFF
    turning.ended(tx, params, event, status, now, launched_at=now, progress=100)


def undone(tx: Tx, params: RebuildParams, cause: Cause, now: float) -> None:
    """It could not be rebuilt."""
    store.intend(tx, params.server_id, turning.desired(params.was_on))
    why = msgspec.structs.replace(cause, message=f"The server could not be rebuilt: {cause.message}")
    power.failed(tx, params, Event.REBUILD_FAILED, why, now)


REBUILD: Final = Saga(
    "server-rebuild",
    1,
    RebuildParams,
    steps=(
        Step("image", fetch_image, deferred=True),
        Step("seize", seize),
        Step("domain", remove_domain, deferred=True),
        Step("wipe", wipe),
        Step("disk", make_disk, deferred=True),
        Step("start", start_domain),
    ),
    undone=undone,
)
