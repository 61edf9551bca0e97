"""Giving a server another size, on its host: the guest is off meanwhile, and comes back as the larger or smaller one.

    step      do                                                      undo
    place     the old size's claim is handed over, the new one taken  taken back
    off       the guest is off                                        as it was
    turn      the row has the new size, and the intent that it had    the row has the old size, off
    disk      the root disk has grown                                 (it never shrinks)
    domain    the domain is defined anew; the row waits for a word    off

Both sizes are claimed until it is confirmed or reverted, so either word can be kept. A root disk that has grown stays
so, also after a revert: it holds what was written meanwhile, and its claim counts it.
"""

from typing import Final

import msgspec
import structlog

from agent.wire import disk as disk_calls
from agent.wire.disk import DiskStatus
from agent.wire.domain import DomainStatus
from controller.compute import domains, placing, resize_store, store
from controller.compute.model import Event, Server
from controller.compute.sagas import patience, power, turning
from controller.compute.sagas.turning import TurnParams
from controller.db.tx import Tx
from controller.errors import CloudError, Conflict
from controller.image import store as image_store
from controller.saga.model import Cause, Commit, Run, Saga, Step
from controller.schedule import claim
from controller.schedule.model import Ratios, Room, Wanted

log = structlog.get_logger()

GIB: Final = 1 << 30


class ResizeParams(TurnParams, frozen=True, kw_only=True):
    """Everything else is in the rows of the server and of its change of size."""

    resize_id: str
    root_gib: int  # As it will be.
    old_root_gib: int


# place


class _Survey(msgspec.Struct, frozen=True):
    rooms: list[Room]
    wanted: Wanted


async def place(run: Run[ResizeParams]) -> Commit:
    """Room for the new size beside the old one."""
    cloud, params = run.deps, run.params
    ratios = cloud.settings.scheduler
    survey: _Survey = await cloud.db.read(_survey, params)
    plan = claim.plan(survey.rooms, survey.wanted, ratios)
    return Commit(_hold_both, (params, survey.wanted, plan.candidates, ratios, cloud.world.clock.now()))


def _survey(tx: Tx, params: ResizeParams) -> _Survey:
    server = _wanted_server(tx, params.server_id)
    new = resize_store.get(tx, params.server_id).new_size
    wish = placing.wanted(
        tx, server, amounts=placing.amounts(new, params.root_gib), host=server.host_name, is_forced=True
    )
    return _Survey(claim.snapshot(tx), wish)


def _wanted_server(tx: Tx, server_id: str) -> Server:
    server = turning.find_wanted(tx, server_id)
    if server is None:
        raise Conflict("The server is being deleted.")
    return server


def _hold_both(
    tx: Tx, params: ResizeParams, wanted: Wanted, candidates: tuple[str, ...], ratios: Ratios, now: float
) -> None:
    claim.hand_over(tx, params.server_id, params.resize_id)
    room = claim.claim(tx, placing.renewed(tx, wanted), candidates, ratios, now)
    resize_store.change(tx, params.server_id, to_host_id=room.host_id, to_host_name=room.hostname)
    turning.intend(tx, params.server_id, turning.OFF)
    store.report(tx, params.server_id, Event.RESIZE_PLACED, now)


async def unplace(run: Run[ResizeParams]) -> Commit:
    """Only what it has is claimed."""
    return Commit(_settle, (run.params,))


def _settle(tx: Tx, params: ResizeParams) -> None:
    server = store.find(tx, params.server_id)
    assert server is not None, "rows of servers outlive their sagas"
    claim.take_back(tx, params.server_id, params.resize_id, server.root_gib)


# off, turn, disk, domain


async def as_it_was(run: Run[ResizeParams]) -> None:
    """With the size that it had."""
    await turning.back(run, turning.desired(run.params.was_on), Event.RESIZE_FAILED)


async def turn(run: Run[ResizeParams]) -> Commit:
    """It is the new one from now on."""
    return Commit(_turn, (run.params, run.deps.world.clock.now()))


def _turn(tx: Tx, params: ResizeParams, now: float) -> None:
    resize = resize_store.get(tx, params.server_id)
    values = {**resize.new_size.columns(), "root_gib": params.root_gib, **turning.desired(params.was_on)}
    turning.intend(tx, params.server_id, values)
    resize_store.change(tx, params.server_id, **resize_store.reserve(resize.new_size, resize.old_size))
    store.report(tx, params.server_id, Event.RESIZE_MOVED, now)


async def turn_back(run: Run[ResizeParams]) -> Commit:
    """It is the old one again, but for its root disk, which may have grown."""
    return Commit(_turn_back, (run.params.server_id,))


def _turn_back(tx: Tx, server_id: str) -> None:
    resize = resize_store.find(tx, server_id)
    if resize is not None and store.intend(tx, server_id, {**resize.old_size.columns(), **turning.OFF}):
        resize_store.change(tx, server_id, **resize_store.reserve(resize.old_size, resize.new_size))


async def grow_disk(run: Run[ResizeParams]) -> None:
    """The root disk is as large as the row says. Only the size of one that exists is looked at, not its image."""
    cloud, params = run.deps, run.params
    server = (await cloud.db.read(domains.whole, params.server_id)).server
    if server.image_id is None:
        return
    sha256 = await cloud.db.read(_checksum, server.image_id)
    spec = domains.disk_spec_of(server, sha256, cloud.epoch)
    await patience.ensure(run, params.host_id, disk_calls.ENSURE, disk_calls.GET, spec)


async def run_domain(run: Run[ResizeParams]) -> Commit:
    """It is as it was, with the new size."""
    status = await power.push(run)
    return Commit(_resized, (run.params, status, run.deps.world.clock.now()))


def _resized(tx: Tx, params: ResizeParams, status: DomainStatus, now: float) -> None:
    turning.ended(tx, params, Event.RESIZED, status, now)


async def switch_off(run: Run[ResizeParams]) -> None:
    """Off, so that it can become another machine. First the host is told of a disk that it can give."""
    await _ask_for_the_old_disk(run)
    await turning.back(run, turning.OFF, Event.RESIZE_FAILED)


async def _ask_for_the_old_disk(run: Run[ResizeParams]) -> None:
    """A disk that the host could not grow is in the way of every domain: ask for no more than it had, and note what
    it has, which is more if it was grown after all."""
    cloud, params = run.deps, run.params
    found: tuple[Server, str] | None = await cloud.db.write(_newer, params.server_id)
    if found is None:
        return
    server, sha256 = found
    has = msgspec.structs.replace(server, root_gib=params.old_root_gib)
    spec = domains.disk_spec_of(has, sha256, cloud.epoch)
    try:
        status: DiskStatus = await cloud.hosts.ensure(params.host_id, disk_calls.ENSURE, spec, run.deadline)
    except CloudError as error:
        log.warning("a disk could not be put back", server_id=params.server_id, why=error.message)
        return
    root_gib = max(params.old_root_gib, -(-status.size_bytes // GIB))
    await cloud.db.write(store.change, params.server_id, {"root_gib": root_gib})


def _newer(tx: Tx, server_id: str) -> tuple[Server, str] | None:
    """The server at a new generation, and its image's checksum; None if it has no local disk, or is going."""
    if not store.intend(tx, server_id, {}):
        return None
    server = store.find(tx, server_id)
    assert server is not None, "it was just changed"
    return None if server.image_id is None else (server, _checksum(tx, server.image_id))


def _checksum(tx: Tx, image_id: str) -> str:
    """Of the image that the disk was made from; nothing if that is gone. Nobody looks at it where there is a disk."""
    image = image_store.find(tx, image_id)
    return "" if image is None or image.sha256 is None else image.sha256


def undone(tx: Tx, params: ResizeParams, cause: Cause, now: float) -> None:
    """It has the size that it had."""
    resize_store.drop(tx, params.server_id)
    turning.undone(tx, params, (Event.RESIZE_UNDONE_ON, Event.RESIZE_UNDONE_OFF), now)


def overdue(tx: Tx, params: ResizeParams, cause: Cause, now: float) -> None:
    """The way back waits for a silent host."""
    power.failed(tx, params, Event.RESIZE_FAILED, cause, now)


RESIZE: Final = Saga(
    "server-resize",
    1,
    ResizeParams,
    steps=(
        Step("place", place, unplace),
        Step("off", turning.push, as_it_was, deferred=True),
        Step("turn", turn, turn_back),
        Step("disk", grow_disk, deferred=True),
        Step("domain", run_domain, switch_off),
    ),
    undone=undone,
    overdue=overdue,
)
