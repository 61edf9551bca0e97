"""Hosts ask which gateways are theirs, every few seconds; without an answer they let go of them (see agent.lease)."""

from typing import TYPE_CHECKING, Final

from agent.wire import subjects
from agent.wire.bus import Bus, Message, Subscription, answering
from agent.wire.host import LEASE, Granted
from agent.wire.specs import Empty
from controller.network import gateways

if TYPE_CHECKING:
    from controller.cloud import Cloud

QUEUE: Final = "controllers"
"""One of them answers."""


async def serve(cloud: "Cloud", bus: Bus) -> Subscription:
    """Answer from now on."""

    async def on_renew(_: Empty, message: Message) -> Granted:
        host_id = subjects.host_of(message.subject)
        cloud.hosts.hear(host_id)
        if not cloud.hosts.is_up(host_id):
            return Granted(gateways=())
        return Granted(gateways=await cloud.db.read(gateways.of_host, host_id))

    return await bus.subscribe(subjects.controller("*", LEASE.name), answering(LEASE, on_renew), queue=QUEUE)
