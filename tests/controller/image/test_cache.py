"""Hosts' image caches as the controller keeps them: who gives an image, what goes, and what never does."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.wire.host import Door
from agent.wire.image import ImageSpec
from agent.wire.lifecycle import Generation
from controller.config import ImageCache
from controller.db.tx import Tx
from controller.errors import Conflict, NotFound
from controller.image import cached, caching, distribution
from controller.image import store as images
from controller.image.caching import GIB, Seen, plan
from controller.tasks import image_cache
from tests.controller.compute import rows
from tests.controller.compute.cloud import ComputeCloud, compute_cloud

pytestmark = pytest.mark.timeout(60)

LIMITS = ImageCache(host_gib=10.0, free_gib=5.0, age_days=30.0)
NOW = 1_000_000_000.0


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[ComputeCloud]:
    async with compute_cloud(tmp_path, "h1", "h2", "h3") as made:
        made.hosts.doors = {
            host: Door(address=f"198.18.0.{n}:5444", id=f"door-{host}", boottime_s=1.0)
            for n, host in enumerate(("h1", "h2", "h3"), 11)
        }
        yield made


async def ensure(cloud: ComputeCloud, host_id: str) -> ImageSpec:
    """What the host was told."""
    deadline = cloud.api.cloud.world.clock.now() + 60
    await distribution.ensure_on_host(cloud.api.cloud, host_id, rows.IMAGE_ID, deadline)
    (spec,) = [one for (host, noun, _), one in cloud.hosts.objects.items() if (host, noun) == (host_id, "image")]
    assert isinstance(spec, ImageSpec)
    return spec


def told(cloud: ComputeCloud, host_id: str) -> list[str]:
    return [name for host, name, _ in cloud.hosts.asked if host == host_id and name.startswith("image.")]


async def gone_stale(cloud: ComputeCloud) -> None:
    """Time passes until nobody's wish is fresh any more."""
    cloud.api.clock.time += distribution.FRESH_S + 1


# Who gives it.


async def test_the_first_host_fetches_from_us_alone(cloud: ComputeCloud) -> None:
    spec = await ensure(cloud, "h1")
    assert spec.offers == () and len(spec.sources) == 1 and spec.generation == Generation(1, 1)


async def test_a_second_boot_on_a_host_says_nothing_to_it(cloud: ComputeCloud) -> None:
    await ensure(cloud, "h1")
    before = told(cloud, "h1")
    await ensure(cloud, "h1")
    assert told(cloud, "h1") == before


async def test_neighbours_that_have_it_are_asked_before_us(cloud: ComputeCloud) -> None:
    await ensure(cloud, "h1")
    spec = await ensure(cloud, "h2")
    neighbour, us = spec.offers
    assert (neighbour.url, neighbour.name) == (f"https://198.18.0.11:5444/image/{spec.sha256}", "h1.host.internal")
    assert us.url == spec.sources[0] and us.ticket != spec.ticket, "we are there twice"
    third = await ensure(cloud, "h3")
    assert {offer.name for offer in third.offers[:-1]} == {"h1.host.internal", "h2.host.internal"}


async def test_neighbours_that_are_away_are_not_asked(cloud: ComputeCloud) -> None:
    await ensure(cloud, "h1")
    await ensure(cloud, "h2")
    del cloud.hosts.doors["h1"]
    cloud.hosts.objects.pop(("h2", "image", (await ensure(cloud, "h2")).sha256))
    assert (await ensure(cloud, "h3")).offers == ()


# What goes.


async def look(cloud: ComputeCloud, host_id: str = "h1") -> list[Seen]:
    return await caching.look(cloud.api.cloud, host_id)


async def give_up(cloud: ComputeCloud, host_id: str = "h1", **options: Any) -> None:
    (one,) = await look(cloud, host_id)
    await caching.give_up(cloud.api.cloud, host_id, one, cloud.api.clock.time + 60, **options)


async def test_what_was_evicted_is_wanted_again_under_a_newer_generation(cloud: ComputeCloud) -> None:
    await ensure(cloud, "h1")
    await give_up(cloud, is_forced=True)
    assert await look(cloud) == []
    assert (await ensure(cloud, "h1")).generation == Generation(1, 3)
    assert not cloud.hosts.broken


async def test_what_a_server_is_made_of_stays(cloud: ComputeCloud) -> None:
    server = await cloud.boot()
    (host_id,) = {host for host, noun, _ in cloud.hosts.objects if noun == "disk"}
    (one,) = await look(cloud, host_id)
    assert one.is_used
    with pytest.raises(Conflict, match="in use"):
        await give_up(cloud, host_id, is_forced=True)
    not_known = Seen(**{**{field: getattr(one, field) for field in Seen.__struct_fields__}, "is_used": False})
    with pytest.raises(Conflict, match="a server or a volume there"):
        await caching.give_up(cloud.api.cloud, host_id, not_known, cloud.api.clock.time + 60, is_forced=True)
    assert (await cloud.call("DELETE", f"/servers/{server['id']}")).status_code == 204
    await cloud.rest()
    await gone_stale(cloud)
    assert not (await look(cloud, host_id))[0].is_used
    await give_up(cloud, host_id)
    assert await look(cloud, host_id) == []


async def test_what_somebody_wanted_a_moment_ago_stays_unless_it_is_forced(cloud: ComputeCloud) -> None:
    await ensure(cloud, "h1")
    with pytest.raises(Conflict, match="may be about to use it"):
        await give_up(cloud)
    await gone_stale(cloud)
    await give_up(cloud)


async def test_an_eviction_that_the_host_did_not_hear_is_made_good(cloud: ComputeCloud) -> None:
    await ensure(cloud, "h1")
    await gone_stale(cloud)
    (one,) = await look(cloud)

    def lost(tx: Tx) -> None:
        cached.unwant(tx, "h1", one.sha256, one.size, one.generation, cloud.api.clock.time)

    await cloud.write(lost)
    assert [seen.is_leaving for seen in await look(cloud)] == [True]
    await image_cache.ImageCaches(cloud.api.cloud).run()
    assert await look(cloud) == []


async def test_images_that_are_deleted_leave_the_caches(cloud: ComputeCloud) -> None:
    await ensure(cloud, "h1")
    await gone_stale(cloud)
    assert (await image_cache.ImageCaches(cloud.api.cloud).run())["evicted"] == 0, "it is young, and there is room"
    await cloud.write(images.delete, rows.IMAGE_ID, cloud.api.clock.time)
    assert (await image_cache.ImageCaches(cloud.api.cloud).run())["evicted"] == 1
    assert await look(cloud) == []


async def test_rows_of_hosts_that_are_gone_go(cloud: ComputeCloud) -> None:
    await ensure(cloud, "h1")
    await cloud.write(cached.want, "a host of old", "ab" * 32, 1, cloud.api.clock.time)
    assert (await image_cache.ImageCaches(cloud.api.cloud).run())["forgotten"] == 1


async def test_a_host_whose_cache_is_known_is_not_asked_for_nothing(cloud: ComputeCloud) -> None:
    await ensure(cloud, "h1")
    keeper = image_cache.ImageCaches(cloud.api.cloud)
    await keeper.run()
    before = told(cloud, "h1")
    await keeper.run()
    assert told(cloud, "h1") == before
    await cloud.write(images.delete, rows.IMAGE_ID, cloud.api.clock.time)
    await gone_stale(cloud)
    assert (await keeper.run())["evicted"] == 1
    before = told(cloud, "h1")
    await keeper.run()
    assert told(cloud, "h1") == before


async def test_a_host_that_does_not_answer_holds_nobody_up(cloud: ComputeCloud) -> None:
    await ensure(cloud, "h2")
    await cloud.write(images.delete, rows.IMAGE_ID, cloud.api.clock.time)
    await gone_stale(cloud)
    cloud.hosts.refuse["h1", "image.list"] = Conflict("it says no")
    assert (await image_cache.ImageCaches(cloud.api.cloud).run())["evicted"] == 1


def test_an_image_is_named_by_name_or_hash() -> None:
    both = [seen("ab" * 32, names=("debian", "tiny")), seen("cd" * 32, names=("tiny",))]
    assert caching.found(both, "debian").sha256 == caching.found(both, "ababab").sha256 == "ab" * 32
    with pytest.raises(Conflict):
        caching.found(both, "tiny")
    for name in ("ab", "fedora"):
        with pytest.raises(NotFound):
            caching.found(both, name)


# The plan.


def seen(sha256: str = "ab" * 32, days: float = 1.0, gib: float = 1.0, **changes: Any) -> Seen:
    values: dict[str, Any] = {"names": ("an image",), "is_used": False, "is_leaving": False, "generation": 1}
    size, used_at = int(gib * GIB), NOW - days * 86400.0
    return Seen(sha256=sha256, size=size, used_at=used_at, **{**values, **changes})


def going(*have: Seen, free_gib: float = 50.0) -> set[str]:
    return {one.sha256 for one in plan(have, NOW, LIMITS, free_gib)}


def test_young_images_with_room_stay() -> None:
    assert going(seen("a", 29), seen("b", 1)) == set()


def test_what_nobody_used_for_long_goes_and_what_is_used_stays() -> None:
    assert going(seen("a", 31), seen("b", 3000, is_used=True)) == {"a"}


def test_what_no_image_has_any_more_goes() -> None:
    assert going(seen("a", names=()), seen("b", names=(), is_used=True)) == {"a"}


def test_too_much_goes_in_the_order_of_use_until_it_is_not() -> None:
    assert going(seen("a", 3, 4), seen("b", 2, 4), seen("c", 1, 4), seen("d", 9, 1, is_used=True)) == {"a"}
    assert going(seen("a", 3, 4), seen("b", 2, 4), seen("c", 1, 4), seen("d", 9, 9, is_used=True)) == {"a", "b", "c"}


def test_a_full_disk_counts_too() -> None:
    assert going(seen("a", 3, 1), seen("b", 2, 1), seen("c", 1, 1), free_gib=3.5) == {"a", "b"}


def test_what_was_wanted_a_moment_ago_stays_even_then() -> None:
    assert going(seen("a", 0.01, 100), seen("b", 0.01, 100, names=()), free_gib=0.0) == set()
