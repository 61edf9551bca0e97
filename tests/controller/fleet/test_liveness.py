"""Who is up, who must be synced, on virtual time."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator

from agent.wire import host as host_calls
from agent.wire import port
from agent.wire.domain import DomainStatus
from agent.wire.lifecycle import Generation, Power, Progress
from agent.wire.world import World
from controller.fleet.liveness import LEASE_S
from controller.fleet.syncing import SYNCS_MAX
from controller.hosts import Hosts
from tests.controller.fleet.bus import MemoryBus, ScriptedHost, turns
from tests.controller.fleet.test_hosts import in_s, ready, spec
from tests.controller.fleet.timeless import timeless


@contextlib.asynccontextmanager
async def a_fleet(
    world: World, *ids: str, up: bool = False
) -> AsyncIterator[tuple[Hosts, dict[str, ScriptedHost], MemoryBus]]:
    bus = MemoryBus()
    hosts = Hosts(bus, world)
    for host_id in ids:
        hosts.adopt(host_id, is_up=up)
    await hosts.start()
    try:
        yield hosts, {host_id: ScriptedHost(bus, host_id) for host_id in ids}, bus
    finally:
        await hosts.close()


async def beating(host: ScriptedHost, times: int, every_s: float = 10.0) -> None:
    for _ in range(times):
        await host.beat()
        await asyncio.sleep(every_s)


@timeless
async def test_one_heartbeat_turns_a_host_up_and_a_lease_without_one_turns_it_down(world: World) -> None:
    async with a_fleet(world, "a", "b") as (hosts, fleet, _):
        seen: list[tuple[str, bool]] = []
        hosts.on_transition(lambda host_id, up: seen.append((host_id, up)))
        assert hosts.up() == []
        other = asyncio.create_task(beating(fleet["b"], 100))
        await fleet["a"].beat()
        await turns()
        assert hosts.is_up("a")
        await asyncio.sleep(LEASE_S - 1)
        assert hosts.is_up("a")
        await asyncio.sleep(5)
        assert not hosts.is_up("a"), "down within 35 s"
        assert hosts.up() == ["b"]
        assert seen == [("b", True), ("a", True), ("a", False)] or seen == [("a", True), ("b", True), ("a", False)]
        other.cancel()


@timeless
async def test_a_started_controller_waits_a_whole_lease_for_who_was_up(world: World) -> None:
    async with a_fleet(world, "a", up=True) as (hosts, _, __):
        assert hosts.is_up("a")
        await asyncio.sleep(LEASE_S - 1)
        assert hosts.is_up("a")
        await asyncio.sleep(5)
        assert not hosts.is_up("a")


@timeless
async def test_who_cannot_hear_declares_nobody_dead(world: World) -> None:
    async with a_fleet(world, "a") as (hosts, fleet, bus):
        await fleet["a"].beat()
        await turns()
        bus.is_cut = True
        await asyncio.sleep(600)
        assert hosts.is_up("a")
        bus.is_cut = False
        await asyncio.sleep(LEASE_S - 2)
        assert hosts.is_up("a"), "whoever was cut off with us has a whole lease"
        await asyncio.sleep(10)
        assert not hosts.is_up("a")


@timeless
async def test_strangers_and_removed_hosts_are_not_believed(world: World) -> None:
    async with a_fleet(world, "a") as (hosts, fleet, bus):
        strangers: list[str] = []
        hosts.on_stranger(strangers.append)
        await ScriptedHost(bus, "x").beat()
        await turns()
        assert strangers == ["x"]
        assert hosts.up() == []
        hosts.forget("a")
        await fleet["a"].beat()
        await turns()
        assert hosts.up() == []
        assert strangers == ["x"]


@timeless
async def test_a_host_that_returns_is_synced_and_one_that_agrees_is_left_alone(world: World) -> None:
    async with a_fleet(world, "a") as (hosts, fleet, _):
        synced: list[str] = []

        async def sync(host_id: str) -> None:
            synced.append(host_id)

        hosts.on_sync_needed(sync)
        await beating(fleet["a"], 5)
        assert synced == ["a"]
        assert fleet["a"].calls == ["ledger"]
        await asyncio.sleep(60)
        await beating(fleet["a"], 2)
        assert synced == ["a", "a"]


@timeless
async def test_what_we_did_ourselves_is_no_reason_to_sync(world: World) -> None:
    async with a_fleet(world, "a") as (hosts, fleet, _):
        synced: list[str] = []

        async def sync(host_id: str) -> None:
            synced.append(host_id)

        hosts.on_sync_needed(sync)
        fleet["a"].outcome = ready
        await beating(fleet["a"], 1)
        await hosts.ensure("a", port.ENSURE, spec(), in_s(world, 60))
        assert hosts.holds("a", "port", "p", Generation(1, 1), absent=False)
        await beating(fleet["a"], 3)
        await hosts.absent("a", port.ABSENT, port.Absence(id="p", generation=Generation(1, 2)), in_s(world, 60))
        await beating(fleet["a"], 3)
        assert synced == ["a"]
        assert fleet["a"].calls.count("ledger") == 1


@timeless
async def test_a_ledger_that_differs_is_read_in_pages_and_synced(world: World) -> None:
    async with a_fleet(world, "a") as (hosts, fleet, _):
        synced: list[str] = []

        async def sync(host_id: str) -> None:
            synced.append(host_id)

        hosts.on_sync_needed(sync)
        await beating(fleet["a"], 2)
        for n in range(5):
            fleet["a"].tombstones[f"t{n}"] = Generation(1, n)
        await beating(fleet["a"], 2)
        assert synced == ["a", "a"]
        assert fleet["a"].calls.count("ledger") == 1 + 3


@timeless
async def test_a_sync_that_fails_is_tried_again(world: World) -> None:
    async with a_fleet(world, "a") as (hosts, fleet, _):
        tries: list[float] = []

        async def sync(host_id: str) -> None:
            tries.append(world.clock.now())
            if len(tries) < 3:
                raise RuntimeError("not yet")

        hosts.on_sync_needed(sync)
        await beating(fleet["a"], 6)
        assert len(tries) == 3
        assert all(2 <= later - earlier <= 10 for earlier, later in itertools.pairwise(tries))


@timeless
async def test_a_storm_syncs_every_host_but_few_at_a_time(world: World) -> None:
    ids = [f"h{n:03}" for n in range(200)]
    async with a_fleet(world, *ids) as (hosts, fleet, bus):
        running, most, done = 0, 0, []

        async def sync(host_id: str) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(1)
            running -= 1
            done.append(host_id)

        hosts.on_sync_needed(sync)
        for host in fleet.values():
            await host.beat()
        await asyncio.sleep(8)
        assert sorted(done) == ids
        assert most == SYNCS_MAX
        done.clear()
        for callback in bus.gap:
            callback()
        await asyncio.sleep(8)
        assert sorted(done) == ids, "after a gap everybody is in doubt"


@timeless
async def test_a_lost_event_starts_a_sync(world: World) -> None:
    async with a_fleet(world, "a") as (hosts, fleet, _):
        synced: list[str] = []

        async def sync(host_id: str) -> None:
            synced.append(host_id)

        hosts.on_sync_needed(sync)
        await beating(fleet["a"], 2)
        fleet["a"].sequence += 1
        await beating(fleet["a"], 1)
        assert len(synced) == 2
        fleet["a"].boot, fleet["a"].sequence = "boot-2", 0
        await beating(fleet["a"], 1)
        assert len(synced) == 3


@timeless
async def test_an_agent_that_starts_is_synced_after_its_news_was_told(world: World) -> None:
    async with a_fleet(world, "a") as (hosts, fleet, _):
        order: list[str] = []

        async def sync(host_id: str) -> None:
            order.append("sync")

        hosts.on_event(host_calls.STARTED, lambda host_id, inventory: order.append(inventory.hostname))
        hosts.on_sync_needed(sync)
        await fleet["a"].tell(host_calls.STARTED, fleet["a"].inventory())
        await asyncio.sleep(1)
        assert hosts.is_up("a")
        assert order == ["h", "sync"]


@timeless
async def test_events_reach_callbacks_in_order_and_one_that_was_overtaken_does_not(world: World) -> None:
    async with a_fleet(world, "a") as (hosts, fleet, _):
        powers: list[Power] = []

        async def note(host_id: str, status: DomainStatus) -> None:
            powers.append(status.power)

        def broken(host_id: str, status: DomainStatus) -> None:
            raise RuntimeError("one listener's bug")

        hosts.on_event("domain", broken)
        hosts.on_event("domain", note)

        def domain(power: Power) -> DomainStatus:
            return DomainStatus(id="d", generation=Generation(1, 1), progress=Progress.READY, power=power)

        await fleet["a"].tell("domain", domain(Power.RUNNING), sequence=1)
        await fleet["a"].tell("domain", domain(Power.SHUTOFF), sequence=3)
        await fleet["a"].tell("domain", domain(Power.PAUSED), sequence=2)
        await turns()
        assert powers == [Power.RUNNING, Power.SHUTOFF]


@timeless
async def test_a_heartbeat_is_kept_and_its_payload_proves_nothing(world: World) -> None:
    async with a_fleet(world, "a") as (hosts, fleet, _):
        await fleet["a"].beat()
        await turns()
        heard = hosts.heartbeat("a")
        assert heard is not None
        assert heard.memory_free_mib == 4096
        assert hosts.heartbeat(heard.host_id) is None


@timeless
async def test_an_event_that_cannot_be_read_harms_nobody(world: World) -> None:
    async with a_fleet(world, "a") as (hosts, fleet, bus):
        for data in (b"", b"{}", b"\xff", b'{"boot": "b", "sequence": 1, "body": {"id": 1}}'):
            await bus.publish("hostler.v1.event.host.a.port", data)
        await bus.publish("hostler.v1.event.host.a.dreams", b'{"boot": "boot-1", "sequence": 1, "body": {}}')
        await fleet["a"].beat()
        await turns()
        assert hosts.is_up("a")
