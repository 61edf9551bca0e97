"""Reconciler: uploads that died are queued again, and bytes without an image go.

Who deletes an image by a request removes its bytes at once; who does so at the end of a saga (a server comes off the
shelf) kicks this.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from controller.db.tx import Tx
from controller.image import store
from controller.image.model import Status
from controller.image.uploads import LEASE_S

if TYPE_CHECKING:
    from controller.cloud import Cloud

GRACE_S: Final = 3600.0
"""Bytes without a row younger than this are left alone: their upload may be about to write the row."""


async def run(cloud: "Cloud") -> Mapping[str, Any]:
    """See Task."""
    now = cloud.world.clock.now()
    requeued = 0
    for image_id, lease in await cloud.db.read(store.lapsed_uploads, now):
        requeued += await _requeue(cloud, image_id, lease, now)
    stored = await cloud.images.stored()
    old = [name for name, at in stored.items() if now - at > GRACE_S]
    living = await cloud.db.read(store.living, old)
    gone = [name for name in old if name not in living]  # Parts, too: no upload stands still for that long.
    gone += sorted(await cloud.db.read(store.buried, [name for name in stored if name not in gone]))
    for name in gone:
        await cloud.images.remove(name)
    return {"requeued": requeued, "removed": len(gone)}


async def _requeue(cloud: "Cloud", image_id: str, lease: float, now: float) -> bool:
    """Take the lease over first: should that upload live after all, it must not publish what is being removed."""
    if not await cloud.db.write(_move, image_id, Status.SAVING, now, lease, now + LEASE_S):
        return False
    await cloud.images.remove(image_id)
    return await cloud.db.write(_move, image_id, Status.QUEUED, now, now + LEASE_S, None)


def _move(tx: Tx, image_id: str, after: Status, now: float, lease: float, until: float | None) -> bool:
    values = {"upload_until": until} if after is Status.SAVING else {"reserved_bytes": 0, "upload_until": None}
    return store.move(tx, image_id, Status.SAVING, after, now, lease=lease, **values)
