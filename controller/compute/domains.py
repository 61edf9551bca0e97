"""A server as its host is told of it.

`spec_of` is a pure function of rows that were read in one transaction, and every change of such a row raises the
server's generation. So whoever sends a generation sends the same bytes: a saga, a second try after a crash, or
the reconciler that pushes changed metadata.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from agent.wire import disk as disk_calls
from agent.wire import domain as domain_calls
from agent.wire.disk import DiskSpec
from agent.wire.domain import Desired, DomainDisk, DomainNic, DomainSpec, DomainStatus, Hardware
from agent.wire.lifecycle import Generation
from agent.wire.specs import Absence, Ref
from controller import patience
from controller.compute import guest, plugs, store
from controller.compute.model import GONE, Nic, Server, instance_name, rescue_disk_id, root_disk_id
from controller.compute.plugs import Plugged
from controller.compute.store import Guest
from controller.db.tx import Tx
from controller.errors import Conflict, NotFound
from controller.image import store as image_store
from controller.saga.model import Run, Transient
from controller.volume.fencing import Fence

if TYPE_CHECKING:
    from controller.cloud import Cloud


class Whole(msgspec.Struct, frozen=True):
    """A server with all that its host must know."""

    server: Server
    nics: list[Nic]
    guest: Guest
    volumes: list[Plugged] = []


def whole(tx: Tx, server_id: str) -> Whole:
    """Read it in one transaction. Raises NotFound for a server that is gone, Conflict for one that is going.

    Transient for one whose domain its own saga is about to take off the host: who pushes it now would bring it back.

    A deletion has raised the generation for its own `absent`. Whoever sent a definition at that generation, because
    it looked at the row too early or too late, would make the host refuse the deletion for ever.
    """
    server = store.find(tx, server_id)
    if server is None or server.deleted_at is not None:
        raise NotFound(f"Instance {server_id} could not be found.")
    if server.is_deleting:
        raise Conflict(f"Instance {server_id} is being deleted.")
    if server.desired == GONE:
        raise Transient(f"Instance {server_id} is between two domains.")
    return parts(tx, server)


def parts(tx: Tx, server: Server) -> Whole:
    """A server with all that its host must know, whoever may tell it."""
    # One that comes or goes is no part of it: its saga says when.
    nics = [nic for nic in store.nics(tx, server.id) if nic.mac is not None]
    return Whole(server, nics, store.guest(tx, server.id), plugs.plugged(tx, server.id))


def spec_of(found: Whole, epoch: int, fence: Fence) -> DomainSpec:
    """The domain that the server should be, at the generation of its row. `fence` opens its volumes."""
    server = found.server
    return DomainSpec(
        id=server.id,
        generation=Generation(epoch, server.generation),
        labels={"project_id": server.project_id, "user_id": server.user_id, "flavor_id": server.flavor_id},
        name=instance_name(server.id),
        desired=Desired(server.desired),
        vcpus=server.vcpus,
        memory_mib=server.memory_mib,
        hardware=msgspec.convert(server.hardware, Hardware),
        disks=(*_root(server), *plugs.disks(found.volumes, fence, server.host_id or "")),
        nics=_nics(found.nics),
        guest=guest.guest_data(server, found.nics, found.guest),
        config_drive=server.config_drive,
    )


def _root(server: Server) -> tuple[DomainDisk, ...]:
    """The local disks. A server without an image boots from a volume; one that is rescued from its rescue disk."""
    if server.image_id is None:
        return ()
    if server.is_rescued:
        rescue = DomainDisk(disk_id=rescue_disk_id(server.id), boot_index=0)
        return (rescue, DomainDisk(disk_id=root_disk_id(server.id)))
    return (DomainDisk(disk_id=root_disk_id(server.id), boot_index=0),)


def _nics(nics: Sequence[Nic]) -> tuple[DomainNic, ...]:
    return tuple(
        DomainNic(port_id=nic.port_id, mac=nic.mac, mtu=nic.mtu)
        for nic in nics
        if nic.mac is not None and nic.mtu is not None
    )


async def push(cloud: "Cloud", server_id: str, host_id: str, deadline: float) -> DomainStatus:
    """Make the server's host hold the newest intent; its status then. Raises Transient or CloudError.

    `host_id` is where the caller knows it. If the server has moved on meanwhile (evacuated from a dead host, below
    somebody who waited for that), it is pushed where it is: the old host must not run it again. If it is on no host
    any more (shelved), it is pushed nowhere: raises Conflict.

    Several may push at once (volumes come and go by sagas of their own). What is pushed is always all of the intent, so
    who is refused because a newer one came first has only to follow it.
    """
    while True:
        found = await cloud.db.read(whole, server_id)
        if found.server.host_id is None:
            raise Conflict(f"Instance {server_id} has left host {host_id}, and is on none.")
        spec = spec_of(found, cloud.epoch, cloud.fence)
        try:
            return await cloud.hosts.ensure(found.server.host_id, domain_calls.ENSURE, spec, deadline)
        except Conflict as error:
            newer = await cloud.db.read(whole, server_id)
            if (error.why or {}).get("code") != "stale" or newer.server.generation <= found.server.generation:
                raise


async def push_patiently(run: Run[Any], server_id: str, host_id: str) -> DomainStatus:
    """As `push`, for a saga's step; raises Unavailable in the host's words when it fails after some tries."""
    try:
        return await push(run.deps, server_id, host_id, run.deadline)
    except Transient:
        if run.attempt >= patience.SLICES_MAX:
            server = await run.deps.db.read(store.find, server_id)
            here = host_id if server is None else server.host_id or host_id
            await patience.give_up_on_failure(run, here, domain_calls.GET, Ref(id=server_id))
        raise


def disk_spec_of(server: Server, image_sha256: str, epoch: int) -> DiskSpec:
    """The root disk that the server has, or should have. In a host's cache an image is known by its content."""
    below = None if server.is_disk_whole else image_sha256
    return DiskSpec(
        id=root_disk_id(server.id),
        generation=Generation(epoch, server.generation),
        domain_id=server.id,
        image_id=below,
        image_sha256=below,
        size_gib=server.root_gib,
    )


async def push_disk(cloud: "Cloud", server_id: str, host_id: str, deadline: float) -> None:
    """The host knows the root disk again; the one that exists is kept. Raises Transient or CloudError."""
    server = (await cloud.db.read(whole, server_id)).server
    if server.host_id != host_id:
        raise Conflict(f"Instance {server_id} has left host {host_id}.")
    image = await cloud.db.read(image_store.find, server.image_id or "")
    if image is None or image.sha256 is None:
        raise NotFound(f"The image of server {server_id} is gone.")
    spec = disk_spec_of(server, image.sha256, cloud.epoch)
    await cloud.hosts.ensure(host_id, disk_calls.ENSURE, spec, deadline)


async def remove(cloud: "Cloud", server_id: str, host_id: str, generation: int, deadline: float) -> None:
    """The domain is gone from the host."""
    absence = Absence(id=server_id, generation=Generation(cloud.epoch, generation))
    await cloud.hosts.absent(host_id, domain_calls.ABSENT, absence, deadline)


async def remove_disk(cloud: "Cloud", server_id: str, host_id: str, generation: int, deadline: float) -> None:
    """The root disk is gone from the host. Only after the domain is."""
    absence = Absence(id=root_disk_id(server_id), generation=Generation(cloud.epoch, generation))
    await cloud.hosts.absent(host_id, disk_calls.ABSENT, absence, deadline)


async def remove_rescue_disk(cloud: "Cloud", server_id: str, host_id: str, generation: int, deadline: float) -> None:
    """The disk that it was rescued from is gone from the host. Only after no domain has it."""
    absence = Absence(id=rescue_disk_id(server_id), generation=Generation(cloud.epoch, generation))
    await cloud.hosts.absent(host_id, disk_calls.ABSENT, absence, deadline)
