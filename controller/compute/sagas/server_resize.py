"""Giving a server another size, on its host or on another one if that has no room; or, in its size, another host.

The guest is off meanwhile.

    step      do                                                        undo
    place     the old size's claim is handed over, the new one taken    taken back
    off       the guest is off                                          as it was
    port[i]   elsewhere: the port is also wanted there                  only where it was
    image     elsewhere: what the disk lies upon is in its cache        (a cache)
    bring     elsewhere: the disk is there, as large as it will be      absent
    plug[i]   elsewhere: the port is wired there                        absent
    turn      the row has the new size, where it will have it, and      the old size where it was, off
              the intent that it had
    reach     elsewhere: that host reaches its volumes                  the other way round
    disk      here: the root disk has grown                             (it never shrinks)
    domain    the domain is as it was; the row waits for a word         absent there; here: off

Both sizes are claimed until it is confirmed or reverted, so either word can be kept. Here a root disk that has grown
stays so, also after a revert: it holds what was written meanwhile, and its claim counts it. Of a server that went
elsewhere the disk stays where it was, untouched until the word; domain and wiring go (`server-leave`), since nobody
may start it there. Up to `turn` the server's place is where it was, and nothing is removed there before the last step.
"""

from typing import Final

import msgspec
import structlog

from agent.wire import disk as disk_calls
from agent.wire.disk import DiskStatus
from agent.wire.domain import DomainStatus
from controller.compute import carrying, domains, migration_store, nets, placing, plugs, resize_store, store
from controller.compute.model import Event, Server
from controller.compute.sagas import elsewhere, moving, patience, power, turning
from controller.compute.sagas.moving import Placed
from controller.compute.sagas.turning import TurnParams
from controller.db.tx import Tx
from controller.errors import CloudError
from controller.image import distribution
from controller.image import store as image_store
from controller.network import wiring
from controller.saga.log import settled
from controller.saga.model import Cause, Commit, Run, Saga, Step, Transient
from controller.schedule import claim
from controller.schedule.model import Ratios, Room, Wanted

log = structlog.get_logger()

GIB: Final = 1 << 30


class ResizeParams(TurnParams, frozen=True, kw_only=True):
    """Everything else is in the rows of the server and of its change of size. `host_id` is where it is."""

    resize_id: str  # And of its row among the migrations.
    leave_id: str  # Of a saga.
    is_migration: bool  # To another host in any case.
    wish_host: str | None = None  # Its name, of a migration.
    root_gib: int  # As it will be.
    old_root_gib: int
    nics: int
    image_id: str  # Empty: it boots from a volume.


def _nics(params: ResizeParams) -> int:
    return params.nics


def _disks(params: ResizeParams) -> int:
    return 1 if params.image_id else 0


# place


class Survey(msgspec.Struct, frozen=True):
    """Every host, and what the server asks of one: the most wanted first."""

    rooms: list[Room]
    wishes: tuple[Wanted, ...]


async def place(run: Run[ResizeParams]) -> Commit:
    """Room for the new size beside the old one, elsewhere if there is none here."""
    cloud, params = run.deps, run.params
    ratios = cloud.settings.scheduler
    survey: Survey = await cloud.db.read(_look_for_room, params)
    plans = claim.plan_by_wish(survey.rooms, survey.wishes, ratios)
    return Commit(_hold_both, (params, run.saga_id, plans, ratios, cloud.world.clock.now()))


def _look_for_room(tx: Tx, params: ResizeParams) -> Survey:
    server = elsewhere.wanted_server(tx, params.server_id)
    if params.is_migration:
        return look_elsewhere(tx, server, params.wish_host)
    new = resize_store.get(tx, params.server_id).new_size
    wish = placing.wanted(tx, server, amounts=placing.amounts(new, params.root_gib), host=None, is_forced=False)
    here = msgspec.structs.replace(wish, host=server.host_name)
    # A host that is being emptied is asked last, but it is asked: it has the server anyway.
    wishes = (here, _elsewhere_than(tx, server, wish), msgspec.structs.replace(here, is_forced=True))
    return Survey(claim.snapshot(tx), wishes)


def look_elsewhere(tx: Tx, server: Server, host: str | None) -> Survey:
    """For another host in the size that it has: of that name, or any."""
    wish = placing.wanted(tx, server, host=host, is_forced=False)
    return Survey(claim.snapshot(tx), (_elsewhere_than(tx, server, wish),))


def _elsewhere_than(tx: Tx, server: Server, wish: Wanted) -> Wanted:
    unfit = (server.host_id or "", *migration_store.hosts_left_behind(tx, server.id))
    return msgspec.structs.replace(wish, exclude_hosts=unfit)


def _hold_both(
    tx: Tx,
    params: ResizeParams,
    saga_id: str,
    plans: tuple[tuple[Wanted, tuple[str, ...]], ...],
    ratios: Ratios,
    now: float,
) -> dict[str, str]:
    claim.hand_over(tx, params.server_id, params.resize_id)
    room = claim.claim_by_wish(tx, [(placing.renewed(tx, wish), ids) for wish, ids in plans], ratios, now)
    if room.host_id != params.host_id:
        _check_can_leave(tx, params, saga_id)
    resize_store.change(tx, params.server_id, to_host_id=room.host_id, to_host_name=room.hostname)
    target = {"target_host_id": room.host_id, "target_host_name": room.hostname}
    migration_store.change(tx, params.resize_id, now, status="migrating", **target)
    # A new generation in any case: it may have been on that host before, and been removed there at the one it has.
    turning.intend(tx, params.server_id, turning.OFF)
    store.report(tx, params.server_id, Event.RESIZE_PLACED, now)
    return {"host_id": room.host_id, "host_name": room.hostname, "zone": room.zone}


def _check_can_leave(tx: Tx, params: ResizeParams, saga_id: str) -> None:
    """Nothing comes or goes, which would follow it to the wrong host; what does has begun before, and ends soon."""
    if not plugs.is_settled(tx, params.server_id) or not settled(tx, params.server_id, saga_id):
        raise Transient("a volume or an interface of the server is just coming or going")


async def unplace(run: Run[ResizeParams]) -> Commit:
    """Only what it has is claimed."""
    return Commit(elsewhere.take_back, (run.params.server_id, run.params.resize_id))


# off


async def as_it_was(run: Run[ResizeParams]) -> None:
    """With the size that it had."""
    await turning.back(run, turning.desired(run.params.was_on), Event.RESIZE_FAILED)


# image, bring: elsewhere


async def fetch_image(run: Run[ResizeParams]) -> None:
    """What the disk lies upon, if it does."""
    there = elsewhere.find_target(run)
    if there is not None and not (await run.deps.db.read(elsewhere.wanted_server, run.params.server_id)).is_disk_whole:
        await distribution.ensure_on_host(run.deps, there.host_id, run.params.image_id, run.deadline)


async def bring_disk(run: Run[ResizeParams]) -> None:
    """The root disk, as it was left, and as large as it will be."""
    there, cloud, params = elsewhere.find_target(run), run.deps, run.params
    if there is None:
        return
    server: Server = await cloud.db.read(elsewhere.wanted_server, params.server_id)
    sha256 = await cloud.db.read(_checksum, params.image_id)
    large = msgspec.structs.replace(server, root_gib=params.root_gib)
    offer = moving.disk_offer(cloud, there.host_id, params.host_id, params.server_id)
    spec = msgspec.structs.replace(domains.disk_spec_of(large, sha256, cloud.epoch), source=offer)
    await patience.ensure(run, there.host_id, disk_calls.ENSURE, disk_calls.GET, spec)


# turn, reach


async def turn(run: Run[ResizeParams]) -> Commit:
    """It is the new one from now on."""
    return Commit(_turn, (run.params, elsewhere.find_target(run), run.deps.world.clock.now()))


def _turn(tx: Tx, params: ResizeParams, there: Placed | None, now: float) -> None:
    resize = resize_store.get(tx, params.server_id)
    values = {**resize.new_size.columns(), "root_gib": params.root_gib, **turning.desired(params.was_on)}
    if there is not None:
        values |= {"host_id": there.host_id, "host_name": there.host_name, "availability_zone": there.zone}
    turning.intend(tx, params.server_id, values)
    resize_store.change(tx, params.server_id, **resize_store.reserve(resize.new_size, resize.old_size))
    if there is not None:
        moving.put_ports(tx, params.server_id, there.host_id, there.zone, now)
        nets.note_network(tx, params.server_id)
    migration_store.change(tx, params.resize_id, now, status="post-migrating")
    store.report(tx, params.server_id, Event.RESIZE_MOVED, now)


async def turn_back(run: Run[ResizeParams]) -> Commit:
    """It is the old one again, where it was; but for a root disk that has grown here."""
    return Commit(_turn_back, (run.params, run.deps.world.clock.now()))


def _turn_back(tx: Tx, params: ResizeParams, now: float) -> None:
    server = store.find(tx, params.server_id)
    assert server is not None, "rows of servers outlive their sagas"
    if server.host_id != params.host_id:
        # Also for its deletion, which begins from where the row says that it is.
        here = {"host_id": params.host_id, "host_name": params.host_name, "root_gib": params.old_root_gib}
        store.change(tx, params.server_id, here)
        moving.put_ports(tx, params.server_id, params.host_id, server.availability_zone or "", now)
    resize = resize_store.find(tx, params.server_id)
    if resize is not None and store.intend(tx, params.server_id, {**resize.old_size.columns(), **turning.OFF}):
        resize_store.change(tx, params.server_id, **resize_store.reserve(resize.old_size, resize.new_size))


async def reach(run: Run[ResizeParams]) -> None:
    """Its volumes are reached from there."""
    there = elsewhere.find_target(run)
    if there is not None:
        await carrying.reach(run, run.params.server_id, (there.host_id,), there.host_name)


async def reach_back(run: Run[ResizeParams]) -> None:
    """They are reached from where it was."""
    if elsewhere.find_target(run) is not None:
        await carrying.reach(run, run.params.server_id, (run.params.host_id,), run.params.host_name)


# disk, domain


async def grow_disk(run: Run[ResizeParams]) -> None:
    """The root disk is as large as the row says. Only the size of one that exists is looked at, not its image."""
    cloud, params = run.deps, run.params
    if elsewhere.find_target(run) is not None:
        return  # It came as large as it has to be.
    server = (await cloud.db.read(domains.whole, params.server_id)).server
    sha256 = await cloud.db.read(_checksum, params.image_id)
    spec = domains.disk_spec_of(server, sha256, cloud.epoch)
    await patience.ensure(run, params.host_id, disk_calls.ENSURE, disk_calls.GET, spec)


async def run_domain(run: Run[ResizeParams]) -> Commit:
    """It is as it was, with the new size."""
    there, cloud, params = elsewhere.find_target(run), run.deps, run.params
    if there is None:
        status = await power.push(run)
    else:
        cloud.tasks.kick(wiring.SPREAD)
        status = await domains.push_patiently(run, params.server_id, there.host_id)
    return Commit(_resized, (params, there, status, cloud.world.clock.now()))


def _resized(tx: Tx, params: ResizeParams, there: Placed | None, status: DomainStatus, now: float) -> None:
    if there is not None:
        moving.ports_plugged(tx, params.server_id, now)
        server = elsewhere.wanted_server(tx, params.server_id)
        # Its disk stays: it is what a revert goes back to.
        moving.leave(tx, server, moving.left_by(params), status.generation.n, has_disk=False, now=now)
    migration_store.change(tx, params.resize_id, now, status="finished")
    turning.ended(tx, params, Event.RESIZED, status, now)


async def switch_off(run: Run[ResizeParams]) -> None:
    """Nothing of it is there; here it is off, so that it can become another machine.

    Here the host is first told of a disk that it can give.
    """
    there = elsewhere.find_target(run)
    if there is not None:
        await moving.remove_domain(run, there.host_id)
        return
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
    """It has the size that it had, where it had it."""
    resize_store.drop(tx, params.server_id)
    migration_store.change(tx, params.resize_id, now, status="error")
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
        Step("port", elsewhere.want_port, elsewhere.unwant_port, each=_nics),
        Step("image", fetch_image, each=_disks, deferred=True),
        Step("bring", bring_disk, elsewhere.remove_disk, each=_disks, deferred=True),
        Step("plug", elsewhere.plug_port, elsewhere.unplug_port, each=_nics, deferred=True),
        Step("turn", turn, turn_back),
        Step("reach", reach, reach_back, deferred=True),
        Step("disk", grow_disk, each=_disks, deferred=True),
        Step("domain", run_domain, switch_off),
    ),
    undone=undone,
    overdue=overdue,
    rested=power.network_rested,
)
