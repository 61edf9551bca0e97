"""A server goes to another host: with its disk while it is off, or without it when its host is dead (evacuation).

    step      do                                                             undo
    place     the old claim is handed over, another host is claimed          taken back
    off[0]    the guest is off (an evacuated one cannot be asked)            as it was
    port[i]   the port is also wanted on the other host                      only where it was
    image     what the disk lies upon is in the other host's cache           (a cache)
    disk      the disk is there: brought, or made anew for an evacuated one  absent
    plug[i]   the port is wired there                                        absent
    switch    the row is on the other host, with the intent that it had      on the one where it was
    reach     the other host reaches its volumes, and this one no more       the other way round
    domain    the domain is as it was; what is left behind is another saga   absent

Up to `switch` the guest's place is where it was: addresses, forwarding and the row lead there. Until the last step has
ended nothing is removed there, so every way back leads to a server that is whole. What is removed afterwards waits
for its host as long as it takes (`server-leave`), and nobody else waits for that.
"""

import asyncio
from typing import TYPE_CHECKING, Any, Final

import msgspec

from agent.wire import disk as disk_calls
from agent.wire import domain as domain_calls
from agent.wire.domain import DomainStatus
from controller.compute import carrying, domains, migration_store, nets, placing, store
from controller.compute.model import Event, Nic, Server, TaskState, root_disk_id
from controller.compute.sagas import faults, patience, power, turning
from controller.compute.sagas.server_leave import LEAVE, LeaveParams
from controller.compute.sagas.turning import TurnParams
from controller.db.tx import Tx
from controller.errors import Conflict
from controller.image import distribution
from controller.network import ports, wiring
from controller.saga.log import start
from controller.saga.model import Cause, Commit, Run, Saga, Step, Transient
from controller.schedule import claim
from controller.schedule.model import Ratios, Room, Wanted

if TYPE_CHECKING:
    from controller.cloud import Cloud


class MigrateParams(TurnParams, frozen=True, kw_only=True):
    """`host_id` is where it is. `migration_id` holds the claim there until the end. `leave_id` is a saga's."""

    migration_id: str
    leave_id: str
    is_evacuation: bool
    nics: int
    image_id: str  # Empty: it boots from a volume.
    image_sha256: str
    wish_host: str | None = None
    is_forced: bool = False


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """Where it goes."""

    host_id: str
    host_name: str
    zone: str


def _nics(params: MigrateParams) -> int:
    return params.nics


def _guests(params: MigrateParams) -> int:
    return 0 if params.is_evacuation else 1


def _disks(params: MigrateParams) -> int:
    return 1 if params.image_id else 0


# place


class _Survey(msgspec.Struct, frozen=True):
    rooms: list[Room]
    wanted: Wanted


async def place(run: Run[MigrateParams]) -> Commit:
    """Another host, claimed beside the one where it is."""
    cloud, params = run.deps, run.params
    ratios = cloud.settings.scheduler
    survey: _Survey = await cloud.db.read(look_for_room, params)
    plan = claim.plan(survey.rooms, survey.wanted, ratios)
    return Commit(_hold_both, (params, survey.wanted, plan.candidates, ratios, cloud.world.clock.now()))


def look_for_room(tx: Tx, params: MigrateParams) -> _Survey:
    """Every host, and what the server asks of another one. Raises Conflict."""
    server = wanted_server(tx, params.server_id)
    # Where it is still counts as held by itself: its own group must not keep it from everywhere else.
    unfit = (params.host_id, *migration_store.hosts_left_behind(tx, server.id))
    wish = placing.wanted(
        tx,
        server,
        host=params.wish_host,
        is_forced=params.is_forced and params.wish_host is not None,
        exclude_hosts=unfit,
    )
    return _Survey(claim.snapshot(tx), wish)


def _task(params: MigrateParams, otherwise: TaskState) -> TaskState:
    """As Nova calls it: an evacuation is a rebuild, a cold migration a resize to the same size."""
    return TaskState.REBUILDING if params.is_evacuation else otherwise


def wanted_server(tx: Tx, server_id: str) -> Server:
    """Raises Conflict for a server that is being deleted."""
    server = turning.find_wanted(tx, server_id)
    if server is None:
        raise Conflict("The server is being deleted.")
    return server


def _hold_both(
    tx: Tx, params: MigrateParams, wanted: Wanted, candidates: tuple[str, ...], ratios: Ratios, now: float
) -> dict[str, str]:
    claim.hand_over(tx, params.server_id, params.migration_id)
    room = claim.claim(tx, placing.renewed(tx, wanted), candidates, ratios, now)
    there = {"target_host_id": room.host_id, "target_host_name": room.hostname}
    migration_store.change(tx, params.migration_id, now, status="migrating", **there)
    # A new generation in any case: it may have been on that host before, and been removed there at the one it has.
    turning.intend(tx, params.server_id, {} if params.is_evacuation else turning.OFF)
    store.report(tx, params.server_id, Event.MIGRATE_PLACED, now, task_state=_task(params, TaskState.RESIZE_MIGRATING))
    return {"host_id": room.host_id, "host_name": room.hostname, "zone": room.zone}


async def unplace(run: Run[MigrateParams]) -> Commit:
    """Only what it had is claimed."""
    return Commit(_settle, (run.params,))


def _settle(tx: Tx, params: MigrateParams) -> None:
    server = store.find(tx, params.server_id)
    assert server is not None, "rows of servers outlive their sagas"
    claim.take_back(tx, params.server_id, params.migration_id, server.root_gib)


# off


async def as_it_was(run: Run[MigrateParams]) -> None:
    """On again, if it was."""
    await turning.back(run, turning.desired(run.params.was_on), Event.MIGRATE_FAILED)


# port[i]


async def want_port(run: Run[MigrateParams]) -> Commit:
    """The port is on its way."""
    return Commit(_point, (run.params, run.index, target(run).host_id, run.deps.world.clock.now()))


async def unwant_port(run: Run[MigrateParams]) -> Commit:
    """It stays where it is."""
    return Commit(_point, (run.params, run.index, "", run.deps.world.clock.now()))


def _point(tx: Tx, params: MigrateParams, index: int, host_id: str, now: float) -> None:
    for nic in store.nics(tx, params.server_id)[index : index + 1]:
        ports.move_towards(tx, port_id=nic.port_id, server_id=params.server_id, host_id=host_id, now=now)


# image, disk, plug[i]


async def fetch_image(run: Run[MigrateParams]) -> None:
    """What the disk lies upon."""
    await distribution.ensure_on_host(run.deps, target(run).host_id, run.params.image_id, run.deadline)


async def bring_disk(run: Run[MigrateParams]) -> None:
    """The root disk, as it was left; of a dead host's server a fresh one."""
    placed, cloud, params = target(run), run.deps, run.params
    server: Server = await cloud.db.read(wanted_server, params.server_id)
    if params.is_evacuation:
        fresh = msgspec.structs.replace(server, is_disk_whole=False)
        spec = domains.disk_spec_of(fresh, params.image_sha256, cloud.epoch)
    else:
        spec = domains.disk_spec_of(server, params.image_sha256, cloud.epoch)
        spec = msgspec.structs.replace(spec, source=_offer(cloud, params, placed))
    await patience.ensure(run, placed.host_id, disk_calls.ENSURE, disk_calls.GET, spec)


def _offer(cloud: "Cloud", params: MigrateParams, placed: Placed) -> Any:
    door = cloud.hosts.door(params.host_id)
    if door is None:
        raise Transient(f"Host {params.host_id} cannot be reached for the disk.")
    return cloud.channel.disk_offer(placed.host_id, params.host_id, door, root_disk_id(params.server_id))


async def remove_disk(run: Run[MigrateParams]) -> None:
    """Nothing of it is there."""
    placed = find_target(run)
    if placed is not None:
        generation: int = await run.deps.db.write(store.bump, run.params.server_id)
        await domains.remove_disk(run.deps, run.params.server_id, placed.host_id, generation, run.deadline)


async def plug_port(run: Run[MigrateParams]) -> None:
    """The port is wired and filtered where it goes."""
    for port_id in await _port_ids(run):
        await wiring.plug(run.deps, target(run).host_id, port_id, run.deadline)


async def unplug_port(run: Run[MigrateParams]) -> None:
    """It is not."""
    placed = find_target(run)
    if placed is not None:
        going = [wiring.unplug(run.deps, placed.host_id, port_id, run.deadline) for port_id in await _port_ids(run)]
        await asyncio.gather(*going)


async def _port_ids(run: Run[MigrateParams]) -> list[str]:
    nics: list[Nic] = await run.deps.db.read(store.nics, run.params.server_id)
    return [nic.port_id for nic in nics[run.index : run.index + 1]]


# switch


async def switch(run: Run[MigrateParams]) -> Commit:
    """From now on it is there."""
    return Commit(_switch, (run.params, target(run), run.deps.world.clock.now()))


def _switch(tx: Tx, params: MigrateParams, placed: Placed, now: float) -> None:
    there = {"host_id": placed.host_id, "host_name": placed.host_name, "availability_zone": placed.zone}
    turning.intend(tx, params.server_id, {**there, **turning.desired(params.was_on)})
    _put_ports(tx, params.server_id, placed.host_id, placed.zone, now)
    nets.note_network(tx, params.server_id)
    store.report(tx, params.server_id, Event.MIGRATE_SWITCHED, now, task_state=_task(params, TaskState.RESIZE_FINISH))


async def switch_back(run: Run[MigrateParams]) -> Commit:
    """It is where it was, and off."""
    return Commit(_switch_back, (run.params, run.deps.world.clock.now()))


def _switch_back(tx: Tx, params: MigrateParams, now: float) -> None:
    server = store.find(tx, params.server_id)
    assert server is not None, "rows of servers outlive their sagas"
    if server.host_id == params.host_id:
        return
    store.change(tx, params.server_id, {"host_id": params.host_id, "host_name": params.host_name})
    if not params.is_evacuation:
        store.intend(tx, params.server_id, turning.OFF)
    _put_ports(tx, params.server_id, params.host_id, server.availability_zone or "", now)


def _put_ports(tx: Tx, server_id: str, host_id: str, zone: str, now: float) -> None:
    for nic in store.nics(tx, server_id):
        ports.arrive(tx, port_id=nic.port_id, server_id=server_id, host_id=host_id, zone=zone, now=now)


# reach


async def reach(run: Run[MigrateParams]) -> None:
    """Its volumes are reached from there. A host that is lost is thrown out, before its guest runs elsewhere."""
    placed = target(run)
    await carrying.reach(run, run.params.server_id, (placed.host_id,), placed.host_name)


async def reach_back(run: Run[MigrateParams]) -> None:
    """They are reached from where it was."""
    await carrying.reach(run, run.params.server_id, (run.params.host_id,), run.params.host_name)


# domain


async def run_domain(run: Run[MigrateParams]) -> Commit:
    """It is as it was, elsewhere; and what it left behind goes."""
    cloud, params, placed = run.deps, run.params, target(run)
    cloud.tasks.kick(wiring.SPREAD)
    found = await cloud.db.read(domains.whole, params.server_id)
    spec = domains.spec_of(found, cloud.epoch, cloud.fence)
    status = await patience.ensure(run, placed.host_id, domain_calls.ENSURE, domain_calls.GET, spec)
    return Commit(_migrated, (params, placed, status, cloud.world.clock.now()))


def _migrated(tx: Tx, params: MigrateParams, placed: Placed, status: DomainStatus, now: float) -> None:
    found = store.nics(tx, params.server_id)
    for nic in found:
        wiring.plugged(tx, nic.port_id, now)
    claim.release(tx, params.migration_id)
    migration_store.change(tx, params.migration_id, now, status="done" if params.is_evacuation else "confirmed")
    left = LeaveParams(
        server_id=params.server_id,
        request_id=params.request_id,
        host_id=params.host_id,
        host_name=params.host_name,
        generation=status.generation.n,
        port_ids=tuple(nic.port_id for nic in found),
        has_disk=bool(params.image_id),
    )
    server = store.find(tx, params.server_id)
    assert server is not None, "rows of servers outlive their sagas"
    start(
        tx,
        LEAVE,
        saga_id=params.leave_id,
        params=left,
        target=migration_store.leaving(params.server_id, params.host_id),
        project_id=server.project_id,
        request_id=params.request_id,
        now=now,
    )
    event = Event.MIGRATED_ON if params.was_on else Event.MIGRATED_OFF
    turning.ended(tx, params, event, status, now, **({"is_disk_whole": False} if params.is_evacuation else {}))


async def remove_domain(run: Run[MigrateParams]) -> None:
    """Nothing of it is there: first of all that is undone."""
    placed = find_target(run)
    if placed is not None:
        generation: int = await run.deps.db.write(store.bump, run.params.server_id)
        await domains.remove(run.deps, run.params.server_id, placed.host_id, generation, run.deadline)


# The ends.


def undone(tx: Tx, params: MigrateParams, cause: Cause, now: float) -> None:
    """It is where it was, and as it was."""
    migration_store.change(tx, params.migration_id, now, status="error")
    if params.is_evacuation:
        store.report(tx, params.server_id, Event.MIGRATE_FAILED, now, **faults.columns(cause, now))
        store.end_action(tx, params.server_id, params.request_id, now, is_error=True)
        return
    turning.undone(tx, params, (Event.MIGRATE_UNDONE_ON, Event.MIGRATE_UNDONE_OFF), now)


def overdue(tx: Tx, params: MigrateParams, cause: Cause, now: float) -> None:
    """The way back waits for a silent host."""
    power.failed(tx, params, Event.MIGRATE_FAILED, cause, now)


def find_target(run: Run[Any]) -> Placed | None:
    """Where it goes, once that is known."""
    output = run.outputs.get("place")
    return None if output is None else msgspec.convert(output, Placed)


def target(run: Run[Any]) -> Placed:
    """Where it goes."""
    placed = find_target(run)
    assert placed is not None, "steps after `place` have its output"
    run.notes["host"] = placed.host_name
    return placed


MIGRATE: Final = Saga(
    "server-migrate",
    1,
    MigrateParams,
    steps=(
        Step("place", place, unplace),
        Step("off", turning.push, as_it_was, each=_guests, deferred=True),
        Step("port", want_port, unwant_port, each=_nics),
        Step("image", fetch_image, each=_disks, deferred=True),
        Step("disk", bring_disk, remove_disk, each=_disks, deferred=True),
        Step("plug", plug_port, unplug_port, each=_nics, deferred=True),
        Step("switch", switch, switch_back),
        Step("reach", reach, reach_back, deferred=True),
        Step("domain", run_domain, remove_domain),
    ),
    undone=undone,
    overdue=overdue,
    rested=power.network_rested,
)
