"""Why a saga of a server failed, as its row keeps it: a sentence for the user, details for operators."""

import re
from typing import Any, Final

import msgspec

from controller.saga.model import Cause

MESSAGE_MAX: Final = 255
DETAILS_MAX: Final = 65535

_HOST: Final = re.compile(r"\bHost [0-9A-Za-z-]+")
"""How the client of the fleet names a host in its sentences. Which one it is is the operators' business."""


def columns(cause: Cause, now: float) -> dict[str, Any]:
    """The columns of the server's row. The code is 500 always: clients take others for mistakes of their own,
    and details are shown to users where the code is not 500."""
    message = _HOST.sub("The host", cause.message)
    named = cause.message if message != cause.message else ""
    details = [part for part in (named, cause.detail, _reasons(cause)) if part]
    return {
        "fault_code": 500,
        "fault_message": message[:MESSAGE_MAX],
        "fault_details": "\n".join(details)[:DETAILS_MAX],
        "fault_at": now,
    }


NONE: Final[dict[str, Any]] = {"fault_code": None, "fault_message": None, "fault_details": None, "fault_at": None}
"""For a server that is well again."""


def _reasons(cause: Cause) -> str:
    return "" if cause.why is None else msgspec.json.encode(cause.why).decode()
