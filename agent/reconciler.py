"""Makes the host match its ledger: what should be done first, and one worker for each object that is not at rest.

Theory of operation. A command writes the ledger and wakes the object's worker; a start of the agent wakes workers by
`plan`; nothing else leads to effects. An object has one worker at most, so nothing is done to it by two at once. The
worker takes the newest ledger row, carries it out, says how it ended, and goes on while there is something newer or
something failed. At rest no worker exists, so an idle host costs nothing.

What needs something else that is not ready (a port its network) waits for just that, and is woken by it. So the order
in which messages arrive does not matter, and a start after a boot builds everything in the right order without
saying so.

A failure is told at once and tried again with growing pauses, for ever: whoever asked decides when to give up, by
asking for something else. What this host can never do (Unfit, Invalid, Conflict) waits for a new intent; what it
could do before it will do again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, NamedTuple

import structlog

from agent.effects import Effects
from agent.events import Events
from agent.ledger import Entry
from agent.nouns import RANK, Key, Noun
from agent.tracks import Track, Waiting, progress, status
from agent.turn import Superseded, Turn
from agent.wire.errors import Busy, Conflict, Fault, FaultCode, Invalid, NotFound, Unfit, WireError
from agent.wire.lifecycle import Progress
from agent.wire.specs import ObjectStatus

RETRY_MIN_S: Final = 0.5
RETRY_MAX_S: Final = 30.0
"""Between two attempts. Longer: what heals by itself is noticed late. Shorter: a broken driver eats a core."""

MESSAGE_MAX: Final = 500
"""Characters of a failure's sentence that travel."""

log = structlog.get_logger()


Ensure = Callable[[Effects, Turn], Awaitable[ObjectStatus]]
Absent = Callable[[Effects, Turn], Awaitable[None]]


class Converge(NamedTuple):
    """How one noun is made and removed. Both may be called again after any end, also after a crash in the middle."""

    ensure: Ensure
    absent: Absent


class Observation(NamedTuple):
    """What is on the host, by our marks."""

    present: frozenset[Key]  # Of the nouns that carry marks: domains, networks, ports, routers, disks, volumes.


class Plan(NamedTuple):
    """What a start has to do, in order."""

    act: tuple[Key, ...]  # To be carried out, or to be looked at and put right.
    strangers: tuple[Key, ...]  # On the host, not in the ledger: never touched, only told.


def plan(entries: Iterable[Entry], observation: Observation) -> Plan:
    """What a start has to do, from the ledger and the host alone. Pure.

    Makings come in order of need, removals before them in the other order. A finished removal is repeated only if
    the object is there nevertheless. A domain whose power was carried out is left alone, whatever it does now: its
    worker only looks (see converge.domain), so no restart of an agent ever starts, stops or changes a guest.
    """
    rows = {entry.key: entry for entry in entries}
    buried = [entry for entry in rows.values() if entry.absent]
    removals = [entry.key for entry in buried if not entry.is_settled or entry.key in observation.present]
    makings = [key for key, entry in rows.items() if not entry.absent]
    removals.sort(key=lambda key: (-RANK[key.noun], key.id))
    makings.sort(key=lambda key: (RANK[key.noun], key.id))
    strangers = sorted(key for key in observation.present if key not in rows)
    return Plan(act=(*removals, *makings), strangers=tuple(strangers))


class Reconciler:
    """Workers over the ledger. `tasks` owns them; it is given when the agent runs."""

    def __init__(self, effects: Effects, table: Mapping[Noun, Converge], events: Events) -> None:
        self._effects = effects
        self._table = table
        self._events = events
        self._tasks: asyncio.TaskGroup | None = None
        self._waiting: dict[Key, set[Key]] = {}  # By what they wait for.
        effects.redo = self.redo

    def begin(self, tasks: asyncio.TaskGroup) -> None:
        """From now on there may be workers, in `tasks`."""
        self._tasks = tasks

    def kick(self, key: Key) -> None:
        """There is something to do for this object, or something to try again."""
        track = self._effects.tracks.setdefault(key, Track())
        track.again = True
        track.rested.clear()
        track.woken.set()
        if track.worker is None:
            assert self._tasks is not None, "workers exist while the agent runs"
            track.worker = self._tasks.create_task(self._work(key, track), name=str(key))

    def redo(self, key: Key) -> None:
        """What was ready may be so no longer: carry it out again."""
        track = self._effects.tracks.get(key)
        if track is not None and track.done is not None:
            track.done = None
            self.kick(key)

    async def rest(self, key: Key, timeout_s: float) -> None:
        """Wait until the newest attempt has ended, well or not, but no longer than that."""
        track = self._effects.tracks.get(key)
        if track is None:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await track.rested.wait()
        except TimeoutError:
            return

    def status(self, key: Key) -> ObjectStatus:
        """How far an object is. Raises NotFound."""
        entry = self._effects.ledger.find(key)
        if entry is None:
            raise NotFound(f"{key} is not known to this host")
        found = status(entry, self._effects.tracks.get(key))
        if key.noun is Noun.DOMAIN and found.progress is Progress.READY:
            found = self._busy(found)
        return found

    def progress(self, entry: Entry) -> Progress:
        """How far one row is."""
        return progress(entry, self._effects.tracks.get(entry.key))

    def publish(self, key: Key) -> None:
        """Tell how far an object is."""
        self._events.publish(key.noun, self.status(key))

    def _busy(self, found: ObjectStatus) -> ObjectStatus:
        """While an act on a domain is under way, its power comes and goes: the domain is not ready."""
        if not self._effects.ledger.open_operations(found.id):
            return found
        own = {name: getattr(found, name) for name in found.__struct_fields__}
        return type(found)(**{**own, "progress": Progress.PENDING})

    async def _work(self, key: Key, track: Track) -> None:
        """Carry out the newest intent until nothing is left to do."""
        while True:
            entry = self._effects.ledger.find(key)
            assert entry is not None, "a row is never forgotten while there is something to do"
            track.again = False
            track.woken.clear()
            turn = Turn(entry, track, self._effects.ledger)
            failure = await self._attempt(turn)
            if track.again or turn.is_superseded:
                continue
            if failure is None:
                self._finish(turn)
            pause_s = None if failure is None else self._fail(turn, failure)
            if pause_s is None:
                track.worker = None
                return
            await turn.pause(pause_s)

    async def _attempt(self, turn: Turn) -> Exception | None:
        """One attempt; what was in its way, if anything."""
        ensure, absent = self._table[turn.key.noun]
        try:
            if turn.entry.absent:
                await absent(self._effects, turn)
            else:
                turn.track.seen = await ensure(self._effects, turn)
        except Superseded:
            return Busy(f"{turn.key}: something newer came")
        except WireError as error:
            return error
        except Exception as error:  # A driver's bug must not end the agent: it becomes this object's fault.
            log.exception("converging failed", noun=turn.key.noun, id=turn.key.id)
            return error
        return None

    def _finish(self, turn: Turn) -> None:
        """It is as it should be."""
        track = turn.track
        track.done = track.proved = turn.entry.generation
        track.fault, track.attempts = None, 0
        if turn.entry.absent:
            self._effects.ledger.settle(turn.key, turn.entry.generation)
            del self._effects.tracks[turn.key]
        log.info("converged", noun=turn.key.noun, id=turn.key.id, generation=str(turn.entry.generation))
        track.rested.set()
        self.publish(turn.key)
        self._wake_waiting(turn.key)

    def _fail(self, turn: Turn, failure: Exception) -> float | None:
        """Tell what is in the way; the pause before the next attempt, None if there is to be none."""
        track = turn.track
        track.attempts += 1
        if isinstance(failure, Waiting):
            self._waiting.setdefault(failure.on, set()).add(turn.key)
            if failure.is_coming:
                track.fault = None
                return RETRY_MAX_S
        fault = _fault(failure)
        if (fault, turn.entry.generation) != (track.fault, track.fault_of):
            track.fault, track.fault_of = fault, turn.entry.generation
            log.warning("not converged", noun=turn.key.noun, id=turn.key.id, code=fault.code, why=fault.message)
            self.publish(turn.key)
            self._wake_waiting(turn.key)
        track.rested.set()
        if isinstance(failure, Waiting):
            return RETRY_MAX_S
        if isinstance(failure, Unfit | Invalid | Conflict) and track.proved != turn.entry.generation:
            return None
        growing_s = min(RETRY_MAX_S, RETRY_MIN_S * 2.0 ** min(track.attempts - 1, 10))
        return self._effects.world.entropy.uniform(growing_s / 2, growing_s)

    def _wake_waiting(self, key: Key) -> None:
        """Whoever waits for this object looks again: it is ready, gone, or known to have failed."""
        for other in sorted(self._waiting.pop(key, ())):
            track = self._effects.tracks.get(other)
            if track is not None:
                track.woken.set()


def _fault(failure: Exception) -> Fault:
    if isinstance(failure, WireError):
        return Fault(code=failure.code, message=str(failure)[:MESSAGE_MAX])
    return Fault(code=FaultCode.FAILED, message=f"{type(failure).__name__}: {failure}"[:MESSAGE_MAX])
