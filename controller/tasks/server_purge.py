"""Forgets servers that were deleted long ago. Until then they are listed by `changes-since` and to admins."""

from collections.abc import Mapping
from typing import Any, Final

from agent.wire.world import World
from controller.compute.store import purge
from controller.db.tx import Database
from controller.tasks.driver import Task

KEPT_S: Final = 30 * 86400.0
BATCH: Final = 500
"""Servers of one transaction. Higher: everybody else's write waits for this one's commit."""

BATCHES_MAX: Final = 40


def task(db: Database, world: World) -> Task:
    """The reconciler."""

    async def run() -> Mapping[str, Any]:
        purged = 0
        for _ in range(BATCHES_MAX):
            found = await db.write(purge, world.clock.now() - KEPT_S, BATCH)
            purged += found
            if found < BATCH:
                break
        return {"purged": purged}

    return Task("server_purge", 3600.0, run)
