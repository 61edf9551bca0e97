"""Links and times as Cinder writes them."""

import functools
import time

from controller.http.op import Call


def links(call: Call, collection: str, object_id: str) -> list[dict[str, str]]:
    """`self` with the API's version in it, `bookmark` without."""
    return [
        {"rel": "self", "href": f"{call.base_url}/{collection}/{object_id}"},
        {"rel": "bookmark", "href": f"{call.base_url.removesuffix('/v3')}/{collection}/{object_id}"},
    ]


@functools.lru_cache(maxsize=65536)
def micros(at: float | None) -> str | None:
    """2026-11-22T16:02:01.123456, without a zone."""
    if at is None:
        return None
    whole = int(at)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{int((at - whole) * 1_000_000):06d}"
