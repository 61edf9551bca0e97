"""Steps of the sagas that take a server to another host: off, alive, or made anew.

The output of their step `place` is where it goes (`Placed`). While that is not known, and for a server that stays (a
resize may), there is nothing to be done elsewhere, or undone.
"""

from typing import Any

import msgspec

from controller.compute import migration_store, placing, store
from controller.compute.model import Server
from controller.compute.sagas import moving, turning
from controller.compute.sagas.moving import Placed
from controller.compute.sagas.turning import TurnParams
from controller.db.tx import Tx
from controller.errors import Conflict
from controller.image import distribution
from controller.saga.model import Commit, Run
from controller.schedule import claim
from controller.schedule.model import Ratios, Room, Wanted


class MoveParams(TurnParams, frozen=True, kw_only=True):
    """`host_id` is where it is. `migration_id` holds the claim there until the end. `leave_id` is a saga's."""

    migration_id: str
    leave_id: str
    nics: int
    image_id: str  # Empty: it boots from a volume.
    image_sha256: str  # Empty also where its disk lies upon nothing.
    wish_host: str | None = None
    is_forced: bool = False


# place


class Survey(msgspec.Struct, frozen=True):
    """Every host, and what the server asks of another one."""

    rooms: list[Room]
    wanted: Wanted


def look_for_room(tx: Tx, params: MoveParams) -> Survey:
    """What there is to choose from. Raises Conflict."""
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
    return Survey(claim.snapshot(tx), wish)


def wanted_server(tx: Tx, server_id: str) -> Server:
    """Raises Conflict for a server that is being deleted."""
    server = turning.find_wanted(tx, server_id)
    if server is None:
        raise Conflict("The server is being deleted.")
    return server


async def place(run: Run[Any], status: str) -> Commit:
    """Another host, claimed beside the one where it is. `status` is its migration's from then on."""
    cloud, params = run.deps, run.params
    ratios = cloud.settings.scheduler
    survey: Survey = await cloud.db.read(look_for_room, params)
    plan = claim.plan(survey.rooms, survey.wanted, ratios)
    return Commit(_hold_both, (params, survey.wanted, plan.candidates, ratios, cloud.world.clock.now(), status))


def _hold_both(
    tx: Tx, params: MoveParams, wanted: Wanted, candidates: tuple[str, ...], ratios: Ratios, now: float, status: str
) -> dict[str, str]:
    claim.hand_over(tx, params.server_id, params.migration_id)
    room = claim.claim(tx, placing.renewed(tx, wanted), candidates, ratios, now)
    there = {"target_host_id": room.host_id, "target_host_name": room.hostname}
    migration_store.change(tx, params.migration_id, now, status=status, **there)
    # A new generation in any case: it may have been on that host before, and been removed there at the one it has.
    turning.intend(tx, params.server_id, {})
    return {"host_id": room.host_id, "host_name": room.hostname, "zone": room.zone}


async def unplace(run: Run[Any]) -> Commit:
    """Only what it had is claimed."""
    return Commit(take_back, (run.params.server_id, run.params.migration_id))


def take_back(tx: Tx, server_id: str, holder_id: str) -> None:
    """The claim that was handed over is the server's again."""
    server = store.find(tx, server_id)
    assert server is not None, "rows of servers outlive their sagas"
    claim.take_back(tx, server_id, holder_id, server.root_gib)


def find_target(run: Run[Any]) -> Placed | None:
    """Where it goes; None while that is not known, and where it stays."""
    output = run.outputs.get("place")
    placed = None if output is None else msgspec.convert(output, Placed)
    run.notes["host"] = run.params.host_name if placed is None else placed.host_name
    return None if placed is None or placed.host_id == run.params.host_id else placed


def target(run: Run[Any]) -> Placed:
    """Where it goes, in a step after `place` of a server that cannot stay."""
    placed = find_target(run)
    assert placed is not None, "steps after `place` have its output"
    return placed


# port[i], image, plug[i]


async def want_port(run: Run[Any]) -> Commit | None:
    """The port is on its way."""
    placed = find_target(run)
    return None if placed is None else _pointed(run, placed.host_id)


async def unwant_port(run: Run[Any]) -> Commit:
    """It stays where it is."""
    return _pointed(run, "")


def _pointed(run: Run[Any], host_id: str) -> Commit:
    return Commit(moving.point, (run.params.server_id, run.index, host_id, run.deps.world.clock.now()))


async def fetch_image(run: Run[Any]) -> None:
    """What the disk lies upon, if it does."""
    if run.params.image_sha256:
        await distribution.ensure_on_host(run.deps, target(run).host_id, run.params.image_id, run.deadline)


async def plug_port(run: Run[Any]) -> None:
    """The port is wired and filtered where it goes."""
    placed = find_target(run)
    if placed is not None:
        await moving.plug(run, placed.host_id)


# Their undos, and those of a disk and a domain.


async def unplug_port(run: Run[Any]) -> None:
    """It is not."""
    placed = find_target(run)
    if placed is not None:
        await moving.unplug(run, placed.host_id)


async def remove_disk(run: Run[Any]) -> None:
    """Nothing of the disk is there."""
    placed = find_target(run)
    if placed is not None:
        await moving.remove_disk(run, placed.host_id)


async def remove_domain(run: Run[Any]) -> None:
    """Nothing of the domain is there: first of all that is undone."""
    placed = find_target(run)
    if placed is not None:
        await moving.remove_domain(run, placed.host_id)
