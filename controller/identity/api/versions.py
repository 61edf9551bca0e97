"""Version documents of identity, also at the root: whoever gives only host and port finds the login."""

from typing import Any, Final

from controller.http.op import Call, Reply

VERSION: Final = "v3.14"


def _entry(call: Call) -> dict[str, Any]:
    root = call.base_url.removesuffix("/identity/v3")
    return {
        "id": VERSION,
        "status": "stable",
        "updated": "2020-04-07T00:00:00Z",
        "links": [{"rel": "self", "href": f"{root}/identity/v3/"}],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}],
    }


async def choices(call: Call) -> Reply:
    """GET / and GET /identity: 300, as Keystone does."""
    entry = _entry(call)
    location = entry["links"][0]["href"]
    return Reply({"versions": {"values": [entry]}}, headers={"Location": location})


async def version(call: Call) -> dict[str, Any]:
    """GET /identity/v3."""
    return {"version": _entry(call)}
