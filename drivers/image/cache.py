"""Images that were fetched once and verified: `<sha256>.<format>`, owned by root, readable for all, written by nobody.

An image is fetched into a hidden file that only root can open. Its size and hash are checked, then a confined child
looks at what it really is. Only then it gets its name, by one rename, so whatever has a name is whole and verified,
also after a crash. Guests read it as their disks' base through their own uid; the folder lets them through but not look
around, so an image is found by those alone who know its hash.
"""

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

from agent.wire.errors import Failed
from drivers.image import confined, names, qcow2
from drivers.image.base import CachedImage, Fetch, ImageCache
from drivers.image.bases import Bases

_PART = ".part"


class LocalImageCache:
    """See drivers.image.base.ImageCache for every method."""

    def __init__(
        self, folder: Path, bases: Bases, *, confined_uid: int, virtual_bytes_max: int, timeout_s: float
    ) -> None:
        self._folder = folder
        self._bases = bases
        self._confined_uid = confined_uid
        self._virtual_bytes_max = virtual_bytes_max
        self._timeout_s = timeout_s
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o711)
        for leftover in folder.glob(f".*{_PART}"):
            leftover.unlink()

    def find(self, sha256: str) -> CachedImage | None:
        """See ImageCache."""
        names.check_sha256(sha256)
        for disk_format in names.FORMATS:
            path = self._path(sha256, disk_format)
            with contextlib.suppress(FileNotFoundError):
                return _described(path, sha256, disk_format)
        return None

    def fetch(self, sha256: str, size_bytes: int, disk_format: str, fetch: Fetch) -> CachedImage:
        """See ImageCache."""
        names.check_format(disk_format)
        known = self.find(sha256)
        if known is not None:
            return names.agreeing(known, disk_format)
        handle, name = tempfile.mkstemp(prefix=f".{sha256}.", suffix=_PART, dir=self._folder)
        os.close(handle)
        part = Path(name)
        try:
            fetch(name)
            self._verify(part, sha256, size_bytes, disk_format)
            _publish(part, self._path(sha256, disk_format))
        finally:
            part.unlink(missing_ok=True)
        return _described(self._path(sha256, disk_format), sha256, disk_format)

    def absent(self, sha256: str) -> None:
        """See ImageCache."""
        names.check_sha256(sha256)
        for disk_format in names.FORMATS:
            self._bases.remove(self._path(sha256, disk_format))

    def list(self) -> tuple[CachedImage, ...]:
        """See ImageCache."""
        hashes = sorted(path.stem for path in self._folder.iterdir() if path.suffix[1:] in names.FORMATS)
        images = (self.find(sha256) for sha256 in hashes)
        return tuple(image for image in images if image is not None)

    def _verify(self, part: Path, sha256: str, size_bytes: int, disk_format: str) -> None:
        found_bytes = part.stat().st_size if part.exists() else 0
        if found_bytes != size_bytes:
            raise Failed(f"image {sha256} has {size_bytes} bytes, but {found_bytes} arrived")
        with part.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256:
            raise Failed(f"the bytes of image {sha256} hash to {found}")
        confined.inspect(
            str(part),
            disk_format,
            uid=self._confined_uid,
            virtual_bytes_max=self._virtual_bytes_max,
            timeout_s=self._timeout_s,
        )

    def _path(self, sha256: str, disk_format: str) -> Path:
        return self._folder / f"{sha256}.{disk_format}"


def _publish(part: Path, path: Path) -> None:
    """Durable before it has its name: after a power failure a name must not stand for half a file."""
    part.chmod(0o444)
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _described(path: Path, sha256: str, disk_format: str) -> CachedImage:
    size_bytes = path.stat().st_size
    return CachedImage(
        sha256=sha256,
        path=str(path),
        disk_format=disk_format,
        size_bytes=size_bytes,
        virtual_bytes=_virtual_bytes(path) if disk_format == "qcow2" else size_bytes,
    )


def _virtual_bytes(path: Path) -> int:
    with path.open("rb") as file:
        return qcow2.parse(file.read(qcow2.HEADER_BYTES)).virtual_bytes


_: type[ImageCache] = LocalImageCache
