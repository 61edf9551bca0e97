"""Bytes on their way in: reserved before they are written, hashed and inspected while they stream, published once.

An upload holds its image by a lease (`upload_until`), and everything that it writes of the row names the lease that it
holds: one that was given up (the client stood still, the controller slept) and another one after it never meet. The
lease is renewed right before the bytes are published, so they are published by nobody else.

An upload that fails leaves the image queued and nothing on disk; one whose controller died is put back by the
`image_gc` reconciler when its lease has lapsed.
"""

import asyncio
import contextlib
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
from controller.image.model import Image, Status
from controller.image.stores import Writer

LEASE_S: Final = 120.0
"""An upload proves itself alive by moving its lease on; a dead one's image is queued again after this long."""

STEP_BYTES: Final = 64 << 20
"""How much more is reserved at a time when the client did not say how much will come."""

LOOK_BYTES: Final = 8 << 20
"""How much may be written before the row is looked at again: an image that was deleted reserves nothing any more."""

IDLE_S: Final = 60.0
"""In which something must come: less than the lease, so that a client that stands still loses to nobody but us."""

BYTES_PER_S_MIN: Final = 1024
"""Over the whole upload, after IDLE_S. Slower: a drip that only holds a connection, and what was reserved for it."""

_HASH_S: Final = 30.0


class Progress(msgspec.Struct, kw_only=True):
    """What is known of a running upload."""

    until: float  # The lease that it holds.
    size: int = 0
    reserved: int = 0
    looked_at: int = 0


async def upload(cloud: Cloud, ctx: Context, image_id: str, chunks: AsyncIterator[bytes], size: int | None) -> None:
    """Take an image's bytes.

    Raises NotFound, Forbidden, Conflict (not queued), Invalid, OverQuota, TooLarge, UnsupportedMedia (the content is
    not what was declared, or not safe), Gone (deleted meanwhile), Unavailable (nobody can look at it now).
    """
    bytes_max = cloud.settings.limits.image_bytes
    if size is not None and size > bytes_max:
        raise TooLarge(f"The image is larger than {bytes_max} bytes.")
    now = cloud.world.clock.now()
    progress = Progress(until=now + LEASE_S, reserved=size if size is not None else STEP_BYTES)
    begun = await cloud.db.write(_begin, ctx, image_id, progress.reserved, now)
    writer = cloud.images.writer(image_id, cloud.world.entropy.hex(8))
    try:
        facts = await _receive(cloud, begun, progress, writer, chunks, size)
        await _hold(cloud, begun, progress, 0)
        await writer.publish()
        if not await cloud.db.write(_end, begun, progress.until, cloud.images.name, facts, cloud.world.clock.now()):
            if await cloud.db.read(store.find, image_id) is None:
                await cloud.images.remove(image_id)
            raise _gone(begun)
    except (Exception, asyncio.CancelledError) as error:
        await writer.discard()
        await cloud.db.write(_abort, image_id, progress.until, cloud.world.clock.now())
        if isinstance(error, ClientDisconnect):
            raise Invalid("The client hung up during the upload.") from error
        raise


async def take(cloud: Cloud, image_id: str, chunks: AsyncIterator[bytes], size: int | None) -> None:
    """Take an image's bytes from a host that was told to bring them; what its owner may, was checked by then.

    Raises as `upload` does. The quota is that of the image's owner.
    """
    ctx = Context(request_id=f"req-{cloud.world.entropy.uuid()}", user_id="", roles=frozenset({"admin"}))
    await upload(cloud, ctx, image_id, chunks, size)


async def _receive(
    cloud: Cloud, begun: Image, progress: Progress, writer: Writer, chunks: AsyncIterator[bytes], size: int | None
) -> dict[str, object]:
    """Write all chunks, and say what they are: columns of the image."""
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()

    def digest(chunk: bytes) -> None:
        md5.update(chunk)
        sha256.update(chunk)

    assert begun.disk_format is not None, "checked at the beginning"
    async with contextlib.aclosing(await cloud.inspectors.begin(begun.disk_format)) as inspected:
        async for chunk in _timely(chunks):
            progress.size += len(chunk)
            if progress.size > cloud.settings.limits.image_bytes:
                raise TooLarge(f"The image is larger than {cloud.settings.limits.image_bytes} bytes.")
            await _keep(cloud, begun, progress)
            await inspected.feed(chunk)
            await cloud.world.threads.run(digest, chunk, timeout_s=_HASH_S)
            await writer.write(chunk)
        if size is not None and progress.size != size:
            raise Invalid(f"{progress.size} bytes came, not the {size} that were announced.")
        virtual = await inspected.finish(progress.size)
    return {"size": progress.size, "virtual_size": virtual, "md5": md5.hexdigest(), "sha256": sha256.hexdigest()}


async def _timely(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The chunks. Raises Invalid when they do not come, or by drips."""
    loop = asyncio.get_running_loop()
    began, size = loop.time(), 0
    while True:
        try:
            async with asyncio.timeout(IDLE_S):
                chunk = await anext(chunks)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise Invalid(f"The upload stood still for {IDLE_S:.0f} s.") from error
        size += len(chunk)
        elapsed = loop.time() - began
        if elapsed > IDLE_S and size < elapsed * BYTES_PER_S_MIN:
            raise Invalid(f"The upload is slower than {BYTES_PER_S_MIN} bytes a second.")
        yield chunk


async def _keep(cloud: Cloud, begun: Image, progress: Progress) -> None:
    """Reserve before more is written, stay alive, and end when the image is gone."""
    if progress.size > progress.reserved:
        await _hold(cloud, begun, progress, STEP_BYTES)
    elif cloud.world.clock.now() >= progress.until - LEASE_S * 2 / 3:
        await _hold(cloud, begun, progress, 0)
    elif progress.size - progress.looked_at >= LOOK_BYTES:
        progress.looked_at = progress.size
        if not await cloud.db.read(store.is_held, begun.id, progress.until):
            raise _gone(begun)


async def _hold(cloud: Cloud, begun: Image, progress: Progress, more: int) -> None:
    """Renew the lease, and reserve more. Raises Gone, OverQuota."""
    now = cloud.world.clock.now()
    await cloud.db.write(_renew, begun, progress.until, progress.reserved + more, more, now)
    progress.until = now + LEASE_S
    progress.reserved += more


def _gone(begun: Image) -> Gone:
    return Gone(f"Image {begun.id} was deleted during the upload; its data is discarded.")


def _begin(tx: Tx, ctx: Context, image_id: str, reserved: int, now: float) -> Image:
    found = images.get_own(tx, ctx, image_id)
    if found.disk_format is None or found.container_format is None:
        raise Invalid("disk_format and container_format must be set before data is uploaded.")
    quota.charge(tx, found.owner, "image", {"image_size_total": _mib(reserved)}, store.used)
    lease = {"reserved_bytes": reserved, "upload_until": now + LEASE_S}
    if not store.move(tx, image_id, Status.QUEUED, Status.SAVING, now, **lease):
        raise Conflict(f"Image status transition from {found.status} to saving is not allowed")
    return found


def _renew(tx: Tx, begun: Image, lease: float, reserved: int, more: int, now: float) -> None:
    quota.charge(tx, begun.owner, "image", {"image_size_total": _mib(more)}, store.used)
    values = {"reserved_bytes": reserved, "upload_until": now + LEASE_S}
    if not store.move(tx, begun.id, Status.SAVING, Status.SAVING, now, lease=lease, **values):
        raise _gone(begun)


def _end(tx: Tx, begun: Image, lease: float, location: str, facts: dict[str, object], now: float) -> bool:
    done = {**facts, "reserved_bytes": 0, "upload_until": None}
    if not store.move(tx, begun.id, Status.SAVING, Status.ACTIVE, now, lease=lease, **done):
        return False
    store.add_location(tx, begun.id, location)
    return True


def _abort(tx: Tx, image_id: str, lease: float, now: float) -> None:
    store.move(tx, image_id, Status.SAVING, Status.QUEUED, now, lease=lease, reserved_bytes=0, upload_until=None)


def _mib(size: int) -> int:
    return -(-size // (1 << 20))
