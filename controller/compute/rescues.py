"""Starting a server from another disk, and back."""

from typing import TYPE_CHECKING, Final

from controller.compute import powers, store
from controller.compute.model import Event, Server
from controller.compute.sagas.server_rescue import RESCUE, RescueParams, was_error
from controller.compute.sagas.server_unrescue import UNRESCUE
from controller.context import Context
from controller.db.tx import Tx
from controller.errors import Invalid
from controller.image import images
from controller.image.model import Image

if TYPE_CHECKING:
    from controller.cloud import Cloud

GIB: Final = 1 << 30


async def rescue(cloud: "Cloud", ctx: Context, server_id: str, image_id: str | None) -> None:
    """Accept a rescue from an image; from the one that it was made from, if none is named. Raises as `powers`."""
    saga_id = cloud.world.entropy.uuid()
    await cloud.db.write(_rescue, ctx, server_id, image_id, saga_id, cloud.world.clock.now())
    cloud.sagas.kick(saga_id)


def _rescue(tx: Tx, ctx: Context, server_id: str, image_id: str | None, saga_id: str, now: float) -> None:
    server = powers.ready(tx, ctx, server_id)
    image = _rescue_image(tx, ctx, server, image_id)
    assert image.sha256 is not None, "a bootable image has a checksum"
    # An earlier rescue that failed may have left its disk, which is kept: the row goes on saying whose it is.
    # A new generation, newer than the grave of the disk of the rescue before.
    values = {"rescue_image_id": server.rescue_image_id or image.id, "generation": store.NEXT_GENERATION}
    after = store.take(tx, server, Event.RESCUE, now, **values)
    size = max(image.virtual_size or 0, image.size or 0)
    params = RescueParams(
        **powers.params_of(ctx, after),
        was_on=server.desired != "shutoff",
        image_id=image.id,
        image_sha256=image.sha256,
        size_gib=max(-(-size // GIB), 1),
        was_error=was_error(server),
    )
    powers.run(tx, ctx, after, "rescue", RESCUE, params, saga_id)


def _rescue_image(tx: Tx, ctx: Context, server: Server, image_id: str | None) -> Image:
    if server.image_id is None:
        raise Invalid("Cannot rescue a volume-backed instance")
    wanted = server.rescue_image_id if server.is_rescued else image_id
    image = images.bootable(tx, ctx, wanted or server.image_id)
    if image.min_ram > server.memory_mib:
        raise Invalid("Flavor's memory is too small for requested image.")
    return image


async def unrescue(cloud: "Cloud", ctx: Context, server_id: str) -> None:
    """Accept that it comes back to its own disk. Raises NotFound, Conflict."""
    saga_id = cloud.world.entropy.uuid()
    await cloud.db.write(_unrescue, ctx, server_id, saga_id, cloud.world.clock.now())
    cloud.sagas.kick(saga_id)


def _unrescue(tx: Tx, ctx: Context, server_id: str, saga_id: str, now: float) -> None:
    server = powers.ready(tx, ctx, server_id)
    after = store.take(tx, server, Event.UNRESCUE, now, desired="shutoff", generation=store.NEXT_GENERATION)
    powers.run(tx, ctx, after, "unrescue", UNRESCUE, powers.power_params(ctx, after), saga_id)
