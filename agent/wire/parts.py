"""What is larger than one message goes in several, each a request of its own, and is one again before anybody reads it.

Theory of operation. The sender cuts the encoded request, marks each piece with the digest of the whole, its number and
their count, and sends them one after the other to the request's own subject. Every piece but the last is answered at
once with `Empty`; the last one with the answer to the whole. The receiver keeps pieces in memory, by digest, so a
repeat puts the same piece in the same place. Where one is missing (the receiver started anew, or had to make room) the
last is answered Busy, and whoever asked asks again from the first piece on, as after any silence.
"""

import hashlib
import re
from typing import Final

import msgspec

from agent.wire.errors import Busy, Invalid
from agent.wire.specs import MESSAGE_BYTES_MAX

HEADER: Final = "Hostler-Part"

PARTS_MAX: Final = 64
"""Of one request, 16 MiB: a hundred thousand members of a group. More: a sender's bug eats the receiver's memory."""

HELD_BYTES_MAX: Final = 64 << 20
"""Of pieces that wait for others. Less: two that come at once can push each other out."""

_LABEL: Final = re.compile(r"([0-9a-f]{32})/(\d{1,2})/(\d{1,2})")


class Part(msgspec.Struct, frozen=True):
    """One piece and its mark."""

    label: str
    data: bytes


def split(data: bytes, limit: int = MESSAGE_BYTES_MAX) -> list[Part]:
    """The pieces of an encoded request, in order. Raises Invalid for one that is too large even so."""
    pieces = [data[start : start + limit] for start in range(0, len(data), limit)]
    if len(pieces) > PARTS_MAX:
        raise Invalid(f"a request of {len(data)} bytes is larger than {PARTS_MAX} messages of {limit}")
    digest = _digest(data)
    return [Part(f"{digest}/{number}/{len(pieces)}", piece) for number, piece in enumerate(pieces)]


class Collector:
    """Keeps the pieces that wait for others."""

    def __init__(self, held_bytes_max: int = HELD_BYTES_MAX) -> None:
        self._held_bytes_max = held_bytes_max
        self._wholes: dict[tuple[str, str], dict[int, bytes]] = {}  # By subject and digest, the oldest first.

    @property
    def held_bytes(self) -> int:
        """What waits."""
        return sum(len(piece) for pieces in self._wholes.values() for piece in pieces.values())

    def take(self, subject: str, part: Part) -> bytes | None:
        """The whole, if this was the last piece of it; None if more are to come. Raises Busy or Invalid."""
        match = _LABEL.fullmatch(part.label)
        if match is None:
            raise Invalid(f"{part.label[:80]!r} is no mark of a part")
        digest, number, count = match[1], int(match[2]), int(match[3])
        if not number < count <= PARTS_MAX:
            raise Invalid(f"part {number} of {count} cannot be")
        key = (subject, digest)
        if number < count - 1:
            self._wholes.setdefault(key, {})[number] = part.data
            self._make_room(key)
            return None
        pieces = {**self._wholes.pop(key, {}), number: part.data}
        if len(pieces) < count:
            raise Busy(f"{count - len(pieces)} of {count} parts are not here: send all of them again")
        whole = b"".join(pieces[index] for index in range(count))
        if _digest(whole) != digest:
            raise Invalid("the parts of a request do not make what was sent")
        return whole

    def _make_room(self, keep: tuple[str, str]) -> None:
        for key in [key for key in self._wholes if key != keep]:
            if self.held_bytes <= self._held_bytes_max:
                return
            del self._wholes[key]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
