"""Reconciler: every host has the networks, groups, routers and port rules that the rows ask for.

Kicked after every change of the network API; for one host the same is done whenever that host may differ from the
intent.
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
    """The reconciler, for the driver."""
    return Task(NAME, PERIOD_S, partial(wiring.settle_all, cloud))
