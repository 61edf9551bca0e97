"""Counters that never fall, made of counters that begin anew at every power-on. Pure, but for a file.

A hypervisor counts from zero whenever a guest is powered on, and so does a device that was unplugged and comes back.
What earlier runs came to is kept here and added. What a guest used between the last measurement and its power-off is
lost: nobody saw it.

The file is written before a total is told, so that no restart of the agent takes one back. It is not synced to the
disk: after a crash of the machine totals may begin at zero, which everybody who reads counters has to expect anyway.
"""

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
import structlog

log = structlog.get_logger()


class Total(msgspec.Struct, kw_only=True):
    """One guest's."""

    run: str  # The power-on that `seen` counts from.
    seen: dict[str, int] = {}  # Counter → as it was seen last in this run.
    before: dict[str, int] = {}  # Counter → what earlier runs came to.

    def advance(self, run: str, raw: Mapping[str, int]) -> dict[str, int]:
        """Take a measurement; the totals of what was measured."""
        if run != self.run:
            for name, value in self.seen.items():
                self._keep(name, value)
            self.run, self.seen = run, {}
        for name, value in raw.items():
            if value < (last := self.seen.get(name, 0)):
                self._keep(name, last)
            self.seen[name] = value
        return {name: value + self.before.get(name, 0) for name, value in raw.items()}

    def _keep(self, name: str, value: int) -> None:
        self.before[name] = self.before.get(name, 0) + value


class Totals:
    """Every guest's of one host. Without a `path` they live as long as this object."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._totals = {} if path is None else _read(path)

    def advance(self, domain_id: str, run: str, raw: Mapping[str, int]) -> dict[str, int]:
        """See Total."""
        return self._totals.setdefault(domain_id, Total(run=run)).advance(run, raw)

    def forget_others(self, domain_ids: Iterable[str]) -> None:
        """Only these domains are still on this host, on or off."""
        for domain_id in self._totals.keys() - set(domain_ids):
            del self._totals[domain_id]

    def encoded(self) -> bytes:
        """As `write` wants it: taken in the loop's thread, written in another one."""
        return msgspec.json.encode(self._totals)

    def write(self, encoded: bytes) -> None:
        """Replace the file. Blocks; raises OSError."""
        if self._path is not None:
            fresh = self._path.with_name(f"{self._path.name}.new")
            fresh.write_bytes(encoded)
            fresh.replace(self._path)


def _read(path: Path) -> dict[str, Total]:
    with contextlib.suppress(FileNotFoundError):
        try:
            return msgspec.json.decode(path.read_bytes(), type=dict[str, Total])
        except msgspec.DecodeError as error:
            log.warning("the counters of earlier runs cannot be read; guests count from here", why=str(error))
    return {}
