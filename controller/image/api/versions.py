"""Version documents and schemas: Glance has minor versions in its documents, but no microversions."""

from typing import Any

from controller.http.op import Call, Reply
from controller.image.api import views


def _document(url: str) -> dict[str, Any]:
    def row(version: str, status: str) -> dict[str, Any]:
        return {"id": version, "status": status, "links": [{"rel": "self", "href": f"{url}/v2/"}]}

    return {"versions": [row("v2.9", "CURRENT"), row("v2.7", "SUPPORTED"), row("v2.5", "SUPPORTED")]}


async def choices(call: Call) -> Reply:
    """GET / of the service: 300, as Glance has it."""
    return Reply(_document(call.base_url), status=300)


async def versions(call: Call) -> dict[str, Any]:
    """GET /versions."""
    return _document(call.base_url)


async def image_schema(call: Call) -> dict[str, Any]:
    """GET /v2/schemas/image."""
    return views.IMAGE_SCHEMA


async def images_schema(call: Call) -> dict[str, Any]:
    """GET /v2/schemas/images."""
    return views.IMAGES_SCHEMA


async def member_schema(call: Call) -> dict[str, Any]:
    """GET /v2/schemas/member."""
    return views.MEMBER_SCHEMA


async def members_schema(call: Call) -> dict[str, Any]:
    """GET /v2/schemas/members."""
    return views.MEMBERS_SCHEMA
