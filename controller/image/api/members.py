"""Handlers of image members."""

from typing import Any

from controller.http.op import Call
from controller.image import images
from controller.image.api import views
from controller.image.model import MemberStatus


async def index(call: Call) -> dict[str, Any]:
    """GET /images/{image_id}/members."""
    found = await call.cloud.db.read(images.members, call.ctx, call.params["image_id"])
    return {"members": [views.member(one) for one in found], "schema": "/v2/schemas/members"}


async def create(call: Call) -> dict[str, Any]:
    """POST /images/{image_id}/members."""
    now = call.cloud.world.clock.now()
    ids = (call.params["image_id"], call.body.member)
    return views.member(await call.cloud.db.write(images.share, call.ctx, *ids, now))


async def show(call: Call) -> dict[str, Any]:
    """GET /images/{image_id}/members/{member_id}."""
    ids = (call.params["image_id"], call.params["member_id"])
    return views.member(await call.cloud.db.read(images.member, call.ctx, *ids))


async def update(call: Call) -> dict[str, Any]:
    """PUT /images/{image_id}/members/{member_id}."""
    ids = (call.params["image_id"], call.params["member_id"])
    status, now = MemberStatus(call.body.status), call.cloud.world.clock.now()
    return views.member(await call.cloud.db.write(images.answer, call.ctx, *ids, status, now))


async def delete(call: Call) -> None:
    """DELETE /images/{image_id}/members/{member_id}."""
    await call.cloud.db.write(images.unshare, call.ctx, call.params["image_id"], call.params["member_id"])
