"""The typed client of the fleet: ask a host to make something so, wait until it is, know who is alive.

Theory of operation. `ensure` and `absent` send their message once, then wait for the host's event about the object
and ask `get` meanwhile, so a lost event costs time only. They wait for a *slice*; what is not finished by then is
`Transient`, and the saga's step runs again: the same message with the same generation, which a host answers without
doing anything twice. What trying again cannot cure is one of the errors that a user reads.

Silence is never taken for an answer. A breaker per host keeps callers from queueing at a dead one. Liveness comes
from heartbeats, and this watch judges only while it hears itself: it publishes an echo on the same bus, and as long
as that does not come back (the bus is away, this process was stopped for a while) nobody is declared dead.

A host whose ledger may differ from what we know (its heartbeat carries another digest, it started, it returned,
messages were lost) is *synced*: its ledger is read into the mirror, then every `on_sync_needed` callback compares
that host with the intent. The subject of a message is the only proof of its sender; host ids in payloads are not read.

Nothing here touches the database. `fleet.watch` writes transitions and inventories, and tells us who is enrolled.
"""

import asyncio
import inspect
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar
from weakref import WeakValueDictionary

import msgspec
import structlog

from agent.wire import bus as wire
from agent.wire import host as host_calls
from agent.wire import subjects
from agent.wire.bus import REQUEST_ID_HEADER, TRACEPARENT_HEADER, Bus, Message, Subscription
from agent.wire.contract import EVENTS
from agent.wire.errors import Busy, Fault, FaultCode, Invalid, NotFound, Silent, WireError, raised
from agent.wire.host import Door, Heartbeat, Inventory, LedgerEntry, LedgerRequest
from agent.wire.lifecycle import Generation, Progress
from agent.wire.specs import Absence, Call, EventEnvelope, ObjectSpec, ObjectStatus, Ref, decode
from agent.wire.world import World
from controller import errors
from controller.fleet.breaker import Breaker
from controller.fleet.liveness import LEASE_S, Liveness
from controller.fleet.mirror import Mirror
from controller.fleet.syncing import SYNCS_MAX, SyncQueue
from controller.saga.model import Transient

Q = TypeVar("Q", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)
S = TypeVar("S", bound=ObjectStatus)

EventCallback = Callable[[str, Any], Awaitable[None] | None]
"""(host id, the event's body): an `ObjectStatus`, `Heartbeat` or `Inventory`."""

SLICE_S: Final = 20.0
"""How long one `ensure` waits at most. Longer: a saga notices late that it should stop. Shorter: more messages."""

POLL_MIN_S: Final = 1.0
POLL_MAX_S: Final = 5.0
"""Between two looks at an object whose event has not come. Only a lost event makes these matter."""

ECHO_S: Final = 2.0
DEAF_S: Final = 8.0
"""Our own echo comes every ECHO_S; after DEAF_S without one we hear nobody, and nobody can be called dead."""

WATCH_S: Final = 1.0
"""How often leases are looked at: what a verdict may come late."""

LEDGER_PAGES_MAX: Final = 10_000
"""A ledger that never ends is a broken host's."""

_TERMINAL: Final = {FaultCode.UNFIT, FaultCode.INVALID, FaultCode.CONFLICT, FaultCode.STALE}

log = structlog.get_logger()


class _Wait:
    """Somebody waits for news of one object."""

    __slots__ = ("news", "status")

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self.status: ObjectStatus | None = None


class Hosts:
    """The fleet. `slow` stretches every time-out (5 where guests run emulated)."""

    def __init__(self, bus: Bus, world: World, *, slow: float = 1.0, lease_s: float = LEASE_S) -> None:
        self._bus = bus
        self._world = world
        self._slow = slow
        self._liveness = Liveness(lease_s)
        self._removed: set[str] = set()
        self._breakers: defaultdict[str, Breaker] = defaultdict(Breaker)
        self._mirrors: defaultdict[str, Mirror] = defaultdict(Mirror)
        self._heartbeats: dict[str, Heartbeat] = {}
        self._heard_at: dict[str, float] = {}  # Of the last heartbeat, by our own clock.
        self._sequences: dict[str, tuple[str, int]] = {}
        self._waits: defaultdict[tuple[str, str, str], list[_Wait]] = defaultdict(list)
        self._turns: WeakValueDictionary[tuple[str, str, str], asyncio.Lock] = WeakValueDictionary()
        self._callbacks: defaultdict[str, list[EventCallback]] = defaultdict(list)
        self._on_transition: list[Callable[[str, bool], None]] = []
        self._on_stranger: list[Callable[[str], None]] = []
        self._on_sync: list[Callable[[str], Awaitable[None]]] = []
        self._in_doubt: set[str] = set()
        self._syncs = SyncQueue(self._sync, world.entropy, SYNCS_MAX)
        self._subscriptions: list[Subscription] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._echo = f"echo.{world.entropy.hex(16)}"
        self._echo_at: float | None = None
        bus.on_gap(self._lost)

    # Asking.

    async def ensure(self, host_id: str, row: Call[Q, S], spec: Q, deadline: float) -> S:
        """Until the host has made `spec` so; its status then. `deadline` is a time of the world's clock.

        Raises Transient when a slice of time has passed (or the host is silent or busy), and one of
        `controller.errors` for what trying again cannot cure: unfit, invalid, conflicting, stale.
        """
        if host_id in self._removed:
            raise errors.Conflict(f"Host {host_id} was removed.")
        assert isinstance(spec, ObjectSpec), "only objects are ensured"
        return await self._converge(host_id, row, spec, Progress.READY, deadline)

    async def absent(self, host_id: str, row: Call[Absence, S], absence: Absence, deadline: float) -> S:
        """Until the host no longer has it; as `ensure`. A host that was removed is fenced: nothing is on it."""
        if host_id in self._removed:
            return row.reply(id=absence.id, generation=absence.generation, progress=Progress.ABSENT)
        return await self._converge(host_id, row, absence, Progress.ABSENT, deadline)

    async def call(self, host_id: str, row: Call[Q, R], request: Q) -> R:
        """One call, one answer. Raises Transient on silence or a busy host, else the error that it answered."""
        if host_id in self._removed:
            raise errors.Conflict(f"Host {host_id} was removed.")
        try:
            return await self._ask(host_id, row, request)
        except WireError as error:
            raise _refused(host_id, error) from error

    def turn(self, host_id: str, noun: str, object_id: str) -> asyncio.Lock:
        """To be held by who speaks of an object that others speak of, too: who waits may find it done."""
        return self._turns.setdefault((host_id, noun, object_id), asyncio.Lock())

    # Knowing.

    def holds(self, host_id: str, noun: str, object_id: str, generation: Generation, *, absent: bool) -> bool:
        """Whether the host is known to be done with exactly this, so that it need not be said again."""
        return self._mirrors[host_id].holds(noun, object_id, generation, absent)

    def knows(self, host_id: str) -> bool:
        """Whether this host was adopted here."""
        return self._liveness.knows(host_id)

    def is_up(self, host_id: str) -> bool:
        """Whether the host is alive, as far as heartbeats tell."""
        return self._liveness.is_up(host_id)

    def up(self) -> list[str]:
        """Every host that is alive."""
        return self._liveness.up()

    def heartbeat(self, host_id: str) -> Heartbeat | None:
        """What the host said last about its load and room; None if it has not been heard since we started."""
        return self._heartbeats.get(host_id)

    def door(self, host_id: str) -> Door | None:
        """Where the host's own channel is, for tickets from now on; None if it is down, or has none."""
        heard = self._heartbeats.get(host_id)
        if heard is None or heard.door is None or not self.is_up(host_id):
            return None
        since_s = self._world.clock.boottime() - self._heard_at[host_id]
        return msgspec.structs.replace(heard.door, boottime_s=heard.door.boottime_s + since_s)

    def on_event(self, noun: str, callback: EventCallback) -> None:
        """Call back for every event of a noun (`domain`, `port`, `started`, `heartbeat`, …). May be async."""
        assert noun in EVENTS, f"no event is named {noun}"
        self._callbacks[noun].append(callback)

    def on_transition(self, callback: Callable[[str, bool], None]) -> None:
        """Call back when a host turns up or down."""
        self._on_transition.append(callback)

    def on_stranger(self, callback: Callable[[str], None]) -> None:
        """Call back when a host is heard that nobody adopted (another controller let it join)."""
        self._on_stranger.append(callback)

    def on_sync_needed(self, callback: Callable[[str], Awaitable[None]]) -> None:
        """Call back when a host may differ from the intent; must converge it, and may raise (it is tried again).

        At most 64 hosts at a time, and each by one run at a time.
        """
        self._on_sync.append(callback)

    def hear(self, host_id: str) -> None:
        """The host asked something: it lives."""
        if self._liveness.knows(host_id) and host_id not in self._removed:
            self._alive(host_id)

    def want_sync(self, host_id: str) -> None:
        """Sync a host soon, whatever its digest says."""
        if self._liveness.is_up(host_id):
            self._in_doubt.add(host_id)
            self._syncs.want(host_id)

    # Whom.

    def adopt(self, host_id: str, *, is_up: bool = False) -> None:
        """Watch an enrolled host, as it was known last."""
        self._removed.discard(host_id)
        self._liveness.adopt(host_id, is_up, self._world.clock.boottime())

    def trust(self, host_id: str) -> None:
        """Another controller hears this host: from now on it has a lease to be heard here too."""
        if self._liveness.knows(host_id) and self._liveness.beat(host_id, self._world.clock.boottime()):
            log.info("host is up, as another controller says", host=host_id)
            for changed in self._on_transition:
                changed(host_id, True)

    def forget(self, host_id: str) -> None:
        """An operator removed this host: it is dead, and stays so."""
        self._removed.add(host_id)
        self._liveness.forget(host_id)
        for known in (self._breakers, self._mirrors, self._heartbeats, self._heard_at, self._sequences):
            known.pop(host_id, None)
        self._in_doubt.discard(host_id)

    # Living.

    async def start(self) -> None:
        """Listen and watch. Adopt the known hosts before."""
        heard = await self._bus.subscribe(subjects.host_event("*", "*"), self._event)
        echo = await self._bus.subscribe(subjects.service_event("fleet", self._echo), self._own_echo)
        self._subscriptions += [heard, echo]
        self._tasks += [asyncio.create_task(self._watch()), asyncio.create_task(self._speak())]

    async def close(self) -> None:
        """Stop listening and watching."""
        self._syncs.close()
        for task in self._tasks:
            task.cancel()
        for subscription in self._subscriptions:
            await subscription.close()

    # Asking, inside.

    async def _converge(self, host_id: str, row: Call[Q, S], request: Q, end: Progress, deadline: float) -> S:
        assert isinstance(request, ObjectSpec | Absence)
        loop = asyncio.get_running_loop()
        slice_ends = loop.time() + min(SLICE_S * self._slow, max(0.0, deadline - self._world.clock.now()))
        with self._listening(host_id, row.noun, request.id) as wait:
            status = await self._send(host_id, row, request)
            pause_s = POLL_MIN_S
            while not _is_at_end(host_id, status, request, end):
                left_s = slice_ends - loop.time()
                if left_s <= 0:
                    raise Transient(_unfinished(host_id, row, request.id, status))
                if await _told(wait, min(pause_s, left_s)):
                    assert isinstance(wait.status, row.reply), f"an event of {row.noun} has another body"
                    status = wait.status
                else:
                    status = await self._look(host_id, row, request, status)
                pause_s = min(pause_s * 1.5, POLL_MAX_S)
        return status

    async def _send(self, host_id: str, row: Call[Q, S], request: Q) -> S:
        try:
            status = await self._ask(host_id, row, request)
        except WireError as error:
            if error.code in _TERMINAL:
                raise _refused(host_id, error) from error
            raise Transient(f"Host {host_id}, {row.name}: {error}") from error
        self._mirrors[host_id].note(row.noun, status, isinstance(request, Absence))
        return status

    async def _look(self, host_id: str, row: Call[Q, S], request: Q, last: S) -> S:
        """The object's status, asked for; the last one known if there is no answer."""
        assert isinstance(request, ObjectSpec | Absence)
        try:
            status = await self._ask(host_id, Call(f"{row.noun}.get", Ref, row.reply), Ref(id=request.id))
        except NotFound:
            return await self._send(host_id, row, request)  # It has forgotten: say it again.
        except (WireError, Transient):
            return last
        self._tell(host_id, row.noun, status)
        return status

    async def _ask(self, host_id: str, row: Call[Q, R], request: Q) -> R:
        """One message, through the host's breaker. Raises Transient, or the WireError that was answered."""
        breaker, clock = self._breakers[host_id], self._world.clock
        if not breaker.admits(clock.boottime()):
            raise Transient(f"Host {host_id} has not answered lately.")
        patient = Call(row.name, row.request, row.reply, row.timeout_s * self._slow)
        try:
            reply = await wire.call(self._bus, host_id, patient, request, _headers())
        except Silent as error:
            breaker.silent(clock.boottime())
            raise Transient(f"Host {host_id} did not answer {row.name}.") from error
        except Busy as error:
            breaker.answered()
            raise Transient(f"Host {host_id} is busy: {error}") from error
        except (msgspec.DecodeError, WireError) as error:
            breaker.answered()
            if isinstance(error, WireError):
                raise
            raise Invalid(f"the answer to {row.name} is not one: {error}") from error
        breaker.answered()
        return reply

    @contextmanager
    def _listening(self, host_id: str, noun: str, object_id: str) -> Iterator[_Wait]:
        wait, key = _Wait(), (host_id, noun, object_id)
        self._waits[key].append(wait)
        try:
            yield wait
        finally:
            self._waits[key].remove(wait)
            if not self._waits[key]:
                del self._waits[key]

    # Hearing. Everything up to the callbacks is synchronous, so events are taken in the order in which they came.

    async def _event(self, message: Message) -> None:
        host_id, noun = subjects.host_of(message.subject), message.subject.rpartition(".")[2]
        if host_id in self._removed:
            return
        if not self._liveness.knows(host_id):
            _each(self._on_stranger, host_id)
            return
        try:
            envelope = decode(message.data, EventEnvelope)
            body = decode(envelope.body, EVENTS[noun]) if noun in EVENTS else None
        except msgspec.DecodeError as error:
            log.warning("event cannot be read", host=host_id, noun=noun, error=str(error))
            return
        in_order = self._in_order(host_id, envelope)
        self._alive(host_id)
        if isinstance(body, Heartbeat):
            self._beat(host_id, body)
        elif isinstance(body, Inventory):
            self.want_sync(host_id)
        elif isinstance(body, ObjectStatus):
            self._tell(host_id, noun, body)
        if body is not None and in_order:
            await self._call_back(host_id, noun, body)

    def _in_order(self, host_id: str, envelope: EventEnvelope) -> bool:
        """False for one that was overtaken: newer news were told already, and the gap had the host synced."""
        boot, last = self._sequences.get(host_id, ("", 0))
        if boot != envelope.boot:
            self._sequences[host_id] = (envelope.boot, envelope.sequence)
            if boot:
                self.want_sync(host_id)
            return True
        if envelope.sequence <= last:
            return False
        self._sequences[host_id] = (boot, envelope.sequence)
        if envelope.sequence > last + 1:
            self.want_sync(host_id)
        return True

    def _alive(self, host_id: str) -> None:
        self._breakers[host_id].answered()
        if self._liveness.beat(host_id, self._world.clock.boottime()):
            log.info("host is up", host=host_id)
            for changed in self._on_transition:
                changed(host_id, True)
            self.want_sync(host_id)

    def _beat(self, host_id: str, heartbeat: Heartbeat) -> None:
        self._heartbeats[host_id] = heartbeat
        self._heard_at[host_id] = self._world.clock.boottime()
        if self._mirrors[host_id].digest() != heartbeat.digest and not self._syncs.has(host_id):
            self._syncs.want(host_id)

    def _tell(self, host_id: str, noun: str, status: ObjectStatus) -> None:
        absent = True if status.progress is Progress.ABSENT else None
        self._mirrors[host_id].note(noun, status, absent)
        for wait in self._waits.get((host_id, noun, status.id), ()):
            wait.status = status
            wait.news.set()

    async def _call_back(self, host_id: str, noun: str, body: Any) -> None:
        for callback in self._callbacks.get(noun, ()):
            try:
                pending = callback(host_id, body)
                if inspect.isawaitable(pending):
                    await pending
            except Exception:  # One listener's failure is not the others'.
                log.exception("event callback failed", host=host_id, noun=noun)

    def _lost(self) -> None:
        """Messages may have been lost: every host is in doubt."""
        for host_id in self._liveness.up():
            self.want_sync(host_id)

    # Bringing in line.

    async def _sync(self, host_id: str) -> None:
        if not self._liveness.is_up(host_id):
            return  # Its return will ask for it again.
        differs = self._mirrors[host_id].fill(await self._ledger(host_id))
        if not differs and host_id not in self._in_doubt:
            return
        self._in_doubt.discard(host_id)
        try:
            for converge in self._on_sync:
                await converge(host_id)
        except BaseException:
            self._in_doubt.add(host_id)
            raise

    async def _ledger(self, host_id: str) -> list[LedgerEntry]:
        entries: list[LedgerEntry] = []
        after: str | None = None
        for _ in range(LEDGER_PAGES_MAX):
            page = await self.call(host_id, host_calls.LEDGER, LedgerRequest(after=after))
            entries += page.entries
            after = page.next
            if after is None:
                return entries
        raise errors.Unavailable(f"The ledger of host {host_id} does not end.")

    # Watching.

    async def _own_echo(self, message: Message) -> None:
        self._echo_at = self._world.clock.boottime()

    async def _speak(self) -> None:
        while True:
            await self._bus.publish(subjects.service_event("fleet", self._echo), b"{}")
            await asyncio.sleep(ECHO_S)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            now = self._world.clock.boottime()
            if self._echo_at is None or now - self._echo_at > DEAF_S:
                self._liveness.extend(now)
                continue
            for host_id in self._liveness.expire(now):
                log.warning("host is down", host=host_id)
                for changed in self._on_transition:
                    changed(host_id, False)


async def _told(wait: _Wait, timeout_s: float) -> bool:
    """Whether an event came in time; also one that came before anybody waited."""
    try:
        async with asyncio.timeout(timeout_s):
            await wait.news.wait()
    except TimeoutError:
        return False
    wait.news.clear()
    return True


def _is_at_end(host_id: str, status: ObjectStatus, request: ObjectSpec | Absence, end: Progress) -> bool:
    """Whether the host has carried out this very request. Raises when it never will."""
    if status.id != request.id or status.generation < request.generation:
        return False
    if status.generation > request.generation:
        raise errors.Conflict(
            f"Host {host_id} holds generation {status.generation} of {request.id}, newer than {request.generation}.",
            why={"host": host_id, "code": FaultCode.STALE.value},
        )
    if status.progress is Progress.FAILED and status.fault is not None and status.fault.code in _TERMINAL:
        raise _refused(host_id, raised(status.fault))
    return status.progress is end


def _unfinished(host_id: str, row: Call[Any, Any], object_id: str, status: ObjectStatus) -> str:
    what = f"Host {host_id}, {row.name} {object_id}: {status.progress.value}"
    return what if status.fault is None else f"{what}, {status.fault.message}"


def _refused(host_id: str, error: WireError) -> errors.CloudError:
    """What a host's refusal is to the one who waits for it."""
    fault: Fault = error.fault()
    why = {"host": host_id, "code": fault.code.value}
    kinds: dict[FaultCode, type[errors.CloudError]] = {
        FaultCode.INVALID: errors.Invalid,
        FaultCode.NOT_FOUND: errors.NotFound,
        FaultCode.READ_ONLY: errors.Unavailable,
        FaultCode.FAILED: errors.Unavailable,
    }
    return kinds.get(fault.code, errors.Conflict)(f"The host refused it: {fault.message}", why=why)


def _headers() -> dict[str, str]:
    """Whose request this is, from what the log of this task is bound to."""
    bound = structlog.contextvars.get_contextvars()
    pairs = ((REQUEST_ID_HEADER, bound.get("request_id")), (TRACEPARENT_HEADER, bound.get("traceparent")))
    return {name: str(value) for name, value in pairs if value}


def _each(callbacks: list[Callable[[str], None]], host_id: str) -> None:
    for callback in callbacks:
        callback(host_id)
