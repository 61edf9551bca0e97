"""Old sagas go, young and unfinished ones stay."""

from agent.wire.world import World
from controller.db.tables.saga import saga as saga_table
from controller.saga.engine import Engine
from controller.saga.log import start
from controller.saga.registry import Registry
from controller.tasks import saga_purge
from tests.databases import memory_database, rows
from tests.sagas import toys
from tests.virtual import run_virtual


def test_sagas_are_kept_a_month_after_they_rest() -> None:
    async def scenario(world: World) -> None:
        db = memory_database(world.clock.now)
        db.build(toys.furnish)
        now = world.clock.now()
        old = now - 31 * 86400
        for saga_id in ("rests", "waits"):
            await db.write(
                start, toys.BUILD, saga_id=saga_id, params=toys.PARAMS, target=saga_id, request_id="r", now=old
            )
        task = saga_purge.task(db, world)
        assert await task.run() == {"purged": 0}
        deps = toys.Deps(toys.Host(), db)
        async with Engine(db, world, Registry(toys.BUILD), deps, owner_id="c") as engine:
            assert await engine.rest("rests")
        assert await task.run() == {"purged": 0}
        await db.write(lambda tx: tx.execute(saga_table.update().values(ended_at=old)).rowcount)
        assert await task.run() == {"purged": 2}
        assert await db.read(rows, saga_table) == 0

    run_virtual(scenario)
