"""Guests' disks on this host: qcow2 files over cached images, and config drives, owned by their guest's uid.

A disk is made under a hidden name and gets its own by one rename: a disk that has a name was made whole and is never
made anew, since it holds a guest's data; what a crash left half-made has none, and is begun again. The folder is
root's and lets through those who know a name, so a guest's QEMU can open its disk and can neither list the folder nor
put anything else in its place. What a guest may have written into its disk's header is read by root as numbers only;
whatever parses more of it runs as the guest.
"""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from agent.wire.domain import GuestData
from agent.wire.errors import Failed, NotFound, Unfit
from drivers.image import config_drive, convert, names, qcow2
from drivers.image.base import CachedImage, Disks, Fetch, LocalDisk
from drivers.image.bases import Bases

_DISK: Final = ".qcow2"
_CONFIG: Final = ".iso"
_PART: Final = ".part"
_BLOCK: Final = 512

Fill = Callable[[Path], None]
"""Makes an empty file of the guest's own into its disk."""

COPY_BYTES_PER_S_MIN: Final = 4 << 20
"""A disk slower than that is given up, so that no copy holds its thread for ever."""

COPY_OVERHEAD_BYTES: Final = 64 << 20
"""What qcow2 needs beside the bytes: tables, of a fraction of a percent."""


class LocalDisks:
    """See drivers.image.base.Disks for every method."""

    def __init__(self, folder: Path, bases: Bases, *, timeout_s: float) -> None:
        self._folder = folder
        self._bases = bases
        self._timeout_s = timeout_s
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o711)
        check_passable(folder)
        self._forget_half_made()

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
        known = self.find(disk_id)
        if known is None:
            if fetch is not None:
                fill = functools.partial(_bring, disk_id, image, fetch)
            elif image is not None and is_whole:
                fill = functools.partial(self._copy_image, image, uid)
            else:
                fill = functools.partial(self._lay, image, size_bytes, uid)
            self._make(disk_id, image, size_bytes, uid, fill)
            known = self._get(disk_id)
        else:
            os.chown(known.path, uid, uid)
        if is_whole:
            self._bases.release(disk_id)  # Of one that a crash left finished as well.
        if known.size_bytes < size_bytes:
            convert.resize(known.path, known.format, size_bytes, uid=uid, timeout_s=self._timeout_s)
        made = self.find(disk_id)
        assert made is not None, "it was made or found above"
        return made

    def ensure_config(self, disk_id: str, guest: GuestData, uid: int) -> LocalDisk:
        """See Disks."""
        names.check_disk_id(disk_id)
        path, part = self._folder / f"{disk_id}{_CONFIG}", self._part(disk_id)
        _begin(part, uid)
        part.write_bytes(config_drive.render(guest))
        part.replace(path)
        return _config(disk_id, path)

    def begin_copy(self, copy_id: str, disk_id: str, uid: int) -> str:
        """See Disks."""
        names.check_disk_id(copy_id)
        part = self._part(copy_id)
        _begin(part, uid)
        convert.create_blank(str(part), self._get(disk_id).size_bytes, uid=uid, timeout_s=self._timeout_s)
        return str(part)

    def fill_copy(self, copy_id: str, disk_id: str, uid: int) -> None:
        """See Disks."""
        names.check_disk_id(copy_id)
        source = self._get(disk_id)
        self._flatten(source.path, source.format, source.size_bytes, uid, self._part(copy_id))

    def end_copy(self, copy_id: str) -> LocalDisk:
        """See Disks."""
        names.check_disk_id(copy_id)
        part = self._part(copy_id)
        if part.exists():
            os.chown(part, 0, 0)  # It is no guest's any more.
            part.replace(self._folder / f"{copy_id}{_DISK}")
        return self._get(copy_id)

    def find(self, disk_id: str) -> LocalDisk | None:
        """See Disks."""
        names.check_disk_id(disk_id)
        path = self._folder / f"{disk_id}{_DISK}"
        if path.exists():
            return _disk(disk_id, path, self._bases.of(disk_id))
        config = self._folder / f"{disk_id}{_CONFIG}"
        return _config(disk_id, config) if config.exists() else None

    def absent(self, disk_id: str) -> None:
        """See Disks."""
        names.check_disk_id(disk_id)
        for path in (self._folder / f"{disk_id}{_DISK}", self._folder / f"{disk_id}{_CONFIG}", self._part(disk_id)):
            path.unlink(missing_ok=True)
        self._bases.release(disk_id)

    def list(self) -> tuple[str, ...]:
        """See Disks."""
        return tuple(sorted(path.stem for path in self._folder.iterdir() if _is_whole(path)))

    def _get(self, disk_id: str) -> LocalDisk:
        found = self.find(disk_id)
        if found is None:
            raise NotFound(f"there is no disk {disk_id} on this host")
        return found

    def _make(self, disk_id: str, image: CachedImage | None, size_bytes: int, uid: int, fill: Fill) -> None:
        if image is not None:
            if size_bytes < image.virtual_bytes:
                raise Failed(f"a disk of {size_bytes} bytes does not hold its image of {image.virtual_bytes} bytes")
            self._bases.claim(disk_id, Path(image.path))
        part = self._part(disk_id)
        try:
            _begin(part, uid)
            fill(part)
            part.replace(self._folder / f"{disk_id}{_DISK}")
        except BaseException:
            part.unlink(missing_ok=True)
            self._bases.release(disk_id)
            raise

    def _lay(self, image: CachedImage | None, size_bytes: int, uid: int, part: Path) -> None:
        if image is None:
            convert.create_blank(str(part), size_bytes, uid=uid, timeout_s=self._timeout_s)
            return
        convert.create_overlay(
            str(part),
            size_bytes,
            backing=image.path,
            backing_format=image.disk_format,
            uid=uid,
            timeout_s=self._timeout_s,
        )

    def _copy_image(self, image: CachedImage, uid: int, part: Path) -> None:
        self._flatten(image.path, image.disk_format, image.virtual_bytes, uid, part)

    def _flatten(self, path: str, disk_format: str, size_bytes: int, uid: int, part: Path) -> None:
        convert.convert(
            path,
            disk_format,
            str(part),
            "qcow2",
            uid=uid,
            bytes_max=size_bytes + COPY_OVERHEAD_BYTES,
            timeout_s=self._timeout_s + size_bytes / COPY_BYTES_PER_S_MIN,
        )

    def _part(self, disk_id: str) -> Path:
        return self._folder / f".{disk_id}{_PART}"

    def _forget_half_made(self) -> None:
        """At start, when nothing is being made: hidden files, and links of disks that do not exist."""
        for part in self._folder.glob(f".*{_PART}"):
            part.unlink()
        for disk_id in self._bases.disk_ids():
            if not (self._folder / f"{disk_id}{_DISK}").exists():
                self._bases.release(disk_id)


def check_passable(folder: Path) -> None:
    """Guests' uids must get through to their disks. Raises Failed, saying which folder is in the way."""
    for parent in (folder, *folder.resolve().parents):
        if not parent.stat().st_mode & 0o001:
            raise Failed(f"QEMU does not run as root and cannot pass {parent}: chmod o+x it, or keep state elsewhere")


def _begin(part: Path, uid: int) -> None:
    """An empty file of the guest's own, instead of whatever was left."""
    part.unlink(missing_ok=True)
    handle = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        os.fchown(handle, uid, uid)
        os.fchmod(handle, 0o600)
    finally:
        os.close(handle)


def _bring(disk_id: str, image: CachedImage | None, fetch: Fetch, part: Path) -> None:
    """A disk of another host. It is looked at as little as one of ours: that it lies upon the image it should."""
    fetch(str(part))
    with part.open("rb") as file:
        head = file.read(qcow2.HEAD_BYTES_MAX)
    try:
        backing = qcow2.backing_file(head)
    except qcow2.Refused as refusal:
        raise Unfit(f"what was brought as disk {disk_id} {refusal}") from refusal
    if backing != (None if image is None else image.path):
        raise Unfit(f"what was brought as disk {disk_id} does not lie upon its image, but upon {backing}")


def _is_whole(path: Path) -> bool:
    return path.suffix in (_DISK, _CONFIG) and not path.name.startswith(".")


def _disk(disk_id: str, path: Path, base: Path | None) -> LocalDisk:
    with path.open("rb") as file:
        head = file.read(qcow2.HEADER_BYTES)
    try:
        size_bytes = qcow2.parse(head).virtual_bytes
    except qcow2.Refused as refusal:
        raise Failed(f"disk {disk_id} is damaged: it {refusal}") from refusal
    return LocalDisk(
        id=disk_id,
        path=str(path),
        format="qcow2",
        size_bytes=size_bytes,
        allocated_bytes=_allocated(path),
        base="" if base is None else str(base),
    )


def _config(disk_id: str, path: Path) -> LocalDisk:
    size_bytes = path.stat().st_size
    return LocalDisk(id=disk_id, path=str(path), format="raw", size_bytes=size_bytes, allocated_bytes=_allocated(path))


def _allocated(path: Path) -> int:
    return path.stat().st_blocks * _BLOCK


_: type[Disks] = LocalDisks
