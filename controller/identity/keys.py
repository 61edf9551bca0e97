"""Fernet keys: files of mode 0600 beside the database, rotated by adding and renaming, read again on SIGHUP.

As in Keystone the file `0` is staged (accepted, not used to encrypt), the highest number is primary, those between are
accepted until they are dropped. Staging lets a new key reach every controller before any of them encrypts with it.
"""

from pathlib import Path
from typing import Final

from cryptography.fernet import Fernet, MultiFernet

from controller.private_file import write_private

KEPT_MAX: Final = 3
"""Keys at once: staged, primary and one before. Fewer would end living tokens; more only widens what a leak opens."""


class Keyring:
    """The keys of one controller's state directory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self._numbers():
            self._write(0)
            self._write(1)
        self.fernet = self._read()

    def reload(self) -> None:
        """Read the files again."""
        self.fernet = self._read()

    def rotate(self) -> None:
        """The staged key becomes primary, a new one is staged, the oldest goes."""
        numbers = self._numbers()
        (self._folder / "0").rename(self._folder / str(max(numbers) + 1))
        self._write(0)
        for number in self._numbers()[1 : -(KEPT_MAX - 1)]:
            (self._folder / str(number)).unlink()
        self.reload()

    def _numbers(self) -> list[int]:
        return sorted(int(path.name) for path in self._folder.iterdir() if path.name.isdecimal())

    def _read(self) -> MultiFernet:
        numbers = self._numbers()
        newest_first = [*reversed(numbers[1:]), numbers[0]] if numbers[0] == 0 else list(reversed(numbers))
        return MultiFernet([Fernet((self._folder / str(number)).read_bytes().strip()) for number in newest_first])

    def _write(self, number: int) -> None:
        write_private(self._folder / str(number), Fernet.generate_key())
