"""Brings one host to the volumes, snapshots and exports that rows say it has: part of what happens when a host may
have forgotten.

Each is told again at the generation that it has; what the host is known to hold is not said again. What a saga works on
is that saga's business, and nothing is ever removed here. A volume that is gone is never made anew: the host says so.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import structlog

from agent.wire import volume as calls
from agent.wire.specs import Call
from agent.wire.volume import ExportStatus
from controller.compute import plugs
from controller.db.tx import Tx
from controller.errors import CloudError
from controller.volume import attachments as use
from controller.volume import specs
from controller.volume.model import Attachment, Snapshot, SnapshotStatus, Status, Volume
from controller.volume.store import attachments, snapshots, volumes

if TYPE_CHECKING:
    from controller.cloud import Cloud

log = structlog.get_logger()

OBJECT_S: Final = 30.0
"""How long one object may take: it is there already, mostly."""


async def settle(cloud: "Cloud", host_id: str) -> None:
    """Tell the host. Raises Transient when it is silent; the sync is tried again then."""
    held, taken, exported = await cloud.db.read(_of_host, host_id)
    for volume in held:
        await _tell(cloud, host_id, calls.ENSURE, specs.volume_spec(volume, cloud.epoch))
    for snapshot in taken:
        await _tell(cloud, host_id, calls.SNAPSHOT_ENSURE, specs.snapshot_spec(snapshot, cloud.epoch))
    for attachment in exported:
        spec = specs.export_spec(attachment, cloud.fence, cloud.epoch)
        status = await _tell(cloud, host_id, calls.EXPORT_ENSURE, spec)
        if status is not None:
            await cloud.db.write(_answered, attachment, status)


def _of_host(tx: Tx, host_id: str) -> tuple[Sequence[Volume], Sequence[Snapshot], Sequence[Attachment]]:
    """What stands there, as it is."""
    busy = (Status.CREATING, Status.EXTENDING, Status.ERROR)
    held = [one for one in volumes.on_host(tx, host_id) if one.status not in busy and one.pool is not None]
    taken = [one for one in snapshots.on_host(tx, host_id) if one.status == SnapshotStatus.AVAILABLE]
    return held, taken, attachments.exported_by(tx, host_id)


def _answered(tx: Tx, attachment: Attachment, status: ExportStatus) -> None:
    """Where it is reached from now on, and its domain is to be told."""
    if use.answered(tx, attachment.id, status):
        plugs.volume_changed(tx, attachment.volume_id)


async def _tell(cloud: "Cloud", host_id: str, row: Call[Any, Any], spec: Any) -> Any:
    if cloud.hosts.holds(host_id, row.noun, spec.id, spec.generation, absent=False):
        return None
    try:
        return await cloud.hosts.ensure(host_id, row, spec, cloud.world.clock.now() + OBJECT_S)
    except CloudError as error:
        log.warning("a volume could not be restored on its host", noun=row.noun, id=spec.id, why=error.message)
        return None
