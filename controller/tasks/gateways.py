"""Reconciler: every router's gateway is on a host that lives and has the external network.

Kicked when a host turns up or down. A host that is down has dropped its gateways before (see agent.lease).
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from controller.cloud import Cloud
from controller.network import gateways
from controller.tasks import network_sync
from controller.tasks.driver import Task

NAME: Final = "gateways"

PERIOD_S: Final = 15.0
"""Between two looks when nothing kicks. Longer: a router made while no host was up waits longer for its way out."""


def task(cloud: Cloud) -> Task:
    """The reconciler, for the driver."""
    return Task(NAME, PERIOD_S, partial(elect, cloud))


async def elect(cloud: Cloud) -> Mapping[str, Any]:
    """One look at all of them."""
    up = frozenset(cloud.hosts.up())
    if not await cloud.db.read(gateways.is_any_misplaced, up):
        return {"moved": 0}
    moved = await cloud.db.write(gateways.elect, up, cloud.world.clock.now())
    if moved:
        cloud.tasks.kick(network_sync.NAME)
    return {"moved": moved}
