"""A server's root disk anew, from an image; the rest of it stays."""

from typing import TYPE_CHECKING, Any

import msgspec

from controller.compute import flavor_store, hardware, nets, powers, servers, store
from controller.compute.model import Event, Keypair, Server, VmState
from controller.compute.sagas.server_rebuild import REBUILD, RebuildParams
from controller.context import Context
from controller.db.tx import Tx
from controller.errors import Invalid
from controller.image import images
from controller.image.model import Image

if TYPE_CHECKING:
    from controller.cloud import Cloud


class Rebuilt(msgspec.Struct, frozen=True, kw_only=True):
    """What it should be; UNSET stays. None for a key name or user data: none any more."""

    image_id: str
    name: str | msgspec.UnsetType = msgspec.UNSET
    description: str | msgspec.UnsetType | None = msgspec.UNSET
    meta: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    access_ip_v4: str | msgspec.UnsetType = msgspec.UNSET
    access_ip_v6: str | msgspec.UnsetType = msgspec.UNSET
    is_auto_disk: bool | msgspec.UnsetType = msgspec.UNSET
    key_name: str | msgspec.UnsetType | None = msgspec.UNSET
    user_data: str | msgspec.UnsetType | None = msgspec.UNSET


async def rebuild(cloud: "Cloud", ctx: Context, server_id: str, wanted: Rebuilt) -> None:
    """Accept a rebuild. Raises Invalid, OverQuota, NotFound, Conflict."""
    saga_id = cloud.world.entropy.uuid()
    await cloud.db.write(_rebuild, ctx, server_id, wanted, saga_id, cloud.world.clock.now())
    cloud.sagas.kick(saga_id)


def _rebuild(tx: Tx, ctx: Context, server_id: str, wanted: Rebuilt, saga_id: str, now: float) -> None:
    server = powers.ready(tx, ctx, server_id)
    image = _fitting_image(tx, ctx, server, wanted.image_id)
    assert image.sha256 is not None, "a bootable image has a checksum"
    was_on = server.vm_state != VmState.STOPPED
    values = {
        **_values(tx, ctx, server, wanted),
        "image_id": image.id,
        "hardware": msgspec.to_builtins(hardware.hardware_of(image.properties)),
        "arch": hardware.architecture_of(image.properties),
        "desired": "running" if was_on else "shutoff",
        "progress": 0,
    }
    after = store.take(tx, server, Event.REBUILD, now, generation=store.NEXT_GENERATION, **values)
    if wanted.user_data is not msgspec.UNSET:
        store.set_user_data(tx, server_id, wanted.user_data)
    nets.note_network(tx, server_id)
    params = RebuildParams(**powers.params_of(ctx, after), was_on=was_on, image_id=image.id, image_sha256=image.sha256)
    powers.run(tx, ctx, after, "rebuild", REBUILD, params, saga_id)


def _fitting_image(tx: Tx, ctx: Context, server: Server, image_id: str) -> Image:
    """The image, if the server's disk and memory hold it."""
    if server.image_id is None:
        raise Invalid("Unable to rebuild with a different image for a volume-backed server.")
    image = images.bootable(tx, ctx, image_id)
    if image.min_ram > server.memory_mib:
        raise Invalid("Flavor's memory is too small for requested image.")
    size, has = max(image.virtual_size or 0, image.size or 0), server.root_gib * servers.GIB
    if size > has:
        raise Invalid(
            f"Flavor's disk is too small for requested image. Flavor disk is {has} bytes, image is {size} bytes."
        )
    if image.min_disk > server.root_gib:
        raise Invalid(
            "Flavor's disk is smaller than the minimum size specified in image metadata. "
            f"Flavor disk is {has} bytes, minimum size is {image.min_disk * servers.GIB} bytes."
        )
    return image


def _values(tx: Tx, ctx: Context, server: Server, wanted: Rebuilt) -> dict[str, Any]:
    names = ("name", "description", "meta", "access_ip_v4", "access_ip_v6", "is_auto_disk")
    asked = {name: getattr(wanted, name) for name in names}
    values = {name: value for name, value in asked.items() if value is not msgspec.UNSET}
    if "meta" in values:
        servers.check_metadata_quota(tx, server.project_id, values["meta"])
    if wanted.key_name is not msgspec.UNSET:
        values.update(_key(tx, ctx, wanted.key_name))
    if wanted.user_data is not msgspec.UNSET:
        values["has_user_data"] = wanted.user_data is not None
    return values


def _key(tx: Tx, ctx: Context, name: str | None) -> dict[str, str | None]:
    keypair: Keypair | None = None if name is None else flavor_store.find_keypair(tx, ctx.user_id, name)
    if name is not None and keypair is None:
        raise Invalid("Invalid key_name provided.")
    if keypair is None:
        return {"key_name": None, "key_type": None, "public_key": None}
    return {"key_name": keypair.name, "key_type": keypair.type, "public_key": keypair.public_key}
