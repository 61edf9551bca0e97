"""Version documents: what clients read before they have a token."""

from typing import Any

from controller.compute.api.versions import VERSIONS
from controller.http.op import Call


def _entry(url: str) -> dict[str, Any]:
    low, high = (f"{version[0]}.{version[1]}" for version in (VERSIONS[0], VERSIONS[-1]))
    return {
        "id": "v2.1",
        "status": "CURRENT",
        "version": high,
        "min_version": low,
        "updated": "2013-07-23T11:33:21Z",
        "links": [{"rel": "self", "href": url}],
    }


async def versions(call: Call) -> dict[str, Any]:
    """GET /compute"""
    return {"versions": [_entry(f"{call.base_url}/")]}


async def version(call: Call) -> dict[str, Any]:
    """GET /compute/v2.1"""
    media = {"base": "application/json", "type": "application/vnd.openstack.compute+json;version=2.1"}
    return {"version": {**_entry(f"{call.base_url}/"), "media-types": [media]}}
