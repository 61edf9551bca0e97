"""Making a volume larger, also while guests use it.

    step      do                                            undo
    room      the pool can take what was promised           nothing: the promise is taken back at the end
    volume    the volume is larger; the row says so         ask how large it is, and let that be its size
    domain    the guests that have it are told

A volume never shrinks: if the host had done it although it said otherwise, that is what it is now.
"""

import asyncio
from typing import Final

import msgspec

from agent.wire import volume as calls
from agent.wire.volume import VolumeStatus
from controller import patience
from controller.compute import domains, plugs
from controller.config import VolumeLimits
from controller.db.tx import Tx
from controller.errors import Conflict, NotFound
from controller.saga.model import Cause, Commit, Run, Saga, Step
from controller.volume import making, messages, pools, specs
from controller.volume.messages import About
from controller.volume.model import Event, Volume
from controller.volume.pools import Free
from controller.volume.store import volumes


class ExtendParams(msgspec.Struct, frozen=True, kw_only=True):
    """From how many GiB to how many; everything else is in the volume's row."""

    volume_id: str
    project_id: str
    request_id: str
    message_id: str
    before_gib: int
    after_gib: int


async def find_room(run: Run[ExtendParams]) -> Commit:
    """The pool can take it."""
    cloud = run.deps
    return Commit(_find_room, (run.params, pools.free_now(cloud), cloud.settings.volume))


def _find_room(tx: Tx, params: ExtendParams, free: Free, limits: VolumeLimits) -> None:
    row = making.wanted(tx, params.volume_id)
    if row.host_id is None or row.pool is None:
        raise Conflict("The volume has no data yet.")
    # The row counts the promise already, so nothing more may be needed.
    pools.check(tx, (row.host_id, row.pool), 0, free, limits)


async def grow(run: Run[ExtendParams]) -> Commit:
    """The volume is larger."""
    row = await _row(run)
    assert row.host_id is not None, "checked before"
    await patience.ensure(run, row.host_id, calls.ENSURE, calls.GET, specs.volume_spec(row, run.deps.epoch))
    return Commit(_grown, (run.params, run.saga_id, run.deps.world.clock.now()))


def _grown(tx: Tx, params: ExtendParams, saga_id: str, now: float) -> list[str]:
    """The servers whose domains are to be told."""
    row = volumes.find(tx, params.volume_id)
    if row is None or row.size_gib >= params.after_gib:
        return []
    volumes.change(tx, params.volume_id, {"size_gib": params.after_gib, "updated_at": now})
    servers = plugs.volume_changed(tx, params.volume_id)
    plugs.note_growth(tx, servers, params.request_id, saga_id, now)
    return servers


async def measure(run: Run[ExtendParams]) -> Commit | None:
    """Nothing that was sent before can come late; and the row has the size that the volume has."""
    row = await run.deps.db.read(volumes.find, run.params.volume_id)
    if row is None or row.host_id is None or row.is_deleting:
        return None
    smaller = await run.deps.db.write(_promise_less, run.params.volume_id)
    spec = specs.volume_spec(smaller, run.deps.epoch)
    status: VolumeStatus = await run.deps.hosts.ensure(row.host_id, calls.ENSURE, spec, run.deadline)
    return Commit(_measured, (run.params, status.size_gib, run.deps.world.clock.now()))


def _promise_less(tx: Tx, volume_id: str) -> Volume:
    """Ask for what there surely is, at a new generation."""
    volumes.bump(tx, volume_id)
    volumes.change(tx, volume_id, {"promised_gib": making.wanted(tx, volume_id).size_gib})
    return making.wanted(tx, volume_id)


def _measured(tx: Tx, params: ExtendParams, size_gib: int, now: float) -> None:
    row = volumes.find(tx, params.volume_id)
    if row is not None and row.size_gib < size_gib <= params.after_gib:
        volumes.bump(tx, params.volume_id)
        volumes.change(tx, params.volume_id, {"size_gib": size_gib, "promised_gib": size_gib, "updated_at": now})
        plugs.volume_changed(tx, params.volume_id)


async def tell(run: Run[ExtendParams]) -> Commit:
    """Guests see the new size."""
    servers = await run.deps.db.read(plugs.hosts_of, run.outputs["volume"])
    told = [_push(run, server_id, host_id) for server_id, host_id in sorted(servers.items())]
    for end in await asyncio.gather(*told, return_exceptions=True):
        if isinstance(end, BaseException):
            raise end
    return Commit(_done, (run.params, run.deps.world.clock.now()))


async def _push(run: Run[ExtendParams], server_id: str, host_id: str) -> None:
    try:
        await domains.push(run.deps, server_id, host_id, run.deadline)
    except NotFound:
        return  # It was deleted meanwhile.
    except Conflict as error:
        if (error.why or {}).get("code") is not None:
            raise


def _done(tx: Tx, params: ExtendParams, now: float) -> None:
    volumes.report(tx, params.volume_id, Event.EXTENDED, now)


async def _row(run: Run[ExtendParams]) -> Volume:
    row: Volume = await run.deps.db.read(making.wanted, run.params.volume_id)
    run.notes["host"] = row.host_name or ""
    return row


def undone(tx: Tx, params: ExtendParams, cause: Cause, now: float) -> None:
    """It is as large as it is, and can be used."""
    row = volumes.find(tx, params.volume_id)
    if row is not None:
        volumes.change(tx, params.volume_id, {"promised_gib": row.size_gib})
        volumes.report(tx, params.volume_id, Event.EXTENDED, now)
        _tell(tx, params, cause, now)


def overdue(tx: Tx, params: ExtendParams, cause: Cause, now: float) -> None:
    """Its host is silent: the user is told now, the rest follows when the host returns."""
    if volumes.find(tx, params.volume_id) is not None:
        volumes.report(tx, params.volume_id, Event.EXTENDING_FAILED, now)
        _tell(tx, params, cause, now)


def _tell(tx: Tx, params: ExtendParams, cause: Cause, now: float) -> None:
    whose = (params.project_id, params.request_id, messages.VOLUME, params.volume_id)
    messages.tell(tx, params.message_id, About.EXTEND, whose, cause, now)


EXTEND: Final = Saga(
    "volume-extend",
    1,
    ExtendParams,
    steps=(
        Step("room", find_room),
        Step("volume", grow, measure),
        Step("domain", tell),
    ),
    deadline_s=600.0,
    undone=undone,
    overdue=overdue,
)
