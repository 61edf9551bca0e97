"""The rows of hosts follow what is heard, and the client follows the rows."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from agent.wire.host import STARTED
from agent.wire.lifecycle import Generation
from agent.wire.world import World
from controller.db.sqlite import SqliteDatabase
from controller.fleet import store
from controller.fleet.liveness import LEASE_S
from controller.fleet.model import Amnesia, Credential, Host, JoinToken, Place, amnesia
from controller.fleet.watch import Watch
from controller.hosts import Hosts
from tests.controller.fleet.bus import MemoryBus, ScriptedHost, turns
from tests.controller.fleet.timeless import timeless
from tests.databases import memory_database


def enroll(tx, host_id: str, now: float = 0.0) -> None:
    store.insert_token(tx, JoinToken(id=f"t-{host_id}", secret_sha256="", host_id=None, created_at=0, expires_at=9e9))
    credential = Credential(nkey=f"U{host_id}", host_id=host_id, certificate_serial=host_id, certificate_until=9e9)
    store.enroll(tx, f"t-{host_id}", Place(hostname=host_id, underlay_address="198.18.0.11"), credential, now)


@dataclass
class Watched:
    """One controller's watch."""

    world: World
    db: SqliteDatabase
    bus: MemoryBus
    hosts: Hosts
    watch: Watch
    kicks: list[None] = field(default_factory=list)

    async def row(self, host_id: str) -> Host:
        return await self.db.read(store.get_host, host_id)


@contextlib.asynccontextmanager
async def watching(world: World, db: SqliteDatabase | None = None) -> AsyncIterator[Watched]:
    bus, database = MemoryBus(), db or memory_database()
    hosts = Hosts(bus, world)
    kicks: list[None] = []
    watch = Watch(database, hosts, world, lambda: kicks.append(None))
    await watch.load()
    await hosts.start()
    try:
        yield Watched(world, database, bus, hosts, watch, kicks)
    finally:
        await hosts.close()


@timeless
async def test_a_transition_is_written_once_and_heartbeats_are_not_written(world: World) -> None:
    db = memory_database()
    await db.write(enroll, "a")
    async with watching(world, db) as watched:
        host = ScriptedHost(watched.bus, "a")
        await host.beat()
        await turns()
        assert watched.kicks, "a transition is looked at at once"
        assert await watched.watch.run() == {"up": 1, "down": 0}
        first = await watched.row("a")
        assert first.up
        await asyncio.sleep(10)
        await host.beat()
        await watched.watch.run()
        assert (await watched.row("a")).seen_at == first.seen_at
        await asyncio.sleep(LEASE_S + 3)
        assert await watched.watch.run() == {"up": 0, "down": 1}
        assert not (await watched.row("a")).up


@timeless
async def test_who_was_up_before_a_restart_is_up_for_a_lease(world: World) -> None:
    db = memory_database()
    await db.write(enroll, "a")
    await db.write(store.set_up, "a", True, 1.0)
    async with watching(world, db) as watched:
        await asyncio.sleep(LEASE_S - 2)
        assert await watched.watch.run() == {"up": 1, "down": 0}
        await asyncio.sleep(6)
        assert await watched.watch.run() == {"up": 0, "down": 1}


@timeless
async def test_a_host_that_joined_at_another_controller_is_adopted_when_it_is_heard(world: World) -> None:
    async with watching(world) as watched:
        await watched.db.write(enroll, "a")
        host = ScriptedHost(watched.bus, "a")
        await host.beat()
        await turns()
        assert watched.kicks
        await watched.watch.run()
        await host.beat()
        await turns()
        assert watched.hosts.is_up("a")


@timeless
async def test_a_host_that_was_removed_at_another_controller_is_believed_no_more(world: World) -> None:
    db = memory_database()
    await db.write(enroll, "a")
    async with watching(world, db) as watched:
        host = ScriptedHost(watched.bus, "a")
        await host.beat()
        await turns()
        await db.write(store.remove_host, "a", 1.0)
        assert await watched.watch.run() == {"up": 0, "down": 0}
        await host.beat()
        await turns()
        assert not watched.hosts.is_up("a")


@timeless
async def test_an_inventory_is_taken_when_a_host_appears_and_written_only_if_it_says_something_new(
    world: World,
) -> None:
    db = memory_database()
    await db.write(enroll, "a")
    async with watching(world, db) as watched:
        host = ScriptedHost(watched.bus, "a")
        await host.tell(STARTED, host.inventory())
        await asyncio.sleep(1)
        await watched.watch.run()
        row = await watched.row("a")
        assert (row.vcpus, row.memory_mib, row.physical_networks, row.cpu_arch) == (4, 8192, ("external",), "x86_64")
        assert row.is_usable
        assert row.hostname == "a", "an inventory cannot rename a host"
        await asyncio.sleep(5)
        await host.tell(STARTED, host.inventory())
        await asyncio.sleep(1)
        assert host.calls.count("inventory") == 2
        assert (await watched.row("a")).updated_at == row.updated_at


@timeless
async def test_a_disabled_or_forced_down_host_takes_no_new_work(world: World) -> None:
    db = memory_database()
    await db.write(enroll, "a")
    async with watching(world, db) as watched:
        host = ScriptedHost(watched.bus, "a")
        await host.beat()
        await asyncio.sleep(1)
        await watched.watch.run()
        assert (await watched.row("a")).is_usable
        disabled = await db.write(store.set_disabled, "a", True, "for repair", 2.0)
        assert (disabled.disabled_reason, disabled.is_usable) == ("for repair", False)
        await db.write(store.set_disabled, "a", False, "", 3.0)
        assert not (await db.write(store.set_forced_down, "a", True, 4.0)).is_usable


@timeless
async def test_a_lost_or_older_ledger_is_told_from_a_kept_one(world: World) -> None:
    db = memory_database()
    await db.write(enroll, "a")
    host = ScriptedHost(MemoryBus(), "a")
    assert amnesia(await db.read(store.get_host, "a"), host.inventory()) is Amnesia.NEW
    await db.write(store.record_inventory, "a", host.inventory(), 1.0)
    row = await db.read(store.get_host, "a")
    assert amnesia(row, host.inventory()) is Amnesia.NONE
    assert amnesia(row, host.inventory(ledger_incarnation="another")) is Amnesia.LOST
    assert amnesia(row, host.inventory(ledger_high_water=Generation(1, 4))) is Amnesia.OLDER
    assert amnesia(row, host.inventory(ledger_high_water=Generation(2, 0))) is Amnesia.NONE


@timeless
async def test_a_controller_that_has_not_heard_a_host_believes_the_one_that_has(world: World) -> None:
    """Both watch one fleet. The second adopts a host before it is up, and hears its heartbeat only later."""
    db = memory_database()
    await db.write(enroll, "a")
    async with watching(world, db) as first, watching(world, db) as second:
        host = ScriptedHost(first.bus, "a")
        await host.beat()
        await turns()
        assert await first.watch.run() == {"up": 1, "down": 0}
        assert await second.watch.run() == {"up": 1, "down": 0}
        assert (await first.row("a")).up
        assert second.hosts.is_up("a")


@timeless
async def test_a_host_that_one_controller_hears_and_the_other_does_not_is_not_declared_down_again_and_again(
    world: World,
) -> None:
    db = memory_database()
    await db.write(enroll, "a")
    async with watching(world, db) as first, watching(world, db) as deaf:
        host = ScriptedHost(first.bus, "a")
        downs = 0
        for _ in range(60):
            await host.beat()
            await turns()
            await first.watch.run()
            await deaf.watch.run()
            downs += not (await first.row("a")).up
            await asyncio.sleep(5)
        assert downs <= 60 * 5 / LEASE_S
        assert await first.watch.run() == {"up": 1, "down": 0}
        assert (await first.row("a")).up


@timeless
async def test_a_host_that_nobody_hears_is_declared_down_by_whoever_misses_it_first(world: World) -> None:
    db = memory_database()
    await db.write(enroll, "a")
    async with watching(world, db) as first, watching(world, db) as second:
        for one in (first, second):
            await ScriptedHost(one.bus, "a").beat()
        await turns()
        for one in (first, second):
            assert await one.watch.run() == {"up": 1, "down": 0}
        await asyncio.sleep(LEASE_S + 5)
        await second.watch.run()
        assert not (await first.row("a")).up
        for one in (first, second, first, second):
            assert await one.watch.run() == {"up": 0, "down": 1}
        assert not (await first.row("a")).up
