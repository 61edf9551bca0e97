"""Keeps rows true to what guests do by themselves: one that powers itself off is SHUTOFF, not ACTIVE.

Hosts tell of a change of power by an event, which is only a hint here: what is written is what the host answers
when it is asked again, and only where the row says something else and nobody works on the server. Every now and then
all hosts are asked for all their domains, so a lost event costs minutes. What a guest did becomes the intent, at a new
generation that `server_push` carries to the host: otherwise an agent that restarts would start again what was shut
down inside.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import structlog

from agent.wire import domain as domain_calls
from agent.wire.domain import Desired, DomainStatus
from agent.wire.lifecycle import Generation, Power, Progress
from agent.wire.specs import Empty, Ref
from controller.compute import store
from controller.compute.model import SETTLED, Event
from controller.compute.sagas.power import POWER_STATES
from controller.db.tx import Tx
from controller.errors import CloudError
from controller.saga.model import Transient
from controller.tasks.driver import Task

if TYPE_CHECKING:
    from controller.cloud import Cloud

log = structlog.get_logger()

NAME: Final = "power_sync"

PERIOD_S: Final = 60.0
"""Between two looks at all hosts: what a lost event costs. Shorter: more questions that change nothing."""

HEARD_MAX: Final = 10_000
"""Hints kept in memory; more are dropped, and the next look at all hosts finds them."""

_EVENTS: Final[Mapping[Power, tuple[Event, Desired]]] = {
    Power.RUNNING: (Event.CAME_UP, Desired.RUNNING),
    Power.SHUTOFF: (Event.WENT_DOWN, Desired.SHUTOFF),
    Power.CRASHED: (Event.WENT_DOWN, Desired.SHUTOFF),
}


class PowerSync:
    """The reconciler's state: which domains were heard of since the last run, and on which host."""

    def __init__(self, cloud: "Cloud") -> None:
        self._cloud = cloud
        self._heard: dict[str, tuple[str, int]] = {}  # Server → (host, its power state as rows have it).
        self._looked_at = float("-inf")

    def hear(self, host_id: str, status: Any) -> None:
        """A host tells of a domain."""
        assert isinstance(status, DomainStatus), "events about domains carry their status"
        if status.progress is Progress.READY and len(self._heard) < HEARD_MAX:
            self._heard[status.id] = (host_id, POWER_STATES[status.power].value)
            self._cloud.tasks.kick(NAME)

    async def run(self) -> Mapping[str, Any]:
        """Look at what was heard of; at everything when it is time."""
        heard, self._heard = self._heard, {}
        changed = 0
        told = {server_id: power_state for server_id, (_, power_state) in heard.items()}
        for server_id in await self._cloud.db.read(store.differing, told):
            changed += await self._look_at_one(server_id, heard[server_id][0])
        now = self._cloud.world.clock.boottime()
        if now - self._looked_at >= PERIOD_S / 2:
            self._looked_at = now
            for host_id in sorted(self._cloud.hosts.up()):
                changed += await self._look_at_host(host_id)
        if changed:
            self._cloud.tasks.kick("server_push")
        return {"heard": len(heard), "changed": changed}

    async def _look_at_one(self, server_id: str, host_id: str) -> int:
        try:
            status = await self._cloud.hosts.call(host_id, domain_calls.GET, Ref(id=server_id))
        except (Transient, CloudError):
            return 0
        return await self._note(host_id, status)

    async def _look_at_host(self, host_id: str) -> int:
        try:
            listed = await self._cloud.hosts.call(host_id, domain_calls.LIST, Empty())
        except (Transient, CloudError) as error:
            log.info("a host's domains could not be listed", host=host_id, why=str(error))
            return 0
        known = set(await self._cloud.db.read(store.differing, _states(listed.domains), host_id))
        return sum([await self._note(host_id, status) for status in listed.domains if status.id in known])

    async def _note(self, host_id: str, status: DomainStatus) -> int:
        if status.progress is not Progress.READY:
            return 0
        now = self._cloud.world.clock.now()
        changed = await self._cloud.db.write(_note, host_id, status, self._cloud.epoch, now)
        if changed:
            log.info("a guest changed its power by itself", server_id=status.id, power=status.power.value)
        return int(changed)


def _states(domains: tuple[DomainStatus, ...]) -> dict[str, int]:
    return {one.id: POWER_STATES[one.power].value for one in domains if one.progress is Progress.READY}


def _note(tx: Tx, host_id: str, status: DomainStatus, epoch: int, now: float) -> bool:
    """Write what a host says of a server that is its own, idle, and of this very generation."""
    server = store.find(tx, status.id)
    if server is None or server.host_id != host_id or status.generation != Generation(epoch, server.generation):
        return False
    if server.vm_state not in SETTLED or server.task_state is not None or server.is_deleting:
        return False
    event, desired = _EVENTS.get(status.power, (None, None))
    if event is not None and desired is not None:
        came = store.report(tx, server.id, event, now, desired=desired.value, generation=store.NEXT_GENERATION)
        if came:
            return True
    power_state = POWER_STATES[status.power].value
    if server.power_state != power_state:
        store.change(tx, server.id, {"power_state": power_state})
    return False


def power_sync(cloud: "Cloud") -> Task:
    """The task; hears events from now on."""
    sync = PowerSync(cloud)
    cloud.hosts.on_event("domain", sync.hear)
    return Task(NAME, PERIOD_S, sync.run)
