"""Where the bytes of images are: a protocol, and files in a folder.

Bytes arrive under a name of their own (`<image>.<upload>.part`, so that two uploads never write into one file) and get
the image's name by rename after they are durable, so a file with an image's name is whole. What has no row is removed
by the `image_gc` reconciler.
"""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Final, Protocol

from agent.wire.world import Threads

CHUNK_BYTES: Final = 1 << 20
PART: Final = ".part"
_IO_S: Final = 60.0
"""One chunk read or written. Longer than any healthy disk needs."""


class Writer(Protocol):
    """The bytes of one image on their way in."""

    async def write(self, chunk: bytes) -> None:
        """Append."""
        ...

    async def publish(self) -> None:
        """Make it durable and give it the image's name."""
        ...

    async def discard(self) -> None:
        """Remove what was written; nothing after publish."""
        ...


class Store(Protocol):
    """The bytes of images."""

    name: str

    def writer(self, image_id: str, upload_id: str) -> Writer:
        """Begin."""
        ...

    def open(self, image_id: str, begin: int = 0) -> AsyncIterator[bytes]:
        """The bytes from `begin` on, in chunks. Raises FileNotFoundError at the first if there are none."""
        ...

    async def remove(self, name: str) -> None:
        """Remove the bytes of an image, or of a part by its whole name; nothing if there are none."""
        ...

    async def stored(self) -> dict[str, float]:
        """Every name there is (parts end in PART), and when it was last written."""
        ...


class Files:
    """Images as files in one folder."""

    name = "file"

    def __init__(self, folder: Path, threads: Threads) -> None:
        self._folder = folder
        self._threads = threads
        folder.mkdir(parents=True, exist_ok=True)

    def writer(self, image_id: str, upload_id: str) -> "FileWriter":
        """See Store."""
        return FileWriter(self._folder, image_id, upload_id, self._threads)

    async def open(self, image_id: str, begin: int = 0) -> AsyncIterator[bytes]:
        """See Store."""
        file: IO[bytes] = await self._threads.run((self._folder / image_id).open, "rb", timeout_s=_IO_S)
        with file:
            file.seek(begin)
            while chunk := await self._threads.run(file.read, CHUNK_BYTES, timeout_s=_IO_S):
                yield chunk

    async def remove(self, name: str) -> None:
        """See Store."""
        await self._threads.run((self._folder / name).unlink, True, timeout_s=_IO_S)

    async def stored(self) -> dict[str, float]:
        """See Store."""
        return await self._threads.run(self._list, timeout_s=_IO_S)

    def _list(self) -> dict[str, float]:
        return {entry.name: entry.stat().st_mtime for entry in self._folder.iterdir()}


class FileWriter:
    """See Writer."""

    def __init__(self, folder: Path, image_id: str, upload_id: str, threads: Threads) -> None:
        self._part = folder / f"{image_id}.{upload_id}{PART}"
        self._whole = folder / image_id
        self._threads = threads
        self._file: IO[bytes] | None = None

    async def write(self, chunk: bytes) -> None:
        """See Writer."""
        await self._threads.run(self._append, chunk, timeout_s=_IO_S)

    async def publish(self) -> None:
        """See Writer."""
        await self._threads.run(self._publish, timeout_s=_IO_S)

    async def discard(self) -> None:
        """See Writer."""
        await self._threads.run(self._discard, timeout_s=_IO_S)

    def _append(self, chunk: bytes) -> None:
        if self._file is None:
            self._file = self._part.open("wb")
        self._file.write(chunk)

    def _publish(self) -> None:
        self._append(b"")
        assert self._file is not None, "it was just opened"
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._part.replace(self._whole)
        folder = os.open(self._whole.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _discard(self) -> None:
        if self._file is not None:
            self._file.close()
        self._part.unlink(missing_ok=True)
