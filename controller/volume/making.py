"""What the sagas of volumes ask of storage hosts."""

from typing import TYPE_CHECKING

from agent.wire import volume as calls
from controller.db.tx import Tx
from controller.errors import Conflict
from controller.volume import specs
from controller.volume.model import Snapshot, Volume
from controller.volume.store import snapshots, volumes

if TYPE_CHECKING:
    from controller.cloud import Cloud


def wanted(tx: Tx, volume_id: str) -> Volume:
    """A volume that somebody still wants. Raises Conflict."""
    found = volumes.find(tx, volume_id)
    if found is None or found.is_deleting:
        raise Conflict("The volume was deleted meanwhile.")
    return found


def wanted_snapshot(tx: Tx, snapshot_id: str) -> Snapshot:
    """A snapshot that somebody still wants. Raises Conflict."""
    found = snapshots.find(tx, snapshot_id)
    if found is None or found.is_deleting:
        raise Conflict("The snapshot was deleted meanwhile.")
    return found


async def remove(cloud: "Cloud", volume_id: str, host_id: str, generation: int, deadline: float) -> None:
    """The volume is gone from its host. Nothing is exported of it any more."""
    absence = specs.absence(volume_id, cloud.epoch, generation)
    await cloud.hosts.absent(host_id, calls.ABSENT, absence, deadline)


async def remove_snapshot(cloud: "Cloud", snapshot_id: str, host_id: str, generation: int, deadline: float) -> None:
    """The snapshot is gone from its host."""
    absence = specs.absence(snapshot_id, cloud.epoch, generation)
    await cloud.hosts.absent(host_id, calls.SNAPSHOT_ABSENT, absence, deadline)
