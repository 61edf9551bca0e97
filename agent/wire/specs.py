"""What every noun on the wire shares: references, statuses, and the call as a value.

A call is data: `ENSURE = Call("domain.ensure", DomainSpec, DomainStatus)`. Verbs are few: `ensure` and
`absent` converge, `get` and `list` look; only what is truly an act (`reboot`) has a verb of its own, and
carries an operation id whose result the host remembers, so that a repeat does nothing.

`ensure` and `absent` answer within FAST_S with a status; when that says `pending` the work goes on and its
end is told by an event on `subjects.host_event`. The caller also asks again with `get`, so a lost event
costs time only.
"""

from typing import Any, Final, Generic, TypeVar

import msgspec

from agent.wire.errors import Fault
from agent.wire.lifecycle import Generation, Progress

FAST_S: Final = 2.0
"""How long a caller waits for an answer to one message. Lower: busy hosts look dead. Higher: dead hosts look busy."""

MESSAGE_BYTES_MAX: Final = 256 * 1024
"""No message is larger; bulk bytes travel over the host channel."""

Q = TypeVar("Q", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)


class Call(Generic[Q, R]):
    """One row of the contract: its name `noun.verb`, what is asked, what is answered, how long to wait."""

    __slots__ = ("name", "reply", "request", "timeout_s")

    def __init__(self, name: str, request: type[Q], reply: type[R], timeout_s: float = FAST_S) -> None:
        self.name = name
        self.request = request
        self.reply = reply
        self.timeout_s = timeout_s

    @property
    def noun(self) -> str:
        """The part before the dot."""
        return self.name.partition(".")[0]

    def __repr__(self) -> str:
        return f"Call({self.name})"


class ObjectSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What one host object should be. Each noun extends it. `id` is the controller's id of the object."""

    id: str
    generation: Generation
    labels: dict[str, str] = {}  # Opaque to the host: stored and returned, so that intent can be rebuilt from hosts.


class Ref(msgspec.Struct, frozen=True, kw_only=True):
    """One object by id."""

    id: str


class Absence(msgspec.Struct, frozen=True, kw_only=True):
    """Ask that an object be gone. `generation` becomes that of the tombstone."""

    id: str
    generation: Generation


class ObjectStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What one host object is, as answered to every verb and published as event. Each noun extends it."""

    id: str
    generation: Generation
    progress: Progress
    fault: Fault | None = None


class Empty(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing to say."""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """The envelope of every answer: exactly one of the two is present."""

    ok: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET  # Not None: msgspec decodes only null into `Raw | None`.
    fault: Fault | None = None


class EventEnvelope(msgspec.Struct, frozen=True, kw_only=True):
    """The envelope of every event. `sequence` rises by one per host process; a gap means one was lost."""

    boot: str  # Identifies one run of the agent process.
    sequence: int
    body: msgspec.Raw


_encoder = msgspec.json.Encoder()
_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}


def encode(value: msgspec.Struct) -> bytes:
    """A struct as it travels (JSON)."""
    return _encoder.encode(value)


def decode(data: bytes | msgspec.Raw, kind: type[R]) -> R:
    """The struct in `data`; unknown fields are ignored (a newer peer). Raises msgspec.ValidationError."""
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    result: R = decoder.decode(data)
    return result
