"""A server goes to another host while its guest runs.

    step      do                                                             undo
    place     the old claim is handed over, another host is claimed          taken back
    port[i]   the port is also wanted on the other host                      only where it is
    image     what the disk lies upon is in the other host's cache           (a cache)
    disk      a disk as large is there, to be copied into                    absent
    plug[i]   the port is wired there                                        absent
    reach     both hosts reach its volumes                                   only the one where it is
    hold      nobody else speaks of its domain to any host                   as it was
    land      the other host has room for the guest                          absent
    move      the guest is there, and stands still; the row, too             it stays, if it is still here

The guest stands still on the other host until it is gone here: its host says so to the other one at once, or else
`server-arrive` does, which the last step starts. So it never runs twice. The last step is also where the way back ends:
whether the guest has left is known to its host alone, so who undoes asks that host to keep it. If it has left already
the server is on the other host, whatever was asked for meanwhile; then nothing else is undone, and `server-arrive`
brings it to its end.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import msgspec

from agent.wire import disk as disk_calls
from agent.wire import domain as domain_calls
from agent.wire.domain import Desired, DomainSpec, DomainStatus, Landing, Passage
from agent.wire.lifecycle import Power
from controller.compute import carrying, domains, migration_store, store
from controller.compute.domains import Whole
from controller.compute.model import GONE, Event, Server
from controller.compute.sagas import elsewhere, moving, patience, power, turning
from controller.compute.sagas.elsewhere import MoveParams
from controller.compute.sagas.moving import Placed
from controller.compute.sagas.server_arrive import ARRIVE, ArriveParams
from controller.db.tx import Tx
from controller.errors import Conflict
from controller.network import wiring
from controller.saga import record
from controller.saga.log import start
from controller.saga.model import Cause, Commit, Run, Saga, Step, Transient

LIMIT_S: Final = 60.0
LIMIT_MIB_PER_S: Final = 8
"""For one guest: so long, and for its memory and disk at that rate. Longer: one that changes them faster than they are
sent takes the network for nothing. Shorter: one on a slow network never gets there."""

LOOK_S: Final = 0.25
"""Between two looks whether somebody has called it back."""

CALLED_OFF: Final = {"called_off": True}

DEADLINE_S: Final = 4 * 3600.0
"""Large disks take hours. What fails is told at once all the same."""


class LiveParams(MoveParams, frozen=True, kw_only=True):
    """As of every move. `arrive_id` is a saga's."""

    arrive_id: str
    size_mib: int  # Of its memory and its disk, as long as it may take to send them.
    is_paused: bool = False


def _nics(params: LiveParams) -> int:
    return params.nics


def _disks(params: LiveParams) -> int:
    return 1 if params.image_id else 0


def unless_gone(undo: Callable[[Run[Any]], Awaitable[Any]]) -> Callable[[Run[Any]], Coroutine[Any, Any, Any]]:
    """An undo that does nothing once the guest is on the other host."""

    async def guarded(run: Run[LiveParams]) -> Any:
        return None if await run.deps.db.read(_has_gone, run.params, elsewhere.find_target(run)) else await undo(run)

    return guarded


def _has_gone(tx: Tx, params: LiveParams, placed: Placed | None) -> bool:
    server = store.find(tx, params.server_id)
    return server is not None and placed is not None and server.host_id == placed.host_id


# place


async def place(run: Run[LiveParams]) -> Commit:
    """Another host, claimed beside the one where it is."""
    return await elsewhere.place(run, "preparing")


# disk


async def make_disk(run: Run[LiveParams]) -> None:
    """A disk of the same size upon the same image. All that differs from that is copied into it."""
    placed, cloud, params = elsewhere.target(run), run.deps, run.params
    server: Server = await cloud.db.read(elsewhere.wanted_server, params.server_id)
    spec = domains.disk_spec_of(server, params.image_sha256, cloud.epoch)
    await patience.ensure(run, placed.host_id, disk_calls.ENSURE, disk_calls.GET, spec)


# reach


async def reach_both(run: Run[LiveParams]) -> None:
    """Its volumes are reached from both hosts."""
    params = run.params
    hosts = (params.host_id, elsewhere.target(run).host_id)
    await carrying.reach(run, params.server_id, hosts, params.host_name, is_alive=True)


async def reach_back(run: Run[LiveParams]) -> None:
    """They are reached from where it is."""
    params = run.params
    await carrying.reach(run, params.server_id, (params.host_id,), params.host_name, is_alive=True)


# hold


async def hold(run: Run[LiveParams]) -> Commit:
    """From now on its domain is this saga's affair alone."""
    return Commit(_hold, (run.params, run.deps.world.clock.now()))


def _hold(tx: Tx, params: LiveParams, now: float) -> None:
    turning.intend(tx, params.server_id, {"desired": GONE})
    migration_store.change(tx, params.migration_id, now, status="running")


async def as_it_was(run: Run[LiveParams]) -> None:
    """It goes on where it is."""
    await turning.back(run, {"desired": _desired(run.params)}, Event.MIGRATE_FAILED)


def _desired(params: LiveParams) -> str:
    return (Desired.PAUSED if params.is_paused else Desired.RUNNING).value


# land


async def land(run: Run[LiveParams]) -> dict[str, Any]:
    """The other host waits for it."""
    placed = elsewhere.target(run)
    spec = await _spec(run, placed.host_id, Desired.LANDING)
    status = await patience.ensure(run, placed.host_id, domain_calls.ENSURE, domain_calls.GET, spec)
    if status.landing is None:
        raise Transient("The other host does not say yet where the guest lands.")
    found: dict[str, Any] = msgspec.to_builtins(status.landing)
    return found


async def _spec(run: Run[LiveParams], host_id: str, desired: Desired, way: Passage | None = None) -> DomainSpec:
    cloud = run.deps
    found: Whole = await cloud.db.read(_carried, run.params.server_id)
    server = msgspec.structs.replace(found.server, host_id=host_id, desired=desired.value)
    spec = domains.spec_of(msgspec.structs.replace(found, server=server), cloud.epoch, cloud.fence)
    return msgspec.structs.replace(spec, leaving=way)


def _carried(tx: Tx, server_id: str) -> Whole:
    """All that its hosts must know, while nobody else may tell them; also of one that is to be deleted."""
    server = store.find(tx, server_id)
    assert server is not None, "rows of servers outlive their sagas"
    return domains.parts(tx, server)


# move


async def move(run: Run[LiveParams]) -> None:
    """The guest is there. Whoever wants it to stay ends the waiting, and then it is asked whether it has left."""
    placed, cloud, params = elsewhere.target(run), run.deps, run.params
    if not await cloud.db.read(_has_gone, params, placed):
        await cloud.db.read(elsewhere.wanted_server, params.server_id)
        spec = await _spec(run, params.host_id, Desired.LEAVING, _way(run, placed))
        going = patience.ensure(run, params.host_id, domain_calls.ENSURE, domain_calls.GET, spec)
        await _unless_called_back(run, going)
    await _go(run, placed)


def _way(run: Run[LiveParams], placed: Placed) -> Passage:
    """Fresh tickets: each opens one stream once."""
    cloud, params = run.deps, run.params
    door = cloud.hosts.door(placed.host_id)
    if door is None:
        raise Transient(f"Host {placed.host_id} cannot be reached for the guest.")
    landing = msgspec.convert(run.outputs["land"], Landing)
    limit_s = LIMIT_S + run.params.size_mib / LIMIT_MIB_PER_S
    who = (params.host_id, placed.host_id, door, params.server_id)
    found: Passage = cloud.channel.passage(*who, landing, has_disks=bool(params.image_id), limit_s=limit_s)
    return found


async def _unless_called_back(run: Run[LiveParams], going: Coroutine[Any, Any, DomainStatus]) -> None:
    task = asyncio.ensure_future(going)
    try:
        while not (await asyncio.wait({task}, timeout=LOOK_S))[0]:
            if await run.deps.db.read(record.is_cancelled, run.saga_id):
                raise Conflict("The migration was called off.", why=CALLED_OFF)
        task.result()
    finally:
        task.cancel()


async def _go(run: Run[LiveParams], placed: Placed) -> None:
    cloud = run.deps
    await cloud.db.write(_gone, run.params, placed, cloud.world.clock.now())
    cloud.sagas.kick(run.params.arrive_id)
    cloud.sagas.kick(run.params.leave_id)
    cloud.tasks.kick(wiring.SPREAD)


def _gone(tx: Tx, params: LiveParams, placed: Placed, now: float) -> None:
    """From now on it is there: what is left to be done there, and here, is done by sagas of their own."""
    if _has_gone(tx, params, placed):
        return
    there = {"host_id": placed.host_id, "host_name": placed.host_name, "availability_zone": placed.zone}
    store.change(tx, params.server_id, {**there, "desired": _desired(params), "generation": store.NEXT_GENERATION})
    server = store.find(tx, params.server_id)
    assert server is not None, "rows of servers outlive their sagas"
    moving.put_ports(tx, params.server_id, placed.host_id, placed.zone, now)
    arrive = ArriveParams(
        server_id=params.server_id,
        request_id=params.request_id,
        host_id=placed.host_id,
        host_name=placed.host_name,
        migration_id=params.migration_id,
    )
    start(
        tx,
        ARRIVE,
        saga_id=params.arrive_id,
        params=arrive,
        target=params.server_id,
        project_id=server.project_id,
        request_id=params.request_id,
        now=now,
    )
    moving.leave(tx, server, moving.left_by(params), server.generation, has_disk=bool(params.image_id), now=now)


async def stay(run: Run[LiveParams]) -> None:
    """It goes on where it is, if it is still there; else it is on the other host."""
    cloud, params, placed = run.deps, run.params, elsewhere.find_target(run)
    if placed is None or await cloud.db.read(_has_gone, params, placed):
        return
    await cloud.db.write(store.bump, params.server_id)
    spec = await _spec(run, params.host_id, Desired.STAYING)
    try:
        status: DomainStatus = await cloud.hosts.ensure(params.host_id, domain_calls.ENSURE, spec, run.deadline)
    except Conflict:
        if cloud.hosts.is_up(params.host_id):
            raise
        return  # Its host was removed, and what is left of it is nobody's affair any more.
    if status.power is Power.UNKNOWN:
        await _go(run, placed)


# The ends.


def undone(tx: Tx, params: LiveParams, cause: Cause, now: float) -> None:
    """It is where it was, and as it was; or it has gone after all, and then this is not its end."""
    server = store.find(tx, params.server_id)
    if server is None or server.host_id != params.host_id:
        return
    is_called_off = cause.cancelled or cause.why == CALLED_OFF
    migration_store.change(tx, params.migration_id, now, status="cancelled" if is_called_off else "error")
    store.report(tx, params.server_id, Event.LIVE_UNDONE, now)
    store.end_action(tx, params.server_id, params.request_id, now, is_error=True)


def overdue(tx: Tx, params: LiveParams, cause: Cause, now: float) -> None:
    """The way back waits for a silent host."""
    store.change(tx, params.server_id, {"desired": _desired(params)})
    power.failed(tx, params, Event.MIGRATE_FAILED, cause, now)


LIVE_MIGRATE: Final = Saga(
    "server-live-migrate",
    1,
    LiveParams,
    steps=(
        Step("place", place, unless_gone(elsewhere.unplace)),
        Step("port", elsewhere.want_port, unless_gone(elsewhere.unwant_port), each=_nics),
        Step("image", elsewhere.fetch_image, each=_disks, deferred=True),
        Step("disk", make_disk, unless_gone(elsewhere.remove_disk), each=_disks, deferred=True),
        Step("plug", elsewhere.plug_port, unless_gone(elsewhere.unplug_port), each=_nics, deferred=True),
        Step("reach", reach_both, unless_gone(reach_back), deferred=True),
        Step("hold", hold, unless_gone(as_it_was)),
        Step("land", land, unless_gone(elsewhere.remove_domain)),
        Step("move", move, stay),
    ),
    undone=undone,
    overdue=overdue,
    rested=power.network_rested,
    deadline_s=DEADLINE_S,
)
