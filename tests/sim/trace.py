"""What happened in one run: a digest of everything, and the end of it in words.

Two runs of one seed must have the same digest. Whoever looks for a bug reads the tail, or with `keep` everything.
"""

import hashlib
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

TAIL: Final = 250
"""Lines kept for the message of a failure."""


class Trace:
    """One run's."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._digest = hashlib.blake2b(digest_size=16)
        self._tail: deque[str] = deque(maxlen=TAIL)
        self.whole: list[str] | None = None
        self.count = 0

    def keep(self) -> None:
        """Keep every line from now on."""
        self.whole = []

    def note(self, who: str, what: str, data: bytes = b"") -> None:
        """Something happened. `data` counts for the digest only."""
        line = f"{self._now():10.4f} {who:6} {what}"
        self.count += 1
        self._digest.update(line.encode())
        if data:
            self._digest.update(data)
        self._tail.append(line)
        if self.whole is not None:
            self.whole.append(line)

    def digest(self) -> str:
        """Of everything so far."""
        return self._digest.hexdigest()

    def tail(self, lines: int = TAIL) -> str:
        """The last lines."""
        return "\n".join(list(self._tail)[-lines:])

    def write(self, path: Path) -> None:
        """Everything that was kept, for people."""
        path.write_text("\n".join(self.whole if self.whole is not None else self._tail) + "\n")
