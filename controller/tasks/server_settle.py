"""Brings one host to the servers that rows say it has: part of what happens when a host may have forgotten.

A host whose ledger is gone, or that missed something, is synced; here its idle servers are told again, each at the
generation that it has. What a host is known to hold is not said again, so a host that forgot nothing hears
nothing. Servers that a saga works on are that saga's business, and nothing is ever removed here.
"""

from typing import TYPE_CHECKING, Final

import structlog

from agent.wire.domain import ENSURE as DOMAIN_ENSURE
from agent.wire.lifecycle import Generation
from controller.compute import domains, store
from controller.compute.model import Server
from controller.errors import CloudError
from controller.image import distribution
from controller.saga.model import Transient

if TYPE_CHECKING:
    from controller.cloud import Cloud

log = structlog.get_logger()

SERVER_S: Final = 120.0
"""How long one server may take: its image may have to be fetched anew."""


async def settle(cloud: "Cloud", host_id: str) -> None:
    """Tell the host about its servers. Raises Transient when it is silent; the sync is tried again then."""
    for server in await cloud.db.read(store.settled_on, host_id):
        generation = Generation(cloud.epoch, server.generation)
        if cloud.hosts.holds(host_id, DOMAIN_ENSURE.noun, server.id, generation, absent=False):
            continue
        try:
            await _tell(cloud, host_id, server)
        except CloudError as error:
            log.warning("a server could not be restored on its host", server_id=server.id, why=error.message)


async def _tell(cloud: "Cloud", host_id: str, server: Server) -> None:
    deadline = cloud.world.clock.now() + SERVER_S
    try:
        status = await domains.push(cloud, server.id, host_id, deadline)
    except Transient:
        if server.image_id is None or not cloud.hosts.is_up(host_id):
            raise
        # It answers, but cannot: its disk may be gone from the ledger. What exists is kept, whatever is sent.
        await distribution.ensure_on_host(cloud, host_id, server.image_id, deadline)
        await domains.push_disk(cloud, server.id, host_id, deadline)
        status = await domains.push(cloud, server.id, host_id, deadline)
    await cloud.db.write(store.pushed, server.id, status.generation.n)
