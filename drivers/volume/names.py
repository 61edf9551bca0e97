"""What may become part of a path, of a target's name or of a target's parameters: everything else is refused before."""

import re
from typing import Final

from agent.wire.errors import Invalid, Unfit
from agent.wire.volume import Chap, target_iqn

_ID: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]{0,63}")
_IQN: Final = re.compile(r"[a-z0-9][a-z0-9.:-]{0,222}")
_USER: Final = re.compile(r"[0-9A-Za-z-]{1,64}")
_SECRET: Final = re.compile(r"[0-9A-Za-z]{16,64}")
INITIATORS_MAX: Final = 8
"""One while a volume is attached, two while its server migrates."""


def check_id(name: str) -> None:
    """Raises Invalid unless it can be a file's name and the end of a target's."""
    if not _ID.fullmatch(name):
        raise Invalid(f"{name[:80]!r} cannot be the id of a volume, snapshot or attachment")


def check_account(chap: Chap) -> None:
    """Raises Invalid, without the secret."""
    if not _USER.fullmatch(chap.user) or not _SECRET.fullmatch(chap.secret):
        raise Invalid(f"the account {chap.user[:80]!r} or its secret has characters or a length that no target takes")


def check_initiators(initiators: tuple[str, ...]) -> None:
    """Raises Invalid or Unfit."""
    if len(initiators) > INITIATORS_MAX:
        raise Unfit(f"{len(initiators)} initiators for one attachment; at most {INITIATORS_MAX}")
    for name in initiators:
        if not _IQN.fullmatch(name):
            raise Invalid(f"{name[:80]!r} cannot be the name of an initiator")


def export_id(tag: str, iqn: str) -> str | None:
    """Whose target this is, or None if it is none of this cloud's."""
    prefix = target_iqn(tag, "")
    return iqn.removeprefix(prefix) if iqn.startswith(prefix) else None
