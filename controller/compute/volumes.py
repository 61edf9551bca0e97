"""How volumes come to servers that run, and go.

A request reserves the volume and a device in the transaction that starts the saga. Several may be under way at one
server: each pushes all of the server's intent. They stand only where no other task does, and who moves a server to
another host, or takes its domain away, begins only where `check_settled` passes.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from controller.compute import plugs, store
from controller.compute.model import Server
from controller.compute.plugs import Plug
from controller.compute.sagas.volume_attach import ATTACH, AttachParams
from controller.compute.sagas.volume_detach import DETACH
from controller.compute.servers import act, check_unlocked
from controller.context import Context
from controller.db.tx import Tx
from controller.errors import Conflict, Forbidden, Invalid, NotFound
from controller.fleet import store as fleet
from controller.saga.log import start
from controller.volume import attachments
from controller.volume.attachments import Wanted
from controller.volume.model import InvalidVolume, Volume

if TYPE_CHECKING:
    from controller.cloud import Cloud

ATTACHABLE: Final = ("active", "paused", "stopped")

DETACHABLE: Final = (*ATTACHABLE, "suspended", "error")


class NewPlug(msgspec.Struct, frozen=True, kw_only=True):
    """A request for a volume to be attached. `may_share`: the caller knows of volumes of several servers."""

    volume_id: str
    device: str | None = None
    tag: str | None = None
    is_ended_with_server: bool = False
    may_share: bool = True


def check_settled(tx: Tx, server_id: str) -> None:
    """Raises Conflict while a volume is on its way to the server, or away from it."""
    if not plugs.is_settled(tx, server_id):
        raise Conflict(f"Instance {server_id} has a volume that is just being attached or detached; try again soon.")


def shown(tx: Tx, server_ids: Sequence[str]) -> Mapping[str, list[Plug]]:
    """The volumes of servers, by device."""
    return plugs.of_servers(tx, server_ids)


def of_server(tx: Tx, ctx: Context, server_id: str) -> list[Plug]:
    """A server's volumes. Raises NotFound."""
    store.get(tx, ctx, server_id)
    return plugs.of_server(tx, server_id)


def of_both(tx: Tx, ctx: Context, server_id: str, volume_id: str) -> Plug:
    """One volume of a server. Raises NotFound."""
    store.get(tx, ctx, server_id)
    found = plugs.find(tx, server_id, volume_id)
    if found is None:
        raise NotFound(f"Instance {server_id} is not attached to volume {volume_id}.")
    return found


# Attach.


async def attach(cloud: "Cloud", ctx: Context, server_id: str, new: NewPlug) -> Plug:
    """Accept it; which device it will be. Raises NotFound, Invalid, Conflict."""
    uuid = cloud.world.entropy.uuid
    drawn = (uuid(), uuid(), uuid())
    up = frozenset(cloud.hosts.up())
    made: Plug = await cloud.db.write(_attach, ctx, server_id, new, drawn, cloud.world.clock.now(), up)
    cloud.sagas.kick(drawn[0])
    return made


def _attach(
    tx: Tx,
    ctx: Context,
    server_id: str,
    new: NewPlug,
    drawn: tuple[str, str, str],
    now: float,
    up: frozenset[str],
) -> Plug:
    saga_id, attachment_id, message_id = drawn
    server = _open(tx, ctx, server_id, "attach_volume", ATTACHABLE)
    volume = attachments.get_volume(tx, ctx, new.volume_id)
    _check_alive(tx, server, volume, up)
    if plugs.find(tx, server_id, volume.id) is not None:
        raise InvalidVolume(f"volume {volume.id} already attached")
    if volume.is_multiattach and not new.may_share:
        raise Invalid("Multiattach volumes are only supported starting with compute API version 2.60.")
    device = plugs.next_device(["vda", *(plug.device for plug in plugs.of_server(tx, server_id))], new.device)
    wanted = Wanted(id=attachment_id, volume_id=volume.id, server_id=server_id, is_ours=True, device=device)
    attachments.reserve(tx, volume, wanted, now)
    made = Plug(
        attachment_id, server_id, volume.id, device, None, None, new.tag, new.is_ended_with_server, is_plugged=False
    )
    plugs.insert(tx, made)
    _begin(tx, ctx, server, "attach_volume", ATTACH, made, (saga_id, message_id, now))
    return made


def _check_alive(tx: Tx, server: Server, volume: Volume, up: frozenset[str]) -> None:
    """Raises Conflict where one of the two hosts that it takes would not answer."""
    if not fleet.is_alive(fleet.find_host(tx, server.host_id or ""), up):
        raise Conflict(
            f"Instance {server.id} cannot get a volume: its host is down. Try again when the host is back, or after "
            "the server was evacuated."
        )
    if volume.host_id is not None and not fleet.is_alive(fleet.find_host(tx, volume.host_id), up):
        raise Conflict(f"Volume {volume.id} cannot be attached: its host is down. Try again when the host is back.")


def _open(tx: Tx, ctx: Context, server_id: str, verb: str, states: tuple[str, ...]) -> Server:
    """A server that volumes may come to, or go from, now. Raises NotFound, Conflict."""
    server = store.get(tx, ctx, server_id)
    check_unlocked(ctx, server)
    by_state = server.vm_state not in states
    if by_state or server.task_state is not None or server.is_deleting:
        attribute, state = ("vm_state", server.vm_state) if by_state else ("task_state", server.task_state)
        raise Conflict(
            f"Cannot '{verb}' instance {server_id} while it is in {attribute} {state}",
            why={"attribute": attribute, "state": state},
        )
    if server.host_id is None:
        raise Conflict(f"Instance {server_id} is not ready")
    return server


def _begin(
    tx: Tx, ctx: Context, server: Server, action: str, saga: Any, plug: Plug, drawn: tuple[str, str, float]
) -> None:
    saga_id, message_id, now = drawn
    assert server.host_id is not None, "checked before"
    params = AttachParams(
        server_id=server.id,
        volume_id=plug.volume_id,
        attachment_id=plug.attachment_id,
        request_id=ctx.request_id,
        message_id=message_id,
        host_id=server.host_id,
        host_name=server.host_name or "",
    )
    act(tx, ctx, server, action, saga_id, now)
    start(
        tx,
        saga,
        saga_id=saga_id,
        params=params,
        target=server.id,
        project_id=server.project_id,
        request_id=ctx.request_id,
        now=now,
    )


# Detach.


async def detach(cloud: "Cloud", ctx: Context, server_id: str, volume_id: str) -> None:
    """Accept it. Raises NotFound, Forbidden for the root disk, Conflict, InvalidVolume."""
    uuid = cloud.world.entropy.uuid
    drawn = (uuid(), uuid(), cloud.world.clock.now())
    await cloud.db.write(_detach, ctx, server_id, volume_id, drawn)
    cloud.sagas.kick(drawn[0])


def _detach(tx: Tx, ctx: Context, server_id: str, volume_id: str, drawn: tuple[str, str, float]) -> None:
    plug = of_both(tx, ctx, server_id, volume_id)
    server = _open(tx, ctx, server_id, "detach_volume", DETACHABLE)
    if plug.boot_index == 0:
        raise Forbidden("Cannot detach a root device volume")
    if not attachments.detaching(tx, plug.attachment_id, drawn[2]):
        raise InvalidVolume(f"Volume {volume_id} is on its way to the server, or away from it.")
    _begin(tx, ctx, server, "detach_volume", DETACH, plug, drawn)
