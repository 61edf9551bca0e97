"""What is known now: the newest measurement of every host, in memory.

A host's measurement is replaced as a whole, so what is gone from the host is gone from here. One that could not be
renewed for STALE_S is shown no more: old numbers would look like guests that do nothing.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

import msgspec

from telemetry.pipeline import SAMPLES_MAX, Sample

STALE_S: Final = 60.0
"""How old a measurement is still shown. Shorter: one lost message is a gap. Longer: dead hosts look idle."""

SERIES_MAX: Final = 100_000
"""In all: some four thousand servers. Beyond it hosts that come last are left out, and counted. Higher: rendering a
page holds up the pulling for seconds."""


class Measurement(msgspec.Struct, frozen=True):
    """All samples of one host at one moment of this process' own clock."""

    at: float
    samples: tuple[Sample, ...]


class Store:
    """The newest measurements. `now` is any clock that does not go backwards, the same for all calls."""

    def __init__(self, series_max: int = SERIES_MAX) -> None:
        self._series_max = series_max
        self._hosts: dict[str, Measurement] = {}
        self.dropped = 0  # Samples that found no room, ever.

    def put(self, host_id: str, samples: Iterable[Sample], now: float) -> None:
        """Replace what is known of a host."""
        others = sum(len(one.samples) for name, one in self._hosts.items() if name != host_id)
        room = max(0, min(SAMPLES_MAX, self._series_max - others))
        rest = iter(samples)
        self._hosts[host_id] = Measurement(now, tuple(islice(rest, room)))
        self.dropped += sum(1 for _ in rest)

    def forget(self, host_id: str) -> None:
        """The host is gone."""
        self._hosts.pop(host_id, None)

    def samples(self, now: float) -> Iterator[Sample]:
        """Everything that is fresh."""
        for one in self._hosts.values():
            if now - one.at <= STALE_S:
                yield from one.samples

    def ages(self, now: float) -> dict[str, float]:
        """Host → seconds since its newest measurement."""
        return {host_id: now - one.at for host_id, one in sorted(self._hosts.items())}
