"""What may become part of a path: hashes, disk ids, formats. Everything else is refused before a path is built."""

import re
from typing import Final

from agent.wire.errors import Failed, Invalid, Unfit
from drivers.image.base import CachedImage

FORMATS: Final = ("raw", "qcow2")
"""Formats of images that hosts boot. Others are converted before they reach a host."""

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_DISK_ID: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.-]{0,127}")


def check_sha256(sha256: str) -> None:
    """Raises Invalid unless it is a SHA-256 in lower-case hex."""
    if not _SHA256.fullmatch(sha256):
        raise Invalid(f"{sha256[:80]!r} is no SHA-256 in hex")


def check_disk_id(disk_id: str) -> None:
    """Raises Invalid unless it can be a file's name, with room for a suffix."""
    if not _DISK_ID.fullmatch(disk_id):
        raise Invalid(f"{disk_id[:80]!r} cannot be the id of a disk")


def agreeing(image: CachedImage, disk_format: str) -> CachedImage:
    """A cached image, if it was inspected as the format it is now declared as. Raises Failed."""
    if image.disk_format != disk_format:
        raise Failed(f"image {image.sha256} is {image.disk_format}, not {disk_format}")
    return image


def check_format(disk_format: str) -> None:
    """Raises Unfit unless hosts boot images of that format."""
    if disk_format not in FORMATS:
        raise Unfit(f"hosts boot images of format {' and '.join(FORMATS)}, not {disk_format[:80]!r}")
