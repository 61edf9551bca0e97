"""Attachments: who has a volume, and the export that serves it. The compute service attaches through these, too.

Theory of operation. An attachment is one server's claim of one volume, and on the volume's host it is one export: a
target with its own account and its own initiators. The row says what should be: `initiators` are who may log in, and
`generation` rises before anything new is said about the export. Zero means that nothing was ever said.

    reserve    the volume is somebody's (or one more's, where its type allows several)
    aim        the export should be there, for these initiators
    answered   it is, and there
    attached   the guest has it
    withdraw   it should not be there any more
    release    the attachment is gone; the volume's status follows

Whoever takes an export away has taken the disk from the domain before, or means to cut off a host that is lost: taking
it away ends the session, whatever the guest does.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from agent.wire import volume as calls
from agent.wire.volume import ExportStatus
from controller import patience
from controller.context import Context
from controller.db.tx import Tx
from controller.errors import CloudError, NotFound
from controller.saga.model import Cause, Run
from controller.volume import messages, specs
from controller.volume.messages import About
from controller.volume.model import Attachment, AttachStatus, Event, InvalidVolume, Status, Volume
from controller.volume.specs import Link
from controller.volume.store import attachments as store
from controller.volume.store import volumes

if TYPE_CHECKING:
    from controller.cloud import Cloud

_SHAREABLE = frozenset({Status.AVAILABLE, Status.RESERVED, Status.ATTACHING, Status.IN_USE, Status.DETACHING})


Aiming = Callable[[Tx, str, Sequence[str], str, float], Attachment | None]


class Told(msgspec.Struct, frozen=True):
    """Under which request, and as which message, a failure is told."""

    request_id: str
    message_id: str


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """An attachment to be. `is_made_for`: the volume is just being made for this very server."""

    id: str
    volume_id: str
    server_id: str | None
    is_ours: bool
    mode: str | None = None  # None: as the volume says.
    device: str | None = None
    connector: dict[str, Any] | None = None
    is_made_for: bool = False


def get_volume(tx: Tx, ctx: Context, volume_id: str) -> Volume:
    """A volume that this caller may see. Raises NotFound."""
    return volumes.get(tx, ctx, volume_id)


def find_volume(tx: Tx, volume_id: str) -> Volume | None:
    """A volume, whoever's."""
    return volumes.find(tx, volume_id)


def is_made(tx: Tx, volume_id: str) -> bool:
    """Whether a volume can be used; False: it is just being made. Raises CloudError: it never will be."""
    row = volumes.find(tx, volume_id)
    if row is None or row.is_deleting:
        raise NotFound(f"Volume {volume_id} was deleted.")
    if row.status == Status.ERROR:
        raise CloudError(f"Volume {volume_id} could not be made.")
    return row.status != Status.CREATING


def find(tx: Tx, attachment_id: str) -> Attachment | None:
    """An attachment, whoever's."""
    return store.find(tx, attachment_id)


def reserve(tx: Tx, volume: Volume, wanted: Wanted, now: float) -> Attachment:
    """Take a volume for one server. Raises InvalidVolume where it is somebody else's, or not to be had now."""
    there = store.of_volume(tx, volume.id)
    _check_free(volume, wanted, there)
    new = Attachment(
        id=wanted.id,
        volume_id=volume.id,
        project_id=volume.project_id,
        server_id=wanted.server_id,
        is_ours=wanted.is_ours,
        status=AttachStatus.RESERVED.value,
        mode="ro" if volume.is_readonly else wanted.mode or "rw",
        device=wanted.device,
        host_name=None,
        connector=wanted.connector,
        generation=0,
        initiators=[],
        portal_host=None,
        portal_port=None,
        iqn=None,
        lun=None,
        created_at=now,
        attached_at=None,
        secret_generation=0,
    )
    # The row is written although nothing of it changes: two who take the same volume meet here.
    volumes.change(tx, volume.id, {"updated_at": now})
    store.insert(tx, new)
    volumes.settle(tx, volume.id, now)
    return new


def _check_free(volume: Volume, wanted: Wanted, there: Sequence[Attachment]) -> None:
    if wanted.mode == "rw" and volume.is_readonly:
        raise InvalidVolume("Volume is read-only: it cannot be attached for writing.")
    if wanted.is_made_for and volume.status == Status.CREATING and not there:
        return
    if wanted.server_id is not None and any(one.server_id == wanted.server_id for one in there):
        raise InvalidVolume(f"Volume {volume.id} is already attached to server {wanted.server_id}.")
    if volume.status == Status.AVAILABLE and not there:
        return
    if volume.is_multiattach and volume.status in _SHAREABLE:
        return
    raise InvalidVolume(
        f"Volume {volume.id} status must be available or downloading to reserve, but the current status is "
        f"{volume.status}.",
        why={"volume": volume.id, "status": volume.status},
    )


def aim(
    tx: Tx,
    attachment_id: str,
    initiators: Sequence[str],
    host_name: str | None,
    now: float,
    *,
    keeps_secret: bool = False,
) -> Attachment | None:
    """Say who may log in; the row then. Said twice, it is said once. None: the attachment is gone."""
    row = store.find(tx, attachment_id)
    if row is None:
        return None
    if row.initiators != list(initiators):
        # Where it is reached stays as it was answered last: its target is where its volume is.
        store.bump(tx, attachment_id, keeps_secret=keeps_secret, initiators=list(initiators), host_name=host_name)
    store.move(tx, attachment_id, (AttachStatus.RESERVED.value,), AttachStatus.ATTACHING.value)
    volumes.settle(tx, row.volume_id, now)
    return store.find(tx, attachment_id)


def answered(tx: Tx, attachment_id: str, status: ExportStatus) -> bool:
    """The export is there: keep where. Says whether that is news."""
    row = store.find(tx, attachment_id)
    if row is None or row.generation != status.generation.n:
        return False
    known = (row.portal_host, row.portal_port, row.iqn, row.lun)
    if known == (status.host, status.port, status.iqn, status.lun):
        return False
    where = {"portal_host": status.host, "portal_port": status.port, "iqn": status.iqn, "lun": status.lun}
    store.change(tx, attachment_id, where)
    return True


def attached(tx: Tx, attachment_id: str, now: float) -> None:
    """The guest has it."""
    row = store.find(tx, attachment_id)
    if row is not None:
        store.change(tx, attachment_id, {"status": AttachStatus.ATTACHED.value, "attached_at": row.attached_at or now})
        volumes.report(tx, row.volume_id, Event.ATTACHING_ENDED, now)
        volumes.settle(tx, row.volume_id, now)


def detaching(tx: Tx, attachment_id: str, now: float) -> bool:
    """It is being taken away; False: it is not attached."""
    row = store.find(tx, attachment_id)
    done = store.move(tx, attachment_id, (AttachStatus.ATTACHED.value,), AttachStatus.DETACHING.value)
    if row is not None:
        volumes.settle(tx, row.volume_id, now)
    return done


def back_to_reserved(tx: Tx, attachment_id: str, now: float) -> None:
    """Nothing serves it any more, but it is still somebody's."""
    row = store.find(tx, attachment_id)
    if row is not None:
        store.change(tx, attachment_id, {"status": AttachStatus.RESERVED.value, "host_name": None, "attached_at": None})
        volumes.settle(tx, row.volume_id, now)


def release(tx: Tx, attachment_id: str, now: float) -> None:
    """The attachment is gone. Its export is, before."""
    row = store.find(tx, attachment_id)
    if row is not None:
        store.drop(tx, attachment_id)
        volumes.report(tx, row.volume_id, Event.ATTACHING_ENDED, now)
        volumes.settle(tx, row.volume_id, now)


def failed(tx: Tx, attachment_id: str, told: Told, cause: Cause, now: float) -> None:
    """It takes too long, and goes on: the user is told now. A volume that others use goes on being in use."""
    row = store.find(tx, attachment_id)
    if row is not None:
        if not any(one.status == AttachStatus.ATTACHED for one in store.of_volume(tx, row.volume_id)):
            volumes.report(tx, row.volume_id, Event.ATTACHING_FAILED, now)
        whose = (row.project_id, told.request_id, messages.VOLUME, row.volume_id)
        messages.tell(tx, told.message_id, About.ATTACH, whose, cause, now)


def tell(tx: Tx, volume_id: str, told: Told, cause: Cause, now: float) -> None:
    """The user reads why the volume was not attached."""
    row = volumes.find(tx, volume_id)
    if row is not None:
        whose = (row.project_id, told.request_id, messages.VOLUME, row.id)
        messages.tell(tx, told.message_id, About.ATTACH, whose, cause, now)


def links(tx: Tx, attachment_ids: Sequence[str]) -> dict[str, Link]:
    """What domains must know of these attachments."""
    found: dict[str, Link] = {}
    for attachment_id in attachment_ids:
        row = store.find(tx, attachment_id)
        volume = None if row is None else volumes.find(tx, row.volume_id)
        if row is not None and volume is not None:
            found[attachment_id] = Link(row, volume.size_gib, volume.is_multiattach)
    return found


# On hosts.


def _where(tx: Tx, attachment_id: str) -> tuple[Attachment, Volume] | None:
    row = store.find(tx, attachment_id)
    volume = None if row is None else volumes.find(tx, row.volume_id)
    return None if row is None or volume is None else (row, volume)


async def ensure_export(
    run: Run[Any], attachment_id: str, initiators: Sequence[str], host_name: str, aiming: Aiming | None = None
) -> ExportStatus:
    """Until the volume can be reached by these initiators; where, then. Raises Transient or CloudError.

    `aiming` is the transaction that says so, where more must change with it.
    """
    cloud = run.deps
    row = await cloud.db.write(aiming or aim, attachment_id, tuple(initiators), host_name, cloud.world.clock.now())
    found = await cloud.db.read(_where, attachment_id)
    if row is None or found is None:
        raise NotFound("The volume was released meanwhile.")
    volume = found[1]
    if volume.host_id is None:
        raise InvalidVolume(f"Volume {volume.id} has no data yet.")
    run.notes["storage"] = volume.host_name or ""
    spec = specs.export_spec(row, cloud.fence, cloud.epoch)
    return await patience.ensure(run, volume.host_id, calls.EXPORT_ENSURE, calls.EXPORT_GET, spec)


async def remove_export(cloud: "Cloud", attachment_id: str, deadline: float) -> None:
    """Until nobody reaches the volume by this attachment. Raises Transient or CloudError."""
    found = await cloud.db.write(withdraw, attachment_id)
    if found is not None:
        host_id, generation = found
        absence = specs.absence(attachment_id, cloud.epoch, generation)
        await cloud.hosts.absent(host_id, calls.EXPORT_ABSENT, absence, deadline)


def withdraw(tx: Tx, attachment_id: str) -> tuple[str, int] | None:
    """Nobody may log in any more: (the storage host, the generation of its absence); None: nothing was ever said."""
    found = _where(tx, attachment_id)
    if found is None or found[0].generation == 0 or found[1].host_id is None:
        return None
    generation = store.bump(tx, attachment_id, initiators=[])
    assert generation is not None, "read in this transaction"
    return found[1].host_id, generation
