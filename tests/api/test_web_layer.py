"""The web layer by itself: a made-up service with windows, actions, streams and failures."""

import dataclasses
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from agent.wire.world import system_world
from controller import errors
from controller.config import Settings
from controller.context import Context
from controller.http import faults, policy, trie
from controller.http.app import build
from controller.http.bodies import Body
from controller.http.fields import Field, render
from controller.http.op import PUBLIC, Call, Fault, Op, Reply, Service

PROJECT = "p" * 32
BASE = "/compute/v2.1"


class Inner(Body, frozen=True):
    name: str
    size: int = 0


class Outer(Body, frozen=True):
    server: Inner


async def echo(call: Call) -> dict[str, Any]:
    """What arrived."""
    return {"params": dict(call.params), "path": call.path, "base": call.base_url, "version": call.version}


async def which(call: Call) -> dict[str, Any]:
    """The row that serves."""
    return {"row": call.op.path, "action": call.op.action}


async def none(call: Call) -> None:
    """Nothing."""


async def made(call: Call) -> dict[str, Any]:
    """The decoded body."""
    return {"name": call.body.server.name}


async def fails(call: Call) -> None:
    """As the path says."""
    kind = call.params["kind"]
    if kind == "bug":
        raise RuntimeError("secret detail")
    raise getattr(errors, kind)("A sentence.", why={"a": 1})


async def pieces(call: Call) -> Reply:
    """In pieces."""

    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    return Reply(body(), headers={"Content-Type": "application/octet-stream"})


async def swallow(call: Call) -> dict[str, int]:
    """How much came."""
    size = 0
    async for chunk in call.request.stream():
        size += len(chunk)
    return {"size": size}


async def splits(call: Call) -> Reply:
    """A header with a line break in it."""
    return Reply(headers={"Location": "http://a\r\nSet-Cookie: x"})


OPS = (
    Op("GET", "/things/{id}", echo, "read"),
    Op("GET", "/things/detail", which, "read"),
    Op("GET", "/things/{id}/parts/{part}", echo, "read"),
    Op("GET", "/new", which, "read", since=(2, 3)),
    Op("GET", "/old", which, "read", until=(2, 2)),
    Op("POST", "/things", made, "write", body=Outer, status=202),
    Op("POST", "/things/{id}/action", which, "write", action="os-start"),
    Op("POST", "/things/{id}/action", made, "write", action="grow", body=Outer, since=(2, 4)),
    Op("POST", "/things/{id}/action", none, "root", action="lock", status=202),
    Op("GET", "/fail/{kind}", fails, "read"),
    Op("GET", "/pieces", pieces, "read"),
    Op("PUT", "/stream", swallow, "write", streams=True, media=("application/octet-stream",)),
    Op("GET", "/splits", splits, "read"),
    Op("DELETE", "/things/{id}", none, "write", status=204),
)
SERVICE = Service(
    name="compute",
    types=("compute",),
    prefix=BASE,
    ops=OPS,
    policies={"read": policy.project_reader, "write": policy.project_member, "root": policy.admin},
    envelope=faults.nova,
    versions=tuple((2, minor) for minor in range(1, 6)),
    version_header="compute",
    project_in_path=True,
    documents=(Op("GET", "/compute", which, PUBLIC),),
)


class Anyone:
    """The token is the role."""

    async def authenticate(self, token: str, request_id: str, global_request_id: str) -> Context:
        roles = {"reader": {"reader"}, "member": {"reader", "member"}, "admin": {"reader", "member", "admin"}}
        if token not in roles:
            raise errors.Unauthorized("The token is not valid.")
        return Context(
            request_id=request_id,
            global_request_id=global_request_id,
            user_id="u",
            project_id=PROJECT,
            roles=frozenset(roles[token]),
        )


class Disk:
    """What the web layer asks of a database."""

    why = ""

    def shortage(self) -> str:
        """See Database."""
        return self.why


def app(service: Service = SERVICE) -> Any:
    cloud = SimpleNamespace(world=system_world(1, "web-test"), settings=Settings(), db=Disk())
    return build(cast("Any", cloud), (service,), Anyone())


async def ask(method: str, path: str, role: str | None = "member", **options: Any) -> httpx.Response:
    headers = {**({"X-Auth-Token": role} if role else {}), **options.pop("headers", {})}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app()), base_url="http://127.0.0.1:5000") as client:
        return await client.request(method, path, headers=headers, **options)


async def test_literals_win_over_parameters_and_yield_where_they_lead_nowhere() -> None:
    assert (await ask("GET", f"{BASE}/things/detail")).json()["row"] == "/things/detail"
    assert (await ask("GET", f"{BASE}/things/x")).json()["params"] == {"id": "x"}
    reply = await ask("GET", f"{BASE}/things/detail/parts/7")
    assert reply.json()["params"] == {"id": "detail", "part": "7"}


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("a%2Fb", "a/b"),
        ("%2e%2e", ".."),
        ("..%2f..%2fetc", "../../etc"),
        ("a%20b", "a b"),
        ("%F0%9F%A6%9C", "🦜"),
        ("a;b=c", "a;b=c"),
        ("a%3Fb", "a?b"),
        ("%2561", "%61"),
    ],
)
async def test_parameters_are_decoded_once_and_mean_nothing(raw: str, value: str) -> None:
    assert (await ask("GET", f"{BASE}/things/{raw}")).json()["params"] == {"id": value}


@pytest.mark.parametrize("raw", ["%00", "a%0Ab", "%7f", "x" * 256, ""])
async def test_parameters_that_can_be_nobodys_id_lead_nowhere(raw: str) -> None:
    assert (await ask("GET", f"{BASE}/things/{raw}/parts/1")).status_code == 404


async def test_paths_that_are_not_utf8_are_400() -> None:
    assert (await ask("GET", f"{BASE}/things/%ff%fe")).status_code == 400


async def test_the_project_in_the_path_must_be_the_tokens() -> None:
    reply = await ask("GET", f"{BASE}/{PROJECT}/things/x")
    assert (reply.json()["params"], reply.json()["path"]) == ({"id": "x"}, "/things/x")
    assert reply.json()["base"] == f"http://127.0.0.1:5000{BASE}"
    assert (await ask("GET", f"{BASE}/{'q' * 32}/things/x")).status_code == 400
    assert (await ask("GET", f"{BASE}/{PROJECT}/nothing")).status_code == 404
    assert (await ask("GET", f"{BASE}/{PROJECT}/{PROJECT}/things/x")).status_code == 404


async def test_the_first_failure_of_the_fixed_order_answers() -> None:
    bad = {"OpenStack-API-Version": "compute 2.99"}
    wrong = {"Content-Type": "text/plain"}
    both = {**bad, **wrong}
    huge = b"x" * (1 << 21)
    assert (await ask("POST", f"{BASE}/nothing", None)).status_code == 401
    assert (await ask("PUT", f"{BASE}/nothing", headers=both, content=huge)).status_code == 404
    assert (await ask("PUT", f"{BASE}/things", "reader", headers=both, content=huge)).status_code == 405
    assert (await ask("POST", f"{BASE}/things", "reader", headers=both, content=huge)).status_code == 406
    assert (await ask("POST", f"{BASE}/things", "reader", headers=wrong, content=huge)).status_code == 403
    assert (await ask("POST", f"{BASE}/things", headers=wrong, content=huge)).status_code == 415
    assert (await ask("POST", f"{BASE}/things", content=huge)).status_code == 413
    assert (await ask("POST", f"{BASE}/things", content=b"{")).status_code == 400
    assert (await ask("POST", f"{BASE}/things", json={"server": {"name": "x"}})).status_code == 202


async def test_messages_name_the_field() -> None:
    async def message(body: Any) -> str:
        return str((await ask("POST", f"{BASE}/things", json=body)).json()["badRequest"]["message"])

    assert await message({"server": {"name": 1}}) == "Invalid input for 'server.name': Expected 'str', got 'int'."
    assert await message({"server": {}}) == "Invalid input for 'server': Missing required attribute 'name'."
    assert (
        await message({"server": {"name": "x", "y": 1}}) == "Invalid input for 'server': Unrecognized attribute(s) 'y'."
    )


async def test_actions_are_chosen_by_the_bodys_single_key() -> None:
    path = f"{BASE}/things/x/action"
    assert (await ask("POST", path, json={"os-start": None})).json()["action"] == "os-start"
    assert (await ask("POST", path, json={"os-start": None, "lock": None})).status_code == 400
    assert (await ask("POST", path, json={})).status_code == 400
    assert (await ask("POST", path, json={"unknown": None})).json()["badRequest"]["message"].endswith("unknown")
    assert (await ask("POST", path, json={"lock": None})).status_code == 403
    assert (await ask("POST", path, "admin", json={"lock": None})).status_code == 202
    grow = {"grow": {"server": {"name": "x"}}}
    assert (await ask("POST", path, json=grow)).status_code == 400
    newer = {"OpenStack-API-Version": "compute 2.4"}
    assert (await ask("POST", path, json=grow, headers=newer)).json() == {"name": "x"}
    wrong = {"grow": {"server": {"name": 1}}}
    text = (await ask("POST", path, json=wrong, headers=newer)).json()["badRequest"]["message"]
    assert "grow.server.name" in text


@pytest.mark.parametrize(
    ("headers", "version"),
    [
        ({}, "2.1"),
        ({"OpenStack-API-Version": "compute 2.3"}, "2.3"),
        ({"OpenStack-API-Version": "volume 3.9"}, "2.1"),
        ({"OpenStack-API-Version": "volume 3.9, compute 2.2"}, "2.2"),
        ({"OpenStack-API-Version": "compute latest"}, "2.5"),
        ({"X-OpenStack-Nova-API-Version": "2.4"}, "2.4"),
        ({"X-OpenStack-Nova-API-Version": "2.4", "OpenStack-API-Version": "compute 2.2"}, "2.2"),
        ({"X-OpenStack-Nova-API-Version": "2.4", "OpenStack-API-Version": "placement 1.2"}, "2.4"),
    ],
)
async def test_the_version_asked_for_is_the_version_spoken(headers: dict[str, str], version: str) -> None:
    reply = await ask("GET", f"{BASE}/things/x", headers=headers)
    assert reply.headers["openstack-api-version"] == f"compute {version}"
    assert reply.headers["x-openstack-nova-api-version"] == version
    assert ".".join(map(str, reply.json()["version"])) == version


@pytest.mark.parametrize("text", ["2", "2.", ".1", "2.1.1", "v2.1", "2.01", "two", "2.1 2.2", "-2.1", "2.1x", ""])
async def test_malformed_versions_are_400(text: str) -> None:
    reply = await ask("GET", f"{BASE}/things/x", headers={"OpenStack-API-Version": f"compute {text}"})
    assert reply.status_code == 400


async def test_rows_exist_within_their_window_only() -> None:
    for path, minor, status in (("new", 2, 404), ("new", 3, 200), ("old", 2, 200), ("old", 3, 404)):
        reply = await ask("GET", f"{BASE}/{path}", headers={"OpenStack-API-Version": f"compute 2.{minor}"})
        assert reply.status_code == status


def test_versions_without_a_hole_only() -> None:
    with pytest.raises(AssertionError, match="hole"):
        app(dataclasses.replace(SERVICE, versions=((2, 1), (2, 3))))


async def test_head_is_get_without_a_body() -> None:
    reply = await ask("HEAD", f"{BASE}/things/x")
    assert (reply.status_code, reply.content) == (200, b"")
    assert int(reply.headers["content-length"]) > 0


async def test_a_bug_is_a_500_that_leaks_nothing_but_the_request_id() -> None:
    reply = await ask("GET", f"{BASE}/fail/bug")
    assert reply.status_code == 500
    assert "secret" not in reply.text
    assert reply.headers["x-openstack-request-id"] in reply.json()["computeFault"]["message"]
    assert reply.headers["x-compute-request-id"] == reply.headers["x-openstack-request-id"]


async def test_a_split_header_is_never_sent() -> None:
    reply = await ask("GET", f"{BASE}/splits")
    assert reply.status_code == 500
    assert "set-cookie" not in reply.headers


async def test_failures_carry_why_and_their_services_envelope() -> None:
    reply = await ask("GET", f"{BASE}/fail/Conflict")
    assert reply.status_code == 409
    assert reply.json() == {"conflictingRequest": {"code": 409, "message": "A sentence.", "why": {"a": 1}}}
    assert (await ask("GET", f"{BASE}/fail/Unavailable")).headers["retry-after"] == "1"


def test_envelopes() -> None:
    fault = Fault(status=404, title="Not Found", message="No <b> here.", kind="NetworkNotFound")
    assert faults.neutron(fault)[0] == (
        b'{"NeutronError":{"type":"NetworkNotFound","message":"No <b> here.","detail":""}}'
    )
    assert faults.keystone(fault)[0] == b'{"error":{"code":404,"title":"Not Found","message":"No <b> here."}}'
    assert b"No &lt;b&gt; here." in faults.glance(fault)[0]
    assert b'"status":404' in faults.placement(fault)[0]


def test_quota_failures_have_their_services_status() -> None:
    over = errors.OverQuota("Too many.")
    for status in (403, 409, 413):
        assert faults.fault_of(over, dataclasses.replace(SERVICE, over_quota_status=status)).status == status


async def test_bodies_stream_both_ways() -> None:
    reply = await ask("GET", f"{BASE}/pieces")
    assert reply.content == b"onetwo"
    octets = {"Content-Type": "application/octet-stream"}
    reply = await ask("PUT", f"{BASE}/stream", headers=octets, content=b"x" * (3 << 20))
    assert reply.json() == {"size": 3 << 20}
    assert (await ask("PUT", f"{BASE}/stream", content=b"{}")).status_code == 415


async def test_request_ids_are_ours_and_global_ones_are_honoured_if_they_are_ids() -> None:
    seen: list[Context] = []

    async def keep(call: Call) -> None:
        seen.append(call.ctx)

    service = dataclasses.replace(SERVICE, ops=(Op("GET", "/x", keep, "read"),))
    theirs = "req-01234567-89ab-cdef-0123-456789abcdef"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app(service)), base_url="http://h") as client:
        for sent in (theirs, "req-'; DROP TABLE", ""):
            headers = {"X-Auth-Token": "member", "X-OpenStack-Request-ID": sent}
            reply = await client.get(f"{BASE}/x", headers=headers)
            assert reply.headers["x-openstack-request-id"] == seen[-1].request_id != theirs
    assert [ctx.global_request_id for ctx in seen] == [theirs, "", ""]


def test_fields_outside_their_window_are_absent() -> None:
    table = (Field("a", "x"), Field("b", lambda o: o.x + 1, since=(2, 3)), Field("c", "x", until=(2, 2)))
    thing = SimpleNamespace(x=1)
    assert render(table, thing, (2, 2)) == {"a": 1, "c": 1}
    assert render(table, thing, (2, 3)) == {"a": 1, "b": 2}


def test_percent_signs_survive_where_nothing_is_encoded() -> None:
    assert trie.decoded_segments("/a/b/", b"/a/b/") == ["a", "b"]
    assert trie.decoded_segments("/", b"/") == []


async def test_a_nearly_full_disk_takes_deletes_and_reads_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Disk, "why", "The disk is nearly full.")
    refused = [
        await ask("POST", f"{BASE}/things", json={"server": {"name": "n"}}),
        await ask("POST", f"{BASE}/things/x/action", json={"os-start": None}),
        await ask("PUT", f"{BASE}/stream", content=b"x", headers={"Content-Type": "application/octet-stream"}),
    ]
    for reply in refused:
        assert (reply.status_code, reply.json()["serviceUnavailable"]["message"]) == (503, Disk.why)
        assert "retry-after" in reply.headers
    assert (await ask("POST", f"{BASE}/things", role="reader", json={"server": {"name": "n"}})).status_code == 403
    assert (await ask("DELETE", f"{BASE}/things/x")).status_code == 204
    assert (await ask("GET", f"{BASE}/things/x")).status_code == 200
    assert (await ask("GET", "/compute", role=None)).status_code == 200
