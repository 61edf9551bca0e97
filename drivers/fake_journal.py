"""What a fake host remembers across the end of the process that plays it: a file of JSON lines, only ever appended.

Each line is a key and a record, or a key alone for what is gone; the last line of a key wins. It is rewritten once,
when it is opened, so its size follows what exists and a change costs one short write however much exists. A line that
a crash cut off is ignored, as a real host forgets what it had not finished.
"""

from pathlib import Path
from typing import Generic, TypeVar

import msgspec

R = TypeVar("R", bound=msgspec.Struct)


class _Line(msgspec.Struct, frozen=True, kw_only=True):
    key: str
    record: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class FakeJournal(Generic[R]):
    """A dictionary of records by key, in memory and (with a `path`) in a file. Not locked: its owner has a lock."""

    def __init__(self, kind: type[R], path: str | None = None) -> None:
        self._records: dict[str, R] = {}
        self._path = None if path is None else Path(path)
        self._encoder = msgspec.json.Encoder()
        if self._path is not None:
            self._records = _replayed(self._path, kind)
            self._rewrite(self._path)

    def get(self, key: str) -> R | None:
        """One record, or None."""
        return self._records.get(key)

    def keys(self) -> list[str]:
        """All keys, sorted."""
        return sorted(self._records)

    def values(self) -> list[R]:
        """All records, sorted by key."""
        return [self._records[key] for key in sorted(self._records)]

    def put(self, key: str, record: R) -> None:
        """Remember a record."""
        self._records[key] = record
        self._append(_Line(key=key, record=msgspec.Raw(self._encoder.encode(record))))

    def remove(self, key: str) -> None:
        """Forget it; nothing if unknown."""
        if self._records.pop(key, None) is not None:
            self._append(_Line(key=key))

    def _append(self, line: _Line) -> None:
        if self._path is None:
            return
        with self._path.open("ab") as file:
            file.write(self._encoder.encode(line) + b"\n")

    def _rewrite(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(path.name + ".part")
        with fresh.open("wb") as file:
            for key, record in self._records.items():
                line = _Line(key=key, record=msgspec.Raw(self._encoder.encode(record)))
                file.write(self._encoder.encode(line) + b"\n")
        fresh.replace(path)


def _replayed(path: Path, kind: type[R]) -> dict[str, R]:
    records: dict[str, R] = {}
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    for text in lines:
        try:
            line = msgspec.json.decode(text, type=_Line)
        except msgspec.DecodeError:  # The empty end of the file, or a line that a crash cut off.
            assert text == lines[-1], f"{path} is damaged in its middle"
            continue
        if isinstance(line.record, msgspec.UnsetType):
            records.pop(line.key, None)
        else:
            records[line.key] = msgspec.json.decode(line.record, type=kind)
    return records
