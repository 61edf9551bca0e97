"""A user's own initiator reaches a volume, by the attachments API.

step     do                                                undo
export   the volume can be reached by that initiator       nobody reaches it by this attachment
"""

from typing import Final

import msgspec

from agent.wire.volume import ExportStatus
from controller.db.tx import Tx
from controller.saga.model import Cause, Commit, Run, Saga, Step
from controller.volume import attachments
from controller.volume.attachments import Told


class ConnectParams(msgspec.Struct, frozen=True, kw_only=True):
    """Who will log in."""

    attachment_id: str
    volume_id: str
    initiator: str
    host_name: str
    request_id: str
    message_id: str


async def export(run: Run[ConnectParams]) -> Commit:
    """It can be reached."""
    params = run.params
    status = await attachments.ensure_export(run, params.attachment_id, (params.initiator,), params.host_name)
    return Commit(_exported, (params.attachment_id, status))


def _exported(tx: Tx, attachment_id: str, status: ExportStatus) -> None:
    attachments.answered(tx, attachment_id, status)


async def unexport(run: Run[ConnectParams]) -> None:
    """Nobody reaches it by this attachment."""
    await attachments.remove_export(run.deps, run.params.attachment_id, run.deadline)


def undone(tx: Tx, params: ConnectParams, cause: Cause, now: float) -> None:
    """It is reserved, as before."""
    attachments.back_to_reserved(tx, params.attachment_id, now)
    attachments.tell(tx, params.volume_id, Told(params.request_id, params.message_id), cause, now)


CONNECT: Final = Saga(
    "attachment-connect",
    1,
    ConnectParams,
    steps=(Step("export", export, unexport),),
    deadline_s=120.0,
    undone=undone,
)
