"""How one controller is put together, from parts that its surroundings give: world, database, bus, image store.

The process (`__main__`) gives real ones, the simulation others; everything between is the same code. `assemble` only
builds; `running` brings it to life and lets it go again, in the order that each part needs the others.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from agent.wire import subjects
from agent.wire.bus import Bus, Message
from agent.wire.world import World
from controller.cloud import Cloud
from controller.config import Settings
from controller.db.tx import Database
from controller.hosts import Hosts
from controller.identity.keys import Keyring
from controller.identity.passwords import Passwords
from controller.identity.tokens import Tokens
from controller.image.stores import Store
from controller.saga.engine import Engine
from controller.saga.registry import REGISTRY
from controller.tasks.driver import Driver, Task

_IDENTITY_CHANGED: Final = subjects.service_event("identity", "tokens.changed")

_log: Final = structlog.get_logger()


def assemble(
    settings: Settings,
    world: World,
    db: Database,
    bus: Bus,
    images: Store,
    *,
    epoch: int,
    keys: Path,
    owner_id: str,
) -> Cloud:
    """Everything that use-cases are given. Nothing runs yet."""
    import controller.compute.sagas  # noqa: F401 - importing registers its kinds

    slow = settings.controller.slow
    cloud = Cloud(
        world=world,
        db=db,
        settings=settings,
        epoch=epoch,
        tokens=Tokens(db, world, Keyring(keys), settings.identity.token_s),
        sagas=Engine(db, world, REGISTRY, None, owner_id=owner_id),
        hosts=Hosts(bus, world, slow=slow),
        images=images,
        passwords=Passwords(world),
        tasks=Driver(world),
    )
    cloud.sagas.deps = cloud
    for task in reconcilers(cloud):
        cloud.tasks.add(task)
    return cloud


def reconcilers(cloud: Cloud) -> tuple[Task, ...]:
    """What must stay true, and how often that is looked at when nobody kicks."""
    from controller.network import wiring
    from controller.tasks import image_gc

    return (
        Task("network_sync", 30.0, partial(wiring.settle_all, cloud)),
        Task("image_gc", 300.0, partial(image_gc.run, cloud)),
    )


@contextlib.asynccontextmanager
async def running(cloud: Cloud, bus: Bus) -> AsyncIterator[None]:
    """The cloud at work; on leaving, sagas rest where their rows say and go on with the next start."""
    publishing: set[asyncio.Task[None]] = set()

    def tell() -> None:
        task = asyncio.ensure_future(bus.publish(_IDENTITY_CHANGED, b""))
        publishing.add(task)
        task.add_done_callback(publishing.discard)

    async def heard(_: Message) -> None:
        cloud.tokens.doubt()

    subscription = await bus.subscribe(_IDENTITY_CHANGED, heard)
    cloud.tokens.on_change(tell)
    await cloud.hosts.start()
    try:
        async with cloud.sagas, cloud.tasks:
            yield
    finally:
        await cloud.hosts.close()
        await subscription.close()
        await asyncio.gather(*publishing, return_exceptions=True)
