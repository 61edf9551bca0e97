"""Volumes that somebody notes to use, without an export: the oldest form of attaching, which tests and tools know.

A note is an attachment that is not ours and has no initiators. Only notes are taken back here: what serves a server, or
was exported to somebody, goes by its own way.
"""

import msgspec

from controller.context import Context
from controller.db.tx import Tx
from controller.volume import attachments
from controller.volume.attachments import Wanted
from controller.volume.model import Attachment, AttachStatus, InvalidVolume
from controller.volume.store import attachments as store
from controller.volume.store import volumes


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """Who uses it, as what."""

    server_id: str | None
    host_name: str | None
    device: str | None
    mode: str | None


def attach(tx: Tx, ctx: Context, volume_id: str, note: Note, drawn: tuple[str, float]) -> None:
    """Note that it is used. Raises NotFound, InvalidVolume."""
    row = volumes.get(tx, ctx, volume_id)
    attachment_id, now = drawn
    for one in _notes(tx, volume_id, AttachStatus.ATTACHING):
        attachments.release(tx, one.id, now)  # It was reserved for this.
    row = volumes.get(tx, ctx, volume_id)
    wanted = Wanted(
        id=attachment_id,
        volume_id=row.id,
        server_id=note.server_id,
        is_ours=False,
        mode=note.mode,
        device=note.device,
    )
    attachments.reserve(tx, row, wanted, now)
    store.change(tx, attachment_id, {"host_name": note.host_name})
    attachments.attached(tx, attachment_id, now)


def detach(tx: Tx, ctx: Context, volume_id: str, attachment_id: str | None, now: float) -> None:
    """It is used no more. Raises NotFound, InvalidVolume."""
    volumes.get(tx, ctx, volume_id)
    found = _notes(tx, volume_id, AttachStatus.ATTACHED)
    mine = [one for one in found if attachment_id in (None, one.id)]
    if len(mine) != 1:
        raise InvalidVolume("Unable to detach volume: it is not attached so that this could end it.")
    attachments.release(tx, mine[0].id, now)


def reserve(tx: Tx, ctx: Context, volume_id: str, drawn: tuple[str, float]) -> None:
    """Somebody is about to use it. Raises NotFound, InvalidVolume."""
    row = volumes.get(tx, ctx, volume_id)
    attachment_id, now = drawn
    attachments.reserve(tx, row, Wanted(id=attachment_id, volume_id=row.id, server_id=None, is_ours=False), now)
    store.change(tx, attachment_id, {"status": AttachStatus.ATTACHING.value})
    volumes.settle(tx, volume_id, now)


def unreserve(tx: Tx, ctx: Context, volume_id: str, now: float) -> None:
    """They will not. Raises NotFound."""
    volumes.get(tx, ctx, volume_id)
    for one in _notes(tx, volume_id, AttachStatus.ATTACHING):
        attachments.release(tx, one.id, now)


def _notes(tx: Tx, volume_id: str, status: AttachStatus) -> list[Attachment]:
    """Attachments that are notes only."""
    there = store.of_volume(tx, volume_id)
    return [one for one in there if not one.is_ours and one.generation == 0 and one.status == status]
