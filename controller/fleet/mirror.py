"""What we believe a host's ledger holds: by its digest a heartbeat tells whether the two of us agree.

A mirror begins unknown, is filled from the ledger itself, and then follows the answers and events of the host.
Where it is wrong (another controller spoke to the host, an answer was lost), the digests differ, and the ledger is
read again. So it needs to be right only most of the time.
"""

from collections.abc import Iterable

from agent.wire.host import LedgerEntry, digest
from agent.wire.lifecycle import Generation


class Mirror:
    """One host's ledger as far as we know it."""

    __slots__ = ("_digest", "_entries", "_settled")

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], LedgerEntry] | None = None
        self._digest: str | None = None
        self._settled: dict[tuple[str, str], tuple[Generation, bool]] = {}

    def settled(self, noun: str, id: str, generation: Generation, absent: bool) -> None:
        """The host said that it is done with this generation."""
        self._settled[noun, id] = (generation, absent)

    def holds(self, noun: str, id: str, generation: Generation, absent: bool) -> bool:
        """Whether nothing needs to be said: the host was done with exactly this, and nothing put it in doubt since."""
        return self._settled.get((noun, id)) == (generation, absent)

    def fill(self, entries: Iterable[LedgerEntry]) -> bool:
        """Take what the ledger says; True if it is not what we believed."""
        before = self.digest()
        self._settled.clear()
        self._entries = {(entry.noun, entry.id): entry for entry in entries}
        self._digest = None
        return self.digest() != before

    def note(self, noun: str, id: str, generation: Generation, absent: bool | None) -> None:
        """The host said that it holds this generation of an object; `absent` None: as before, if that is known."""
        if self._entries is None:
            return
        known = self._entries.get((noun, id))
        if known is not None and known.generation > generation:
            return
        gone = absent if absent is not None else (known is not None and known.absent)
        if known is not None and known.generation == generation and known.absent == gone:
            return
        self._entries[noun, id] = LedgerEntry(noun, id, generation, gone, "")
        self._digest = None

    def digest(self) -> str | None:
        """The digest that a heartbeat should carry; None while we know nothing."""
        if self._digest is None and self._entries is not None:
            self._digest = digest(self._entries.values())
        return self._digest
