"""What an image really is, decided from its bytes while they stream in. oslo.utils' inspectors do the looking.

An image must be what its owner declared, and nothing more: a qcow2 may name no other file (backing file, data file),
have no feature we do not know, and look like no second format at the same time. qemu-img never sees it before.

Nothing here runs in the controller itself: see `inspector`, the process in which it does.
"""

from collections.abc import Iterator
from typing import Final

from oslo_utils.imageutils import format_inspector

from controller.image.verdict import VIRTUAL_BYTES_MAX, Verdict

_SAME: Final = {"raw": {"raw", "gpt"}, "qcow2": {"qcow2"}}
"""Declared format → what its bytes may look like: a raw disk may have a partition table."""

_REASON_MAX: Final = 300
"""Characters of a refusal."""


class Inspection:
    """One stream. Feed it chunks in order until it is satisfied or they end, then ask `verdict`."""

    def __init__(self, declared: str) -> None:
        self._declared = declared
        self._inspectors = format_inspector.InspectWrapper(_Fed())

    def feed(self, chunk: bytes) -> None:
        """Look at the next bytes."""
        self._inspectors._process_chunk(chunk)  # The only way in that pushes; `read` and iteration pull.

    @property
    def is_satisfied(self) -> bool:
        """Whether nothing that may still come would change the verdict.

        Then every inspector either has all the regions that it wants, or gave up. Most do after 256 KiB.
        """
        return all(
            inspector.complete or inspector in self._inspectors._errored_inspectors
            for inspector in self._inspectors._inspectors
        )

    def verdict(self) -> Verdict:
        """What it is."""
        self._inspectors.close()
        try:
            found = self._inspectors.format
        except format_inspector.ImageFormatError as error:
            return _refused(f"The image's format is ambiguous: {error}.")
        if found is None or str(found) not in _SAME[self._declared]:
            return _refused(f"The image's content is {found or 'unknown'}, not {self._declared} as declared.")
        if self._declared == "raw":
            return Verdict()
        try:
            found.safety_check()
        except format_inspector.SafetyCheckFailed as error:
            failed = ", ".join(sorted(error.failures))
            return _refused(f"The image is not safe to use ({failed}): it must stand alone.")
        virtual = int(found.virtual_size)
        if not 0 < virtual <= VIRTUAL_BYTES_MAX:
            return _refused(f"The image's virtual size of {virtual} bytes is out of range.")
        return Verdict(virtual_bytes=virtual)


def _refused(why: str) -> Verdict:
    return Verdict(refused=why[:_REASON_MAX])


class _Fed:
    """The wrapper wants a source; ours pushes instead."""

    def __iter__(self) -> Iterator[bytes]:
        return iter(())

    def read(self, size: int) -> bytes:
        return b""

    def close(self) -> None:
        return None
