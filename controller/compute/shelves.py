"""Images of servers, and servers that become images for a while: createImage, shelve, shelveOffload, unshelve."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from controller.compute import nets, picture, plugs, powers, servers, store
from controller.compute.model import Event, Server, VmState
from controller.compute.sagas.server_create_image import CREATE_IMAGE, CreateImageParams
from controller.compute.sagas.server_offload import OFFLOAD, OffloadParams
from controller.compute.sagas.server_shelve import SHELVE, ShelveParams
from controller.compute.sagas.server_unshelve import UNSHELVE, UnshelveParams
from controller.context import Context
from controller.db.tx import Tx
from controller.errors import Conflict, Forbidden, Invalid
from controller.http.policy import is_allowed
from controller.image import images
from controller.image import store as image_store
from controller.image.model import Image, Status, Visibility
from controller.schedule.model import DEFAULT_ZONE
from controller.volume import snapshots
from controller.volume.snapshots import NewSnapshot

if TYPE_CHECKING:
    from controller.cloud import Cloud

NOT_INHERITED: Final = frozenset({"cache_in_nova", "instance_uuid", "user_id", "image_type", "base_image_ref"})
"""Properties of an image that say what *it* is, and not what its guests need."""

_HARDWARE: Final = {"disk_bus": "hw_disk_bus", "vif_model": "hw_vif_model", "firmware": "hw_firmware_type"}


async def create_image(cloud: "Cloud", ctx: Context, server_id: str, name: str, properties: Mapping[str, str]) -> str:
    """Accept an image of a server; its id. Raises Invalid, OverQuota, NotFound, Conflict, InvalidVolume."""
    uuid = cloud.world.entropy.uuid
    saga_id, image_id = uuid(), uuid()
    volumes = [(uuid(), uuid(), uuid()) for _ in plugs.LETTERS]
    asked, now = (name, dict(properties)), cloud.world.clock.now()
    started = await cloud.db.write(_create_image, ctx, server_id, asked, (saga_id, image_id, volumes), now)
    for one in started:
        cloud.sagas.kick(one)
    return image_id


def _create_image(
    tx: Tx,
    ctx: Context,
    server_id: str,
    asked: tuple[str, dict[str, str]],
    ids: tuple[str, str, list[tuple[str, str, str]]],
    now: float,
) -> list[str]:
    """The sagas to be kicked."""
    server = powers.ready(tx, ctx, server_id)
    (name, properties), (saga_id, image_id, volumes) = asked, ids
    after = store.take(tx, server, Event.CREATE_IMAGE, now)
    servers.check_metadata_quota(tx, server.project_id, properties)
    if server.image_id is None:
        return _picture(tx, ctx, after, (name, properties, image_id), volumes, now)
    _new_image(tx, ctx, server, image_id, name, properties, now)
    params = CreateImageParams(**powers.params_of(ctx, after), image_id=image_id)
    powers.run(tx, ctx, after, "createImage", CREATE_IMAGE, params, saga_id)
    return [saga_id]


def _picture(
    tx: Tx,
    ctx: Context,
    server: Server,
    asked: tuple[str, dict[str, str], str],
    ids: list[tuple[str, str, str]],
    now: float,
) -> list[str]:
    """An image of a server that boots from a volume: snapshots of its volumes, and an image that names them."""
    rule = "os_compute_api:servers:create_image:allow_volume_backed"
    if not is_allowed(ctx, rule, {"project_id": server.project_id}):
        raise Forbidden(f"Policy doesn't allow {rule} to be performed.", why={"rule": rule})
    name, properties, image_id = asked
    taken: list[tuple[plugs.Plug, str, int]] = []
    for plug, own in zip(plugs.of_server(tx, server.id), ids, strict=False):
        wanted = NewSnapshot(volume_id=plug.volume_id, name=f"snapshot for {name}"[:255], is_forced=True)
        snapshot = snapshots.make(tx, ctx, wanted, own, now)
        taken.append((plug, snapshot.id, snapshot.size_gib))
    _new_image(tx, ctx, server, image_id, name, {**properties, **picture.written(taken)}, now)
    image_store.update(tx, image_id, now, status=Status.ACTIVE, size=0, min_disk=0)
    servers.act(tx, ctx, server, "createImage", None, now)
    store.report(tx, server.id, Event.IMAGE_CREATED, now)
    return [own[1] for _, own in zip(taken, ids, strict=False)]


def _new_image(
    tx: Tx, ctx: Context, server: Server, image_id: str, name: str, properties: Mapping[str, str], now: float
) -> None:
    """The row that the host's copy fills. Raises OverQuota."""
    base = image_store.find(tx, server.image_id or "")
    inherited = {} if base is None else {k: v for k, v in base.properties.items() if k not in NOT_INHERITED}
    hardware = {key: server.hardware[field] for field, key in _HARDWARE.items() if field in server.hardware}
    own = {
        "image_type": "snapshot",
        "instance_uuid": server.id,
        "user_id": ctx.user_id,
        "base_image_ref": server.image_id or "",
    }
    new = Image(
        id=image_id,
        owner=server.project_id,
        name=name,
        visibility=Visibility.PRIVATE,
        disk_format="qcow2",
        container_format="bare",
        min_disk=server.root_gib,
        min_ram=0 if base is None else base.min_ram,
        properties={**hardware, **inherited, **properties, **own},
        created_at=now,
        updated_at=now,
    )
    images.create(tx, ctx, new)


async def shelve(cloud: "Cloud", ctx: Context, server_id: str) -> None:
    """Accept that it goes to the shelf. Raises NotFound, Conflict, OverQuota."""
    uuid = cloud.world.entropy.uuid
    ids = (uuid(), uuid(), uuid())
    offloads = cloud.settings.compute.offloads_shelved
    await cloud.db.write(_shelve, ctx, server_id, ids, offloads, cloud.world.clock.now())
    cloud.sagas.kick(ids[0])


def _shelve(tx: Tx, ctx: Context, server_id: str, ids: tuple[str, str, str], offloads: bool, now: float) -> None:
    saga_id, image_id, offload_id = ids
    server = powers.ready(tx, ctx, server_id)
    after = store.take(tx, server, Event.SHELVE, now, desired="shutoff", generation=store.NEXT_GENERATION)
    is_from_image = server.image_id is not None
    if is_from_image:
        _new_image(tx, ctx, server, image_id, f"{server.name}-shelved"[:255], {}, now)
    params = ShelveParams(
        **powers.params_of(ctx, after),
        was_on=server.vm_state == VmState.ACTIVE,
        project_id=server.project_id,
        image_id=image_id if is_from_image else "",
        offload_id=offload_id if offloads else "",
    )
    powers.run(tx, ctx, after, "shelve", SHELVE, params, saga_id)


async def offload(cloud: "Cloud", ctx: Context, server_id: str) -> None:
    """Accept that a shelved server leaves its host. Raises NotFound, Conflict."""
    saga_id = cloud.world.entropy.uuid()
    await cloud.db.write(_offload, ctx, server_id, saga_id, cloud.world.clock.now())
    cloud.sagas.kick(saga_id)


def _offload(tx: Tx, ctx: Context, server_id: str, saga_id: str, now: float) -> None:
    server = powers.ready(tx, ctx, server_id)
    after = store.take(tx, server, Event.OFFLOAD, now)
    powers.run(tx, ctx, after, "shelveOffload", OFFLOAD, OffloadParams(**powers.params_of(ctx, after)), saga_id)


async def unshelve(cloud: "Cloud", ctx: Context, server_id: str, zone: str | None) -> None:
    """Accept that it leaves the shelf. `zone`: where an offloaded one should be. Raises NotFound, Conflict, Invalid."""
    saga_id = cloud.world.entropy.uuid()
    await cloud.db.write(_unshelve, ctx, server_id, zone, saga_id, cloud.world.clock.now())
    cloud.sagas.kick(saga_id)


def _unshelve(tx: Tx, ctx: Context, server_id: str, zone: str | None, saga_id: str, now: float) -> None:
    server = store.get(tx, ctx, server_id)
    servers.check_unlocked(ctx, server)
    after = store.take(tx, server, Event.UNSHELVE, now, desired="running", generation=store.NEXT_GENERATION)
    if zone is not None and server.vm_state != VmState.SHELVED_OFFLOADED:
        raise Conflict(
            f"Cannot specify an availability zone for the unshelve of instance {server_id} while it is in vm_state "
            f"{server.vm_state}"
        )
    if zone is not None and zone != DEFAULT_ZONE:
        raise Invalid("The requested availability zone is not available")
    nets.note_network(tx, server_id)
    params = UnshelveParams(
        **powers.params_of(ctx, after),
        image_id=server.shelved_image_id or "",
        image_sha256=_kept_as(tx, server),
        nics=len(store.nics(tx, server_id)),
        zone=zone,
    )
    powers.run(tx, ctx, after, "unshelve", UNSHELVE, params, saga_id)


def _kept_as(tx: Tx, server: Server) -> str:
    """The checksum of what its disk was kept as."""
    if server.shelved_image_id is None:
        return ""
    image = image_store.find(tx, server.shelved_image_id)
    if image is None or image.sha256 is None:
        raise Conflict(
            f"Unshelve of instance {server.id} is not possible: the image {server.shelved_image_id} is gone."
        )
    return image.sha256
