"""Finds domains that hosts hold and no row knows, and reports them. It removes nothing.

An orphan is what a lost delete, a restored database or a bug leaves behind. It costs memory, and may be the only
copy of somebody's work; so an operator hears of it (this task's status, the log), and decides.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import structlog

from agent.wire import domain as domain_calls
from agent.wire.lifecycle import Progress
from agent.wire.specs import Empty
from controller.compute import store
from controller.errors import CloudError
from controller.saga.model import Transient
from controller.tasks.driver import Task

if TYPE_CHECKING:
    from controller.cloud import Cloud

log = structlog.get_logger()

PERIOD_S: Final = 600.0
SEEN_TWICE: Final = 2
"""A server whose row is written a moment later, or whose removal is under way, is no orphan: look again first."""

REPORTED_MAX: Final = 100


class Orphans:
    """What was seen without a row, how often in a row."""

    def __init__(self, cloud: "Cloud") -> None:
        self._cloud = cloud
        self._seen: dict[tuple[str, str], int] = {}

    async def run(self) -> Mapping[str, Any]:
        """Look at every host that is up."""
        seen: dict[tuple[str, str], int] = {}
        for host_id in sorted(self._cloud.hosts.up()):
            for server_id in await self._without_row(host_id):
                key = (host_id, server_id)
                seen[key] = self._seen.get(key, 0) + 1
                if seen[key] == SEEN_TWICE:
                    log.warning("a domain belongs to no server", host=host_id, server_id=server_id)
        self._seen = seen
        orphans = [f"{host_id}/{server_id}" for (host_id, server_id), times in seen.items() if times >= SEEN_TWICE]
        return {"orphans": len(orphans), "domains": orphans[:REPORTED_MAX]}

    async def _without_row(self, host_id: str) -> list[str]:
        try:
            listed = await self._cloud.hosts.call(host_id, domain_calls.LIST, Empty())
        except (Transient, CloudError) as error:
            log.info("a host's domains could not be listed", host=host_id, why=str(error))
            return []
        present = [one.id for one in listed.domains if one.progress is not Progress.ABSENT]
        return await self._cloud.db.read(store.unknown_on, host_id, present)


def orphans(cloud: "Cloud") -> Task:
    """The task."""
    return Task("orphans", PERIOD_S, Orphans(cloud).run)
