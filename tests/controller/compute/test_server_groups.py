"""Server groups: the API's forms, and what the scheduler makes of the policies."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from controller import quota
from controller.compute import store
from controller.schedule import filters, weights
from controller.schedule.model import Company, Policy, Ratios
from tests.controller.compute import rows
from tests.controller.compute.cloud import BODY, ComputeCloud, compute_cloud

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[ComputeCloud]:
    async with compute_cloud(tmp_path, "h1", "h2", "h3") as made:
        yield made


async def _group(cloud: ComputeCloud, policy: str, **more: Any) -> str:
    body = {"server_group": {"name": "g", "policy": policy, **more}}
    reply = await cloud.call("POST", "/os-server-groups", json=body)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["server_group"]["id"])


async def _boot(cloud: ComputeCloud, group_id: str, count: int = 1) -> None:
    body = {"server": {**BODY, "min_count": count}, "os:scheduler_hints": {"group": group_id}}
    reply = await cloud.call("POST", "/servers", json=body)
    assert reply.status_code == 202, reply.text


async def _hosts(cloud: ComputeCloud) -> Counter[str | None]:
    await cloud.rest()
    listed = (await cloud.call("GET", "/servers/detail", token=cloud.admin, params={"all_tenants": "1"})).json()
    return Counter(one["OS-EXT-SRV-ATTR:host"] for one in listed["servers"])


async def test_a_group_looks_as_its_version_says(cloud: ComputeCloud) -> None:
    older = {"server_group": {"name": "g", "policies": ["affinity"]}}
    made = (await cloud.call("POST", "/os-server-groups", version="2.1", json=older)).json()["server_group"]
    assert sorted(made) == ["id", "members", "metadata", "name", "policies"]
    path = f"/os-server-groups/{made['id']}"
    middle = (await cloud.call("GET", path, version="2.13")).json()["server_group"]
    assert (middle["project_id"], middle["policies"]) == (cloud.project_id, ["affinity"])
    newest = (await cloud.call("GET", path)).json()["server_group"]
    assert (newest["policy"], newest["rules"], newest["members"]) == ("affinity", {}, [])
    listed = (await cloud.call("GET", "/os-server-groups")).json()["server_groups"]
    assert [one["id"] for one in listed] == [made["id"]]
    assert (await cloud.call("DELETE", path)).status_code == 204
    assert (await cloud.call("GET", path)).status_code == 404


@pytest.mark.parametrize(
    ("version", "body"),
    [
        ("2.1", {"name": "g", "policies": ["soft-affinity"]}),
        ("2.1", {"name": "g", "policies": []}),
        ("2.15", {"name": "g", "policies": ["affinity", "anti-affinity"]}),
        ("2.64", {"name": "g", "policies": ["affinity"]}),
        ("2.64", {"name": "g", "policy": "love"}),
        ("2.64", {"name": "g", "policy": "affinity", "rules": {"max_server_per_host": 2}}),
        ("2.64", {"name": "g", "policy": "anti-affinity", "rules": {"max_server_per_host": 0}}),
        ("2.64", {"name": " ", "policy": "affinity"}),
    ],
)
async def test_bad_groups_are_400(cloud: ComputeCloud, version: str, body: dict[str, Any]) -> None:
    reply = await cloud.call("POST", "/os-server-groups", version=version, json={"server_group": body})
    assert reply.status_code == 400, reply.text


async def test_servers_of_an_anti_affine_group_are_apart_and_the_last_one_finds_no_host(cloud: ComputeCloud) -> None:
    group_id = await _group(cloud, "anti-affinity")
    await asyncio.gather(*(_boot(cloud, group_id) for _ in range(4)))
    assert await _hosts(cloud) == {None: 1, "name-h1": 1, "name-h2": 1, "name-h3": 1}
    shown = (await cloud.call("GET", f"/os-server-groups/{group_id}")).json()["server_group"]
    assert len(shown["members"]) == 4
    faults = [
        (await cloud.show(server_id, token=cloud.admin)).get("fault", {}).get("message", "")
        for server_id in shown["members"]
    ]
    assert [text for text in faults if text] == [
        "No valid host was found. There are not enough hosts available: anti-affinity (3)."
    ]


async def test_an_anti_affine_group_may_allow_some_on_a_host(cloud: ComputeCloud) -> None:
    group_id = await _group(cloud, "anti-affinity", rules={"max_server_per_host": 2})
    await _boot(cloud, group_id, count=6)
    assert set((await _hosts(cloud)).values()) == {2}


async def test_servers_of_an_affine_group_are_together(cloud: ComputeCloud) -> None:
    group_id = await _group(cloud, "affinity")
    await _boot(cloud, group_id, count=4)
    assert list((await _hosts(cloud)).values()) == [4]


async def test_a_server_shows_its_group_and_leaves_it_when_it_is_deleted(cloud: ComputeCloud) -> None:
    group_id = await _group(cloud, "soft-affinity")
    await _boot(cloud, group_id)
    await cloud.rest()
    (server_id,) = (await cloud.call("GET", f"/os-server-groups/{group_id}")).json()["server_group"]["members"]
    assert (await cloud.show(server_id))["server_groups"] == [group_id]
    assert (await cloud.call("DELETE", f"/servers/{server_id}")).status_code == 204
    await cloud.rest()
    assert (await cloud.call("GET", f"/os-server-groups/{group_id}")).json()["server_group"]["members"] == []


async def test_groups_and_their_members_have_quotas(cloud: ComputeCloud) -> None:
    await cloud.write(quota.set_limits, cloud.project_id, "compute", {"server_groups": 1, "server_group_members": 2})
    group_id = await _group(cloud, "soft-affinity")
    body = {"server_group": {"name": "g", "policy": "affinity"}}
    assert (await cloud.call("POST", "/os-server-groups", json=body)).status_code == 403
    server = {"server": {**BODY, "min_count": 3}, "os:scheduler_hints": {"group": group_id}}
    refused = await cloud.call("POST", "/servers", json=server)
    assert refused.status_code == 403 and "too many servers in group" in refused.text
    assert (await cloud.api.cloud.db.read(store.used, cloud.project_id))["instances"] == 0
    limits = (await cloud.call("GET", "/limits")).json()["limits"]["absolute"]
    assert (limits["maxServerGroups"], limits["totalServerGroupsUsed"]) == (1, 1)


@pytest.mark.parametrize("group", ["nobody", "11111111-2222-4333-8444-555555555555", 7])
async def test_a_group_that_is_not_there_is_400(cloud: ComputeCloud, group: Any) -> None:
    body = {"server": BODY, "os:scheduler_hints": {"group": group}}
    assert (await cloud.call("POST", "/servers", json=body)).status_code == 400


async def test_anothers_group_is_not_seen(cloud: ComputeCloud) -> None:
    group_id = await _group(cloud, "affinity")
    _, _, other = await cloud.api.a_member(cloud.admin, "other")
    assert (await cloud.call("GET", f"/os-server-groups/{group_id}", token=other)).status_code == 404
    assert (await cloud.call("DELETE", f"/os-server-groups/{group_id}", token=other)).status_code == 404
    listed = (await cloud.call("GET", "/os-server-groups?all_projects=1", token=other)).json()["server_groups"]
    assert listed == []
    everybodys = (await cloud.call("GET", "/os-server-groups?all_projects=1", token=cloud.admin)).json()
    assert [one["id"] for one in everybodys["server_groups"]] == [group_id]


def test_soft_policies_are_weights_and_never_refuse() -> None:
    near, far = rows.a_room("near"), rows.a_room("far")
    for policy, first in ((Policy.SOFT_AFFINITY, "near"), (Policy.SOFT_ANTI_AFFINITY, "far")):
        wish = rows.a_wish(group=Company(policy=policy, on={"near": 3}))
        assert filters.sift([near, far], wish, Ratios())[1] == ()
        assert weights.rank([near, far], wish, Ratios())[0].host_id == first
