"""Small sagas with everything that real ones have: commits, far effects, several of a kind, deferred steps, order.

The far side is one host with named things, where a thing may stand on another, and taking the lower one away first
is an error that the host remembers. The user's row is a row of a table of its own.
"""

from typing import Any

import msgspec
import sqlalchemy as sa

from agent.wire.world import World
from controller.db.tx import Tx
from controller.errors import Conflict, Unavailable
from controller.saga.model import Cause, Commit, Run, Saga, State, Step, Transient
from tests.sagas.harness import Case, Effects

house = sa.Table(
    "house",
    sa.MetaData(),
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("site", sa.String(36)),
    sa.Column("fault", sa.Text),
)

HOUSE_ID = "40000000-0000-4000-8000-000000000001"


class Host:
    """The far side: idempotent `ensure` and `absent`, and a memory of broken rules."""

    def __init__(self) -> None:
        self.things: dict[str, tuple[str, ...]] = {}
        self.broken: list[str] = []
        self.is_silent = False

    async def ensure(self, name: str, on: tuple[str, ...] = ()) -> None:
        if self.is_silent:
            raise Transient("the host is silent")
        missing = [thing for thing in on if thing not in self.things]
        if missing:
            self.broken.append(f"{name} built before {missing}")
        self.things[name] = on

    async def absent(self, name: str) -> None:
        if self.is_silent:
            raise Transient("the host is silent")
        standing = [thing for thing, on in self.things.items() if name in on]
        if standing:
            self.broken.append(f"{name} taken away below {standing}")
        self.things.pop(name, None)


class Deps:
    """What steps get."""

    def __init__(self, host: Any, db: Any) -> None:
        self.host, self.db = host, db


class Params(msgspec.Struct, frozen=True):
    house_id: str
    doors: tuple[str, ...]


async def claim(run: Run[Params]) -> Commit:
    return Commit(insert_site, (run.params.house_id,))


def insert_site(tx: Tx, house_id: str) -> dict[str, str]:
    free = sa.update(house).where(house.c.id == house_id, house.c.site.is_(None)).values(site="site-1")
    if not tx.execute(free).rowcount:
        raise Conflict("There is a site already.")
    return {"site": "site-1"}


async def unclaim(run: Run[Params]) -> Commit:
    return Commit(clear_site, (run.params.house_id,))


def clear_site(tx: Tx, house_id: str) -> None:
    tx.execute(sa.update(house).where(house.c.id == house_id).values(site=None))


async def pour_floor(run: Run[Params]) -> None:
    assert run.outputs["claim"] == {"site": "site-1"}
    run.notes["host"] = "host-1"
    await run.deps.host.ensure("floor")


async def remove_floor(run: Run[Params]) -> None:
    await run.deps.host.absent("floor")


async def hang_door(run: Run[Params]) -> str:
    name = run.params.doors[run.index]
    await run.deps.host.ensure(name, ("floor",))
    return name


async def remove_door(run: Run[Params]) -> None:
    await run.deps.host.absent(run.params.doors[run.index])


async def paint(run: Run[Params]) -> None:
    await run.deps.host.ensure("paint", ("floor",))


async def scrape(run: Run[Params]) -> None:
    await run.deps.host.absent("paint")


async def roof(run: Run[Params]) -> None:
    await run.deps.host.ensure("roof", (*run.params.doors, "paint"))


async def unroof(run: Run[Params]) -> None:
    await run.deps.host.absent("roof")


async def finish(run: Run[Params]) -> Commit:
    return Commit(set_state, (run.params.house_id, "ACTIVE"))


def set_state(tx: Tx, house_id: str, state: str) -> None:
    tx.execute(sa.update(house).where(house.c.id == house_id).values(state=state))


def mark_error(tx: Tx, params: Params, cause: Cause, now: float) -> None:
    tx.execute(sa.update(house).where(house.c.id == params.house_id).values(state="ERROR", fault=cause.message))


BUILD = Saga(
    "toy-build",
    1,
    Params,
    steps=(
        Step("claim", claim, unclaim),
        Step("floor", pour_floor, remove_floor, deferred=True),
        Step("door", hang_door, remove_door, each=lambda params: len(params.doors)),
        Step("paint", paint, scrape, deferred=True),
        Step("roof", roof, unroof),
        Step("finish", finish),
    ),
    undone=mark_error,
    overdue=mark_error,
    deadline_s=100.0,
)


async def delete_row(run: Run[Params]) -> Commit:
    return Commit(remove_row, (run.params.house_id,))


def remove_row(tx: Tx, house_id: str) -> None:
    tx.execute(sa.delete(house).where(house.c.id == house_id))


RAZE = Saga(
    "toy-raze",
    1,
    Params,
    steps=(
        Step("roof", unroof),
        Step("paint", scrape, deferred=True),
        Step("door", remove_door, each=lambda params: len(params.doors)),
        Step("floor", remove_floor),
        Step("row", delete_row),
    ),
    forward_only=True,
    overdue=mark_error,
    deadline_s=100.0,
)

PARAMS = Params(HOUSE_ID, ("front", "back"))


def furnish(tx: Tx) -> None:
    """A house that is being built."""
    house.create(tx)
    tx.execute(sa.insert(house).values(id=HOUSE_ID, state="BUILD"))


def built_host(world: World) -> Host:
    """Everything is there."""
    host = Host()
    host.things = {"floor": (), "front": ("floor",), "back": ("floor",), "paint": ("floor",)}
    host.things["roof"] = ("front", "back", "paint")
    return host


def deps(far: Host, db: Any, world: World, effects: Effects) -> Deps:
    return Deps(effects.through(far), db)


def check_built(far: Host, tx: Tx, state: State) -> None:
    """Whole and ACTIVE, or nothing left and ERROR with a cause."""
    row = tx.execute(sa.select(house)).one()
    assert far.broken == []
    if state == State.DONE:
        assert set(far.things) == {"floor", "front", "back", "paint", "roof"}
        assert (row.state, row.site) == ("ACTIVE", "site-1")
    else:
        assert state == State.UNDONE
        assert far.things == {}, "left on the host"
        assert (row.state, row.site) == ("ERROR", None)
        assert row.fault in {"It failed on purpose.", "It was cancelled on request."}


def check_razed(far: Host, tx: Tx, state: State) -> None:
    """Gone."""
    assert far.broken == []
    assert state == State.DONE
    assert far.things == {}
    assert tx.execute(sa.select(house)).first() is None


BUILD_CASE = Case(BUILD, PARAMS, HOUSE_ID, furnish, lambda world: Host(), deps, check_built)
RAZE_CASE = Case(RAZE, PARAMS, HOUSE_ID, furnish, built_host, deps, check_razed)

__all__ = ["BUILD", "BUILD_CASE", "HOUSE_ID", "PARAMS", "RAZE", "RAZE_CASE", "Deps", "Host", "Unavailable"]
