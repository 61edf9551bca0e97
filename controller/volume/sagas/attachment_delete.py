"""A user's own initiator reaches a volume no more. Only forward.

step     does
settle   waits until the attachment's other sagas rest (they were asked to stop)
export   nobody reaches the volume by this attachment
finish   the attachment is gone; the volume's status follows
"""

from typing import Final

import msgspec

from controller.db.tx import Tx
from controller.saga.log import settled
from controller.saga.model import Commit, Run, Saga, Step, Transient
from controller.volume import attachments


class DisconnectParams(msgspec.Struct, frozen=True, kw_only=True):
    """Everything else is in the attachment's row."""

    attachment_id: str
    request_id: str


async def settle(run: Run[DisconnectParams]) -> Commit:
    """Wait for the others."""
    return Commit(_settle, (run.params.attachment_id, run.saga_id))


def _settle(tx: Tx, attachment_id: str, saga_id: str) -> None:
    if not settled(tx, attachment_id, saga_id):
        raise Transient("another operation on this attachment has not come to rest yet")


async def unexport(run: Run[DisconnectParams]) -> None:
    """Nobody reaches it."""
    await attachments.remove_export(run.deps, run.params.attachment_id, run.deadline)


async def finish(run: Run[DisconnectParams]) -> Commit:
    """What the database holds of it."""
    return Commit(attachments.release, (run.params.attachment_id, run.deps.world.clock.now()))


DELETE: Final = Saga(
    "attachment-delete",
    1,
    DisconnectParams,
    steps=(Step("settle", settle), Step("export", unexport), Step("finish", finish)),
    deadline_s=300.0,
    forward_only=True,
)
