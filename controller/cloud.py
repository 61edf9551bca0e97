"""The composition of one controller: what use-cases are given. Built by `__main__`, by tests and the simulation."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.wire.world import World
from controller.config import Settings
from controller.db.tx import Database

if TYPE_CHECKING:
    from controller.channel import Channel
    from controller.fleet.enrollment import Enrollment
    from controller.fleet.watch import Watch
    from controller.hosts import Hosts
    from controller.identity.passwords import Passwords
    from controller.identity.tokens import Tokens
    from controller.image.inspectors import Inspectors
    from controller.image.stores import Store
    from controller.saga.engine import Engine
    from controller.tasks.driver import Driver
    from controller.volume.fencing import Fence


@dataclass(slots=True)
class Cloud:
    """Handed to handlers (`call.cloud`), steps (`run.deps`) and reconcilers. No state of its own.

    `epoch` is the generation epoch of this database (rises on restore). `hosts` is the typed client of the
    fleet, `enrollment` who belongs to it, `channel` where hosts fetch what is too large for the bus; `sagas` the
    engine (`start` inside a transaction, then `cloud.sagas.kick(saga_id)`); `tasks` the reconcilers. `fence` opens
    exports of volumes.
    """

    world: World
    db: Database
    settings: Settings
    epoch: int
    tokens: "Tokens"
    sagas: "Engine"
    hosts: "Hosts"
    watch: "Watch"
    channel: "Channel"
    enrollment: "Enrollment"
    images: "Store"
    inspectors: "Inspectors"
    passwords: "Passwords"
    tasks: "Driver"
    fence: "Fence"
