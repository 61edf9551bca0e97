"""Attachments that users make themselves, by the attachments API: reserve, connect an initiator, complete, delete.

What serves a server belongs to the compute service. Taking that away below a guest would leave the host with a disk
that is somebody else's next, so it is refused to everybody here: the server lets go of it.
"""

from typing import TYPE_CHECKING, Any, Final

import msgspec

from controller.context import Context
from controller.db.tx import Tx
from controller.errors import Conflict, Invalid, Unavailable
from controller.saga.log import find_active, request_cancel, start
from controller.saga.model import State
from controller.volume import attachments
from controller.volume.attachments import Wanted
from controller.volume.model import Attachment, AttachStatus
from controller.volume.sagas.attachment_connect import CONNECT, ConnectParams
from controller.volume.sagas.attachment_delete import DELETE, DisconnectParams
from controller.volume.store import attachments as store
from controller.volume.store import volumes

if TYPE_CHECKING:
    from controller.cloud import Cloud

WAIT_S: Final = 30.0
"""How long a request waits for an export. It goes on without it; longer: clients give up before."""

CONNECTOR_BYTES_MAX: Final = 16384

INITIATOR_MAX: Final = 223
"""Of iSCSI names (RFC 3720)."""


class New(msgspec.Struct, frozen=True, kw_only=True):
    """A request for an attachment."""

    volume_id: str
    server_id: str | None = None
    mode: str | None = None


async def create(cloud: "Cloud", ctx: Context, new: New, connector: dict[str, Any] | None) -> Attachment:
    """Reserve a volume, and with a connector let it be reached. Raises NotFound, InvalidVolume, Conflict."""
    if connector is not None:
        _initiator(connector)
    drawn = (cloud.world.entropy.uuid(), cloud.world.clock.now())
    made: Attachment = await cloud.db.write(_create, ctx, new, drawn)
    return made if connector is None else await connect(cloud, ctx, made.id, connector)


def _create(tx: Tx, ctx: Context, new: New, drawn: tuple[str, float]) -> Attachment:
    attachment_id, now = drawn
    volume = volumes.get(tx, ctx, new.volume_id)
    wanted = Wanted(id=attachment_id, volume_id=volume.id, server_id=new.server_id, is_ours=False, mode=new.mode)
    return attachments.reserve(tx, volume, wanted, now)


async def connect(cloud: "Cloud", ctx: Context, attachment_id: str, connector: dict[str, Any]) -> Attachment:
    """Let an initiator reach the volume. Raises NotFound, Invalid, Conflict, Unavailable."""
    initiator = _initiator(connector)
    uuid = cloud.world.entropy.uuid
    drawn = (uuid(), uuid(), cloud.world.clock.now())
    await cloud.db.write(_connect, ctx, attachment_id, (initiator, connector), drawn)
    state = await _rested(cloud, drawn[0])
    if state is not State.DONE:
        raise Unavailable("The volume could not be exported; its messages say why.")
    return await cloud.db.read(store.get, ctx, attachment_id)


def _initiator(connector: dict[str, Any]) -> str:
    if len(msgspec.json.encode(connector)) > CONNECTOR_BYTES_MAX:
        raise Invalid(f"Invalid input for field/attribute connector: more than {CONNECTOR_BYTES_MAX} bytes.")
    found = connector.get("initiator")
    if not isinstance(found, str) or not 1 <= len(found) <= INITIATOR_MAX or not found.isascii() or " " in found:
        raise Invalid("Invalid input received: the connector has no 'initiator', an iSCSI name.")
    return found


def _connect(
    tx: Tx, ctx: Context, attachment_id: str, asked: tuple[str, dict[str, Any]], drawn: tuple[str, str, float]
) -> None:
    (initiator, connector), (saga_id, message_id, now) = asked, drawn
    row = _own(tx, ctx, attachment_id)
    if row.status not in (AttachStatus.RESERVED, AttachStatus.ATTACHING):
        raise Invalid(f"Attachment {attachment_id} is {row.status}: it cannot be connected.")
    store.change(tx, attachment_id, {"connector": connector})
    host = connector.get("host")
    params = ConnectParams(
        attachment_id=row.id,
        volume_id=row.volume_id,
        initiator=initiator,
        host_name=host[:255] if isinstance(host, str) else "",
        request_id=ctx.request_id,
        message_id=message_id,
    )
    _start(tx, ctx, CONNECT, params, row, (saga_id, now))


def _start(tx: Tx, ctx: Context, saga: Any, params: Any, row: Attachment, drawn: tuple[str, float]) -> None:
    start(
        tx,
        saga,
        saga_id=drawn[0],
        params=params,
        target=row.id,
        project_id=row.project_id,
        request_id=ctx.request_id,
        now=drawn[1],
    )


def _own(tx: Tx, ctx: Context, attachment_id: str) -> Attachment:
    row = store.get(tx, ctx, attachment_id)
    if row.is_ours:
        raise Conflict(
            f"Attachment {attachment_id} serves server {row.server_id}: attach and detach it by the compute API."
        )
    return row


async def _rested(cloud: "Cloud", saga_id: str) -> State:
    cloud.sagas.kick(saga_id)
    try:
        return await cloud.sagas.rest(saga_id, WAIT_S)
    except TimeoutError as error:
        raise Unavailable("A host does not answer; this goes on when it does.") from error


async def complete(cloud: "Cloud", ctx: Context, attachment_id: str) -> None:
    """The initiator has it. Raises NotFound, Conflict, Invalid."""
    await cloud.db.write(_complete, ctx, attachment_id, cloud.world.clock.now())


def _complete(tx: Tx, ctx: Context, attachment_id: str, now: float) -> None:
    row = _own(tx, ctx, attachment_id)
    if row.status not in (AttachStatus.ATTACHING, AttachStatus.ATTACHED) or not row.is_exported:
        raise Invalid(f"Attachment {attachment_id} is {row.status}: there is nothing to complete.")
    attachments.attached(tx, attachment_id, now)


async def delete(cloud: "Cloud", ctx: Context, attachment_id: str) -> list[Attachment]:
    """Take it away; the volume's other attachments. Raises NotFound, Conflict, Unavailable."""
    drawn = (cloud.world.entropy.uuid(), cloud.world.clock.now())
    volume_id, cancelled, ending = await cloud.db.write(_delete, ctx, attachment_id, drawn)
    for saga_id in cancelled:
        cloud.sagas.kick(saga_id)
    if ending is not None:
        await _rested(cloud, ending)
    found: list[Attachment] = await cloud.db.read(store.of_volume, volume_id)
    return found


def _delete(tx: Tx, ctx: Context, attachment_id: str, drawn: tuple[str, float]) -> tuple[str, list[str], str | None]:
    row = _own(tx, ctx, attachment_id)
    ending = find_active(tx, row.id, DELETE.kind)
    if ending is not None:  # Somebody asked before: two who wait for all others would wait for each other.
        return row.volume_id, [], ending
    cancelled = request_cancel(tx, row.id, drawn[1])
    if row.generation == 0 and not cancelled:
        attachments.release(tx, row.id, drawn[1])
        return row.volume_id, [], None
    store.change(tx, row.id, {"status": AttachStatus.DETACHING.value})
    volumes.settle(tx, row.volume_id, drawn[1])
    params = DisconnectParams(attachment_id=row.id, request_id=ctx.request_id)
    _start(tx, ctx, DELETE, params, row, drawn)
    return row.volume_id, cancelled, drawn[0]
