"""Images: making, changing, removing, and which of them a server may boot from."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from controller import quota
from controller.context import Context
from controller.db.tx import Tx
from controller.errors import Conflict, Forbidden, Invalid, NotFound, TooLarge
from controller.http.paging import Page
from controller.image import store
from controller.image.model import MEMBERS_MAX, TAGS_MAX, Image, Member, MemberStatus, Status, Visibility


class ImageInUse(Conflict):
    """Something that must end first."""


def create(tx: Tx, ctx: Context, new: Image) -> Image:
    """Insert an image, queued. Raises Conflict if the id was ever used, OverQuota."""
    if store.exists(tx, new.id):
        raise Conflict(f"Image ID {new.id} already exists!")
    quota.charge(tx, new.owner, "image", {"image_count_total": 1}, store.used)
    store.insert(tx, new)
    return new


def get(tx: Tx, ctx: Context, image_id: str) -> Image:
    """One image. Raises NotFound."""
    found = store.find_visible(tx, ctx, image_id)
    if found is None:
        raise NotFound(f"No image found with ID {image_id}")
    return found


def get_own(tx: Tx, ctx: Context, image_id: str) -> Image:
    """One image that the caller may change. Raises NotFound, or Forbidden for one that is only visible."""
    found = get(tx, ctx, image_id)
    if not ctx.is_admin and found.owner != ctx.project_id:
        raise Forbidden("You are not permitted to modify this image.")
    return found


def listing(
    tx: Tx,
    ctx: Context,
    visibility: str | None,
    member_status: str,
    where: Sequence[sa.ColumnElement[bool]],
    page: Page,
) -> list[Image]:
    """One page of what the caller may list."""
    return store.page(tx, ctx, store.listed(ctx, visibility, member_status), where, page)


def change(tx: Tx, ctx: Context, image_id: str, values: dict[str, Any], now: float) -> Image:
    """Set columns of an own image. Raises NotFound, OverQuota, Forbidden, also for formats once there are bytes."""
    found = get_own(tx, ctx, image_id)
    frozen = {"disk_format", "container_format"} & values.keys()
    if frozen and found.status is not Status.QUEUED:
        raise Forbidden(f"Attribute '{min(frozen)}' can be replaced only for a queued image.")
    if values.get("owner", found.owner) != found.owner:
        quota.charge(tx, values["owner"], "image", {"image_count_total": 1}, store.used)
    if values:
        store.update(tx, image_id, now, **values)
    return get(tx, ctx, image_id)


def delete(tx: Tx, ctx: Context, image_id: str, now: float) -> None:
    """Delete an own image. Its bytes go after the transaction. Raises NotFound, Forbidden."""
    found = get_own(tx, ctx, image_id)
    if found.protected:
        raise Forbidden(f"Image {image_id} is protected and cannot be deleted.")
    store.delete(tx, image_id, now)


def activate(tx: Tx, ctx: Context, image_id: str, is_active: bool, now: float) -> None:
    """Take an own image out of use, or back."""
    found = get_own(tx, ctx, image_id)
    before, after = (Status.DEACTIVATED, Status.ACTIVE) if is_active else (Status.ACTIVE, Status.DEACTIVATED)
    if found.status is not after and not store.move(tx, image_id, before, after, now):
        raise Forbidden(f"Not allowed to {'re' if is_active else 'de'}activate image in status '{found.status}'")


def readable(tx: Tx, ctx: Context, image_id: str) -> Image:
    """An image whose bytes the caller may have; status QUEUED or SAVING means there are none yet."""
    found = get(tx, ctx, image_id)
    if found.status is Status.DEACTIVATED and not ctx.is_admin:
        raise Forbidden("The requested image has been deactivated. Image data download is forbidden.")
    return found


def bootable(tx: Tx, ctx: Context, image_id: str) -> Image:
    """An image that a server may boot from now. Raises Invalid with Nova's sentences."""
    found = store.find_visible(tx, ctx, image_id)
    if found is None:
        raise Invalid(f"Image {image_id} could not be found.")
    if found.status is not Status.ACTIVE:
        raise Invalid(f"Image {image_id} is not active.")
    if found.sha256 is None:
        raise Invalid(f"Image {image_id} has no data of its own: it names volumes, of which new servers can be made.")
    return found


# Members.


def shared(tx: Tx, ctx: Context, image_id: str) -> Image:
    """An image whose members the caller may see. Raises NotFound, Forbidden unless it is shared."""
    found = get(tx, ctx, image_id)
    if found.visibility is not Visibility.SHARED:
        raise Forbidden("Only shared images have members.")
    return found


def members(tx: Tx, ctx: Context, image_id: str) -> list[Member]:
    """All members for the owner, only itself for a member."""
    found = shared(tx, ctx, image_id)
    everyone = store.members(tx, image_id)
    if ctx.is_admin or found.owner == ctx.project_id:
        return everyone
    return [one for one in everyone if one.member_id == ctx.project_id]


def member(tx: Tx, ctx: Context, image_id: str, member_id: str) -> Member:
    """One member. Raises NotFound."""
    for one in members(tx, ctx, image_id):
        if one.member_id == member_id:
            return one
    raise NotFound(f"{member_id} not found in the member list of the image {image_id}.")


def share(tx: Tx, ctx: Context, image_id: str, member_id: str, now: float) -> Member:
    """The owner shares an image with a project. Raises Conflict if it did already."""
    get_own(tx, ctx, image_id)
    shared(tx, ctx, image_id)
    known = store.members(tx, image_id)
    if any(one.member_id == member_id for one in known):
        raise Conflict(f"Image member {member_id} already exists for image {image_id}.")
    if len(known) >= MEMBERS_MAX:
        raise TooLarge(f"The limit of {MEMBERS_MAX} members of an image is reached.")
    store.put_member(tx, image_id, member_id, MemberStatus.PENDING, now)
    return member(tx, ctx, image_id, member_id)


def answer(tx: Tx, ctx: Context, image_id: str, member_id: str, status: MemberStatus, now: float) -> Member:
    """A member accepts or rejects; the owner may not answer for it."""
    member(tx, ctx, image_id, member_id)
    if not ctx.is_admin and member_id != ctx.project_id:
        raise Forbidden("Only the member itself may change its status.")
    store.put_member(tx, image_id, member_id, status, now)
    return member(tx, ctx, image_id, member_id)


def unshare(tx: Tx, ctx: Context, image_id: str, member_id: str) -> None:
    """The owner stops sharing. Raises NotFound."""
    get_own(tx, ctx, image_id)
    if not store.delete_member(tx, image_id, member_id):
        raise NotFound(f"{member_id} not found in the member list of the image {image_id}.")


def tagged(tx: Tx, ctx: Context, image_id: str, tag: str, is_there: bool, now: float) -> None:
    """Put a tag on an own image or take it off. Raises NotFound for one that is not there to take off."""
    found = get_own(tx, ctx, image_id)
    if not is_there and tag not in found.tags:
        raise NotFound(f"Tag {tag} not found on image {image_id}.")
    tags = sorted({*found.tags, tag} if is_there else {*found.tags} - {tag})
    if len(tags) > TAGS_MAX:
        raise TooLarge(f"The limit of {TAGS_MAX} tags of an image is reached.")
    store.update(tx, image_id, now, tags=tags)
