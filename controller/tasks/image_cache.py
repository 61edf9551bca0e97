"""Reconciler: hosts' image caches hold no more than they may, and nothing that nobody uses any more."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog

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


async def run(cloud: "Cloud") -> Mapping[str, Any]:
    """See Task."""
    evicted = 0
    for host_id in cloud.hosts.up():
        try:
            evicted += await _tidy(cloud, host_id)
        except (Transient, CloudError) as error:
            log.info("a host's image cache could not be looked at", host=host_id, why=str(error))
    now = cloud.world.clock.now()
    hosts = await cloud.db.read(_known_hosts)
    return {"evicted": evicted, "forgotten": await cloud.db.write(cached.forget, hosts, now - KEPT_S)}


async def _tidy(cloud: "Cloud", host_id: str) -> int:
    seen = await caching.look(cloud, host_id)
    heartbeat, limits = cloud.hosts.heartbeat(host_id), cloud.settings.image_cache
    free_gib = limits.free_gib if heartbeat is None else float(heartbeat.disk_free_gib)
    now = cloud.world.clock.now()
    evicted = 0
    for one in caching.plan(seen, now, limits, free_gib):
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


def _known_hosts(tx: Any) -> list[str]:
    from controller.fleet import store as fleet

    return [host.id for host in fleet.list_hosts(tx)]


def task(cloud: "Cloud") -> Task:
    """The task."""
    return Task("image_cache", PERIOD_S, partial(run, cloud))
