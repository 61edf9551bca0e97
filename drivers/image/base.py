"""What an agent needs to keep images and local disks. Calls block; the agent runs them in threads.

The cache holds verified images, root-owned 0444, named by sha256 in a folder only root can list. Disks are
overlays (or plain files) owned by a guest's uid.
"""

from collections.abc import Callable
from typing import Protocol

import msgspec

from agent.wire.domain import GuestData


class CachedImage(msgspec.Struct, frozen=True, kw_only=True):
    """An image in the cache, verified."""

    sha256: str
    path: str
    disk_format: str
    size_bytes: int
    virtual_bytes: int


class LocalDisk(msgspec.Struct, frozen=True, kw_only=True):
    """A disk on this host."""

    id: str
    path: str
    format: str
    size_bytes: int
    allocated_bytes: int
    base: str = ""  # The path of the image upon which it lies; empty: none.


Fetch = Callable[[str], None]
"""Writes the image's bytes to the path it is given, or raises agent.wire.errors.Failed."""


class ImageCache(Protocol):
    """Verified images."""

    def find(self, sha256: str) -> CachedImage | None:
        """A verified image, or None."""
        ...

    def fetch(self, sha256: str, size_bytes: int, disk_format: str, fetch: Fetch) -> CachedImage:
        """Fetch to a temporary name, check hash and format (a confined child inspects), publish by rename.

        One that is there already is returned without a fetch. Raises agent.wire.errors.Failed when the bytes are not
        what they should be; nothing is left then.
        """
        ...

    def absent(self, sha256: str) -> None:
        """Remove it; nothing if it is not there. Raises Busy while a disk's backing file is this image."""
        ...

    def list(self) -> tuple[CachedImage, ...]:
        """All of them."""
        ...


class Disks(Protocol):
    """Local disks of guests."""

    def ensure(
        self,
        disk_id: str,
        image: CachedImage | None,
        size_bytes: int,
        uid: int,
        fetch: Fetch | None = None,
        is_whole: bool = False,
    ) -> LocalDisk:
        """Make it once; afterwards only grow it (`uid` is applied again). A half-made one of a crash is made anew.

        It lies upon the image, or with `is_whole` is a copy of it. With `fetch` it is not made but brought: a disk of
        another host, which must lie upon the same image. Raises Failed when it would be smaller than the image, or
        could not be made, brought or grown; Unfit when what was brought is another disk.
        """
        ...

    def ensure_config(self, disk_id: str, guest: GuestData, uid: int) -> LocalDisk:
        """Write a config drive (an ISO labelled config-2) for a guest, anew each time. It is a disk like others."""
        ...

    def begin_copy(self, copy_id: str, disk_id: str, uid: int) -> str:
        """An empty qcow2 file as large as the disk, for its copy; the path. Begun anew each time.

        It has no name yet: it is no disk before `end_copy`. Raises NotFound if there is no such disk.
        """
        ...

    def fill_copy(self, copy_id: str, disk_id: str, uid: int) -> None:
        """Copy the disk, which nobody may have open, flat into what `begin_copy` made. Raises Failed."""
        ...

    def end_copy(self, copy_id: str) -> LocalDisk:
        """The copy is whole, and a disk like others. Raises Failed if there is none."""
        ...

    def find(self, disk_id: str) -> LocalDisk | None:
        """One disk, or None."""
        ...

    def absent(self, disk_id: str) -> None:
        """Remove it; nothing if it is not there."""
        ...

    def list(self) -> tuple[str, ...]:
        """The ids of all disks."""
        ...
