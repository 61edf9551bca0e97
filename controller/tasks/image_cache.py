"""Reconciler: hosts' image caches hold no more than they may, and nothing that nobody uses any more."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import structlog

from agent.wire.lifecycle import Generation
from controller.errors import CloudError
from controller.image import cached, caching, distribution
from controller.image.caching import Seen
from controller.saga.model import Transient
from controller.tasks.driver import Task

if TYPE_CHECKING:
    from controller.cloud import Cloud

PERIOD_S: Final = 600.0

KEPT_S: Final = 30 * 86400.0
"""How long it is known what was evicted: longer than hosts keep tombstones, else an old generation would be stale."""

EVICT_S: Final = 30.0
"""For one removal."""

log = structlog.get_logger()


class ImageCaches:
    """Remembers which hosts it has looked at: what lies there is known from then on, and none is asked for nothing."""

    def __init__(self, cloud: "Cloud") -> None:
        self._cloud = cloud
        self._looked: set[str] = set()

    async def run(self) -> Mapping[str, Any]:
        """See Task."""
        cloud, evicted = self._cloud, 0
        for host_id in cloud.hosts.up():
            try:
                if not await self._is_tidy(host_id):
                    evicted += await _tidy(cloud, host_id)
                    self._looked.add(host_id)
            except (Transient, CloudError) as error:
                log.info("a host's image cache could not be looked at", host=host_id, why=str(error))
        before = cloud.world.clock.now() - KEPT_S
        forgotten = 0
        if await cloud.db.read(cached.forgettable, before):
            forgotten = await cloud.db.write(cached.forget, before)
        return {"evicted": evicted, "forgotten": forgotten}

    async def _is_tidy(self, host_id: str) -> bool:
        """Whether nothing would come of asking the host."""
        cloud = self._cloud
        rows = await cloud.db.read(caching.expected, host_id)
        here = [row for row in rows if not row.is_leaving]
        going = caching.plan(here, cloud.world.clock.now(), cloud.settings.image_cache, _free_gib(cloud, host_id))
        return host_id in self._looked and not going and all(_has_left(cloud, host_id, row) for row in rows)


def _has_left(cloud: "Cloud", host_id: str, row: Seen) -> bool:
    """Whether the host has said that what was given up is gone."""
    generation = Generation(cloud.epoch, row.generation)
    return not row.is_leaving or cloud.hosts.holds(host_id, "image", row.sha256, generation, absent=True)


def _free_gib(cloud: "Cloud", host_id: str) -> float:
    heartbeat = cloud.hosts.heartbeat(host_id)
    return cloud.settings.image_cache.free_gib if heartbeat is None else float(heartbeat.disk_free_gib)


async def _tidy(cloud: "Cloud", host_id: str) -> int:
    seen = await caching.look(cloud, host_id)
    now = cloud.world.clock.now()
    evicted = 0
    for one in caching.plan(seen, now, cloud.settings.image_cache, _free_gib(cloud, host_id)):
        evicted += await _evicted(cloud, host_id, one)
    for one in seen:
        row = await cloud.db.read(cached.find, host_id, one.sha256)
        if one.is_leaving and row is not None and not row.is_wanted:  # It was given up, and the host was not told.
            await distribution.evict(cloud, row, now + EVICT_S)
    return evicted


async def _evicted(cloud: "Cloud", host_id: str, one: Seen) -> int:
    try:
        await caching.give_up(cloud, host_id, one, cloud.world.clock.now() + EVICT_S)
    except (Transient, CloudError) as error:
        log.info("an image stays in a cache", host=host_id, image=one.sha256, why=str(error))
        return 0
    log.info("an image was evicted", host=host_id, image=one.sha256, size=one.size)
    return 1


def task(cloud: "Cloud") -> Task:
    """The task."""
    return Task("image_cache", PERIOD_S, ImageCaches(cloud).run)
