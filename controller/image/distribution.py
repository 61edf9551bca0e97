"""Getting an image to where a server will run: the host fetches it from us over the host channel, with a ticket."""

from agent.wire import image as calls
from agent.wire.lifecycle import Generation
from controller.cloud import Cloud
from controller.errors import NotFound
from controller.image import store


async def ensure_on_host(cloud: Cloud, host_id: str, image_id: str, deadline: float) -> None:
    """The image is in the host's cache, verified there. Raises Transient or CloudError.

    In the cache an image is known by its content, and an active image's content never changes: its generation is 1.
    """
    found = await cloud.db.read(store.find, image_id)
    if found is None or found.sha256 is None or found.size is None or found.disk_format is None:
        raise NotFound(f"Image {image_id} was deleted before the server was made.")
    generation = Generation(cloud.epoch, 1)
    if cloud.hosts.holds(host_id, calls.ENSURE.noun, found.sha256, generation, absent=False):
        return
    spec = calls.ImageSpec(
        id=found.sha256,
        generation=generation,
        sha256=found.sha256,
        size_bytes=found.size,
        disk_format=found.disk_format,
        sources=(cloud.channel.image_url(image_id),),
        ticket=cloud.channel.ticket(host_id, image_id),
    )
    await cloud.hosts.ensure(host_id, calls.ENSURE, spec, deadline)
