"""Reconciler: uploads that died are queued again, and bytes without an image go."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from controller.db.tx import Tx
from controller.image import store
from controller.image.model import Status

if TYPE_CHECKING:
    from controller.cloud import Cloud

GRACE_S: Final = 3600.0
"""Bytes without a row younger than this are left alone: their upload may be about to write the row."""


async def run(cloud: "Cloud") -> Mapping[str, Any]:
    """See Task."""
    now = cloud.world.clock.now()
    lapsed = await cloud.db.read(store.lapsed_uploads, now)
    for image_id in lapsed:
        await cloud.images.remove(image_id)
        await cloud.db.write(_requeue, image_id, now)
    stored = await cloud.images.stored()
    old = [name for name, at in stored.items() if now - at > GRACE_S]
    living = await cloud.db.read(store.living, [name.removesuffix(".part") for name in old])
    gone = [name for name in old if name.removesuffix(".part") not in living]
    for name in gone:
        await cloud.images.remove(name.removesuffix(".part"))
    return {"requeued": len(lapsed), "removed": len(gone)}


def _requeue(tx: Tx, image_id: str, now: float) -> None:
    store.move(tx, image_id, Status.SAVING, Status.QUEUED, now, reserved_bytes=0, upload_until=None)
