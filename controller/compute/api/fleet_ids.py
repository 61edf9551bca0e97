"""The numbers and ids under which Nova's API knows a host.

From 2.53 on a hypervisor has its host's id and a service an id of its own; before that both have numbers. All of
them follow from the host's id, so nothing must be stored, and every controller says the same.
"""

import hashlib
import uuid
from typing import Final

_SERVICES: Final = uuid.UUID("1d4a7c52-0a1b-4a7e-9d61-6c1b6a0f9e37")


def hypervisor_uuid(host_id: str) -> str:
    """The host's id in the form of a UUID."""
    return str(uuid.UUID(host_id)) if _is_uuid(host_id) else str(uuid.uuid5(_SERVICES, f"hypervisor/{host_id}"))


def hypervisor_number(host_id: str) -> int:
    """A positive number below 2**31."""
    return _number(f"hypervisor/{host_id}")


def service_uuid(binary: str, host: str) -> str:
    """Of one service on one host."""
    return str(uuid.uuid5(_SERVICES, f"{binary}/{host}"))


def service_number(binary: str, host: str) -> int:
    """A positive number below 2**31."""
    return _number(f"{binary}/{host}")


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % 0x7FFFFFFE + 1


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
