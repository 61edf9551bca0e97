import functools

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.db.tables.placement import allocation
from controller.db.tx import Tx
from controller.errors import NoValidHost
from controller.saga.model import Transient
from controller.schedule import claim, filters, weights
from controller.schedule.model import Amounts, Ratios, Room, Wanted
from tests.controller.compute.rows import a_room, a_wish, insert_host
from tests.databases import AnyDatabase, memory_database, race

RATIOS = Ratios(cpu=2.0, memory=1.0, disk=1.0, reserved_memory_mib=512)


@pytest.mark.parametrize(
    ("room", "wish", "reason"),
    [
        (a_room(), a_wish(exclude_hosts=("h1",)), "excluded"),
        (a_room(), a_wish(host="name-h2"), "other-host"),
        (a_room(is_up=False), a_wish(), "host-down"),
        (a_room(total=Amounts(vcpus=0, memory_mib=0, disk_gib=0)), a_wish(), "no-inventory"),
        (a_room(is_disabled=True), a_wish(), "host-disabled"),
        (a_room(), a_wish(zone="other"), "other-zone"),
        (a_room(), a_wish(arch="aarch64"), "architecture"),
        (a_room(), a_wish(different_from=("h1",)), "different-host"),
        (a_room(), a_wish(same_as=("h2",)), "same-host"),
        (a_room(), a_wish(vcpus=9), "vcpus"),
        (a_room(used=Amounts(vcpus=16, memory_mib=0, disk_gib=0)), a_wish(), "vcpus"),
        (a_room(), a_wish(memory_mib=16 * 1024), "memory"),
        (a_room(), a_wish(disk_gib=101), "disk"),
    ],
)
def test_each_filter_refuses_with_its_reason(room: Room, wish: Wanted, reason: str) -> None:
    found = filters.refusal(room, wish, RATIOS)
    assert found is not None
    assert (found.reason, found.hostname) == (reason, "name-h1")


def test_a_host_that_fits_is_not_refused() -> None:
    assert filters.refusal(a_room(), a_wish(zone="nova", host="name-h1", arch="x86_64"), RATIOS) is None


def test_a_forced_host_takes_servers_although_it_is_disabled() -> None:
    wish = a_wish(host="name-h1", is_forced=True, zone="elsewhere")
    assert filters.refusal(a_room(is_disabled=True), wish, RATIOS) is None


def test_the_emptier_host_comes_first() -> None:
    busy = a_room("busy", used=Amounts(vcpus=8, memory_mib=8192, disk_gib=50), servers=8)
    assert [room.host_id for room in weights.rank([busy, a_room("idle")], a_wish(), RATIOS)] == ["idle", "busy"]


def test_equal_hosts_are_shuffled_by_the_server() -> None:
    rooms = [a_room(f"h{i}") for i in range(8)]
    firsts = {weights.rank(rooms, a_wish(f"s{i}"), RATIOS)[0].host_id for i in range(64)}
    assert len(firsts) > 4


def test_the_refusal_counts_reasons_for_users_and_names_hosts_for_operators() -> None:
    rooms = [a_room("h1", is_up=False), a_room("h2"), a_room("h3")]
    with pytest.raises(NoValidHost) as caught:
        claim.plan(rooms, a_wish(memory_mib=1 << 20), RATIOS)
    assert caught.value.message.endswith("host-down (1), memory (2).")
    assert "name-h1" not in caught.value.message
    assert caught.value.why is not None
    assert [(one["host"], one["reason"]) for one in caught.value.why["hosts"]] == [
        ("name-h1", "host-down"),
        ("name-h2", "memory"),
        ("name-h3", "memory"),
    ]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    wishes=st.lists(
        st.tuples(st.integers(1, 8), st.integers(64, 6000), st.integers(0, 40), st.booleans()), max_size=24
    ),
    hosts=st.integers(1, 3),
)
async def test_claims_never_pass_what_hosts_have(wishes: list[tuple[int, int, int, bool]], hosts: int) -> None:
    database = memory_database()
    for i in range(hosts):
        await database.write(insert_host, f"h{i}")
    held: list[str] = []
    for i, (vcpus, memory_mib, disk_gib, frees) in enumerate(wishes):
        if frees and held:
            await database.write(claim.release, held.pop())
        wish = a_wish(f"s{i}", vcpus=vcpus, memory_mib=memory_mib, disk_gib=disk_gib)
        try:
            plan = claim.plan(await database.read(claim.snapshot), wish, RATIOS)
        except NoValidHost:
            continue
        await database.write(claim.claim, wish, plan.candidates, RATIOS, 1.0)
        held.append(wish.server_id)
    rooms = await database.read(claim.snapshot)
    assert sum(room.servers for room in rooms) == len(held)
    for room in rooms:
        free = room.free(RATIOS)
        assert min(free.vcpus, free.memory_mib, free.disk_gib) >= 0
    await database.close()


def _allocations(tx: Tx) -> int:
    return tx.execute(sa.select(sa.func.count()).select_from(allocation)).scalar_one()


async def test_the_same_server_claims_once(database: AnyDatabase) -> None:
    await database.write(insert_host, "h1")
    await database.write(insert_host, "h2")
    first = await database.write(claim.claim, a_wish(), ("h1",), RATIOS, 1.0)
    again = await database.write(claim.claim, a_wish(), ("h2",), RATIOS, 2.0)
    assert (first.host_id, again.host_id) == ("h1", "h1")
    assert await database.read(_allocations) == 1


@pytest.mark.parametrize("callers", [16, 50])
async def test_racing_claims_fill_a_host_and_no_more(database: AnyDatabase, callers: int) -> None:
    await database.write(insert_host, "h1", memory_mib=512 + 3 * 1024)

    async def attempt(number: int) -> str:
        wish = a_wish(f"s{number}", memory_mib=1024)
        room = await database.write(claim.claim, wish, ("h1",), RATIOS, 1.0)
        return room.host_id

    outcomes = await race(callers, attempt)
    assert [outcome for outcome in outcomes if outcome == "h1"] == ["h1"] * 3
    assert all(isinstance(outcome, Transient) for outcome in outcomes if outcome != "h1")
    assert await database.read(_allocations) == 3


async def test_a_full_host_is_passed_over_for_the_next_candidate(database: AnyDatabase) -> None:
    await database.write(insert_host, "h1", memory_mib=512 + 128)
    await database.write(insert_host, "h2")
    take = functools.partial(database.write, claim.claim)
    assert (await take(a_wish("s1"), ("h1", "h2"), RATIOS, 1.0)).host_id == "h1"
    assert (await take(a_wish("s2"), ("h1", "h2"), RATIOS, 1.0)).host_id == "h2"
