"""What we believe a host's ledger holds: by its digest a heartbeat tells whether the two of us agree.

A mirror begins unknown, is filled from the ledger itself, and then follows the answers and events of the host.
Where it is wrong (another controller spoke to the host, an answer was lost), the digests differ, and the ledger is
read again. So it needs to be right only most of the time.
"""

from collections.abc import Iterable

from agent.wire.host import LedgerEntry, digest
from agent.wire.lifecycle import Generation, Progress
from agent.wire.specs import ObjectStatus


class Mirror:
    """One host's ledger as far as we know it."""

    __slots__ = ("_digest", "_entries")

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], LedgerEntry] | None = None
        self._digest: str | None = None

    def holds(self, noun: str, id: str, generation: Generation, absent: bool) -> bool:
        """Whether nothing needs to be said: the host is done with exactly this, by its own word."""
        known = None if self._entries is None else self._entries.get((noun, id))
        done = Progress.ABSENT if absent else Progress.READY
        return known is not None and (known.generation, known.absent, known.progress) == (
            generation,
            absent,
            done.value,
        )

    def fill(self, entries: Iterable[LedgerEntry]) -> bool:
        """Take what the ledger says; True if it is not what we believed."""
        before = self.digest()
        self._entries = {(entry.noun, entry.id): entry for entry in entries}
        self._digest = None
        return self.digest() != before

    def note(self, noun: str, status: ObjectStatus, absent: bool | None) -> None:
        """The host told how an object is; `absent` is whether it should be gone, None: as before, if that is known."""
        if self._entries is None:
            return
        known = self._entries.get((noun, status.id))
        if known is not None and known.generation > status.generation:
            return
        gone = absent if absent is not None else (known is not None and known.absent)
        self._entries[noun, status.id] = LedgerEntry(noun, status.id, status.generation, gone, status.progress.value)
        if known is None or (known.generation, known.absent) != (status.generation, gone):
            self._digest = None

    def digest(self) -> str | None:
        """The digest that a heartbeat should carry; None while we know nothing."""
        if self._digest is None and self._entries is not None:
            self._digest = digest(self._entries.values())
        return self._digest
