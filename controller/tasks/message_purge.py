"""Forgets messages about failures of volumes whose time is up."""

from collections.abc import Mapping
from typing import Any, Final

from agent.wire.world import World
from controller.db.tx import Database
from controller.tasks.driver import Task
from controller.volume.store.messages import purge

BATCH: Final = 500
"""Messages of one transaction. Higher: everybody else's write waits for this one's commit."""


def task(db: Database, world: World) -> Task:
    """The reconciler."""

    async def run() -> Mapping[str, Any]:
        return {"purged": await db.write(purge, world.clock.now(), BATCH)}

    return Task("message_purge", 3600.0, run)
