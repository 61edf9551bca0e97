"""Reconciler: a host that shares a network or a group with others knows of their ports.

Kicked when a port comes or goes: a server's neighbours must reach it at once, and its own saga waits for none of them.
"""

from functools import partial
from typing import Final

from controller.cloud import Cloud
from controller.network import wiring
from controller.tasks.driver import Task

PERIOD_S: Final = 10.0
"""Kicks do the work; this heals what a kick met while a host was silent. Shorter: queries for nothing."""


def task(cloud: Cloud) -> Task:
    """The reconciler, for the driver."""
    return Task(wiring.SPREAD, PERIOD_S, partial(wiring.spread, cloud))
