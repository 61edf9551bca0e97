"""Making a volume, in the pool that has most room.

    step      do                                              undo
    place     claim a pool; the row says where                release the claim
    image     the image is in that host's cache, verified     (a cache)
    volume    the volume is on the host; the row is AVAILABLE absent

What it begins as (another volume, a snapshot) lies in a pool already, and then it goes there: bytes do not travel
between hosts. Undone, the row stays, in ERROR, and a message says why.
"""

from typing import Any, Final

import msgspec

from agent.wire import volume as calls
from controller import patience
from controller.config import VolumeLimits
from controller.db.tx import Tx
from controller.errors import NotFound
from controller.image import distribution
from controller.saga.model import Cause, Commit, Run, Saga, Step
from controller.volume import making, messages, pools, specs
from controller.volume.messages import About
from controller.volume.model import Event, Source, Volume
from controller.volume.pools import Asked, Free
from controller.volume.store import snapshots, types, volumes


class CreateParams(msgspec.Struct, frozen=True, kw_only=True):
    """Everything else is in the volume's row."""

    volume_id: str
    project_id: str
    request_id: str
    message_id: str


# place


async def place(run: Run[CreateParams]) -> Commit:
    """Choose and claim in the transaction that ends the step."""
    cloud = run.deps
    given = (pools.free_now(cloud), cloud.settings.volume, cloud.world.clock.now())
    return Commit(_place, (run.params.volume_id, *given))


def _place(tx: Tx, volume_id: str, free: Free, limits: VolumeLimits, now: float) -> dict[str, Any]:
    row = making.wanted(tx, volume_id)
    if row.host_id is None:
        found = pools.claim(tx, _asked(tx, row), free, limits)
        where = {"host_id": found.host_id, "host_name": found.host_name, "pool": found.pool}
        volumes.change(tx, volume_id, {**where, "updated_at": now})
        row = making.wanted(tx, volume_id)
    return {"host_id": row.host_id, "host_name": row.host_name}


def _asked(tx: Tx, row: Volume) -> Asked:
    kind = None if row.type_id is None else types.find(tx, row.type_id)
    specs = {} if kind is None else kind.extra_specs
    return Asked(size_gib=row.promised_gib, only=_where_the_source_is(tx, row), specs=specs)


def _where_the_source_is(tx: Tx, row: Volume) -> tuple[str, str] | None:
    if row.source not in (Source.SNAPSHOT, Source.VOLUME) or row.source_id is None:
        return None
    finders: dict[str, Any] = {Source.SNAPSHOT: snapshots.find, Source.VOLUME: volumes.find}
    there = finders[row.source](tx, row.source_id)
    if there is None or there.host_id is None or there.pool is None:
        raise NotFound(f"The {row.source} {row.source_id} that the volume is made of is gone.")
    return there.host_id, there.pool


async def unplace(run: Run[CreateParams]) -> Commit:
    """Release the claim."""
    return Commit(_unplace, (run.params.volume_id,))


def _unplace(tx: Tx, volume_id: str) -> None:
    volumes.change(tx, volume_id, {"host_id": None, "host_name": None, "pool": None})


# image, volume


async def fetch_image(run: Run[CreateParams]) -> None:
    """The image that it begins as is in the host's cache."""
    row = await _row(run)
    if row.source == Source.IMAGE:
        assert row.source_id is not None, "an image has an id"
        await distribution.ensure_on_host(run.deps, _host(run), row.source_id, run.deadline)


async def make(run: Run[CreateParams]) -> Commit:
    """The volume is there."""
    spec = specs.volume_spec(await _row(run), run.deps.epoch)
    await patience.ensure(run, _host(run), calls.ENSURE, calls.GET, spec)
    return Commit(_made, (run.params, run.deps.world.clock.now()))


def _made(tx: Tx, params: CreateParams, now: float) -> None:
    volumes.report(tx, params.volume_id, Event.MADE, now)


async def unmake(run: Run[CreateParams]) -> None:
    """The volume is gone."""
    output = run.outputs.get("place")
    if output is not None:
        run.notes["host"] = output["host_name"]
        generation = await run.deps.db.write(volumes.bump, run.params.volume_id)
        await making.remove(run.deps, run.params.volume_id, output["host_id"], generation, run.deadline)


async def _row(run: Run[CreateParams]) -> Volume:
    row: Volume = await run.deps.db.read(making.wanted, run.params.volume_id)
    return row


def _host(run: Run[CreateParams]) -> str:
    output = run.outputs["place"]
    run.notes["host"] = output["host_name"]
    host_id: str = output["host_id"]
    return host_id


def undone(tx: Tx, params: CreateParams, cause: Cause, now: float) -> None:
    """The user reads why."""
    row = volumes.find(tx, params.volume_id)
    if row is None:
        return
    if not row.is_deleting:  # A delete has its own saga, and the row is that one's.
        volumes.report(tx, params.volume_id, Event.MAKING_FAILED, now)
    whose = (params.project_id, params.request_id, messages.VOLUME, params.volume_id)
    what = About.PLACE if cause.why is not None and "pools" in cause.why else About.CREATE
    messages.tell(tx, params.message_id, what, whose, cause, now)


CREATE: Final = Saga(
    "volume-create",
    1,
    CreateParams,
    steps=(
        Step("place", place, unplace),
        Step("image", fetch_image, deferred=True),
        Step("volume", make, unmake),
    ),
    deadline_s=1800.0,
    undone=undone,
    overdue=undone,
)
