"""Bodies well-formed and absurd: whatever the values, the answer is about the request and never our failure."""

import copy
import json
from collections.abc import Iterator
from typing import Any

from tests.api import minimal, rows
from tests.api.clouds import ApiCloud

ABSURD: tuple[Any, ...] = (
    "",
    "x" * 256,
    "🦜" * 300,
    "x" * 70_000,
    "a\nb\r\nSet-Cookie: x",
    "../../../../etc/passwd",
    "';DROP TABLE user;--",
    "\ud800".encode("utf-8", "surrogatepass").decode("utf-8", "replace"),
    "\u202e\u0007",
    0,
    -1,
    1 << 31,
    1 << 62,
    (1 << 64) + 1,
    1e308,
    True,
    None,
    [],
    {},
    [[[[]]]],
    {"id": {"id": {"id": 1}}},
)


def changed(body: Any) -> Iterator[Any]:
    """The body, with each absurd value at each of its leaves in turn."""
    for path in _leaves(body):
        for value in ABSURD:
            copied = copy.deepcopy(body)
            if not path:
                yield value
                continue
            holder = copied
            for key in path[:-1]:
                holder = holder[key]
            holder[path[-1]] = value
            yield copied


def _leaves(body: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ()
    found = False
    for key, value in items:
        found = True
        yield from _leaves(value, (*path, key))
    if not found:
        yield path


def all_fields(kind: Any) -> Any:
    """The largest body that can be made from the type: every field of every struct."""
    import msgspec

    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return {field.encode_name: all_fields(field.type) for field in msgspec.structs.fields(kind)}
    return minimal.value(kind)


async def test_absurd_values_are_never_our_failure(cloud: ApiCloud) -> None:
    admin = await cloud.admin()
    for service, op, path in rows.rows():
        if not rows.takes_json(op):
            continue
        headers = {**rows.version_headers(service, op), **rows.media(op)}
        for body in (*changed(minimal.value(op.body)), *changed(all_fields(op.body))):
            content = rows.wrapped(op, json.dumps(body)).encode()
            if op.policy == "public" and b"password" in content and len(content) < 5000:
                continue  # A password check each; the long and the short are tried with wrong types.
            reply = await cloud.call(op.method, path, admin, headers=headers, content=content)
            assert reply.status_code < 500, f"{rows.name(service, op)} {content[:300]!r}: {reply.text[:300]}"
