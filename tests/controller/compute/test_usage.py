"""os-simple-tenant-usage: ACTIVE seconds, as the record of actions says, in Nova's shape."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from controller.compute import store, usage
from controller.compute.model import Event, VmState
from controller.compute.store import Guest
from controller.db.tables.usage import server_usage
from controller.db.tx import Tx
from tests.controller.compute import rows
from tests.controller.compute.cloud import ComputeCloud, compute_cloud
from tests.databases import AnyDatabase

pytestmark = pytest.mark.timeout(60)

PATH = "/os-simple-tenant-usage"
HOUR = 3600.0
T0 = 1_000_000.0


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[ComputeCloud]:
    async with compute_cloud(tmp_path) as made:
        yield made


def iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


async def used(cloud: ComputeCloud, start: float = T0, end: float | None = None, **options: Any) -> dict[str, Any]:
    end = cloud.api.clock.time + HOUR if end is None else end
    path = f"{PATH}/{options.pop('project_id', cloud.project_id)}?start={iso(start)}&end={iso(end)}"
    reply = await cloud.call("GET", path, **options)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()["tenant_usage"]
    return found


def lived(number: int, *times: tuple[float, float | None], **changes: Any) -> Any:
    """Writes a server that was ACTIVE at these times."""
    server_id = f"{number:08x}-0000-4000-8000-000000000000"
    last = times[-1][1]
    given = {"launched_at": times[0][0], "terminated_at": last, "deleted_at": last, "name": f"s{number}"}

    def write(tx: Tx, project_id: str) -> str:
        made = rows.a_server(server_id, **{"project_id": project_id, **given, **changes})
        store.insert(tx, made, [], Guest(None, None), ())
        for began, ended in times:
            usage.note(tx, server_id, VmState.ACTIVE, began)
            if ended is not None:
                usage.note(tx, server_id, VmState.STOPPED, ended)
        return server_id

    return write


async def test_usage_equals_the_active_seconds_that_actions_tell(cloud: ComputeCloud) -> None:
    """Made, stopped, started, rebooted, gone down by itself, started, deleted: the sum of what was ACTIVE."""
    server_id = (await cloud.boot())["id"]
    for action, value in (("os-stop", None), ("os-start", None), ("reboot", {"type": "HARD"}), ("os-stop", None)):
        cloud.api.clock.time += 100.0
        assert (await cloud.act(server_id, action, value)).status_code == 202
        await cloud.rest()
    cloud.api.clock.time += 70.0
    assert (await cloud.act(server_id, "os-start")).status_code == 202
    await cloud.rest()
    cloud.api.clock.time += 7.0
    assert (await cloud.call("DELETE", f"/servers/{server_id}")).status_code == 204
    await cloud.rest()
    told = (await cloud.call("GET", f"/servers/{server_id}/os-instance-actions")).json()["instanceActions"]
    ends = [at(one["updated_at"]) for one in sorted(told, key=lambda one: at(one["start_time"]))]
    create, stop, start, _, stop_again, start_again, delete = ends
    active_s = (stop - create) + (stop_again - start) + (delete - start_again)
    found = await used(cloud)
    (one,) = found["server_usages"]
    assert one["hours"] * HOUR == pytest.approx(active_s, abs=1e-3) == pytest.approx(307.0)
    assert found["total_hours"] == one["hours"]
    assert (one["state"], one["instance_id"], one["flavor"]) == ("terminated", server_id, "m1.nano")
    assert one["uptime"] == int(at(one["ended_at"]) - at(one["started_at"]))


async def test_a_server_that_runs_is_charged_until_now_and_one_in_error_is_not(cloud: ComputeCloud) -> None:
    server = await cloud.boot()
    cloud.api.clock.time += 900.0
    found = await used(cloud)
    assert found["total_hours"] == 0.25
    assert at(found["stop"]) == cloud.api.clock.time
    assert (await cloud.act(server["id"], "os-resetState", {"state": "error"}, token=cloud.admin)).status_code == 202
    cloud.api.clock.time += 900.0
    assert (await used(cloud))["total_hours"] == 0.25
    (one,) = (await used(cloud))["server_usages"]
    assert (one["state"], one["ended_at"]) == ("error", None)


async def test_a_guest_that_goes_down_by_itself_is_not_charged_while_it_is_off(cloud: ComputeCloud) -> None:
    server_id = (await cloud.boot())["id"]
    for event, seconds in ((Event.WENT_DOWN, 100), (Event.WENT_DOWN, 10), (Event.CAME_UP, 20), (Event.CAME_UP, 3)):
        cloud.api.clock.time += seconds
        await cloud.write(store.report, server_id, event, cloud.api.clock.time)
    cloud.api.clock.time += 50
    assert (await used(cloud))["total_hours"] * HOUR == pytest.approx(153.0)


async def test_hours_are_those_of_the_period_times_the_size_that_was_sold(cloud: ComputeCloud) -> None:
    size = {"vcpus": 2, "memory_mib": 512, "root_gib": 3, "ephemeral_gib": 1}
    await cloud.write(lived(1, (T0, T0 + 2 * HOUR), (T0 + 3 * HOUR, T0 + 4 * HOUR), **size), cloud.project_id)
    whole = await used(cloud, T0 - HOUR, T0 + 10 * HOUR)
    assert (whole["total_hours"], whole["total_vcpus_usage"]) == (3.0, 6.0)
    assert (whole["total_memory_mb_usage"], whole["total_local_gb_usage"]) == (1536.0, 12.0)
    part = await used(cloud, T0 + HOUR, T0 + 3.5 * HOUR)
    assert part["total_hours"] == pytest.approx(1.5)
    off = await used(cloud, T0 + 2.2 * HOUR, T0 + 2.8 * HOUR)
    assert off["total_hours"] == 0.0 and len(off["server_usages"]) == 1
    assert await used(cloud, T0 + 5 * HOUR, T0 + 6 * HOUR) == {}
    assert (whole["start"], whole["stop"]) == (iso(T0 - HOUR), iso(T0 + 10 * HOUR))


async def test_every_project_in_sum_or_by_server(cloud: ComputeCloud) -> None:
    for number, project_id in ((1, cloud.project_id), (2, "p2"), (3, "p2")):
        await cloud.write(lived(number, (T0, T0 + number * HOUR)), project_id)
    query = f"?start={iso(T0)}&end={iso(T0 + 9 * HOUR)}"
    found = (await cloud.call("GET", PATH + query, token=cloud.admin)).json()["tenant_usages"]
    assert {one["tenant_id"]: one["total_hours"] for one in found} == {cloud.project_id: 1.0, "p2": 5.0}
    assert not any("server_usages" in one for one in found)
    asked = (f"{PATH}{query}&detailed={value}" for value in ("True", "1"))
    same, told = [(await cloud.call("GET", url, token=cloud.admin)).json()["tenant_usages"] for url in asked]
    assert same == told
    assert {one["tenant_id"]: len(one["server_usages"]) for one in told} == {cloud.project_id: 1, "p2": 2}
    assert set(told[0]["server_usages"][0]) == {
        *("ended_at", "flavor", "hours", "instance_id", "local_gb", "memory_mb", "name", "started_at", "state"),
        *("tenant_id", "uptime", "vcpus"),
    }


@pytest.mark.parametrize("version", ["2.39", "2.40"])
async def test_pages_are_of_servers_and_only_from_2_40_on(cloud: ComputeCloud, version: str) -> None:
    for number in range(1, 6):
        await cloud.write(lived(number, (T0, T0 + HOUR)), cloud.project_id)
    url = f"{PATH}/{cloud.project_id}?start={iso(T0)}&end={iso(T0 + HOUR)}&limit=2"
    pages, seen = 0, []
    while url:
        reply = (await cloud.call("GET", url, version=version)).json()
        pages += 1
        usages = reply["tenant_usage"]
        seen += [one["name"] for one in usages.get("server_usages", [])]
        assert usages.get("total_hours", 0.0) == len(usages.get("server_usages", []))
        following = reply.get("tenant_usage_links", [])
        url = following[0]["href"].partition("/compute/v2.1")[2] if following else ""
    assert seen == [f"s{number}" for number in range(1, 6)]
    assert pages == (1 if version == "2.39" else 3)
    listed = await cloud.call("GET", f"{PATH}?start={iso(T0)}&limit=3", version=version, token=cloud.admin)
    assert ("tenant_usages_links" in listed.json()) is (version == "2.40")


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("start=yesterday", 400),
        ("end=2026-13-01T00:00:00", 400),
        ("start=2023-11-02T00:00:00&end=2023-11-01T00:00:00", 400),
        ("start=2099-01-01T00:00:00", 400),
        ("start=2023-11-01T00:00:00&end=2023-11-01T00:00:00", 400),
        ("limit=-1", 400),
        ("limit=many", 400),
        ("marker=nobody", 400),
        ("marker=11111111-1111-4111-8111-111111111111", 400),
        ("colour=blue", 400),
        ("start=2023-01-01T00:00:00", 200),
        ("start=2023-01-01%2000:00:00.000000&end=2099-01-01T00:00:00", 200),
        ("", 200),
    ],
)
async def test_questions_that_cannot_be_answered_are_refused(cloud: ComputeCloud, query: str, status: int) -> None:
    for path, token in ((PATH, cloud.admin), (f"{PATH}/{cloud.project_id}", cloud.demo)):
        assert (await cloud.call("GET", f"{path}?{query}", token=token)).status_code == status


async def test_who_may_see_what(cloud: ComputeCloud) -> None:
    _, other_project, other = await cloud.api.a_member(cloud.admin, "other-user")
    assert (await cloud.call("GET", PATH)).status_code == 403
    assert (await cloud.call("GET", f"{PATH}/{cloud.project_id}", token=other)).status_code == 403
    assert (await cloud.call("GET", f"{PATH}/{other_project}", token=other)).json() == {"tenant_usage": {}}
    assert (await cloud.call("GET", f"{PATH}/{other_project}", token=cloud.admin)).status_code == 200
    assert (await cloud.call("GET", f"{PATH}/nobody", token=cloud.admin)).json() == {"tenant_usage": {}}


async def test_usage_goes_with_the_server_when_it_is_forgotten(database: AnyDatabase) -> None:
    write = lived(1, (T0, T0 + HOUR))
    await database.write(write, "p1")
    assert await database.write(store.purge, T0 + 2 * HOUR, 10) == 1
    assert await database.read(lambda tx: tx.execute(sa.select(server_usage)).all()) == []


async def test_a_state_that_is_told_twice_is_charged_once(database: AnyDatabase) -> None:
    server_id = await database.write(lived(1, (T0, None)), "p1")
    await database.write(usage.note, server_id, VmState.ACTIVE, T0 + 5)
    await database.write(usage.note, server_id, VmState.STOPPED, T0 + HOUR)
    await database.write(usage.note, server_id, VmState.ERROR, T0 + 2 * HOUR)
    await database.write(usage.note, server_id, None, T0 + 3 * HOUR)
    period = usage.Period(T0, T0 + 9 * HOUR)
    (found,) = await database.read(usage.page, None, period, T0 + 9 * HOUR, 10, None)
    assert found.totals.hours == 1.0
