"""Forgets sagas that came to rest long ago, with their events: instance actions and `explain` reach back so far."""

from collections.abc import Mapping
from typing import Any, Final

from agent.wire.world import World
from controller.db.tx import Database
from controller.saga.log import purge
from controller.tasks.driver import Task

KEPT_S: Final = 30 * 86400.0
"""As long as deleted servers stay listed."""

BATCH: Final = 500
"""Sagas of one transaction. Higher: everybody else's write waits for this one's commit."""

BATCHES_MAX: Final = 40


def task(db: Database, world: World) -> Task:
    """The reconciler; once an hour is often enough for rows that are a month old."""

    async def run() -> Mapping[str, Any]:
        purged = 0
        for _ in range(BATCHES_MAX):
            found = await db.write(purge, world.clock.now() - KEPT_S, BATCH)
            purged += found
            if found < BATCH:
                break
        return {"purged": purged}

    return Task("saga_purge", 3600.0, run)
