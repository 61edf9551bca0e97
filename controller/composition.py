"""How one controller is put together, from parts that its surroundings give: world, database, bus, image store, keys.

The process (`__main__`) gives real ones, the simulation others; everything between is the same code. `assemble` only
builds; `running` brings it to life and lets it go again, in the order in which the parts need each other.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from agent.wire import subjects
from agent.wire.bus import Bus, Message
from agent.wire.world import World
from controller.authority import Authority
from controller.bus_identity import BusIdentity, Listen
from controller.channel import Channel
from controller.cloud import Cloud
from controller.config import Settings
from controller.db.tx import Database
from controller.fleet.enrollment import Enrollment
from controller.fleet.watch import Watch
from controller.founding import Founded
from controller.hosts import Hosts
from controller.identity.keys import Keyring
from controller.identity.passwords import Passwords
from controller.identity.tokens import Tokens
from controller.image.inspectors import Inspectors
from controller.image.stores import Store
from controller.network.leases import serve as serve_leases
from controller.saga.engine import Engine
from controller.saga.registry import REGISTRY
from controller.tasks.driver import Driver, Task
from controller.volume.fencing import Fence

CHANNEL_LISTEN: Final = "127.0.0.1:5443"

HOST_WATCH: Final = "host_watch"
HOST_WATCH_S: Final = 5.0
"""Between two looks at all hosts; transitions kick it."""

_IDENTITY_CHANGED: Final = subjects.service_event("identity", "tokens.changed")

DAY_S: Final = 86400.0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a controller is given."""

    settings: Settings
    world: World
    db: Database
    bus: Bus
    images: Store
    inspectors: Inspectors
    founded: Founded
    authority: Authority
    identity: BusIdentity  # Of the bus's users.
    listen: Listen  # The bus's server.
    fernet: Path  # Keys of tokens.
    owner_id: str  # Who drives sagas: stable over restarts, never another controller's.
    volume_key: bytes  # What secrets of exports are made of: the same for every controller of the cloud.


def assemble(given: Surroundings) -> Cloud:
    """Everything that use-cases are given. Nothing runs yet."""
    import controller.compute.sagas
    import controller.volume.sagas  # noqa: F401 - importing registers their kinds

    settings, world, db = given.settings, given.world, given.db
    hosts = Hosts(given.bus, world, slow=settings.controller.slow)
    tasks = Driver(world)
    cloud = Cloud(
        world=world,
        db=db,
        settings=settings,
        epoch=given.founded.epoch,
        tokens=Tokens(db, world, Keyring(given.fernet), settings.identity.token_s),
        sagas=Engine(db, world, REGISTRY, None, owner_id=given.owner_id),
        hosts=hosts,
        watch=Watch(db, hosts, world, partial(tasks.kick, HOST_WATCH)),
        channel=Channel(settings.controller.channel_listen or CHANNEL_LISTEN, world, given.authority),
        enrollment=Enrollment(
            db,
            world,
            hosts,
            founded=given.founded,
            authority=given.authority,
            identity=given.identity,
            listen=given.listen,
        ),
        images=given.images,
        inspectors=given.inspectors,
        passwords=Passwords(world),
        tasks=tasks,
        fence=Fence(given.volume_key, given.founded.tag),
    )
    cloud.sagas.deps = cloud
    for task in reconcilers(cloud):
        cloud.tasks.add(task)
    return cloud


def reconcilers(cloud: Cloud) -> tuple[Task, ...]:
    """What must stay true, and how often that is looked at when nobody kicks."""
    from controller.network import wiring
    from controller.tasks import (
        gateways,
        image_cache,
        image_gc,
        message_purge,
        network_spread,
        network_sync,
        saga_purge,
        server_purge,
        server_settle,
        volume_settle,
    )
    from controller.tasks.lost_ports import lost_ports
    from controller.tasks.orphans import orphans
    from controller.tasks.power_sync import power_sync
    from controller.tasks.server_push import server_push
    from controller.volume import pools

    cloud.hosts.on_sync_needed(partial(wiring.settle, cloud))
    cloud.hosts.on_transition(lambda _id, _up: cloud.tasks.kick(gateways.NAME))
    cloud.hosts.on_sync_needed(partial(volume_settle.settle, cloud))
    cloud.hosts.on_sync_needed(partial(server_settle.settle, cloud))
    pools.listen(cloud)
    return (
        Task(HOST_WATCH, HOST_WATCH_S, cloud.watch.run),
        network_sync.task(cloud),
        network_spread.task(cloud),
        gateways.task(cloud),
        power_sync(cloud),
        server_push(cloud),
        lost_ports(cloud),
        orphans(cloud),
        server_purge.task(cloud.db, cloud.world),
        Task("image_gc", 300.0, partial(image_gc.run, cloud)),
        image_cache.task(cloud),
        Task("enrollment", DAY_S, cloud.enrollment.run),
        saga_purge.task(cloud.db, cloud.world),
        message_purge.task(cloud.db, cloud.world),
    )


@contextlib.asynccontextmanager
async def running(cloud: Cloud, bus: Bus) -> AsyncIterator[None]:
    """The cloud at work; on leaving, sagas stay where their rows say and go on with the next start."""
    publishing: set[asyncio.Task[None]] = set()

    def tell() -> None:
        task = asyncio.ensure_future(bus.publish(_IDENTITY_CHANGED, b""))
        publishing.add(task)
        task.add_done_callback(publishing.discard)

    async def heard(_: Message) -> None:
        cloud.tokens.doubt()

    subscription = await bus.subscribe(_IDENTITY_CHANGED, heard)
    cloud.tokens.on_change(tell)
    await cloud.watch.load()
    await cloud.hosts.start()
    leases = await serve_leases(cloud, bus)
    try:
        async with cloud.sagas, cloud.tasks:
            yield
    finally:
        await leases.close()
        await cloud.hosts.close()
        await subscription.close()
        await asyncio.gather(*publishing, return_exceptions=True)
