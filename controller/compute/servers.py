"""How servers are made and deleted (`powers`: started and stopped; `edits`: everything that no host is asked for).

Each request is one transaction: the row, the quota, the record of the action and the saga stand or fall together,
and nothing is asked of a host before it is durable. Ids and the time are drawn before it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from agent.wire.domain import Desired
from controller import quota
from controller.compute import devices, flavor_store, hardware, nets, picture, server_groups, store, texts
from controller.compute.devices import Given, WantedDevice
from controller.compute.model import Event, Flavor, Keypair, Nic, PowerState, Server, TaskState, VmState
from controller.compute.sagas.server_create import CREATE, TRIES_MAX, CreateParams
from controller.compute.sagas.server_delete import DELETE, DeleteParams
from controller.compute.store import Action, Guest
from controller.config import VolumeLimits
from controller.context import Context
from controller.db.tx import Tx
from controller.errors import Conflict, Forbidden, Invalid, NotFound, OverQuota
from controller.fleet import store as fleet
from controller.http.policy import is_allowed
from controller.image import images
from controller.image import store as image_store
from controller.image.model import Image
from controller.network import ports
from controller.network.ports import Wanted
from controller.saga.log import request_cancel, settled, start
from controller.schedule.model import DEFAULT_ZONE

if TYPE_CHECKING:
    from controller.cloud import Cloud

COUNT_MAX: Final = 1000
"""Servers of one request. More: one transaction holds the database for seconds."""

GIB: Final = 1 << 30


class WantedNic(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of `networks`."""

    network_id: str | None = None
    port_id: str | None = None
    fixed_ip: str | None = None
    tag: str | None = None


class NewServer(msgspec.Struct, frozen=True, kw_only=True):
    """A request for servers, of whatever microversion. `networks` None: what an older client means by nothing."""

    name: str
    description: str | None
    flavor_id: str
    image_id: str | None  # Of a local root disk; None: one of the devices is the root.
    devices: tuple[WantedDevice, ...] = ()
    networks: tuple[WantedNic, ...] | Literal["auto", "none"] | None = None
    groups: tuple[str, ...] | None = None
    key_name: str | None = None
    meta: dict[str, str] = {}
    tags: tuple[str, ...] = ()
    user_data: str | None = None
    config_drive: bool = False
    zone: str | None = None
    host: str | None = None
    is_forced_host: bool = False
    is_auto_disk: bool = False
    access_ip_v4: str | None = None
    access_ip_v6: str | None = None
    min_count: int = 1
    max_count: int = 1
    hints: dict[str, Any] = {}
    group_id: str | None = None
    different_host: tuple[str, ...] = ()
    same_host: tuple[str, ...] | None = None


class Ids(msgspec.Struct, frozen=True):
    """Ids of one server to be, drawn before the transaction."""

    server_id: str
    saga_ids: tuple[str, ...]  # Of the first try and of those that may follow it.
    port_ids: tuple[str, ...]
    device_ids: tuple[tuple[str, ...], ...] = ()


class Created(msgspec.Struct, frozen=True):
    """What became of a request for servers."""

    servers: tuple[Server, ...]
    saga_ids: tuple[str, ...]


async def create(cloud: "Cloud", ctx: Context, new: NewServer) -> Created:
    """Accept servers. Raises Invalid, Forbidden, OverQuota or Conflict with Nova's sentences."""
    new = await cloud.db.read(_with_devices_of_image, ctx, new)
    _check_counts(new)
    nics = len(new.networks) if isinstance(new.networks, tuple) else 1
    ids = [_draw(cloud, nics, len(new.devices)) for _ in range(min(new.max_count, COUNT_MAX))]
    reservation_id = f"r-{cloud.world.entropy.hex(8)}"
    drawn = (reservation_id, cloud.world.clock.now())
    created = await cloud.db.write(_create, ctx, new, ids, drawn, cloud.settings.volume)
    for saga_id in created.saga_ids:
        cloud.sagas.kick(saga_id)
    return created


def _with_devices_of_image(tx: Tx, ctx: Context, new: NewServer) -> NewServer:
    """An image that names volumes is those volumes. What it names never changes while it is active."""
    image = None if new.image_id is None else image_store.find_visible(tx, ctx, new.image_id)
    if image is None or image.sha256 is not None or picture.PROPERTY not in image.properties:
        return new
    devices = (*picture.read(image.properties[picture.PROPERTY]), *new.devices)
    if sum(device.is_root for device in devices) != 1:
        raise Invalid("Block Device Mapping is Invalid: Boot sequence for the instance and image is not valid.")
    return msgspec.structs.replace(new, image_id=None, devices=devices)


def _check_counts(new: NewServer) -> None:
    if new.min_count > new.max_count:
        raise Invalid("min_count must be <= max_count")
    if new.max_count > 1 and any(device.source == "volume" for device in new.devices):
        raise Invalid("Cannot attach one or more volumes to multiple instances")
    if new.max_count == 1 or not isinstance(new.networks, tuple):
        return
    if any(nic.fixed_ip is not None for nic in new.networks):
        raise Invalid("Failed to launch instances: max_count cannot be greater than 1 if an fixed_ip is specified.")
    if any(nic.port_id is not None for nic in new.networks):
        raise Invalid(
            "Failed to launch instances: Unable to launch multiple instances with a single configured port ID. "
            "Please launch your instance one by one with different ports."
        )


def _draw(cloud: "Cloud", nics: int, volumes: int) -> Ids:
    uuid = cloud.world.entropy.uuid
    of_volumes = tuple(tuple(uuid() for _ in range(devices.IDS)) for _ in range(volumes))
    return Ids(uuid(), tuple(uuid() for _ in range(TRIES_MAX)), tuple(uuid() for _ in range(nics)), of_volumes)


class _Parts(msgspec.Struct, frozen=True):
    """What a request refers to, looked up."""

    flavor: Flavor
    image: Image | None
    properties: dict[str, str]
    keypair: Keypair | None
    hardware: dict[str, Any]
    arch: str | None
    root_gib: int
    group_ids: list[str]


def _create(
    tx: Tx, ctx: Context, new: NewServer, ids: Sequence[Ids], drawn: tuple[str, float], limits: VolumeLimits
) -> Created:
    reservation_id, now = drawn
    parts = _look_up(tx, ctx, new, now)
    check_metadata_quota(tx, ctx.project, new.meta)
    count = _charge(tx, ctx, new, parts.flavor)
    nics = _nics(tx, ctx, new, count)
    servers, saga_ids = [], []
    for index, own in enumerate(ids[:count]):
        server = _row(ctx, new, parts, own, (index, count, reservation_id, now))
        rows = [
            Nic(
                server.id,
                position,
                nic.port_id or own.port_ids[position],
                nic.port_id is None,
                nic.network_id,
                nic.fixed_ip,
                parts.group_ids,
                nic.tag,
                None,
                None,
                [],
            )
            for position, nic in enumerate(nics)
        ]
        store.insert(tx, server, rows, Guest(new.user_data, None), new.tags)
        given = devices.give(tx, ctx, server, new.devices, own.device_ids, limits)
        _begin(tx, ctx, server, new, parts.image, own, (len(rows), given))
        servers.append(server)
        if new.group_id is not None:
            server_groups.join(tx, ctx, new.group_id, [server.id])
        saga_ids += [*given.saga_ids, own.saga_ids[0]]
    return Created(tuple(servers), tuple(saga_ids))


def _look_up(tx: Tx, ctx: Context, new: NewServer, now: float) -> _Parts:
    flavor = flavor_of(tx, ctx, new.flavor_id)
    image = None if new.image_id is None else images.bootable(tx, ctx, new.image_id)
    properties = dict(image.properties) if image is not None else _of_root_volume(tx, ctx, new, flavor)
    keypair = None if new.key_name is None else flavor_store.find_keypair(tx, ctx.user_id, new.key_name)
    if new.key_name is not None and keypair is None:
        raise Invalid("Invalid key_name provided.")
    _check_place(tx, new)
    return _Parts(
        flavor,
        image,
        properties,
        keypair,
        msgspec.to_builtins(hardware.hardware_of(properties)),
        hardware.architecture_of(properties),
        0 if image is None else _root_gib(ctx, flavor, image),
        [] if new.groups is None else nets.group_ids(tx, ctx, new.groups, now),
    )


def flavor_of(tx: Tx, ctx: Context, flavor_id: str) -> Flavor:
    """A flavor that a server may have. Raises Invalid."""
    try:
        flavor = flavor_store.get_flavor(tx, ctx, flavor_id)
    except NotFound as error:
        raise Invalid(error.message) from error
    if flavor.is_disabled:
        raise Invalid(f"Flavor {flavor_id} could not be found.")
    if flavor.ephemeral_gib or flavor.swap_mib:
        raise Invalid(f"Flavor {flavor_id} has an ephemeral or a swap disk, which is not supported yet.")
    return flavor


def _of_root_volume(tx: Tx, ctx: Context, new: NewServer, flavor: Flavor) -> dict[str, str]:
    """What the volume that it boots from says of the machine."""
    wanted = next((device for device in new.devices if device.is_root), None)
    assert wanted is not None, "a server without an image has a root device"
    root = devices.root_of(tx, ctx, wanted)
    if flavor.memory_mib < root.min_ram:
        raise Invalid("Flavor's memory is too small for requested image.")
    return root.properties


def _root_gib(ctx: Context, flavor: Flavor, image: Image) -> int:
    """The size of the root disk, where flavor and image fit each other."""
    if flavor.memory_mib < image.min_ram:
        raise Invalid("Flavor's memory is too small for requested image.")
    size = max(image.virtual_size or 0, image.size or 0)
    if flavor.disk_gib == 0:
        if not is_allowed(ctx, "os_compute_api:servers:create:zero_disk_flavor", {}):
            raise Forbidden("Only volume-backed servers are allowed for flavors with zero disk.")
        return max(-(-size // GIB), image.min_disk, 1)
    if size > flavor.disk_gib * GIB:
        raise Invalid(
            "Flavor's disk is too small for requested image. "
            f"Flavor disk is {flavor.disk_gib * GIB} bytes, image is {size} bytes."
        )
    if image.min_disk > flavor.disk_gib:
        raise Invalid(
            "Flavor's disk is smaller than the minimum size specified in image metadata. "
            f"Flavor disk is {flavor.disk_gib * GIB} bytes, minimum size is {image.min_disk * GIB} bytes."
        )
    return flavor.disk_gib


def _check_place(tx: Tx, new: NewServer) -> None:
    """Policy has let the caller name a host; here is whether there is such a place."""
    if new.zone is not None and new.zone != DEFAULT_ZONE and not new.is_forced_host:
        raise Invalid("The requested availability zone is not available")
    if new.host is not None and all(host.hostname != new.host for host in fleet.list_hosts(tx)):
        raise Invalid(f"Compute host {new.host} could not be found.")


def check_metadata_quota(tx: Tx, project_id: str, meta: dict[str, str]) -> None:
    """Raises OverQuota for a server with too much metadata."""
    limit = quota.limits(tx, project_id, "compute")["metadata_items"]
    if limit != quota.UNLIMITED and len(meta) > limit:
        raise OverQuota(
            f"Maximum number of metadata items exceeds {limit}",
            why={"quota": {"metadata_items": {"limit": limit, "requested": len(meta)}}},
        )


def _charge(tx: Tx, ctx: Context, new: NewServer, flavor: Flavor) -> int:
    """Charge the quota for as many servers as fit, but for `min_count` at least; how many."""
    count = new.max_count
    if new.min_count < new.max_count:
        count = max(new.min_count, min(new.max_count, _headroom(tx, ctx.project, flavor)))
    needed = {"instances": count, "cores": count * flavor.vcpus, "ram": count * flavor.memory_mib}
    quota.charge(tx, ctx.project, "compute", needed, store.used)
    if new.min_count > COUNT_MAX:
        raise Invalid(f"One request makes at most {COUNT_MAX} servers.")
    return min(count, COUNT_MAX)


def _headroom(tx: Tx, project_id: str, flavor: Flavor) -> int:
    limits, used = quota.limits(tx, project_id, "compute"), store.used(tx, project_id)
    each = {"instances": 1, "cores": flavor.vcpus, "ram": flavor.memory_mib}
    fits = [(limits[name] - used[name]) // amount for name, amount in each.items() if limits[name] != quota.UNLIMITED]
    return max(0, min(fits, default=COUNT_MAX))


def _nics(tx: Tx, ctx: Context, new: NewServer, count: int) -> list[WantedNic]:
    """The interfaces of each server, with the network of each."""
    if isinstance(new.networks, tuple) and new.networks:
        wanted = list(new.networks)
    elif new.networks == "none":
        return []
    else:
        wanted = [WantedNic(network_id=one) for one in ports.default_networks(tx, ctx)]
        if new.networks == "auto" and not wanted:
            raise Invalid(
                "Unable to automatically allocate a network for project "
                f"{ctx.project}: there is no network that it could use."
            )
    asked = [Wanted(port_id=nic.port_id, network_id=nic.network_id, fixed_ip=nic.fixed_ip) for nic in wanted]
    try:
        found = ports.check_requested(tx, ctx, asked, count)
    except NotFound as error:
        raise Invalid(error.message) from error
    return [msgspec.structs.replace(nic, network_id=network_id) for nic, network_id in zip(wanted, found, strict=False)]


def _row(ctx: Context, new: NewServer, parts: _Parts, own: Ids, drawn: tuple[int, int, str, float]) -> Server:
    index, count, reservation_id, now = drawn
    flavor, keypair = parts.flavor, parts.keypair
    name = new.name if count == 1 else f"{new.name}-{index + 1}"
    return Server(
        id=own.server_id,
        project_id=ctx.project,
        user_id=ctx.user_id,
        name=name[: texts.NAME_MAX],
        hostname=texts.hostname_of(name, own.server_id),
        description=new.description,
        vm_state=VmState.BUILDING.value,
        task_state=TaskState.SCHEDULING.value,
        power_state=PowerState.NOSTATE.value,
        desired=Desired.RUNNING.value,
        generation=1,
        pushed_generation=0,
        is_deleting=False,
        locked_by=None,
        locked_reason=None,
        host_id=None,
        host_name=None,
        availability_zone=None,
        requested_zone=new.zone,
        requested_host=new.host,
        is_forced_host=new.is_forced_host,
        image_id=None if parts.image is None else parts.image.id,
        flavor_id=flavor.id,
        flavor_name=flavor.name,
        vcpus=flavor.vcpus,
        memory_mib=flavor.memory_mib,
        disk_gib=flavor.disk_gib,
        ephemeral_gib=flavor.ephemeral_gib,
        swap_mib=flavor.swap_mib,
        extra_specs=flavor.extra_specs,
        root_gib=parts.root_gib,
        arch=parts.arch,
        hardware=parts.hardware,
        key_name=keypair.name if keypair is not None else None,
        key_type=keypair.type if keypair is not None else None,
        public_key=keypair.public_key if keypair is not None else None,
        meta=new.meta,
        config_drive=new.config_drive or parts.properties.get("img_config_drive") == "mandatory",
        has_user_data=new.user_data is not None,
        is_auto_disk=new.is_auto_disk,
        access_ip_v4=new.access_ip_v4,
        access_ip_v6=new.access_ip_v6,
        hints=new.hints,
        reservation_id=reservation_id,
        launch_index=index,
        progress=0,
        created_at=now,
        updated_at=now,
        launched_at=None,
        terminated_at=None,
        deleted_at=None,
        fault_code=None,
        fault_message=None,
        fault_details=None,
        fault_at=None,
        rescue_image_id=None,
        is_rescued=False,
        shelved_image_id=None,
        shelved_at=None,
        is_disk_whole=False,
    )


def _begin(
    tx: Tx, ctx: Context, server: Server, new: NewServer, image: Image | None, own: Ids, parts: tuple[int, Given]
) -> None:
    """The saga and the record of the action."""
    assert image is None or image.sha256 is not None, "a bootable image has a checksum"
    nics, given = parts
    params = CreateParams(
        server_id=server.id,
        project_id=server.project_id,
        request_id=ctx.request_id,
        nics=nics,
        image_id=None if image is None else image.id,
        image_sha256="" if image is None else image.sha256 or "",
        volumes=len(given.ends),
        volume_ends=given.ends,
        next_tries=own.saga_ids[1:],
        different_host=new.different_host,
        same_host=new.same_host,
    )
    act(tx, ctx, server, "create", own.saga_ids[0], server.created_at)
    start(
        tx,
        CREATE,
        saga_id=own.saga_ids[0],
        params=params,
        target=server.id,
        project_id=server.project_id,
        request_id=ctx.request_id,
        now=server.created_at,
    )


def act(tx: Tx, ctx: Context, server: Server, action: str, saga_id: str | None, now: float) -> None:
    """Record what is being done, under the user's request id."""
    new = Action(server.id, ctx.request_id, action, ctx.user_id, ctx.project_id, saga_id, now, now, None)
    store.insert_action(tx, new)


# Delete.


async def delete(cloud: "Cloud", ctx: Context, server_id: str) -> None:
    """Accept a deletion, in whatever state the server is. Repeated while one is under way, it changes nothing."""
    for saga_id in await cloud.db.write(_delete, ctx, server_id, cloud.world.entropy.uuid(), cloud.world.clock.now()):
        cloud.sagas.kick(saga_id)


def _delete(tx: Tx, ctx: Context, server_id: str, saga_id: str, now: float) -> list[str]:
    server = store.get(tx, ctx, server_id)
    check_unlocked(ctx, server)
    if server.is_deleting and not settled(tx, server_id):
        return []
    store.take(tx, server, Event.DELETE, now, is_deleting=True)
    cancelled = request_cancel(tx, server_id, now)
    params = DeleteParams(server_id=server_id, request_id=ctx.request_id)
    act(tx, ctx, server, "delete", saga_id, now)
    start(
        tx,
        DELETE,
        saga_id=saga_id,
        params=params,
        target=server_id,
        project_id=server.project_id,
        request_id=ctx.request_id,
        now=now,
    )
    return [*cancelled, saga_id]


def check_unlocked(ctx: Context, server: Server) -> None:
    """A locked server is left alone by everyone but admins. Raises Conflict."""
    if server.locked_by is not None and not ctx.is_admin:
        raise Conflict(f"Instance {server.id} is locked")
