"""Who may reach an export: names of initiators, and a CHAP account for every attachment and every generation of it.

The secret is a function of a key that is in no database, so a stolen database opens nothing; and of the generation, so
what a host was told before it was cut off opens nothing afterwards. Only where a guest goes to another host while it
runs, with what its QEMU was told before, the secret stays, and the list of initiators alone says who may log in.
"""

import hashlib
import hmac
from pathlib import Path
from typing import Final

import msgspec

from agent.wire.volume import Chap, initiator_iqn
from agent.wire.world import World
from controller.private_file import write_private

KEY_BYTES: Final = 32

SECRET_LENGTH: Final = 32
"""Hex digits: 128 bits. Longer: some initiators cut it off."""


class Fence(msgspec.Struct, frozen=True):
    """The cloud's volume key and its tag. Never printed."""

    key: bytes
    tag: str

    def __repr__(self) -> str:
        return f"Fence(tag={self.tag!r})"

    def initiator(self, host_id: str) -> str:
        """How the guests of a host name themselves."""
        return initiator_iqn(self.tag, host_id)

    def chap(self, attachment_id: str, generation: int) -> Chap:
        """The account of one attachment, as of one generation."""
        said = f"{attachment_id}/{generation}".encode()
        secret = hmac.new(self.key, said, hashlib.sha256).hexdigest()[:SECRET_LENGTH]
        return Chap(user=attachment_id, secret=secret)


def volume_key(path: Path, world: World) -> bytes:
    """The key in a file, drawn and written (0600) before anything depends on it. Controllers of a cloud share it."""
    if not path.exists():
        write_private(path, world.entropy.hex(2 * KEY_BYTES).encode())
    return bytes.fromhex(path.read_text().strip())
