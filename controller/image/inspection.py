"""What an image really is, decided from its bytes while they stream in. oslo.utils' inspectors do the looking.

An image must be what its owner declared, and nothing more: a qcow2 may name no other file (backing file, data file),
have no feature we do not know, and look like no second format at the same time. qemu-img never sees it before.
"""

from collections.abc import Iterator
from typing import Final

from oslo_utils.imageutils import format_inspector

from controller.errors import UnsupportedMedia

_SAME: Final = {"raw": {"raw", "gpt"}, "qcow2": {"qcow2"}}
"""Declared format → what its bytes may look like: a raw disk may have a partition table."""

VIRTUAL_BYTES_MAX: Final = 16 << 40
"""No disk of ours is larger than 16 TiB; a header that claims more wants to exhaust somebody."""


class Inspection:
    """One stream. Feed it every chunk in order, then ask `finish`."""

    def __init__(self, declared: str) -> None:
        self._declared = declared
        self._size = 0
        self._inspectors = format_inspector.InspectWrapper(_Fed())

    def feed(self, chunk: bytes) -> None:
        """Look at the next bytes."""
        self._size += len(chunk)
        self._inspectors._process_chunk(chunk)  # The only way in that pushes; `read` and iteration pull.

    def finish(self) -> int:
        """The virtual size in bytes. Raises UnsupportedMedia with what is wrong."""
        self._inspectors.close()
        try:
            found = self._inspectors.format
        except format_inspector.ImageFormatError as error:
            raise UnsupportedMedia(f"The image's format is ambiguous: {error}.") from error
        if found is None or str(found) not in _SAME[self._declared]:
            raise UnsupportedMedia(f"The image's content is {found or 'unknown'}, not {self._declared} as declared.")
        if self._declared == "raw":
            return self._size
        try:
            found.safety_check()
        except format_inspector.SafetyCheckFailed as error:
            failed = ", ".join(sorted(error.failures))
            raise UnsupportedMedia(f"The image is not safe to use ({failed}): it must stand alone.") from error
        virtual = int(found.virtual_size)
        if not 0 < virtual <= VIRTUAL_BYTES_MAX:
            raise UnsupportedMedia(f"The image's virtual size of {virtual} bytes is out of range.")
        return virtual


class _Fed:
    """The wrapper wants a source; ours pushes instead."""

    def __iter__(self) -> Iterator[bytes]:
        return iter(())

    def read(self, size: int) -> bytes:
        return b""

    def close(self) -> None:
        return None
