"""Taking a server off the shelf. One that never left its host is only started; another one is placed like a new one.

    step      do                                                  undo
    place     a host, claimed                                     release the claim; on no host
    port[i]   the port is bound to the host                       to none
    image     what the disk was kept as is in the host's cache    (a cache)
    disk      the root disk is on the host                        absent
    plug[i]   the port is wired and filtered                      absent
    reach     the host reaches its volumes                        no host does
    domain    the domain runs                                     absent (off, for one that never left)
    finish    the row is ACTIVE; the image it was kept as goes    -

What fails leaves it on the shelf.
"""

import asyncio
from typing import TYPE_CHECKING, Any, Final

import msgspec

from agent.wire import disk as disk_calls
from agent.wire import domain as domain_calls
from agent.wire.domain import DomainStatus
from controller.compute import carrying, domains, nets, placing, store
from controller.compute.model import Event, Nic, Server
from controller.compute.sagas import capturing, faults, patience, power, turning
from controller.compute.sagas.power import PowerParams
from controller.db.tx import Tx
from controller.errors import Conflict
from controller.image import distribution
from controller.network import ports, wiring
from controller.saga.model import Cause, Commit, Run, Saga, State, Step
from controller.schedule import claim
from controller.schedule.model import Ratios, Room, Wanted

if TYPE_CHECKING:
    from controller.cloud import Cloud


class UnshelveParams(PowerParams, frozen=True, kw_only=True):
    """`host_id` empty: it left its host. `image_id` empty: it boots from a volume."""

    image_id: str
    image_sha256: str
    nics: int
    zone: str | None = None


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """Where it is."""

    host_id: str
    host_name: str


def _left(params: UnshelveParams) -> int:
    return 0 if params.host_id else 1


def _disks(params: UnshelveParams) -> int:
    return 1 if params.image_id and not params.host_id else 0


def _nics(params: UnshelveParams) -> int:
    return 0 if params.host_id else params.nics


# place


class _Survey(msgspec.Struct, frozen=True):
    rooms: list[Room]
    wanted: Wanted


async def place(run: Run[UnshelveParams]) -> Commit:
    """Choose on a snapshot, claim in the transaction that ends the step."""
    cloud = run.deps
    ratios = cloud.settings.scheduler
    survey: _Survey = await cloud.db.read(_survey, run.params)
    plan = claim.plan(survey.rooms, survey.wanted, ratios)
    return Commit(_settle_down, (survey.wanted, plan.candidates, ratios, cloud.world.clock.now()))


def _survey(tx: Tx, params: UnshelveParams) -> _Survey:
    server = _wanted_server(tx, params.server_id)
    # Where an administrator put it once is no wish any more: only the zone is.
    wish = placing.wanted(tx, server, zone=params.zone or server.requested_zone, host=None, is_forced=False)
    return _Survey(claim.snapshot(tx), wish)


def _wanted_server(tx: Tx, server_id: str) -> Server:
    server = turning.find_wanted(tx, server_id)
    if server is None:
        raise Conflict("The server is being deleted.")
    return server


def _settle_down(tx: Tx, wanted: Wanted, candidates: tuple[str, ...], ratios: Ratios, now: float) -> dict[str, str]:
    room = claim.claim(tx, placing.renewed(tx, wanted), candidates, ratios, now)
    here = {"host_id": room.host_id, "host_name": room.hostname, "availability_zone": room.zone}
    store.report(tx, wanted.server_id, Event.UNSHELVE_PLACED, now, **here)
    return {"host_id": room.host_id, "host_name": room.hostname}


async def unplace(run: Run[UnshelveParams]) -> Commit:
    """On no host."""
    return Commit(_move_out, (run.params.server_id,))


def _move_out(tx: Tx, server_id: str) -> None:
    claim.release(tx, server_id)
    store.change(tx, server_id, {"host_id": None, "host_name": None, "availability_zone": None})


# port[i]


async def bind_port(run: Run[UnshelveParams]) -> Commit:
    """The port is on its way to the host."""
    return Commit(_bind, (run.params, run.index, _placed(run), run.deps.world.clock.now()))


def _bind(tx: Tx, params: UnshelveParams, index: int, placed: Placed, now: float) -> None:
    server = _wanted_server(tx, params.server_id)
    for nic in store.nics(tx, params.server_id)[index : index + 1]:
        ports.put_on_host(
            tx,
            port_id=nic.port_id,
            server_id=server.id,
            host_id=placed.host_id,
            zone=server.availability_zone or "",
            now=now,
        )
    if index + 1 == params.nics:
        nets.note_network(tx, server.id)


async def unbind_port(run: Run[UnshelveParams]) -> Commit:
    """The port is its own, and on no host."""
    return Commit(_unbind, (run.params.server_id, run.deps.world.clock.now()))


def _unbind(tx: Tx, server_id: str, now: float) -> None:
    ports.take_off_host(tx, server_id=server_id, now=now)


# image, disk, plug[i]


async def fetch_image(run: Run[UnshelveParams]) -> None:
    """What the disk was kept as is in the host's cache."""
    await distribution.ensure_on_host(run.deps, _placed(run).host_id, run.params.image_id, run.deadline)


async def make_disk(run: Run[UnshelveParams]) -> None:
    """The root disk, as a copy of what it was kept as, which goes: no host could be given that again."""
    placed, cloud, params = _placed(run), run.deps, run.params
    server: Server = await cloud.db.read(_wanted_server, params.server_id)
    fresh = msgspec.structs.replace(server, is_disk_whole=False)
    spec = msgspec.structs.replace(domains.disk_spec_of(fresh, params.image_sha256, cloud.epoch), is_whole=True)
    await patience.ensure(run, placed.host_id, disk_calls.ENSURE, disk_calls.GET, spec)


async def remove_disk(run: Run[UnshelveParams]) -> None:
    """The root disk is gone."""
    placed = _find_placed(run)
    if placed is not None:
        generation: int = await run.deps.db.write(store.bump, run.params.server_id)
        await domains.remove_disk(run.deps, run.params.server_id, placed.host_id, generation, run.deadline)


async def plug_port(run: Run[UnshelveParams]) -> None:
    """The port is wired on the host, and filtered."""
    for port_id in await _port_ids(run):
        await wiring.plug(run.deps, _placed(run).host_id, port_id, run.deadline)


async def unplug_port(run: Run[UnshelveParams]) -> None:
    """The port is off the host."""
    placed = _find_placed(run)
    if placed is not None:
        going = [wiring.unplug(run.deps, placed.host_id, port_id, run.deadline) for port_id in await _port_ids(run)]
        await asyncio.gather(*going)


async def _port_ids(run: Run[UnshelveParams]) -> list[str]:
    nics: list[Nic] = await run.deps.db.read(store.nics, run.params.server_id)
    return [nic.port_id for nic in nics[run.index : run.index + 1]]


# reach, domain


async def reach(run: Run[UnshelveParams]) -> None:
    """The host reaches its volumes."""
    placed = _placed(run)
    await carrying.reach(run, run.params.server_id, (placed.host_id,), placed.host_name)


async def withdraw(run: Run[UnshelveParams]) -> None:
    """No host does."""
    if await run.deps.db.read(turning.find_wanted, run.params.server_id) is not None:
        await carrying.reach(run, run.params.server_id, (), "")


async def run_domain(run: Run[UnshelveParams]) -> Commit:
    """It runs."""
    cloud, params, placed = run.deps, run.params, _placed(run)
    found = await cloud.db.read(domains.whole, params.server_id)
    spec = domains.spec_of(found, cloud.epoch, cloud.fence)
    status = await patience.ensure(run, placed.host_id, domain_calls.ENSURE, domain_calls.GET, spec)
    return Commit(_unshelved, (params, status, cloud.world.clock.now()))


def _unshelved(tx: Tx, params: UnshelveParams, status: DomainStatus, now: float) -> None:
    for nic in store.nics(tx, params.server_id):
        wiring.plugged(tx, nic.port_id, now)
    if params.image_id:
        capturing.drop_image(tx, params.image_id, now)
    off_the_shelf: dict[str, Any] = {"shelved_image_id": None, "shelved_at": None}
    if params.image_id and not params.host_id:
        off_the_shelf["is_disk_whole"] = True
    turning.ended(tx, params, Event.UNSHELVED, status, now, **off_the_shelf)


async def remove_domain(run: Run[UnshelveParams]) -> None:
    """The domain is gone; one that never left its host is off again."""
    params, placed = run.params, _find_placed(run)
    if params.host_id:
        await turning.back(run, turning.OFF, Event.UNSHELVE_FAILED)
    elif placed is not None:
        generation: int = await run.deps.db.write(store.bump, params.server_id)
        await domains.remove(run.deps, params.server_id, placed.host_id, generation, run.deadline)


def undone(tx: Tx, params: UnshelveParams, cause: Cause, now: float) -> None:
    """It is still on the shelf."""
    if not params.host_id:
        store.intend(tx, params.server_id, turning.OFF)
    store.report(tx, params.server_id, Event.UNSHELVE_FAILED, now, **faults.columns(cause, now))
    store.end_action(tx, params.server_id, params.request_id, now, is_error=True)


def overdue(tx: Tx, params: UnshelveParams, cause: Cause, now: float) -> None:
    """The way back waits for a silent host: it stays busy, and the user's action tells why."""
    store.end_action(tx, params.server_id, params.request_id, now, is_error=True)


def rested(cloud: "Cloud", state: State) -> None:
    """Its addresses are elsewhere, and what it was kept as is no more."""
    power.network_rested(cloud, state)
    capturing.rested(cloud, state)


def _find_placed(run: Run[UnshelveParams]) -> Placed | None:
    params = run.params
    if params.host_id:
        return Placed(host_id=params.host_id, host_name=params.host_name)
    output = run.outputs.get("place[0]")
    return None if output is None else msgspec.convert(output, Placed)


def _placed(run: Run[UnshelveParams]) -> Placed:
    placed = _find_placed(run)
    assert placed is not None, "steps after `place` have its output"
    run.notes["host"] = placed.host_name
    return placed


UNSHELVE: Final = Saga(
    "server-unshelve",
    1,
    UnshelveParams,
    steps=(
        Step("place", place, unplace, each=_left),
        Step("port", bind_port, unbind_port, each=_nics),
        Step("image", fetch_image, each=_disks, deferred=True),
        Step("disk", make_disk, remove_disk, each=_disks, deferred=True),
        Step("plug", plug_port, unplug_port, each=_nics, deferred=True),
        Step("reach", reach, withdraw, each=_left, deferred=True),
        Step("domain", run_domain, remove_domain),
    ),
    undone=undone,
    overdue=overdue,
    rested=rested,
)
