"""Links and times as Nova writes them."""

import functools
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from controller.http.op import Call
from controller.http.paging import Page, next_query


def links(base_url: str, collection: str, object_id: str) -> list[dict[str, str]]:
    """`self` with the API's version in it, `bookmark` without."""
    return [
        {"rel": "self", "href": f"{base_url}/{collection}/{object_id}"},
        {"rel": "bookmark", "href": f"{bookmark_base(base_url)}/{collection}/{object_id}"},
    ]


def bookmark(base_url: str, collection: str, object_id: str) -> list[dict[str, str]]:
    """The bookmark alone, as embedded images and flavors have it."""
    return [{"rel": "bookmark", "href": f"{bookmark_base(base_url)}/{collection}/{object_id}"}]


def bookmark_base(base_url: str) -> str:
    """The root without the version: http://host:5000/compute."""
    return base_url.removesuffix("/v2.1")


def quoted(segment: str) -> str:
    """A text as one segment of a path."""
    return quote(segment, safe="")


def next_page(call: Call, key: str, marker: str | None, count: int, page: Page) -> dict[str, Any]:
    """`servers_links` with the next page, when this one is full."""
    if not count or count < page.limit or marker is None:
        return {}
    return {f"{key}_links": [{"rel": "next", "href": f"{call.base_url}{call.path}?{next_query(call, marker)}"}]}


def last_id(rows: Sequence[Any]) -> str | None:
    """The marker of the page that follows these rows."""
    return str(rows[-1].id) if rows else None


@functools.lru_cache(maxsize=65536)
def seconds(at: float | None) -> str | None:
    """2026-11-22T16:02:01Z"""
    return None if at is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


@functools.lru_cache(maxsize=65536)
def micros(at: float | None) -> str | None:
    """2026-11-22T16:02:01.123456, without a zone: how Nova shows times that it forgot to format."""
    if at is None:
        return None
    whole = int(at)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{int((at - whole) * 1_000_000):06d}"
