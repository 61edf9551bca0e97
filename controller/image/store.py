"""SQL of images: who sees them, and the conditional updates that make their life a line."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from controller.context import Context
from controller.db.tables.image import image, image_location, image_member
from controller.db.tx import Tx
from controller.http.paging import Page, Visible, constant, keyset
from controller.image.model import Image, Member, MemberStatus, Status, Visibility, from_row

_LIVES = constant(image.c.deleted_at.is_(None))
_IMAGES = constant(sa.select(image))
_GET = sa.select(image).where(image.c.id == sa.bindparam("id"), _LIVES)


def _shared_with(status: MemberStatus | None) -> sa.ColumnElement[bool]:
    query = sa.select(image_member.c.image_id).where(image_member.c.member_id == sa.bindparam("owner"))
    if status is not None:
        query = query.where(image_member.c.status == status)
    return constant(sa.and_(image.c.visibility == Visibility.SHARED, image.c.id.in_(query)))


_OWN = constant(image.c.owner == sa.bindparam("owner"))
_OF_KIND = {kind: constant(image.c.visibility == kind) for kind in Visibility}
_OWN_OF_KIND = {kind: constant(sa.and_(_OWN, image.c.visibility == kind)) for kind in Visibility}
_SHARED_WITH = {status: _shared_with(status) for status in (None, *MemberStatus)}
_GET_VISIBLE = _GET.where(sa.or_(_OWN, _OF_KIND[Visibility.PUBLIC], _OF_KIND[Visibility.COMMUNITY], _SHARED_WITH[None]))
NOT_HIDDEN = constant(image.c.os_hidden.is_(False))


def listed(ctx: Context, visibility: str | None, member_status: str) -> Visible:
    """What a list shows: own and public ones and the shared ones that the project accepted; else what is asked for."""
    kinds = () if visibility in (None, "all") else (_OF_KIND[Visibility(visibility)],)
    if ctx.is_admin or visibility in (Visibility.PUBLIC, Visibility.COMMUNITY):
        return kinds
    accepted = _SHARED_WITH[None if member_status == "all" else MemberStatus(member_status)]
    if visibility is None:
        return _OWN, _OF_KIND[Visibility.PUBLIC], accepted
    if visibility == "all":
        return _OWN, _OF_KIND[Visibility.PUBLIC], _OF_KIND[Visibility.COMMUNITY], accepted
    own = _OWN_OF_KIND[Visibility(visibility)]
    return (own, accepted) if visibility == Visibility.SHARED else (own,)


def find(tx: Tx, image_id: str) -> Image | None:
    """One image that is not deleted, whoever owns it."""
    row = tx.execute(_GET, {"id": image_id}).one_or_none()
    return from_row(Image, row) if row is not None else None


def find_visible(tx: Tx, ctx: Context, image_id: str) -> Image | None:
    """One image that is not deleted, if the caller may see it: own, public, community, and what is shared with the
    project, accepted or not."""
    row = tx.execute(_GET if ctx.is_admin else _GET_VISIBLE, {"id": image_id, "owner": ctx.project_id}).one_or_none()
    return from_row(Image, row) if row is not None else None


def exists(tx: Tx, image_id: str) -> bool:
    """Whether the id was ever used."""
    return tx.execute(sa.select(image.c.id).where(image.c.id == image_id)).first() is not None


def page(
    tx: Tx, ctx: Context, visible: Visible, conditions: Sequence[sa.ColumnElement[bool]], wanted: Page
) -> list[Image]:
    """One page of a list."""
    params = {"owner": ctx.project_id}
    rows = keyset(tx, _IMAGES, wanted, image, where=(_LIVES, *conditions), visible=visible, params=params)
    return [from_row(Image, row) for row in rows]


def insert(tx: Tx, new: Image) -> None:
    """An image's row."""
    tx.execute(sa.insert(image).values({column.name: getattr(new, column.name) for column in image.columns}))


def update(tx: Tx, image_id: str, now: float, **values: Any) -> None:
    """Change what users may change."""
    tx.execute(sa.update(image).where(image.c.id == image_id).values(updated_at=now, **values))


def move(
    tx: Tx, image_id: str, before: Status, after: Status, now: float, *, lease: float | None = None, **values: Any
) -> bool:
    """Change the status if it is still `before`, and, where a lease is named, that one's; says whether it was."""
    here = [image.c.id == image_id, image.c.status == before, image.c.deleted_at.is_(None)]
    if lease is not None:
        here.append(image.c.upload_until == lease)
    done = tx.execute(sa.update(image).where(*here).values(status=after, updated_at=now, **values))
    return done.rowcount == 1


def delete(tx: Tx, image_id: str, now: float) -> None:
    """The row stays, so that nobody can make another image with this id; its bytes go later."""
    for table in (image_member, image_location):
        tx.execute(sa.delete(table).where(table.c.image_id == image_id))
    gone = {"status": Status.DELETED, "deleted_at": now, "updated_at": now, "reserved_bytes": 0}
    tx.execute(sa.update(image).where(image.c.id == image_id).values(gone))


def add_location(tx: Tx, image_id: str, store: str) -> None:
    """The bytes of the image are in that store."""
    tx.execute(sa.insert(image_location).values(image_id=image_id, store=store))


def is_held(tx: Tx, image_id: str, lease: float) -> bool:
    """Whether the upload that holds this lease still goes on."""
    here = (image.c.id == image_id, image.c.status == Status.SAVING, image.c.upload_until == lease)
    return tx.execute(sa.select(image.c.id).where(*here, image.c.deleted_at.is_(None))).first() is not None


def lapsed_uploads(tx: Tx, now: float) -> list[tuple[str, float]]:
    """(image, lease) of uploads that died with their controller."""
    here = (image.c.status == Status.SAVING, image.c.upload_until < now, image.c.deleted_at.is_(None))
    return [(row.id, row.upload_until) for row in tx.execute(sa.select(image.c.id, image.c.upload_until).where(*here))]


def buried(tx: Tx, image_ids: Sequence[str]) -> set[str]:
    """Those of these that were deleted: nobody is about to write their bytes."""
    mine = sa.select(image.c.id).where(image.c.id.in_(image_ids), image.c.status == Status.DELETED)
    return set(tx.execute(mine).scalars())


def living(tx: Tx, image_ids: Sequence[str]) -> set[str]:
    """Those of the ids that are images whose bytes must stay."""
    query = sa.select(image.c.id).where(image.c.id.in_(image_ids), image.c.deleted_at.is_(None))
    return set(tx.execute(query).scalars())


def used(tx: Tx, owner: str) -> dict[str, int]:
    """Count and MiB of a project's images, with what running uploads have reserved."""
    size = sa.func.coalesce(image.c.size, 0) + image.c.reserved_bytes
    query = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(size), 0)).where(
        image.c.owner == owner, image.c.deleted_at.is_(None)
    )
    count, total = tx.execute(query).one()
    return {"image_count_total": count, "image_size_total": -(-int(total) // (1 << 20))}


def members(tx: Tx, image_id: str) -> list[Member]:
    """Whom an image is shared with."""
    query = sa.select(image_member).where(image_member.c.image_id == image_id).order_by(image_member.c.member_id)
    return [from_row(Member, row) for row in tx.execute(query)]


def put_member(tx: Tx, image_id: str, member_id: str, status: MemberStatus, now: float) -> bool:
    """Share, or change what the member makes of it; False if nothing was there to change or to add."""
    here = (image_member.c.image_id == image_id, image_member.c.member_id == member_id)
    if tx.execute(sa.update(image_member).where(*here).values(status=status, updated_at=now)).rowcount:
        return True
    row = {"image_id": image_id, "member_id": member_id, "status": status, "created_at": now, "updated_at": now}
    tx.execute(sa.insert(image_member).values(row))
    return False


def delete_member(tx: Tx, image_id: str, member_id: str) -> bool:
    """Stop sharing; says whether it was shared."""
    here = (image_member.c.image_id == image_id, image_member.c.member_id == member_id)
    return bool(tx.execute(sa.delete(image_member).where(*here)).rowcount)
