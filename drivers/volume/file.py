"""Volumes as raw sparse files in a folder, snapshots as copies of them.

A copy is whole: no chain of overlays ties a snapshot to its volume or a clone to its snapshot, so they go in any order.
Where the file system shares blocks between files a copy takes no time and no room at first; elsewhere it takes as much
as was written, and the agent sees to it that nobody writes meanwhile.

A file gets its name by one rename when it is whole. What has a name is never made anew, since it holds somebody's data;
what a crash left half-made is hidden, and begun again. Everything is root's, but for what the exporter was given.
"""

import errno
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from agent.wire.errors import Failed, NotFound, Unfit
from agent.wire.volume import PoolStatus, SourceKind
from drivers.image import convert
from drivers.volume import sparse
from drivers.volume.base import Origin, StoredVolume, Volumes
from drivers.volume.names import check_id

_GIB: Final = 1 << 30
_BLOCK: Final = 512
_SUFFIX: Final = ".raw"
_PART: Final = ".part"
VOLUMES: Final = "volumes"
SNAPSHOTS: Final = "snapshots"

CONVERT_BYTES_S: Final = 5 << 20
"""How fast an image is written out at least. Less: a slow disk fails. More: one that hangs is noticed late."""


class FileVolumes:
    """See drivers.volume.base.Volumes for every method. `pools` says which folder each pool is."""

    def __init__(self, pools: Mapping[str, Path], *, confined_uid: int, timeout_s: float) -> None:
        self._confined_uid = confined_uid
        self._timeout_s = timeout_s
        self._pools = {name: _Pool(name, folder) for name, folder in sorted(pools.items())}

    def pools(self) -> tuple[PoolStatus, ...]:
        """See Volumes."""
        return tuple(pool.status() for pool in self._pools.values())

    def ensure(self, volume_id: str, pool: str, size_bytes: int, origin: Origin | None) -> StoredVolume:
        """See Volumes."""
        check_id(volume_id)
        known = self.find(volume_id)
        if known is None:
            self._make(self._get(pool), volume_id, size_bytes, origin)
        elif known.size_bytes < size_bytes:
            self._pools[known.pool].grow(Path(known.path), size_bytes)
        made = self.find(volume_id)
        assert made is not None, "it was made or found above"
        return made

    def find(self, volume_id: str) -> StoredVolume | None:
        """See Volumes."""
        return self._found(VOLUMES, volume_id)

    def absent(self, volume_id: str) -> None:
        """See Volumes."""
        self._remove(VOLUMES, volume_id)

    def list(self) -> tuple[str, ...]:
        """See Volumes."""
        return self._listed(VOLUMES)

    def ensure_snapshot(self, snapshot_id: str, volume_id: str) -> StoredVolume:
        """See Volumes."""
        check_id(snapshot_id)
        known = self.find_snapshot(snapshot_id)
        if known is not None:
            return known
        volume = self.find(volume_id)
        if volume is None:
            raise NotFound(f"volume {volume_id} is not on this host")
        pool = self._pools[volume.pool]
        pool.make(SNAPSHOTS, snapshot_id, lambda part: sparse.copy(Path(volume.path), part))
        made = self.find_snapshot(snapshot_id)
        assert made is not None, "it was made above"
        return made

    def find_snapshot(self, snapshot_id: str) -> StoredVolume | None:
        """See Volumes."""
        return self._found(SNAPSHOTS, snapshot_id)

    def absent_snapshot(self, snapshot_id: str) -> None:
        """See Volumes."""
        self._remove(SNAPSHOTS, snapshot_id)

    def list_snapshots(self) -> tuple[str, ...]:
        """See Volumes."""
        return self._listed(SNAPSHOTS)

    def _make(self, pool: "_Pool", volume_id: str, size_bytes: int, origin: Origin | None) -> None:
        if origin is None or origin.kind is SourceKind.NONE:
            pool.make(VOLUMES, volume_id, lambda part: _grow(part, size_bytes))
            return
        if size_bytes < origin.size_bytes:
            raise Unfit(
                f"volume {volume_id} of {size_bytes} bytes does not hold {origin.kind} {origin.id} of "
                f"{origin.size_bytes} bytes"
            )
        fill = self._filling(origin)

        def fill_and_grow(part: Path) -> None:
            fill(part)
            _grow(part, size_bytes)

        pool.make(VOLUMES, volume_id, fill_and_grow)

    def _filling(self, origin: Origin) -> Callable[[Path], None]:
        if origin.kind is SourceKind.IMAGE and origin.format != "raw":
            return lambda part: self._convert(origin, part)
        if origin.kind is SourceKind.IMAGE:
            return lambda part: sparse.copy(Path(origin.path), part)
        source = self.find_snapshot(origin.id) if origin.kind is SourceKind.SNAPSHOT else self.find(origin.id)
        if source is None:
            raise NotFound(f"{origin.kind} {origin.id} is not on this host")
        path = Path(source.path)
        return lambda part: sparse.copy(path, part)

    def _convert(self, origin: Origin, part: Path) -> None:
        """The image was inspected when it came into the cache; what parses it is nobody nevertheless."""
        os.chown(part, self._confined_uid, self._confined_uid)
        timeout_s = self._timeout_s + origin.size_bytes / CONVERT_BYTES_S
        convert.convert(
            origin.path,
            origin.format,
            str(part),
            "raw",
            uid=self._confined_uid,
            bytes_max=origin.size_bytes,
            timeout_s=timeout_s,
        )
        os.chown(part, os.geteuid(), os.getegid())
        with part.open("rb") as file:
            os.fsync(file.fileno())

    def _get(self, pool: str) -> "_Pool":
        found = self._pools.get(pool)
        if found is None:
            raise Unfit(f"there is no pool {pool[:80]!r} on this host; there are: {', '.join(self._pools) or 'none'}")
        return found

    def _found(self, kind: str, name: str) -> StoredVolume | None:
        check_id(name)
        for pool in self._pools.values():
            path = pool.path(kind, name)
            try:
                seen = path.stat()
            except FileNotFoundError:
                continue
            return StoredVolume(
                id=name,
                pool=pool.name,
                path=str(path),
                size_bytes=seen.st_size,
                allocated_bytes=seen.st_blocks * _BLOCK,
            )
        return None

    def _remove(self, kind: str, name: str) -> None:
        check_id(name)
        for pool in self._pools.values():
            pool.path(kind, name).unlink(missing_ok=True)
            pool.part(kind, name).unlink(missing_ok=True)

    def _listed(self, kind: str) -> tuple[str, ...]:
        return tuple(sorted(name for pool in self._pools.values() for name in pool.names(kind)))


class _Pool:
    """One folder."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._folder = folder
        for kind in (VOLUMES, SNAPSHOTS):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            (folder / kind).chmod(0o711)  # Whoever converts an image passes through to the one file that is his.
            for part in (folder / kind).glob(f".*{_PART}"):  # At start, when nothing is being made.
                part.unlink()
        folder.chmod(0o711)
        self._is_instant = sparse.can_share(folder)

    def status(self) -> PoolStatus:
        usage = shutil.disk_usage(self._folder)
        promised = sum(_size(path) for kind in (VOLUMES, SNAPSHOTS) for path in self._files(kind))
        return PoolStatus(
            name=self.name,
            driver="file",
            total_gib=usage.total // _GIB,
            free_gib=usage.free // _GIB,
            provisioned_gib=-(-promised // _GIB),
            is_thin=True,
            is_instant=self._is_instant,
        )

    def path(self, kind: str, name: str) -> Path:
        return self._folder / kind / f"{name}{_SUFFIX}"

    def part(self, kind: str, name: str) -> Path:
        return self._folder / kind / f".{name}{_PART}"

    def names(self, kind: str) -> list[str]:
        return [path.stem for path in self._files(kind)]

    def make(self, kind: str, name: str, fill: Callable[[Path], None]) -> None:
        """Fill a hidden file, then give it its name. Raises Failed, with nothing left."""
        part = self.part(kind, name)
        try:
            part.unlink(missing_ok=True)
            os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            fill(part)
            part.rename(self.path(kind, name))
            _sync_folder(part.parent)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise _no_room(self.name, error) from error
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    def grow(self, path: Path, size_bytes: int) -> None:
        """Raises Failed."""
        try:
            _grow(path, size_bytes)
        except OSError as error:
            raise _no_room(self.name, error) from error

    def _files(self, kind: str) -> list[Path]:
        return [path for path in (self._folder / kind).iterdir() if path.suffix == _SUFFIX and path.name[0] != "."]


def _grow(path: Path, size_bytes: int) -> None:
    """The new end is a hole: zeroes."""
    with path.open("r+b") as file:
        if os.fstat(file.fileno()).st_size < size_bytes:
            os.ftruncate(file.fileno(), size_bytes)
            os.fsync(file.fileno())


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # It went while we looked.
        return 0


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _no_room(pool: str, error: OSError) -> Failed:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return Failed(f"pool {pool} has no room for it: {error.strerror}")
    return Failed(f"pool {pool}: {error}")


_: type[Volumes] = FileVolumes
