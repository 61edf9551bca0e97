"""A place to run toy sagas on virtual time: a database with a house in it, a host, and engines by name."""

import dataclasses
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from agent.wire.world import World
from controller.db.tables.saga import saga as saga_table
from controller.saga.engine import Engine, start
from controller.saga.model import Saga
from controller.saga.registry import Registry
from tests.databases import memory_database
from tests.sagas import toys
from tests.sagas.harness import Effects
from tests.sagas.toys import HOUSE_ID, PARAMS, Host, house
from tests.virtual import run_virtual


class Site:
    """A database with a house in it, a host, and engines by name."""

    def __init__(self, world: World) -> None:
        self.world, self.host = world, Host()
        self.db = memory_database(world.clock.now)
        self.db.build(toys.furnish)

    def engine(self, *sagas: Saga[Any], owner: str = "c1", effects: Effects | None = None, **options: Any) -> Engine:
        effects = effects or Effects()
        db = effects.through(self.db)
        deps = toys.Deps(effects.through(self.host), db)
        return Engine(db, self.world, Registry(*sagas), deps, owner_id=owner, **options)

    async def start(self, saga: Saga[Any], saga_id: str = "s1", target: str = HOUSE_ID) -> None:
        now = self.world.clock.now()
        await self.db.write(
            start, saga, saga_id=saga_id, params=PARAMS, target=target, request_id=f"req-{saga_id}", now=now
        )

    async def state(self, saga_id: str = "s1") -> str:
        stored = sa.select(saga_table.c.state).where(saga_table.c.id == saga_id)
        return str(await self.db.read(lambda tx: tx.execute(stored).scalar_one()))

    async def row(self) -> Any:
        return await self.db.read(lambda tx: tx.execute(sa.select(house)).one_or_none())


def with_step(saga: Saga[Any], name: str, **changes: Any) -> Saga[Any]:
    """The saga with one step's functions exchanged."""
    steps = [dataclasses.replace(step, **changes) if step.name == name else step for step in saga.steps]
    return dataclasses.replace(saga, steps=tuple(steps))


def scenario(fn: Callable[[Site], Any]) -> Callable[[], None]:
    """A test on virtual time: `async def test(site)`."""

    def test() -> None:
        run_virtual(lambda world: fn(Site(world)))

    test.__name__, test.__doc__ = fn.__name__, fn.__doc__
    return test
