"""Image cache and disks without disks: everything the protocols promise, in memory, and optionally in a file.

`FakeImageHost` is what lies on the host and outlives agents. Given a `folder`, the cache fetches into real temporary
files there and checks their hash and format as the real one does, then keeps only what it learned. Without one,
nothing touches the file system: the fetch gets a path that does not exist, and what it fetched is believed.
"""

import contextlib
import hashlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from agent.wire.domain import GuestData
from agent.wire.errors import Busy, Failed, NotFound, WireError
from drivers.fake_journal import FakeJournal
from drivers.image import inspect, names
from drivers.image.base import CachedImage, Disks, Fetch, ImageCache, LocalDisk


class FakeDisk(msgspec.Struct, frozen=True, kw_only=True):
    """A disk of the fake host."""

    disk: LocalDisk
    uid: int
    image_sha256: str | None = None  # Upon which it lies.
    guest: GuestData | None = None  # What the config drive says, if it is one.


class FakeImageHost:
    """What images and disks exist on one host. Thread-safe. `fail_next` makes the next call of one verb fail."""

    def __init__(self, *, folder: str | None = None, latency_s: float = 0.0) -> None:
        self.folder = None if folder is None else Path(folder)
        self.latency_s = latency_s
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            for leftover in self.folder.glob("*.part"):
                leftover.unlink()
        self.images = FakeJournal(CachedImage, None if folder is None else f"{folder}/images.jsonl")
        self.disks = FakeJournal(FakeDisk, None if folder is None else f"{folder}/disks.jsonl")
        self.copies: dict[str, int] = {}  # Begun and not ended: how large each will be.
        self._lock = threading.RLock()
        self._failures: dict[str, list[tuple[WireError, bool]]] = {}

    def fail_next(self, verb: str, error: WireError, *, is_after_effect: bool = False) -> None:
        """The next call of `verb` (as `cache.fetch`, `disks.ensure`) raises `error`, having done nothing or all."""
        with self._lock:
            self._failures.setdefault(verb, []).append((error, is_after_effect))

    @contextlib.contextmanager
    def _call(self, verb: str) -> Iterator[None]:
        if self.latency_s > 0:
            time.sleep(self.latency_s)
        with self._lock:
            planned = self._failures.get(verb)
            error, is_after_effect = planned.pop(0) if planned else (None, False)
            if error is not None and not is_after_effect:
                raise error
            yield
            if error is not None:
                raise error


class FakeImageCache:
    """See drivers.image.base.ImageCache for every method."""

    def __init__(self, host: FakeImageHost) -> None:
        self.host = host

    def find(self, sha256: str) -> CachedImage | None:
        """See ImageCache."""
        names.check_sha256(sha256)
        with self.host._call("cache.find"):
            return self.host.images.get(sha256)

    def fetch(self, sha256: str, size_bytes: int, disk_format: str, fetch: Fetch) -> CachedImage:
        """See ImageCache."""
        names.check_sha256(sha256)
        names.check_format(disk_format)
        known = self.host.images.get(sha256)
        if known is not None:
            return names.agreeing(known, disk_format)
        virtual_bytes = self._fetched(sha256, size_bytes, disk_format, fetch)
        with self.host._call("cache.fetch"):
            image = CachedImage(
                sha256=sha256,
                path=f"/fake/images/{sha256}.{disk_format}",
                disk_format=disk_format,
                size_bytes=size_bytes,
                virtual_bytes=virtual_bytes,
            )
            self.host.images.put(sha256, image)
            return image

    def absent(self, sha256: str) -> None:
        """See ImageCache."""
        names.check_sha256(sha256)
        with self.host._call("cache.absent"):
            if any(disk.image_sha256 == sha256 for disk in self.host.disks.values()):
                raise Busy(f"image {sha256} is under a disk of this host")
            self.host.images.remove(sha256)

    def list(self) -> tuple[CachedImage, ...]:
        """See ImageCache."""
        with self.host._call("cache.list"):
            return tuple(self.host.images.values())

    def _fetched(self, sha256: str, size_bytes: int, disk_format: str, fetch: Fetch) -> int:
        if self.host.folder is None:
            fetch(f"/fake/images/{sha256}.part")
            return size_bytes
        path = self.host.folder / f"{sha256}.{threading.get_ident()}.part"
        try:
            fetch(str(path))
            return _verified(path, sha256, size_bytes, disk_format)
        finally:
            path.unlink(missing_ok=True)


class FakeDisks:
    """See drivers.image.base.Disks for every method."""

    def __init__(self, host: FakeImageHost) -> None:
        self.host = host

    def ensure(
        self,
        disk_id: str,
        image: CachedImage | None,
        size_bytes: int,
        uid: int,
        fetch: Fetch | None = None,
        is_whole: bool = False,
    ) -> LocalDisk:
        """See Disks."""
        names.check_disk_id(disk_id)
        if fetch is not None and self.host.disks.get(disk_id) is None:
            fetch(f"/fake/disks/{disk_id}.part")
        with self.host._call("disks.ensure"):
            known = self.host.disks.get(disk_id)
            if known is None:
                known = self._made(disk_id, image, size_bytes, uid)
            if is_whole:
                copy = msgspec.structs.replace(known.disk, base="")
                known = msgspec.structs.replace(known, image_sha256=None, disk=copy)
            grown = msgspec.structs.replace(known.disk, size_bytes=max(known.disk.size_bytes, size_bytes))
            self.host.disks.put(disk_id, msgspec.structs.replace(known, disk=grown, uid=uid))
            return grown

    def ensure_config(self, disk_id: str, guest: GuestData, uid: int) -> LocalDisk:
        """See Disks."""
        names.check_disk_id(disk_id)
        with self.host._call("disks.ensure_config"):
            disk = LocalDisk(
                id=disk_id, path=f"/fake/disks/{disk_id}.iso", format="raw", size_bytes=65536, allocated_bytes=65536
            )
            self.host.disks.put(disk_id, FakeDisk(disk=disk, uid=uid, guest=guest))
            return disk

    def begin_copy(self, copy_id: str, disk_id: str, uid: int) -> str:
        """See Disks."""
        names.check_disk_id(copy_id)
        with self.host._call("disks.begin_copy"):
            self.host.copies[copy_id] = self._get(disk_id).disk.size_bytes
            return f"/fake/disks/.{copy_id}.part"

    def fill_copy(self, copy_id: str, disk_id: str, uid: int) -> None:
        """See Disks."""
        names.check_disk_id(copy_id)
        with self.host._call("disks.fill_copy"):
            self._get(disk_id)

    def end_copy(self, copy_id: str) -> LocalDisk:
        """See Disks."""
        names.check_disk_id(copy_id)
        with self.host._call("disks.end_copy"):
            size_bytes = self.host.copies.pop(copy_id, None)
            if size_bytes is not None:
                path = f"/fake/disks/{copy_id}.qcow2"
                disk = LocalDisk(id=copy_id, path=path, format="qcow2", size_bytes=size_bytes, allocated_bytes=196608)
                self.host.disks.put(copy_id, FakeDisk(disk=disk, uid=0))
            return self._get(copy_id).disk

    def find(self, disk_id: str) -> LocalDisk | None:
        """See Disks."""
        names.check_disk_id(disk_id)
        with self.host._call("disks.find"):
            known = self.host.disks.get(disk_id)
            return None if known is None else known.disk

    def absent(self, disk_id: str) -> None:
        """See Disks."""
        names.check_disk_id(disk_id)
        with self.host._call("disks.absent"):
            self.host.disks.remove(disk_id)
            self.host.copies.pop(disk_id, None)

    def list(self) -> tuple[str, ...]:
        """See Disks."""
        with self.host._call("disks.list"):
            return tuple(self.host.disks.keys())

    def _get(self, disk_id: str) -> FakeDisk:
        known = self.host.disks.get(disk_id)
        if known is None:
            raise NotFound(f"there is no disk {disk_id} on this host")
        return known

    def _made(self, disk_id: str, image: CachedImage | None, size_bytes: int, uid: int) -> FakeDisk:
        if image is not None and self.host.images.get(image.sha256) is None:
            raise NotFound(f"image {image.sha256} is not in the cache of this host")
        if image is not None and size_bytes < image.virtual_bytes:
            raise Failed(f"a disk of {size_bytes} bytes does not hold its image of {image.virtual_bytes} bytes")
        disk = LocalDisk(
            id=disk_id,
            path=f"/fake/disks/{disk_id}.qcow2",
            format="qcow2",
            size_bytes=size_bytes,
            allocated_bytes=196608,
            base="" if image is None else image.path,
        )
        return FakeDisk(disk=disk, uid=uid, image_sha256=None if image is None else image.sha256)


def _verified(path: Path, sha256: str, size_bytes: int, disk_format: str) -> int:
    """The virtual size of what was fetched. Raises Failed."""
    if not path.is_file() or path.stat().st_size != size_bytes:
        raise Failed(f"image {sha256} did not arrive whole: {size_bytes} bytes were expected")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise Failed(f"the bytes of image {sha256} hash to {found}")
    return inspect.inspect(str(path), disk_format).virtual_bytes


_: tuple[type[ImageCache], type[Disks]] = (FakeImageCache, FakeDisks)
