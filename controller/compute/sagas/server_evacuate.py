"""A server whose host is dead is made anew on another one: without its root disk, with its volumes and addresses.

    step      do                                                             undo
    place     the old claim is handed over, another host is claimed          taken back
    port[i]   the port is also wanted on the other host                      only where it was
    image     what the disk lies upon is in the other host's cache           (a cache)
    disk      a fresh disk is there                                          absent
    plug[i]   the port is wired there                                        absent
    reach     the other host reaches its volumes, and this one no more       the other way round
    switch    the row is on the other host, with the intent that it had      on the one where it was
    domain    the domain is as it was; what is left behind is another saga   absent

The dead host is never asked. Up to `switch` the server's place is where it was: addresses, forwarding and the row lead
there. What it left there is removed when that host returns, as long as it takes (`server-leave`), and nobody else waits
for that.
"""

from typing import Final

import msgspec

from agent.wire import disk as disk_calls
from agent.wire import domain as domain_calls
from agent.wire.domain import DomainStatus
from controller.compute import carrying, domains, migration_store, nets, store
from controller.compute.model import Event, Server
from controller.compute.sagas import elsewhere, moving, patience, power, turning
from controller.compute.sagas.elsewhere import MoveParams
from controller.compute.sagas.moving import Placed
from controller.db.tx import Tx
from controller.network import wiring
from controller.saga.model import Cause, Commit, Run, Saga, Step
from controller.schedule import claim


def _nics(params: MoveParams) -> int:
    return params.nics


def _disks(params: MoveParams) -> int:
    return 1 if params.image_id else 0


# place


async def place(run: Run[MoveParams]) -> Commit:
    """Another host, claimed beside the one where it was."""
    return await elsewhere.place(run, "migrating")


# disk


async def make_disk(run: Run[MoveParams]) -> None:
    """The root disk, made anew of its image."""
    placed, cloud, params = elsewhere.target(run), run.deps, run.params
    server: Server = await cloud.db.read(elsewhere.wanted_server, params.server_id)
    fresh = msgspec.structs.replace(server, is_disk_whole=False)
    spec = domains.disk_spec_of(fresh, params.image_sha256, cloud.epoch)
    await patience.ensure(run, placed.host_id, disk_calls.ENSURE, disk_calls.GET, spec)


# reach


async def reach(run: Run[MoveParams]) -> None:
    """Its volumes are reached from there. A host that is lost is thrown out, before its guest runs elsewhere."""
    placed = elsewhere.target(run)
    await carrying.reach(run, run.params.server_id, (placed.host_id,), placed.host_name)


async def reach_back(run: Run[MoveParams]) -> None:
    """They are reached from where it was."""
    await carrying.reach(run, run.params.server_id, (run.params.host_id,), run.params.host_name)


# switch


async def switch(run: Run[MoveParams]) -> Commit:
    """From now on it is there."""
    return Commit(_switch, (run.params, elsewhere.target(run), run.deps.world.clock.now()))


def _switch(tx: Tx, params: MoveParams, placed: Placed, now: float) -> None:
    there = {"host_id": placed.host_id, "host_name": placed.host_name, "availability_zone": placed.zone}
    turning.intend(tx, params.server_id, {**there, **turning.desired(params.was_on)})
    moving.put_ports(tx, params.server_id, placed.host_id, placed.zone, now)
    nets.note_network(tx, params.server_id)


async def switch_back(run: Run[MoveParams]) -> Commit:
    """It is where it was."""
    return Commit(_switch_back, (run.params, run.deps.world.clock.now()))


def _switch_back(tx: Tx, params: MoveParams, now: float) -> None:
    server = store.find(tx, params.server_id)
    assert server is not None, "rows of servers outlive their sagas"
    if server.host_id == params.host_id:
        return
    store.change(tx, params.server_id, {"host_id": params.host_id, "host_name": params.host_name})
    moving.put_ports(tx, params.server_id, params.host_id, server.availability_zone or "", now)


# domain


async def run_domain(run: Run[MoveParams]) -> Commit:
    """It is as it was, elsewhere; and what it left behind goes."""
    cloud, params, placed = run.deps, run.params, elsewhere.target(run)
    cloud.tasks.kick(wiring.SPREAD)
    found = await cloud.db.read(domains.whole, params.server_id)
    spec = domains.spec_of(found, cloud.epoch, cloud.fence)
    status = await patience.ensure(run, placed.host_id, domain_calls.ENSURE, domain_calls.GET, spec)
    return Commit(_evacuated, (params, status, cloud.world.clock.now()))


def _evacuated(tx: Tx, params: MoveParams, status: DomainStatus, now: float) -> None:
    moving.ports_plugged(tx, params.server_id, now)
    claim.release(tx, params.migration_id)
    migration_store.change(tx, params.migration_id, now, status="done")
    server = store.find(tx, params.server_id)
    assert server is not None, "rows of servers outlive their sagas"
    moving.leave(tx, server, moving.left_by(params), status.generation.n, has_disk=bool(params.image_id), now=now)
    event = Event.EVACUATED_ON if params.was_on else Event.EVACUATED_OFF
    turning.ended(tx, params, event, status, now, is_disk_whole=False)


# The ends.


def undone(tx: Tx, params: MoveParams, cause: Cause, now: float) -> None:
    """It is where it was, on a host that is dead."""
    migration_store.change(tx, params.migration_id, now, status="error")
    power.failed(tx, params, Event.EVACUATE_FAILED, cause, now)


def overdue(tx: Tx, params: MoveParams, cause: Cause, now: float) -> None:
    """The way back waits for a silent host."""
    power.failed(tx, params, Event.EVACUATE_FAILED, cause, now)


EVACUATE: Final = Saga(
    "server-evacuate",
    1,
    MoveParams,
    steps=(
        Step("place", place, elsewhere.unplace),
        Step("port", elsewhere.want_port, elsewhere.unwant_port, each=_nics),
        Step("image", elsewhere.fetch_image, each=_disks, deferred=True),
        Step("disk", make_disk, elsewhere.remove_disk, each=_disks, deferred=True),
        Step("plug", elsewhere.plug_port, elsewhere.unplug_port, each=_nics, deferred=True),
        Step("reach", reach, reach_back, deferred=True),
        Step("switch", switch, switch_back),
        Step("domain", run_domain, elsewhere.remove_domain),
    ),
    undone=undone,
    overdue=overdue,
    rested=power.network_rested,
)
