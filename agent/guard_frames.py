"""What agent and guard say to each other: length-prefixed frames over a Unix stream, a listening socket beside some.

The guard keeps what it was told while the agent is away, and says in its `Hello` what that is, so that only what
differs is said again.
"""

import hashlib
from typing import Final

import msgspec

from agent.wire.domain import GuestData

FRAME_BYTES_MAX: Final = 1 << 20
"""A guest's documents are some hundred kilobytes at most."""

_LENGTH_BYTES: Final = 4


class Hello(msgspec.Struct, frozen=True, tag=True):
    """The guard's first words: where it listens (network → namespace), and the digests of what it tells whom."""

    listening: dict[str, str]
    said: list[tuple[str, str, str]]  # (network, address, digest)


class Synced(msgspec.Struct, frozen=True, tag=True):
    """The guard has everything up to that `Sync`."""

    serial: int


class Listen(msgspec.Struct, frozen=True, tag=True):
    """Serve a network. A listening socket, made in the namespace that `namespace` identifies, comes with this."""

    network_id: str
    namespace: str


class Withdraw(msgspec.Struct, frozen=True, tag=True):
    """Serve a network no more."""

    network_id: str


class Tell(msgspec.Struct, frozen=True, tag=True):
    """What whoever has this address in this network is told."""

    network_id: str
    address: str
    guest: GuestData


class Forget(msgspec.Struct, frozen=True, tag=True):
    """Nobody has this address there any more."""

    network_id: str
    address: str


class Sync(msgspec.Struct, frozen=True, tag=True):
    """Say when you are here."""

    serial: int


ToAgent = Hello | Synced
ToGuard = Listen | Withdraw | Tell | Forget | Sync

_encoder = msgspec.msgpack.Encoder()


def encode(frame: ToAgent | ToGuard) -> bytes:
    """A frame as it travels."""
    body = _encoder.encode(frame)
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


def digest(guest: GuestData) -> str:
    """Tells documents apart."""
    return hashlib.sha256(_encoder.encode(guest)).hexdigest()


class Frames:
    """Cuts a stream into frames' bodies."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The bodies that are complete now. Raises ValueError for a frame that is too long."""
        self._buffer += data
        bodies: list[bytes] = []
        while len(self._buffer) >= _LENGTH_BYTES:
            length = int.from_bytes(self._buffer[:_LENGTH_BYTES], "big")
            if length > FRAME_BYTES_MAX:
                raise ValueError(f"a frame of {length} bytes")
            end = _LENGTH_BYTES + length
            if len(self._buffer) < end:
                break
            bodies.append(bytes(self._buffer[_LENGTH_BYTES:end]))
            del self._buffer[:end]
        return bodies
