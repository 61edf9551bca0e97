"""Reconciler: every host has the networks, groups, routers and port rules that the rows ask for.

Kicked after every change of the network API; also run for one host whenever that host may differ from the intent.
"""

from functools import partial
from typing import Final

from controller.cloud import Cloud
from controller.network import wiring
from controller.tasks.driver import Task

NAME: Final = "network_sync"

PERIOD_S: Final = 30.0
"""Kicks do the work; the timer only heals what a kick met while a host was away. Longer: it heals later."""


def task(cloud: Cloud) -> Task:
    """The reconciler, for the driver. Hosts that may differ are settled from here on, too."""
    cloud.hosts.on_sync_needed(partial(wiring.settle, cloud))
    return Task(NAME, PERIOD_S, partial(wiring.settle_all, cloud))
