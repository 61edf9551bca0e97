"""qemu-img, always told which format it reads and writes: it never guesses from bytes that a guest may have written.

Every function runs it as `uid`, who must own the file that is written and be able to reach the ones that are read.
"""

from typing import Final

import msgspec

from drivers.image import confined

CONVERT_CPU_S_MAX: Final = 600
"""A compressed image of some ten GiB takes minutes on a slow host; a bomb takes for ever."""


class Info(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """What `qemu-img info` says of a file."""

    format: str
    virtual_size: int
    actual_size: int
    backing_filename: str | None = None
    backing_filename_format: str | None = None


def create_blank(path: str, size_bytes: int, *, uid: int, timeout_s: float) -> None:
    """An empty qcow2 disk in a file that is there already."""
    confined.qemu_img("create", "-q", "-f", "qcow2", path, str(size_bytes), uid=uid, timeout_s=timeout_s)


def create_overlay(
    path: str, size_bytes: int, *, backing: str, backing_format: str, uid: int, timeout_s: float
) -> None:
    """A qcow2 disk over `backing`, in a file that is there already.

    `-u` leaves the backing file unopened: its format and that it is smaller are known, so nothing is gained by a look.
    """
    base = ("-u", "-b", backing, "-F", backing_format)
    confined.qemu_img("create", "-q", "-f", "qcow2", *base, path, str(size_bytes), uid=uid, timeout_s=timeout_s)


def resize(path: str, disk_format: str, size_bytes: int, *, uid: int, timeout_s: float) -> None:
    """Grow a disk that nobody has open; qemu-img refuses to shrink without being told to."""
    confined.qemu_img("resize", "-q", "-f", disk_format, path, str(size_bytes), uid=uid, timeout_s=timeout_s)


def convert(
    source: str, source_format: str, target: str, target_format: str, *, uid: int, bytes_max: int, timeout_s: float
) -> None:
    """Write `source`, with whatever is below it, as one file into `target`, which is there already.

    A target that would grow beyond `bytes_max` is a failure. The source must have been inspected, or be a disk whose
    backing file is known to be the one it was made with.
    """
    confined.qemu_img(
        *("convert", "-q", "-f", source_format, "-O", target_format, source, target),
        uid=uid,
        timeout_s=timeout_s,
        file_bytes_max=bytes_max,
        cpu_s_max=CONVERT_CPU_S_MAX,
    )


def info(path: str, disk_format: str, *, uid: int, timeout_s: float) -> Info:
    """What a file says of itself, also while a guest has it open."""
    output = confined.qemu_img("info", "-U", "--output=json", "-f", disk_format, path, uid=uid, timeout_s=timeout_s)
    return msgspec.json.decode(output.stdout, type=Info)
