"""The calls that a host answers, by name. One file a noun; each says in ten lines what a call does."""

from agent.doctor import Doctor
from agent.handlers import (
    capture,
    disk,
    domain,
    export,
    forwarding,
    group,
    host,
    image,
    network,
    port,
    router,
    samples,
    volume,
)
from agent.handlers.objects import Desk
from agent.inventory import Inventories
from agent.sampler import Sampler
from agent.wire.bus import Handler


def table(desk: Desk, inventories: Inventories, doctor: Doctor, sampler: Sampler) -> dict[str, Handler]:
    """Every call's name and handler."""
    nouns = (capture, disk, domain, export, forwarding, group, image, network, port, router, volume)
    routes: dict[str, Handler] = {}
    for noun in nouns:
        routes.update(noun.routes(desk))
    routes.update(host.routes(desk, inventories, doctor))
    routes.update(samples.routes(sampler))
    return routes
