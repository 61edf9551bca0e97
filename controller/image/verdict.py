"""What an inspector's child says about an image. The controller reads this, and never loads what inspects."""

from typing import Final

import msgspec

READY: Final = b"!"
"""The first byte of every child that is confined and listens. No READY: it never came so far."""

VIRTUAL_BYTES_MAX: Final = 16 << 40
"""No disk of ours is larger than 16 TiB; a header that claims more wants to exhaust somebody."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was found. Neither of both: the image is a raw disk, as large as its bytes are many."""

    virtual_bytes: int | None = None
    refused: str = ""
