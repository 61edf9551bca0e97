"""Bytes on their way in: reserved before they are written, hashed and inspected while they stream, published once.

An upload that fails leaves the image queued and nothing on disk; one whose controller died is put back by the
`image_gc` reconciler when its lease (`upload_until`) has lapsed.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Final

import msgspec
from starlette.requests import ClientDisconnect

from controller import quota
from controller.cloud import Cloud
from controller.context import Context
from controller.db.tx import Tx
from controller.errors import Conflict, Gone, Invalid, TooLarge
from controller.image import images, store
from controller.image.inspection import Inspection
from controller.image.model import Image, Status

LEASE_S: Final = 120.0
"""An upload proves itself alive by moving its lease on; a dead one's image is queued again after this long."""

STEP_BYTES: Final = 64 << 20
"""How much more is reserved at a time when the client did not say how much will come."""

_HASH_S: Final = 30.0


class Progress(msgspec.Struct, kw_only=True):
    """What is known of a running upload."""

    size: int = 0
    reserved: int = 0
    renew_at: float = 0.0


async def upload(cloud: Cloud, ctx: Context, image_id: str, chunks: AsyncIterator[bytes], size: int | None) -> None:
    """Take an image's bytes.

    Raises NotFound, Forbidden, Conflict (not queued), Invalid, OverQuota, TooLarge, UnsupportedMedia (the content is
    not what was declared, or not safe), Gone (deleted meanwhile).
    """
    bytes_max = cloud.settings.limits.image_bytes
    if size is not None and size > bytes_max:
        raise TooLarge(f"The image is larger than {bytes_max} bytes.")
    now = cloud.world.clock.now()
    progress = Progress(reserved=size if size is not None else STEP_BYTES, renew_at=now + LEASE_S / 3)
    begun = await cloud.db.write(_begin, ctx, image_id, progress.reserved, now)
    writer = cloud.images.writer(image_id)
    try:
        assert begun.disk_format is not None, "checked at the beginning"
        inspection, md5, sha256 = Inspection(begun.disk_format), hashlib.md5(usedforsecurity=False), hashlib.sha256()

        def look(chunk: bytes) -> None:
            inspection.feed(chunk)
            md5.update(chunk)
            sha256.update(chunk)

        async for chunk in chunks:
            progress.size += len(chunk)
            if progress.size > bytes_max:
                raise TooLarge(f"The image is larger than {bytes_max} bytes.")
            await _keep(cloud, begun, progress)
            await cloud.world.threads.run(look, chunk, timeout_s=_HASH_S)
            await writer.write(chunk)
        if size is not None and progress.size != size:
            raise Invalid(f"{progress.size} bytes came, not the {size} that were announced.")
        virtual = inspection.finish()
        await writer.publish()
        facts = {"size": progress.size, "virtual_size": virtual, "md5": md5.hexdigest(), "sha256": sha256.hexdigest()}
        if not await cloud.db.write(_end, image_id, cloud.images.name, facts, cloud.world.clock.now()):
            await cloud.images.remove(image_id)
            raise Gone(f"Image {image_id} was deleted during the upload; its data is discarded.")
    except (Exception, asyncio.CancelledError) as error:
        await writer.discard()
        await cloud.db.write(_abort, image_id, cloud.world.clock.now())
        if isinstance(error, ClientDisconnect):
            raise Invalid("The client hung up during the upload.") from error
        raise


async def _keep(cloud: Cloud, begun: Image, progress: Progress) -> None:
    """Reserve before more is written, and stay alive."""
    now = cloud.world.clock.now()
    if progress.size <= progress.reserved and now < progress.renew_at:
        return
    more = STEP_BYTES if progress.size > progress.reserved else 0
    await cloud.db.write(_renew, begun, progress.reserved + more, more, now)
    progress.reserved += more
    progress.renew_at = now + LEASE_S / 3


def _begin(tx: Tx, ctx: Context, image_id: str, reserved: int, now: float) -> Image:
    found = images.get_own(tx, ctx, image_id)
    if found.disk_format is None or found.container_format is None:
        raise Invalid("disk_format and container_format must be set before data is uploaded.")
    quota.charge(tx, found.owner, "image", {"image_size_total": _mib(reserved)}, store.used)
    lease = {"reserved_bytes": reserved, "upload_until": now + LEASE_S}
    if not store.move(tx, image_id, Status.QUEUED, Status.SAVING, now, **lease):
        raise Conflict(f"Image status transition from {found.status} to saving is not allowed")
    return found


def _renew(tx: Tx, begun: Image, reserved: int, more: int, now: float) -> None:
    quota.charge(tx, begun.owner, "image", {"image_size_total": _mib(more)}, store.used)
    lease = {"reserved_bytes": reserved, "upload_until": now + LEASE_S}
    if not store.move(tx, begun.id, Status.SAVING, Status.SAVING, now, **lease):
        raise Gone(f"Image {begun.id} was deleted during the upload; its data is discarded.")


def _end(tx: Tx, image_id: str, location: str, facts: dict[str, object], now: float) -> bool:
    done = {**facts, "reserved_bytes": 0, "upload_until": None}
    if not store.move(tx, image_id, Status.SAVING, Status.ACTIVE, now, **done):
        return False
    store.add_location(tx, image_id, location)
    return True


def _abort(tx: Tx, image_id: str, now: float) -> None:
    store.move(tx, image_id, Status.SAVING, Status.QUEUED, now, reserved_bytes=0, upload_until=None)


def _mib(size: int) -> int:
    return -(-size // (1 << 20))
