"""One attempt to carry out one ledger row, as converge functions see it."""

import asyncio
from typing import TypeVar

from agent.ledger import Entry, Ledger
from agent.tracks import Track
from agent.wire.specs import ObjectSpec

S = TypeVar("S", bound=ObjectSpec)


class Superseded(Exception):
    """A newer intent came while an older one was carried out: the worker goes on with the newer one."""


class Turn:
    """One attempt to carry out one ledger row."""

    def __init__(self, entry: Entry, track: Track, ledger: Ledger) -> None:
        self.entry = entry
        self.key = entry.key
        self.track = track
        self._ledger = ledger

    def spec(self, kind: type[S]) -> S:
        """The spec to be carried out."""
        assert isinstance(self.entry.spec, kind), "the ledger keeps specs by noun"
        return self.entry.spec

    @property
    def is_superseded(self) -> bool:
        """There is a newer intent."""
        newest = self._ledger.find(self.key)
        assert newest is not None, "a row is never forgotten while there is something to do"
        return newest.generation != self.entry.generation

    def check(self) -> None:
        """Raises Superseded once there is a newer intent."""
        if self.is_superseded:
            raise Superseded

    async def pause(self, pause_s: float) -> None:
        """Wait, but not longer than until there is news of this object."""
        try:
            async with asyncio.timeout(pause_s):
                await self.track.woken.wait()
        except TimeoutError:
            return
        self.track.woken.clear()
