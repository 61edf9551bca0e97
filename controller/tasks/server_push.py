"""Carries to hosts what changed of idle servers without a saga: metadata, names, a power state that guests chose.

A server's row has the generation of its intent and the one that its host has confirmed; where they differ and
nobody works on the server, the host is told. Sagas confirm what they send by themselves.
"""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import structlog

from controller.compute import domains, store
from controller.errors import CloudError
from controller.saga.model import Transient
from controller.tasks.driver import Task

if TYPE_CHECKING:
    from controller.cloud import Cloud

log = structlog.get_logger()

NAME: Final = "server_push"

PERIOD_S: Final = 60.0
"""Between two looks for rows whose kick was lost."""

SERVERS_MAX: Final = 256
"""Servers of one run; the others come with the next."""

AT_ONCE: Final = 16

PUSH_S: Final = 30.0
"""How long one host may take for one server."""


async def push_all(cloud: "Cloud") -> Mapping[str, Any]:
    """Tell every host that is up what it has not confirmed."""
    up = sorted(cloud.hosts.up())
    waiting = await cloud.db.read(store.unpushed, up, SERVERS_MAX) if up else []
    places = asyncio.Semaphore(AT_ONCE)

    async def one(server_id: str) -> bool:
        async with places:
            return await _push(cloud, server_id)

    pushed = await asyncio.gather(*(one(server_id) for server_id in waiting))
    if len(waiting) == SERVERS_MAX and any(pushed):
        cloud.tasks.kick(NAME)
    return {"waiting": len(waiting), "pushed": sum(pushed)}


async def _push(cloud: "Cloud", server_id: str) -> bool:
    server = await cloud.db.read(store.find, server_id)
    if server is None or server.host_id is None or server.task_state is not None:
        return False
    try:
        status = await domains.push(cloud, server_id, server.host_id, cloud.world.clock.now() + PUSH_S)
    except (Transient, CloudError) as error:
        log.info("a server's host could not be told of a change", server_id=server_id, why=str(error))
        return False
    await cloud.db.write(store.pushed, server_id, status.generation.n)
    return True


def server_push(cloud: "Cloud") -> Task:
    """The task."""

    async def run() -> Mapping[str, Any]:
        return await push_all(cloud)

    return Task(NAME, PERIOD_S, run)
