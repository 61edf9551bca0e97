"""Handlers of images and of their bytes."""

from collections.abc import AsyncIterator
from typing import Any

from controller.errors import Forbidden, Invalid, NotFound
from controller.http.op import Call, Reply
from controller.http.paging import next_query, page_of
from controller.http.policy import is_allowed
from controller.image import images, uploads
from controller.image.api import bodies, patch, queries, views
from controller.image.model import Image, Status, Visibility

_IMPORT = {"OpenStack-image-import-methods": ""}
"""Bytes come by PUT …/file; no import method is offered."""


async def create(call: Call) -> Reply:
    """POST /images."""
    columns, properties = bodies.values_of(call.body)
    now = call.cloud.world.clock.now()
    owner = columns.get("owner", call.ctx.project_id)
    if owner is None or (owner != call.ctx.project_id and not call.ctx.is_admin):
        raise Forbidden(f"You are not permitted to create images owned by '{owner}'.")
    _may_show(call, columns)
    ids = {"id": columns.pop("id", None) or call.cloud.world.entropy.uuid(), "owner": owner}
    columns.pop("owner", None)
    tags = tuple(columns.pop("tags", ()))
    shown = Visibility(columns.pop("visibility", Visibility.SHARED))
    new = Image(**ids, **columns, visibility=shown, tags=tags, properties=properties, created_at=now, updated_at=now)
    made = await call.cloud.db.write(images.create, call.ctx, new)
    return Reply(views.image(made), headers={"Location": f"{call.base_url}/v2/images/{made.id}", **_IMPORT})


async def index(call: Call) -> dict[str, Any]:
    """GET /images."""
    page = page_of(call, queries.SORTABLE, (("created_at", True),))
    shown = (queries.visibility(call.query), queries.member_status(call.query))
    found = await call.cloud.db.read(images.listing, call.ctx, *shown, queries.conditions(call.query), page)
    view: dict[str, Any] = {"images": [views.image(one) for one in found], "schema": "/v2/schemas/images"}
    pairs = "&".join(f"{key}={value}" for key, value in call.query.pairs if key != "marker")
    view["first"] = f"/v2/images?{pairs}" if pairs else "/v2/images"
    if found and len(found) == page.limit:
        view["next"] = f"/v2/images?{next_query(call, found[-1].id)}"
    return view


async def show(call: Call) -> dict[str, Any]:
    """GET /images/{image_id}."""
    return views.image(await call.cloud.db.read(images.get, call.ctx, call.params["image_id"]))


async def update(call: Call) -> dict[str, Any]:
    """PATCH /images/{image_id}."""
    image_id = call.params["image_id"]
    found = await call.cloud.db.read(images.get_own, call.ctx, image_id)
    steps = patch.operations(call.request.headers.get("content-type", ""), call.body)
    columns = patch.apply(found, steps, may_give=call.ctx.is_admin)
    _may_show(call, columns)
    now = call.cloud.world.clock.now()
    return views.image(await call.cloud.db.write(images.change, call.ctx, image_id, columns, now))


async def delete(call: Call) -> None:
    """DELETE /images/{image_id}."""
    image_id = call.params["image_id"]
    await call.cloud.db.write(images.delete, call.ctx, image_id, call.cloud.world.clock.now())
    await call.cloud.images.remove(image_id)


async def upload(call: Call) -> None:
    """PUT /images/{image_id}/file."""
    length = call.request.headers.get("content-length")
    size = int(length) if length is not None and length.isdecimal() else None
    await uploads.upload(call.cloud, call.ctx, call.params["image_id"], call.request.stream(), size)


async def download(call: Call) -> Reply:
    """GET /images/{image_id}/file."""
    found = await call.cloud.db.read(images.readable, call.ctx, call.params["image_id"])
    if found.status not in (Status.ACTIVE, Status.DEACTIVATED):
        return Reply(status=204)
    pieces = call.cloud.images.open(found.id)
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(found.size)}
    if found.md5:
        headers["Content-MD5"] = found.md5
    return Reply(await _begun(found.id, pieces), headers=headers)


async def deactivate(call: Call) -> None:
    """POST /images/{image_id}/actions/deactivate."""
    await _activate(call, False)


async def reactivate(call: Call) -> None:
    """POST /images/{image_id}/actions/reactivate."""
    await _activate(call, True)


async def put_tag(call: Call) -> None:
    """PUT /images/{image_id}/tags/{tag}."""
    if len(call.params["tag"]) > 255:
        raise Invalid("A tag has at most 255 characters.")
    await _tag(call, True)


async def delete_tag(call: Call) -> None:
    """DELETE /images/{image_id}/tags/{tag}."""
    await _tag(call, False)


async def _activate(call: Call, is_active: bool) -> None:
    now = call.cloud.world.clock.now()
    await call.cloud.db.write(images.activate, call.ctx, call.params["image_id"], is_active, now)


async def _tag(call: Call, is_there: bool) -> None:
    now = call.cloud.world.clock.now()
    await call.cloud.db.write(images.tagged, call.ctx, call.params["image_id"], call.params["tag"], is_there, now)


def _may_show(call: Call, columns: dict[str, Any]) -> None:
    rule = {Visibility.PUBLIC: "publicize_image", Visibility.COMMUNITY: "communitize_image"}.get(
        columns.get("visibility", "")
    )
    if rule is not None and not is_allowed(call.ctx, rule):
        call.authorize(rule, {})


async def _begun(image_id: str, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The pieces, once the first is there: a missing file must be an error, not a broken reply."""
    try:
        first = await anext(pieces, b"")
    except FileNotFoundError as error:
        raise NotFound(f"The data of image {image_id} is not here.") from error

    async def all_pieces() -> AsyncIterator[bytes]:
        yield first
        async for piece in pieces:
            yield piece

    return all_pieces()
