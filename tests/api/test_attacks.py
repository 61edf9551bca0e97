"""What somebody would send who wants to break something: each of these once did, or its like does elsewhere.

Where time is the point there is no clock in the test: what was wrong took minutes to hours, which pytest's own limit
ends.
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from controller.services import services
from tests.api import test_tenants as tenants
from tests.api.clouds import ApiCloud, api_cloud
from tests.databases import AnyDatabase

pytestmark = pytest.mark.timeout(60)

NEWEST = {"OpenStack-API-Version": "compute 2.79"}
MIB = 1 << 20
PATCH = "application/openstack-images-v2.1-json-patch"
ANYTHING = {"Content-Type": "application/json"}


@pytest.fixture
async def any_cloud(tmp_path: Path, database: AnyDatabase) -> AsyncIterator[ApiCloud]:
    """On each kind of database in turn: PostgreSQL holds columns to their length, SQLite does not."""
    async with api_cloud(tmp_path, services(), database) as made:
        yield made


# Bodies and queries that cost more than they should.

COSTLY = {
    "a string without end": b'"' + b'\\"' * (MIB // 2 - 200) + b"[" * 100,
    "a string without end, nor of its last escape": b"[" * 100 + b'"' + b'\\"' * (MIB // 2 - 200) + b"\\",
    "one key twice, at the end of many": b"{" + b"".join(b'"%d":0,' % n for n in range(90_000)) + b'"89999":1}',
}


@pytest.mark.parametrize("content", COSTLY.values(), ids=COSTLY.keys())
async def test_a_body_costs_no_more_than_its_length(cloud: ApiCloud, content: bytes) -> None:
    member = (await cloud.a_member(await cloud.admin()))[2]
    for path, most in (("/identity/v3/auth/tokens", 60_000), ("/compute/v2.1/servers", MIB)):
        end = content[len(content) - most // 2 :]
        token = None if "auth" in path else member
        reply = await cloud.call("POST", path, token, content=content[: most // 2] + end, headers=ANYTHING)
        assert reply.status_code == 400, reply.text[:300]


def many(count: int, form: str) -> str:
    return ",".join(form % n for n in range(count))


LISTS: dict[str, tuple[str, str]] = {
    "ports": ("POST", '{"port": {"network_id": "x", "allowed_address_pairs": [%s]}}'),
    "ports/": ("POST", '{"port": {"network_id": "x", "security_groups": [%s]}}'),
    "routers/x": ("PUT", '{"router": {"routes": [%s]}}'),
    "routers/x/add_extraroutes": ("PUT", '{"router": {"routes": [%s]}}'),
    "subnets": ("POST", '{"subnet": {"network_id": "x", "ip_version": 4, "allocation_pools": [%s]}}'),
}


@pytest.mark.parametrize("path", LISTS)
async def test_lists_in_a_body_are_bounded_before_their_entries_are_looked_at(cloud: ApiCloud, path: str) -> None:
    admin = await cloud.admin()
    method, form = LISTS[path]
    entry = '"%d"' if "security" in form else "{}"
    content = form % (many(100_000, entry) if "%" in entry else ",".join([entry] * 2_000))
    reply = await cloud.call(method, f"/network/v2.0/{path}", admin, content=content.encode(), headers=ANYTHING)
    assert reply.status_code == 400, reply.text[:300]


async def test_no_server_asks_for_thousands_of_interfaces(cloud: ApiCloud) -> None:
    _, _, member = await cloud.a_member(await cloud.admin())
    network = (await tenants.a_network(cloud, member))["network_id"]
    await tenants.a_server(cloud, member)
    image = await tenants.uploaded(cloud, member)
    for nets in ([{"port": f"{n:08}-2222-4333-8444-555555555555"} for n in range(15_000)], [{"uuid": network}] * 9_000):
        server = {"name": "x", "flavorRef": "f", "imageRef": image, "networks": nets, "min_count": 100}
        reply = await cloud.call("POST", "/compute/v2.1/servers", member, json={"server": server}, headers=NEWEST)
        assert reply.status_code == 400, reply.text[:300]


QUERIES = [
    "/compute/v2.1/servers?tags=" + many(2_000, "t%d"),
    "/compute/v2.1/servers/detail?not-tags=" + many(2_000, "t%d"),
    "/compute/v2.1/servers?tags-any=" + many(2_000, "t%d"),
    "/compute/v2.1/servers?name=^(?:.|a)*b$",
    "/compute/v2.1/servers?ip=" + "1?" * 60,
    "/image/v2/images?" + "&".join(f"p{n}=x" for n in range(990)),
    "/image/v2/images?" + "&".join(f"tag=x{n}" for n in range(990)),
]


@pytest.mark.parametrize("path", QUERIES, ids=[path[:45] for path in QUERIES])
async def test_queries_that_no_list_needs_are_refused(cloud: ApiCloud, path: str) -> None:
    _, _, member = await cloud.a_member(await cloud.admin())
    assert (await cloud.call("GET", path, member, headers=NEWEST)).status_code == 400


@pytest.mark.parametrize("query", ["min_ram=99999999999", "min_disk=-99999999999", "size=999999999999999999"])
async def test_numbers_that_no_column_holds_find_nothing(any_cloud: ApiCloud, query: str) -> None:
    found = await any_cloud.call("GET", f"/image/v2/images?{query}", await any_cloud.admin())
    assert (found.status_code, found.json().get("images")) == (200, [])


async def test_a_filter_may_be_repeated_as_often_as_a_query_allows(cloud: ApiCloud) -> None:
    query = "&".join(["shared=true", "shared=false"] * 490)
    assert (await cloud.call("GET", f"/network/v2.0/subnets?{query}", await cloud.admin())).status_code == 200


# Values that have the right type, and cannot be kept.


async def test_the_longest_name_is_kept_however_long_it_is_without_case(any_cloud: ApiCloud) -> None:
    admin = await any_cloud.admin()
    longest = "\u0390" * 64  # Folds to three characters each.
    made = await any_cloud.made("/groups", admin, {"group": {"name": longest}})
    assert made["name"] == longest
    reply = await any_cloud.call("POST", "/identity/v3/roles", admin, json={"role": {"name": "\u0390" * 255}})
    assert reply.status_code == 201, reply.text


@pytest.mark.parametrize("member", ["x" * 65, "", "\U0001f99c" * 255])
async def test_an_image_is_shared_with_what_can_be_a_project(any_cloud: ApiCloud, member: str) -> None:
    _, _, token = await any_cloud.a_member(await any_cloud.admin())
    image = (await tenants.an_image(any_cloud, token))["image_id"]
    reply = await any_cloud.call("POST", f"/image/v2/images/{image}/members", token, json={"member": member})
    assert reply.status_code == 400, reply.text


async def test_an_image_has_some_visibility(cloud: ApiCloud) -> None:
    _, _, token = await cloud.a_member(await cloud.admin())
    body = {"disk_format": "raw", "container_format": "bare", "visibility": None}
    assert (await cloud.call("POST", "/image/v2/images", token, json=body)).status_code == 400
    path = f"/image/v2/images/{(await tenants.an_image(cloud, token))['image_id']}"
    changes = json.dumps([{"op": "replace", "path": "/visibility", "value": None}])
    reply = await cloud.call("PATCH", path, token, content=changes, headers={"Content-Type": PATCH})
    assert reply.status_code == 400
    assert (await cloud.call("GET", path, token)).json()["visibility"] == "shared"


async def test_an_image_has_no_endless_tags_and_members(cloud: ApiCloud) -> None:
    _, _, token = await cloud.a_member(await cloud.admin())
    path = f"/image/v2/images/{(await tenants.an_image(cloud, token))['image_id']}"
    tags = [(await cloud.call("PUT", f"{path}/tags/t{n}", token)).status_code for n in range(129)]
    body = [{"member": f"p{n}"} for n in range(129)]
    members = [(await cloud.call("POST", f"{path}/members", token, json=one)).status_code for one in body]
    assert (tags[127:], members[127:]) == ([204, 413], [200, 413])
    assert (await cloud.call("PUT", f"{path}/tags/t0", token)).status_code == 204  # It is there already.


UNKEPT: dict[str, dict[str, Any]] = {
    "an address with a scope": {"accessIPv6": "fe80::1%a\nb"},
    "an address with a long scope": {"accessIPv6": "fe80::1%" + "a" * 99},
    "space that base64 does not know": {"user_data": "aGVs\u2003bG8="},
}


@pytest.mark.parametrize("changes", UNKEPT.values(), ids=UNKEPT.keys())
async def test_servers_are_not_given_what_no_guest_could_be_told(cloud: ApiCloud, changes: dict[str, Any]) -> None:
    _, _, member = await cloud.a_member(await cloud.admin())
    server_id = (await tenants.a_server(cloud, member))["server_id"]
    image = await tenants.uploaded(cloud, member)
    server = {"name": "x", "flavorRef": "f", "imageRef": image, "networks": "none", **changes}
    reply = await cloud.call("POST", "/compute/v2.1/servers", member, json={"server": server}, headers=NEWEST)
    assert reply.status_code == 400, reply.text
    reply = await cloud.call("PUT", f"/compute/v2.1/servers/{server_id}", member, json={"server": changes})
    assert reply.status_code == 400, reply.text
