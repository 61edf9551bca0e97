"""A copy of a server's root disk becomes an image: what creating an image and shelving have in common.

The image's row is there since the request, queued. The host copies the disk, under a running guest or beside one that
is off, and brings the bytes to our channel, which takes them as any upload: hashed, inspected, published once. So the
image is active when the host's capture is ready; and if the host's answer was lost, the row says so.
"""

from typing import TYPE_CHECKING, Any

from agent.wire import capture as calls
from agent.wire.capture import CaptureSpec
from agent.wire.lifecycle import Generation
from agent.wire.specs import Absence
from controller.compute.model import root_disk_id
from controller.compute.sagas import patience
from controller.db.tx import Tx
from controller.errors import NotFound
from controller.image import store as image_store
from controller.image.model import Image, Status
from controller.saga.model import Commit, Run, State, Transient

if TYPE_CHECKING:
    from controller.cloud import Cloud


async def capture(run: Run[Any]) -> None:
    """The image is active. `params` have server_id, host_id, host_name and image_id."""
    cloud, params = run.deps, run.params
    run.notes["host"] = params.host_name
    if await _is_active(run):
        return
    spec = CaptureSpec(
        id=params.image_id,
        generation=Generation(cloud.epoch, 1),
        domain_id=params.server_id,
        disk_id=root_disk_id(params.server_id),
        offer=cloud.channel.upload_offer(params.host_id, params.image_id),
    )
    await patience.ensure(run, params.host_id, calls.ENSURE, calls.GET, spec)
    if not await _is_active(run):
        raise Transient("the host has brought the image, and it is not there yet")


async def _is_active(run: Run[Any]) -> bool:
    image: Image | None = await run.deps.db.read(image_store.find, run.params.image_id)
    if image is None:
        raise NotFound(f"Image {run.params.image_id} was deleted while it was being made.")
    return image.status is Status.ACTIVE


async def release(run: Run[Any]) -> None:
    """The host keeps nothing of it."""
    cloud, params = run.deps, run.params
    absence = Absence(id=params.image_id, generation=Generation(cloud.epoch, 2))
    await cloud.hosts.absent(params.host_id, calls.ABSENT, absence, run.deadline)


async def discard(run: Run[Any]) -> Commit:
    """Undo: neither on the host nor in the store."""
    await release(run)
    return Commit(drop_image, (run.params.image_id, run.deps.world.clock.now()))


def rested(cloud: "Cloud", _: State) -> None:
    """Bytes of an image that is no more go now."""
    cloud.tasks.kick("image_gc")


def drop_image(tx: Tx, image_id: str, now: float) -> None:
    """The image is no more; nothing if its owner was faster."""
    if image_store.find(tx, image_id) is not None:
        image_store.delete(tx, image_id, now)
