"""Why something failed, told to its user: what `openstack volume message list` shows."""

import enum
import re
from typing import Final

from controller.db.tx import Tx
from controller.saga.model import Cause
from controller.volume.model import Message
from controller.volume.store import messages as store

KEPT_S: Final = 30 * 86400.0

TEXT_MAX: Final = 1024

_HOST: Final = re.compile(r"\bHost [0-9A-Za-z-]+")
"""How the client of the fleet names a host in its sentences. Which one it is is the operators' business."""


class About(enum.StrEnum):
    """What was being done, by Cinder's numbers of actions."""

    PLACE = "001"
    ATTACH = "002"
    COPY_IMAGE = "005"
    EXTEND = "007"
    CREATE = "008"
    SNAPSHOT_CREATE = "009"
    SNAPSHOT_DELETE = "010"
    DELETE = "901"  # Cinder has no word for it.


VOLUME: Final = "VOLUME"
SNAPSHOT: Final = "VOLUME_SNAPSHOT"

_UNKNOWN, _NO_BACKEND = "001", "003"


def sentence(cause: Cause) -> str:
    """A cause for a user."""
    return _HOST.sub("The host", cause.message)[:TEXT_MAX]


def tell(tx: Tx, message_id: str, what: About, whose: tuple[str, str, str, str], cause: Cause, now: float) -> None:
    """Keep a message. `whose` is (project, request, kind, id); the same message again changes nothing."""
    project_id, request_id, kind, object_id = whose
    detail = _NO_BACKEND if cause.why is not None and "pools" in cause.why else _UNKNOWN
    store.insert(
        tx,
        Message(
            id=message_id,
            project_id=project_id,
            request_id=request_id,
            resource_type=kind,
            resource_id=object_id,
            event_id=f"VOLUME_{kind}_{what.value}_{detail}",
            level="ERROR",
            text=sentence(cause),
            created_at=now,
            kept_until=now + KEPT_S,
        ),
    )
