"""Tickets of the host channel: one opens one object on one listener for one peer once, within ten minutes.

The controller signs a ticket with its authority's key, which every host has pinned, so any listener can check one
without asking anybody. It names the listener (`Door.id`, drawn anew whenever a process starts to listen) and the peer
by the id in its certificate, so one that leaks is of no use to anybody else, and the listener's memory of what was
used needs to reach back to its own start only: after a restart no older ticket is worth anything.

No two machines' clocks are compared: `ends` is the *listener's* CLOCK_BOOTTIME. A host tells its own with every
heartbeat; the controller adds what has passed since. A heartbeat that came late makes a ticket end early.
"""

import base64
from collections.abc import Callable
from typing import Final

import msgspec

from agent.wire.host import Door
from agent.wire.world import Clock

LIFE_S: Final = 600.0
"""Between the order and the first byte. Shorter: a busy host comes too late. Longer: a leaked one is of more use."""

CONTROLLER: Final = "controller"
"""The peer id of controllers, where a host has its own."""

CONTEXT: Final = b"hostler ticket 1\n"
"""Before what is signed: no certificate that this authority signs begins so, and no ticket can pass for one."""

BYTES_MAX: Final = 2048

Verify = Callable[[bytes, bytes], bool]
"""(signature, what was signed) → whether the authority signed it."""

Sign = Callable[[bytes], bytes]
"""What the authority signs → its signature."""


class BadTicket(Exception):
    """One sentence for all reasons: who guesses learns nothing."""

    def __init__(self) -> None:
        super().__init__("This ticket is not valid for that: it is unknown, expired, used already, or another host's.")


class _Claims(msgspec.Struct, frozen=True, array_like=True):
    nonce: str
    door: str
    peer_id: str
    kind: str
    object_id: str
    ends: float


def issue(sign: Sign, nonce: str, door: Door, peer_id: str, kind: str, object_id: str) -> str:
    """A ticket; `door.boottime_s` is what the listener's clock shows now."""
    ends = door.boottime_s + LIFE_S
    claims = msgspec.json.encode(_Claims(nonce, door.id, peer_id, kind, object_id, ends))
    return f"{_text(claims)}.{_text(sign(CONTEXT + claims))}"


class Doorkeeper:
    """Lets the bearers of tickets in at one listener."""

    def __init__(self, door_id: str, verify: Verify, clock: Clock) -> None:
        self.door_id = door_id
        self._verify = verify
        self._clock = clock
        self._used: dict[str, float] = {}  # Nonce → when the ticket would have ended; in the order of use.

    def redeem(self, ticket: str, peer_id: str, kind: str, object_id: str) -> None:
        """Spend a ticket that this peer presents. Raises BadTicket."""
        now = self._clock.boottime()
        claims = self._opened(ticket)
        fits = (claims.door, claims.peer_id, claims.kind, claims.object_id) == (self.door_id, peer_id, kind, object_id)
        if not fits or claims.ends < now or claims.nonce in self._used:
            raise BadTicket
        self._used[claims.nonce] = claims.ends
        for nonce in [nonce for nonce, ends in self._used.items() if ends < now]:
            del self._used[nonce]

    def _opened(self, ticket: str) -> _Claims:
        if len(ticket) > BYTES_MAX:
            raise BadTicket
        try:
            claims, signature = (_bytes(part) for part in ticket.split(".", 1))
            if not self._verify(signature, CONTEXT + claims):
                raise BadTicket
            return msgspec.json.decode(claims, type=_Claims)
        except (ValueError, msgspec.DecodeError) as error:
            raise BadTicket from error


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text.encode("ascii"), altchars=b"-_", validate=True)
