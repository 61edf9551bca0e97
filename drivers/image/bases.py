"""Which image lies under which disk, as the host remembers it: one symbolic link a disk, made before the disk is.

The link is what keeps an image in the cache. It is root's, unlike the header of the disk that a guest may rewrite. One
lock is shared by those who make and those who remove, so an image never goes while a disk is being put upon it.
"""

import threading
from pathlib import Path

from agent.wire.errors import Busy, NotFound


class Bases:
    """The links of one folder of disks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)

    def claim(self, disk_id: str, image: Path) -> None:
        """The disk lies upon that image from now on. Raises NotFound if the image is not there (any more)."""
        link = self._folder / disk_id
        with self._lock:
            if not image.exists():
                raise NotFound(f"image {image.stem} is not in the cache of this host")
            link.unlink(missing_ok=True)
            link.symlink_to(image)

    def release(self, disk_id: str) -> None:
        """The disk is gone."""
        with self._lock:
            (self._folder / disk_id).unlink(missing_ok=True)

    def disk_ids(self) -> list[str]:
        """Disks that lie upon something."""
        return sorted(link.name for link in self._folder.iterdir())

    def of(self, disk_id: str) -> Path | None:
        """What the disk lies upon."""
        link = self._folder / disk_id
        return link.readlink() if link.is_symlink() else None

    def remove(self, image: Path) -> None:
        """Remove the image's file. Raises Busy while a disk lies upon it."""
        with self._lock:
            for link in self._folder.iterdir():
                if link.readlink() == image:
                    raise Busy(f"image {image.stem} is under disk {link.name} of this host")
            image.unlink(missing_ok=True)
