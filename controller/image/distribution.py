"""Getting an image to where a server will run, and out of there when nobody needs it any more.

A host fetches an image over host channels: from neighbours that have it, where there are any, else from us. Who may
give it is known from the rows of what hosts should have, and from what each says that it has. We are the last resort
and there twice: once to go on where a neighbour broke off, once from the first byte, should a neighbour have lied.

In a cache an image is known by its content. Its generation rises when it is evicted and when it is wanted again, each
time in the transaction that decides so. Who wants an image has a claim on the host, or has a lease on it by having
wanted it a moment ago (`FRESH_S`): between the end of this and the making of a disk nothing else speaks for it.
"""

from typing import Final

from agent.wire import image as calls
from agent.wire.image import Offer
from agent.wire.lifecycle import Generation
from agent.wire.specs import Absence
from controller.cloud import Cloud
from controller.errors import NotFound
from controller.image import cached, store
from controller.image.cached import CachedImage

FRESH_S: Final = 3600.0
"""An image that somebody wanted so lately is not evicted: a saga may be about to use it, and lives no longer."""

NOTED_S: Final = 600.0
"""How exact `used_at` is. Shorter: every boot writes a row more. Longer: FRESH_S means less."""

NEIGHBOURS_MAX: Final = 2
"""Asked before us. More: a host whose neighbours are all slow waits for each."""


async def ensure_on_host(cloud: Cloud, host_id: str, image_id: str, deadline: float) -> None:
    """The image is in the host's cache, verified there. Raises Transient or CloudError."""
    found = await cloud.db.read(store.find, image_id)
    if found is None or found.sha256 is None or found.size is None or found.disk_format is None:
        raise NotFound(f"Image {image_id} was deleted before the server was made.")
    row = await _wanted(cloud, host_id, found.sha256, found.size)
    generation = Generation(cloud.epoch, row.generation)
    if cloud.hosts.holds(host_id, calls.ENSURE.noun, found.sha256, generation, absent=False):
        return
    spec = calls.ImageSpec(
        id=found.sha256,
        generation=generation,
        sha256=found.sha256,
        size_bytes=found.size,
        disk_format=found.disk_format,
        sources=(cloud.channel.image_url(image_id),),
        ticket=cloud.channel.ticket(host_id, image_id),
        offers=await _offers(cloud, host_id, image_id, found.sha256),
    )
    await cloud.hosts.ensure(host_id, calls.ENSURE, spec, deadline)


async def evict(cloud: Cloud, row: CachedImage, deadline: float) -> None:
    """What is not wanted any more leaves the host's cache. Raises Transient, also while a disk lies upon it."""
    absence = Absence(id=row.sha256, generation=Generation(cloud.epoch, row.generation))
    await cloud.hosts.absent(row.host_id, calls.ABSENT, absence, deadline)


async def _wanted(cloud: Cloud, host_id: str, sha256: str, size: int) -> CachedImage:
    now = cloud.world.clock.now()
    known = await cloud.db.read(cached.find, host_id, sha256)
    if known is not None and known.is_wanted and now - known.used_at < NOTED_S:
        return known
    return await cloud.db.write(cached.want, host_id, sha256, size, now)


async def _offers(cloud: Cloud, host_id: str, image_id: str, sha256: str) -> tuple[Offer, ...]:
    """Neighbours that have it, at random so that none gives it to all, and us behind them."""
    offers: list[Offer] = []
    rows = await cloud.db.read(cached.holders, sha256)
    for row in sorted(rows, key=lambda row: cloud.world.entropy.uniform(0.0, 1.0)):
        door = cloud.hosts.door(row.host_id)
        has = cloud.hosts.holds(
            row.host_id, calls.ENSURE.noun, sha256, Generation(cloud.epoch, row.generation), absent=False
        )
        if row.host_id != host_id and door is not None and has and len(offers) < NEIGHBOURS_MAX:
            offers.append(cloud.channel.neighbours_offer(host_id, row.host_id, door, sha256))
    return (*offers, cloud.channel.offer(host_id, image_id)) if offers else ()
