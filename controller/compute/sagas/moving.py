"""What sagas have in common that take a server to another host: its ports, its disk, what it leaves."""

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from controller.compute import domains, migration_store, store
from controller.compute.model import Server, root_disk_id
from controller.compute.resize_store import Resize
from controller.compute.sagas.server_leave import LEAVE, LeaveParams
from controller.db.tx import Tx
from controller.network import ports, wiring
from controller.saga.log import start
from controller.saga.model import Run, Transient

if TYPE_CHECKING:
    from controller.cloud import Cloud


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """Where it goes."""

    host_id: str
    host_name: str
    zone: str


# Ports. `host_id` is where they go.


def point(tx: Tx, server_id: str, index: int, host_id: str, now: float) -> None:
    """One port of the server is also wanted on that host; empty: only where it is."""
    for nic in store.nics(tx, server_id)[index : index + 1]:
        ports.move_towards(tx, port_id=nic.port_id, server_id=server_id, host_id=host_id, now=now)


async def plug(run: Run[Any], host_id: str) -> None:
    """The port of this step is wired and filtered there."""
    for port_id in await _port_ids(run):
        await wiring.plug(run.deps, host_id, port_id, run.deadline)


async def unplug(run: Run[Any], host_id: str) -> None:
    """It is not."""
    going = [wiring.unplug(run.deps, host_id, port_id, run.deadline) for port_id in await _port_ids(run)]
    await asyncio.gather(*going)


async def _port_ids(run: Run[Any]) -> list[str]:
    nics = await run.deps.db.read(store.nics, run.params.server_id)
    return [nic.port_id for nic in nics[run.index : run.index + 1]]


def put_ports(tx: Tx, server_id: str, host_id: str, zone: str, now: float) -> None:
    """The server's ports are there from now on."""
    for nic in store.nics(tx, server_id):
        ports.arrive(tx, port_id=nic.port_id, server_id=server_id, host_id=host_id, zone=zone, now=now)


def ports_plugged(tx: Tx, server_id: str, now: float) -> None:
    """They work."""
    for nic in store.nics(tx, server_id):
        wiring.plugged(tx, nic.port_id, now)


# Disk and domain.


def disk_offer(cloud: "Cloud", to_host_id: str, from_host_id: str, server_id: str) -> Any:
    """A permission to bring the root disk from one host to the other. Raises Transient while its host is away."""
    door = cloud.hosts.door(from_host_id)
    if door is None:
        raise Transient(f"Host {from_host_id} cannot be reached for the disk.")
    return cloud.channel.disk_offer(to_host_id, from_host_id, door, root_disk_id(server_id))


async def remove_disk(run: Run[Any], host_id: str) -> None:
    """Nothing of the disk is there. For an undo: at a generation of its own."""
    generation: int = await run.deps.db.write(store.bump, run.params.server_id)
    await domains.remove_disk(run.deps, run.params.server_id, host_id, generation, run.deadline)


async def remove_domain(run: Run[Any], host_id: str) -> None:
    """Nothing of the domain is there. For an undo: at a generation of its own."""
    generation: int = await run.deps.db.write(store.bump, run.params.server_id)
    await domains.remove(run.deps, run.params.server_id, host_id, generation, run.deadline)


# What is left behind.


class Left(msgspec.Struct, frozen=True, kw_only=True):
    """The saga that removes what a server has left on a host, and on whose request."""

    saga_id: str
    request_id: str
    host_id: str
    host_name: str


def left_by(params: Any) -> Left:
    """Of a saga that took it away from `params.host_id`."""
    return Left(
        saga_id=params.leave_id,
        request_id=params.request_id,
        host_id=params.host_id,
        host_name=params.host_name,
    )


def leave(tx: Tx, server: Server, left: Left, generation: int, *, has_disk: bool, now: float) -> None:
    """Begin to remove it. `generation` is newer than all that the host was told of it."""
    params = LeaveParams(
        server_id=server.id,
        request_id=left.request_id,
        host_id=left.host_id,
        host_name=left.host_name,
        generation=generation,
        port_ids=tuple(nic.port_id for nic in store.nics(tx, server.id)),
        has_disk=has_disk,
    )
    start(
        tx,
        LEAVE,
        saga_id=left.saga_id,
        params=params,
        target=migration_store.leaving(server.id, left.host_id),
        project_id=server.project_id,
        request_id=left.request_id,
        now=now,
    )


def leave_other_size(
    tx: Tx, server: Server, resize: Resize, generation: int, saga_id: str, request_id: str, now: float
) -> None:
    """What the server kept on another host until the word about its size has come is needed no more."""
    host_id, host_name = resize.other_host(server.host_id)
    if host_id is not None:
        left = Left(saga_id=saga_id, request_id=request_id, host_id=host_id, host_name=host_name or "")
        leave(tx, server, left, generation, has_disk=server.image_id is not None, now=now)
