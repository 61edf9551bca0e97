"""What must be true of every row of every table, found by walking them."""

import types
import typing
from typing import Any

import msgspec

from controller.http.op import Op, Service
from controller.http.trie import Trie, segments_of
from controller.services import services
from tests.api import rows
from tests.api.clouds import ApiCloud


def test_every_row_has_a_policy() -> None:
    for service, op, _ in rows.rows():
        assert op.policy == "public" or op.policy in service.policies, rows.name(service, op)


def test_only_what_must_be_public_is() -> None:
    public = {rows.name(service, op) for service, op, _ in rows.rows() if op.policy == "public"}
    for name in public:
        method, path = name.split(" ", 1)
        is_document = method == "GET" and path.count("/") <= 3 and "{" not in path
        assert is_document or name == "POST /identity/v3/auth/tokens", f"{name} is public"


def test_windows_of_the_same_row_do_not_overlap() -> None:
    seen: dict[tuple[str, str, str, str | None], list[Op]] = {}
    for service, op, path in rows.rows():
        key = (service.name, op.method, path, op.action)
        for other in seen.setdefault(key, []):
            low = max(op.since or (0, 0), other.since or (0, 0))
            high = min(op.until or (99, 99), other.until or (99, 99))
            assert low > high, f"{rows.name(service, op)}: two rows for {low}"
        seen[key].append(op)


def test_windows_lie_within_the_versions_that_are_advertised() -> None:
    for service, op, _ in rows.rows():
        for bound in (op.since, op.until):
            assert bound is None or bound in service.versions, rows.name(service, op)


def test_every_row_is_found_by_its_own_path() -> None:
    """A literal path must not be swallowed by another row's parameter."""
    trie = Trie(services())
    for service, op, path in rows.rows():
        found = trie.find(segments_of(path))
        assert found.node is not None, rows.name(service, op)
        assert op in [route.op for route in found.node.methods[op.method]], rows.name(service, op)


def test_a_path_holds_either_actions_or_one_plain_row() -> None:
    kinds: dict[tuple[str, str], set[bool]] = {}
    for _, op, path in rows.rows():
        kinds.setdefault((op.method, path), set()).add(op.action is not None)
    assert [place for place, kind in kinds.items() if len(kind) > 1] == []


def structs_in(kind: Any) -> set[type[msgspec.Struct]]:
    """Every struct that a body's type can hold."""
    found: set[type[msgspec.Struct]] = set()
    waiting = [kind]
    while waiting:
        current = waiting.pop()
        if isinstance(current, type) and issubclass(current, msgspec.Struct):
            if current not in found:
                found.add(current)
                waiting += [field.type for field in msgspec.structs.fields(current)]
        elif isinstance(current, types.UnionType) or typing.get_origin(current) is not None:
            waiting += [part for part in typing.get_args(current) if not isinstance(part, str)]
    return found


def test_bodies_refuse_unknown_keys_at_every_depth_unless_the_row_says_why_not() -> None:
    for service, op, _ in rows.rows():
        if op.body is None or op.open_body:
            continue
        for struct in structs_in(op.body):
            assert struct.__struct_config__.forbid_unknown_fields, f"{rows.name(service, op)}: {struct.__name__}"
            assert struct.__struct_config__.frozen, f"{rows.name(service, op)}: {struct.__name__}"


async def test_without_a_token_every_private_row_says_401(cloud: ApiCloud) -> None:
    for service, op, path in rows.private_rows():
        reply = await cloud.call(op.method, path, headers=rows.version_headers(service, op))
        assert reply.status_code == 401, rows.name(service, op)
        assert reply.headers["www-authenticate"].startswith("Keystone uri="), rows.name(service, op)
        assert reply.headers["x-openstack-request-id"].startswith("req-")


async def test_a_token_without_scope_opens_nothing_that_has_an_owner(cloud: ApiCloud) -> None:
    token = await cloud.token("demo", "secret-of-demo", "unscoped")
    ctx = await cloud.cloud.tokens.authenticate(token, "", "")
    for service, op, path in rows.private_rows():
        if service.policies[op.policy](ctx, {}):
            continue
        headers = {**rows.version_headers(service, op), **rows.media(op)}
        content = rows.wrapped(op, "null") if op.action else None
        reply = await cloud.call(op.method, path, token, headers=headers, content=content)
        assert reply.status_code == 403, rows.name(service, op)


OF_THE_USER = ("identity:change_password", "identity:revoke_token", "os_compute_api:os-keypairs")
"""What belongs to a user and to no project is the user's to change, whatever the role."""


async def test_a_reader_changes_nothing(cloud: ApiCloud) -> None:
    admin = await cloud.admin()
    _, _, token = await cloud.a_member(admin, role="reader")
    ctx = await cloud.cloud.tokens.authenticate(token, "", "")
    for service, op, _ in rows.private_rows():
        if op.method in ("GET", "HEAD") or op.policy.startswith(OF_THE_USER):
            continue
        assert not service.policies[op.policy](ctx, {}), rows.name(service, op)


async def refused(cloud: ApiCloud, token: str, service: Service, op: Op, path: str, content: bytes) -> int:
    headers = {**rows.version_headers(service, op), **rows.media(op)}
    return (await cloud.call(op.method, path, token, headers=headers, content=content)).status_code


async def test_unknown_keys_of_a_body_are_400(cloud: ApiCloud) -> None:
    token = await cloud.admin()
    for service, op, path in rows.rows():
        if not rows.takes_json(op) or op.open_body or not structs_in(op.body):
            continue
        content = rows.wrapped(op, '{"surely-unknown": 1}').encode()
        assert await refused(cloud, token, service, op, path, content) == 400, rows.name(service, op)


MALFORMED = {
    "nothing": b"",
    "no JSON": b"{",
    "a duplicate key": b'{"a": 1, "a": 1}',
    "a duplicate key below": b'{"a": [{"b": 1, "c": 2, "b": 3}]}',
    "NaN": b'{"a": NaN}',
    "Infinity": b'{"a": -Infinity}',
    "a number beyond all bounds": b'{"a": 1e999}',
    "NUL in a string": b'{"a": "x\\u0000y"}',
    "half a surrogate pair": b'{"a": "\\ud800"}',
    "not UTF-8": b'{"a": "\xff\xfe"}',
    "too deep": b'{"a": ' * 70 + b"1" + b"}" * 70,
    "very deep": b"[" * 100_000,
    "deep and wide": b"[" * 65 + b"[]," * 100_000,
    "two documents": b"{} {}",
    "a byte order mark": b"\xef\xbb\xbf{}",
}


async def test_malformed_json_is_400_everywhere(cloud: ApiCloud) -> None:
    token = await cloud.admin()
    for service, op, path in rows.rows():
        if not rows.takes_json(op):
            continue
        for what, content in MALFORMED.items():
            if op.policy == "public" and len(content) > 60_000:
                continue
            status = await refused(cloud, token, service, op, path, content)
            assert status == 400, f"{rows.name(service, op)}: {what}"


async def test_wrong_types_are_400_and_never_ours_to_answer_for(cloud: ApiCloud) -> None:
    token = await cloud.admin()
    for service, op, path in rows.rows():
        if not rows.takes_json(op) or not structs_in(op.body):
            continue
        for inner in (b"[[]]", b"7", b'"text"', b"true"):
            content = rows.wrapped(op, inner.decode()).encode()
            assert await refused(cloud, token, service, op, path, content) == 400, rows.name(service, op)


async def test_a_body_over_the_limit_is_413_and_an_unknown_media_type_415(cloud: ApiCloud) -> None:
    token = await cloud.admin()
    for service, op, path in rows.rows():
        if not rows.takes_json(op):
            continue
        large = b" " * ((1 << 20) + 1)
        assert await refused(cloud, token, service, op, path, large) == 413, rows.name(service, op)
        headers = {**rows.version_headers(service, op), "Content-Type": "application/x-unknown"}
        reply = await cloud.call(op.method, path, token, headers=headers, content=b"{}")
        assert reply.status_code == 415, rows.name(service, op)


async def test_methods_that_no_row_has_are_405_and_unknown_paths_404(cloud: ApiCloud) -> None:
    token = await cloud.admin()
    for service, op, path in rows.private_rows():
        reply = await cloud.call("TRACE", path, token)
        assert reply.status_code == 405, rows.name(service, op)
        assert op.method in reply.headers["allow"]
    for service in services():
        assert (await cloud.call("GET", f"{service.prefix}/a/b/c/d/e/f/g", token)).status_code == 404
        assert (await cloud.call("GET", f"{service.prefix}/a/b/c/d/e/f/g")).status_code == 401


async def test_versions_are_negotiated_and_echoed(cloud: ApiCloud) -> None:
    token = await cloud.admin()
    for service, op, path in rows.private_rows():
        if not service.versions:
            continue
        name = service.version_header
        for asked, status in (("99.99", 406), ("2.x", 400), ("", 400)):
            reply = await cloud.call(op.method, path, token, headers={"OpenStack-API-Version": f"{name} {asked}"})
            assert reply.status_code == status, rows.name(service, op)
            assert reply.headers["openstack-api-version"].startswith(f"{name} ")
            assert "OpenStack-API-Version" in reply.headers["vary"]


async def test_rows_outside_their_window_are_404(cloud: ApiCloud) -> None:
    token = await cloud.admin()
    offered: dict[tuple[str, str], list[Op]] = {}
    for _, op, path in rows.rows():
        offered.setdefault((op.method, path), []).append(op)
    for service, op, path in rows.private_rows():
        if op.since is None or op.since == service.versions[0] or op.action is not None:
            continue
        before = service.versions[service.versions.index(op.since) - 1]
        if any((o.since or before) <= before <= (o.until or before) for o in offered[(op.method, path)]):
            continue
        headers = {"OpenStack-API-Version": f"{service.version_header} {before[0]}.{before[1]}"}
        assert (await cloud.call(op.method, path, token, headers=headers)).status_code == 404, rows.name(service, op)


READS_OF_NOTHING_ARE_FINE = ("os-quota-sets", "os-simple-tenant-usage", "/quotas/", "/schemas", "/implies")
"""Quotas of a project that nobody knows are the defaults, and it used nothing, as in Nova and Neutron."""


async def test_reading_or_deleting_what_is_not_there_is_404(cloud: ApiCloud) -> None:
    token = await cloud.admin()
    for service, op, path in rows.private_rows():
        has_id = "{" in op.path and not any(part in op.path for part in READS_OF_NOTHING_ARE_FINE)
        if op.method not in ("GET", "HEAD", "DELETE") or not has_id:
            continue
        reply = await cloud.call(op.method, path, token, headers=rows.version_headers(service, op))
        assert reply.status_code == 404, f"{rows.name(service, op)}: {reply.status_code} {reply.text[:200]}"


async def test_strange_queries_never_break_a_list(cloud: ApiCloud) -> None:
    token = await cloud.admin()
    strange = ("limit=-1", "limit=x", "limit=99999999999999999999", "marker=nobody", "sort_key=password_hash",
               "sort_key=id&sort_dir=sideways", "%ff=1", "a=%00", "name=" + "x" * 5000, "name[]=1", "&&&==", "🦜=🦜",
               "&".join(f"a{i}=1" for i in range(1001)))  # fmt: skip
    for service, op, path in rows.private_rows():
        if op.method != "GET" or "{" in op.path:
            continue
        for query in strange:
            reply = await cloud.call("GET", f"{path}?{query}", token, headers=rows.version_headers(service, op))
            assert reply.status_code < 500, f"{rows.name(service, op)}?{query}: {reply.text[:300]}"
