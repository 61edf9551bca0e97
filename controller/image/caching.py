"""What hosts have in their image caches, and what may go: seen, planned (pure), given up.

An image is never evicted from under anything: not while a server that is made of it is on the host or has a claim
there, nor while a volume is being made of it, nor while the host says that it uses it, nor while somebody wanted it a
moment ago. The first two are decided in the transaction that gives it up, so a server that is placed there at that
moment either finds it wanted or wants it anew. The host checks once more, and keeps what a disk lies upon.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from agent.wire import image as calls
from agent.wire.lifecycle import Progress
from agent.wire.specs import Empty
from controller.cloud import Cloud
from controller.compute.image_users import image_ids
from controller.config import ImageCache
from controller.db.tx import Tx
from controller.errors import Conflict, NotFound
from controller.image import cached, distribution
from controller.image.cached import CachedImage
from controller.volume import image_users

GIB: Final = 1 << 30
DAY_S: Final = 86400.0


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One image in one host's cache."""

    sha256: str
    names: tuple[str, ...]  # Of living images with these bytes.
    size: int
    used_at: float
    is_used: bool
    is_leaving: bool  # Given up already; the host has not done it yet.
    generation: int  # As the host has it.


async def look(cloud: Cloud, host_id: str) -> list[Seen]:
    """What is in a host's cache. Raises Transient."""
    listed = await cloud.hosts.call(host_id, calls.LIST, Empty())
    here = [one for one in listed.images if one.progress is not Progress.ABSENT]
    return await cloud.db.read(_seen, host_id, here, set(listed.used), cloud.world.clock.now())


def expected(tx: Tx, host_id: str) -> list[Seen]:
    """What should be in a host's cache by its rows, without asking it."""
    rows = cached.of_host(tx, host_id).values()
    names = cached.names(tx, [row.sha256 for row in rows])
    used = _needed(tx, host_id)
    return [
        Seen(
            sha256=row.sha256,
            names=tuple(names.get(row.sha256, ())),
            size=row.size,
            used_at=row.used_at,
            is_used=row.sha256 in used,
            is_leaving=not row.is_wanted,
            generation=row.generation,
        )
        for row in rows
    ]


def plan(seen: Sequence[Seen], now: float, limits: ImageCache, free_gib: float) -> list[Seen]:
    """What should go: what no image has any more, what nobody used for long, and the least used if it is too much."""
    may_go = [one for one in seen if not one.is_used and now - one.used_at >= distribution.FRESH_S]
    going = [one for one in may_go if not one.names or now - one.used_at > limits.age_days * DAY_S]
    over = sum(one.size for one in seen) - limits.host_gib * GIB
    short = (limits.free_gib - free_gib) * GIB
    excess = max(over, short) - sum(one.size for one in going)
    for one in sorted(may_go, key=lambda one: (one.used_at, one.sha256)):
        if excess <= 0:
            break
        if one not in going:
            going.append(one)
            excess -= one.size
    return going


async def give_up(cloud: Cloud, host_id: str, one: Seen, deadline: float, *, is_forced: bool = False) -> None:
    """Evict an image from a host. Raises Conflict with the why while it is in use; Transient.

    `is_forced`: also if somebody wanted it a moment ago, who may then have to fetch it anew.
    """
    if one.is_used:
        raise Conflict(f"Image {one.sha256} is in use on host {host_id}: something there is made of it.")
    now = cloud.world.clock.now()
    row = await cloud.db.write(_give_up, host_id, one, now, is_forced)
    await distribution.evict(cloud, row, deadline)


def found(seen: Iterable[Seen], name: str) -> Seen:
    """The one that is meant: by the beginning of its hash, or a name. Raises NotFound, Conflict."""
    meant = [one for one in seen if name in one.names or (len(name) >= 6 and one.sha256.startswith(name))]
    if not meant:
        raise NotFound(f"No image in that cache is called {name}, or has a hash that begins so.")
    if len(meant) > 1:
        raise Conflict(f"{len(meant)} images in that cache are called {name}: say which by its hash.")
    return meant[0]


def _seen(tx: Tx, host_id: str, here: Sequence[calls.ImageStatus], used: set[str], now: float) -> list[Seen]:
    rows = cached.of_host(tx, host_id)
    names = cached.names(tx, [one.id for one in here])
    used = used | _needed(tx, host_id)
    unknown = now - distribution.FRESH_S  # Of what was there before there were rows, nobody knows when it was used.
    return [
        Seen(
            sha256=one.id,
            names=tuple(names.get(one.id, ())),
            size=one.size_bytes or (rows[one.id].size if one.id in rows else 0),
            used_at=rows[one.id].used_at if one.id in rows else unknown,
            is_used=one.id in used,
            is_leaving=one.id in rows and not rows[one.id].is_wanted,
            generation=one.generation.n,
        )
        for one in sorted(here, key=lambda one: one.id)
    ]


def _needed(tx: Tx, host_id: str) -> set[str]:
    """What is in use there by our own rows: the content of the images."""
    return cached.contents(tx, image_ids(tx, host_id)) | image_users.contents(tx, host_id)


def _give_up(tx: Tx, host_id: str, one: Seen, now: float, is_forced: bool) -> CachedImage:
    if one.sha256 in _needed(tx, host_id):
        raise Conflict(f"Image {one.sha256} is in use on host {host_id}: a server or a volume there is made of it.")
    row = cached.find(tx, host_id, one.sha256)
    is_fresh = row is not None and row.is_wanted and now - row.used_at < distribution.FRESH_S
    if is_fresh and not is_forced:
        raise Conflict(
            f"Image {one.sha256} was wanted on host {host_id} within the last {distribution.FRESH_S / 60:.0f} minutes:"
            " somebody may be about to use it. Try later, or force it."
        )
    return cached.unwant(tx, host_id, one.sha256, one.size, one.generation, now)
