"""Tickets: one opens one object for one host once, within ten minutes.

A ticket is signed with a key that lives as long as this process, and which were used is kept in memory: after a
restart no older ticket is worth anything, so none can be used twice. It is bound to the id in the host's certificate,
so one that leaks is of no use to anybody else. Times are of this machine's CLOCK_BOOTTIME.
"""

import base64
import hashlib
import hmac
from typing import Final

import msgspec

from agent.wire.world import World
from controller.errors import Forbidden

LIFE_S: Final = 600.0
"""Between the order and the first byte. Shorter: a busy host comes too late. Longer: a leaked one is of more use."""

_MAC_BYTES: Final = 32


class _Claims(msgspec.Struct, frozen=True, array_like=True):
    nonce: str
    host_id: str
    kind: str
    object_id: str
    ends: float


class BadTicket(Forbidden):
    """One sentence for all reasons: who guesses learns nothing."""

    def __init__(self) -> None:
        super().__init__("This ticket is not valid for that: it is unknown, expired, used already, or another host's.")


class Tickets:
    """Issues and redeems them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._key = world.entropy.secret(32).encode()
        self._used: dict[str, float] = {}  # Nonce → when the ticket would have ended; in the order of use.

    def issue(self, host_id: str, kind: str, object_id: str) -> str:
        """A ticket."""
        ends = self._world.clock.boottime() + LIFE_S
        claims = msgspec.json.encode(_Claims(self._world.entropy.hex(32), host_id, kind, object_id, ends))
        return base64.urlsafe_b64encode(self._mac(claims) + claims).decode()

    def redeem(self, ticket: str, host_id: str, kind: str, object_id: str) -> None:
        """Spend a ticket that this host presents. Raises BadTicket."""
        now = self._world.clock.boottime()
        claims = self._opened(ticket)
        fits = (claims.host_id, claims.kind, claims.object_id) == (host_id, kind, object_id)
        if not fits or claims.ends < now or claims.nonce in self._used:
            raise BadTicket
        self._used[claims.nonce] = claims.ends
        for nonce in [nonce for nonce, ends in self._used.items() if ends < now]:
            del self._used[nonce]

    def _opened(self, ticket: str) -> _Claims:
        try:
            raw = base64.b64decode(ticket.encode("ascii"), altchars=b"-_", validate=True)
            mac, claims = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
            if not hmac.compare_digest(mac, self._mac(claims)):
                raise BadTicket
            return msgspec.json.decode(claims, type=_Claims)
        except (ValueError, msgspec.DecodeError) as error:
            raise BadTicket from error

    def _mac(self, claims: bytes) -> bytes:
        return hmac.digest(self._key, claims, hashlib.sha256)
