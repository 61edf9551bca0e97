"""What one run of the agent knows about an object beyond its ledger row. It may be lost: a restart looks again."""

import asyncio

from agent.ledger import Entry
from agent.nouns import SHAPES, Key
from agent.wire.errors import Failed, Fault
from agent.wire.lifecycle import Generation, Progress
from agent.wire.specs import ObjectStatus


class Track:
    """How far this process is with one object."""

    __slots__ = (
        "again",
        "attempts",
        "changes",
        "done",
        "fault",
        "fault_of",
        "proved",
        "rested",
        "seen",
        "woken",
        "worker",
    )

    def __init__(self) -> None:
        self.done: Generation | None = None  # The newest generation that is as it should be.
        self.fault: Fault | None = None  # What was in the way of the newest attempt,
        self.fault_of: Generation | None = None  # which was one at this generation.
        self.proved: Generation | None = None  # The newest one that was carried out once: it can be again.
        self.attempts = 0
        self.changes = 0  # How often the object changed by itself (power).
        self.seen: ObjectStatus | None = None  # The noun's own fields of a status, as last seen.
        self.again = False  # Somebody asked while an attempt was under way: make another one.
        self.woken = asyncio.Event()  # There is news for a worker that pauses.
        self.rested = asyncio.Event()  # The newest attempt has ended, well or not.
        self.worker: asyncio.Task[None] | None = None


class Waiting(Failed):
    """Something else has to be ready first. `is_coming`: it is being worked on; else somebody has to send it."""

    def __init__(self, on: Key, why: str, *, is_coming: bool) -> None:
        super().__init__(why)
        self.on = on
        self.is_coming = is_coming


def fault_of(entry: Entry, track: Track | None) -> Fault | None:
    """What is in the way of the newest intent."""
    return None if track is None or track.fault_of != entry.generation else track.fault


def progress(entry: Entry, track: Track | None) -> Progress:
    """How far the newest intent is."""
    if entry.absent and entry.is_settled:
        return Progress.ABSENT
    if fault_of(entry, track) is not None:
        return Progress.FAILED
    if not entry.absent and track is not None and track.done == entry.generation:
        return Progress.READY
    return Progress.PENDING


def status(entry: Entry, track: Track | None) -> ObjectStatus:
    """One object as the controller is told."""
    kind = SHAPES[entry.key.noun].status
    now = progress(entry, track)
    fault = fault_of(entry, track)
    seen = track.seen if track is not None and not entry.absent else None
    if seen is None:
        return kind(id=entry.key.id, generation=entry.generation, progress=now, fault=fault)
    own = {name: getattr(seen, name) for name in seen.__struct_fields__}
    return kind(**{**own, "generation": entry.generation, "progress": now, "fault": fault})
