"""The bus of the simulation: it drops, delays, repeats and reorders by the seed, and parties can be cut off.

It gives what `agent.wire.bus.Bus` promises and no more. Messages are bytes, as really encoded. A handler runs in the
life of whoever subscribed, so nobody answers for the dead. What is carried costs no task: a message is one timer.
"""

import asyncio
import contextvars
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import msgspec

from agent.wire.bus import Handler, Message, _bound, _within_bound
from agent.wire.errors import Silent, Unheard
from tests.sim.hands import Hands
from tests.sim.loop import LIFE, Life, Severed
from tests.sim.trace import Trace


class Weather(msgspec.Struct, frozen=True, kw_only=True):
    """How bad the bus is."""

    drop: float = 0.0  # Of one way of one message.
    repeat: float = 0.0
    linger: float = 0.0  # How often one is late,
    linger_s: float = 0.3  # and by how much at most.
    delay_s: float = 0.004  # Else.


CALM = Weather()

Report = Callable[[str, BaseException], None]
"""(where, what): a handler raised, which is a bug of whoever wrote it."""


@dataclass(eq=False, slots=True)
class _Standing:
    """One subscription."""

    endpoint: "Endpoint"
    pattern: tuple[str, ...]
    handler: Handler
    queue: str
    context: contextvars.Context

    def matches(self, words: list[str]) -> bool:
        return len(words) == len(self.pattern) and all(
            want in ("*", word) for want, word in zip(self.pattern, words, strict=True)
        )

    async def close(self) -> None:
        """See Subscription."""
        self.endpoint.drop(self)


@dataclass(eq=False)
class Endpoint:
    """One life's connection to the bus: a `Bus`."""

    fabric: "Fabric"
    hands: Hands
    standing: list[_Standing] = field(default_factory=list)
    gaps: list[tuple[Callable[[], None], contextvars.Context]] = field(default_factory=list)
    is_cut: bool = False
    healed_at: float = 0.0
    inbox: list[Callable[[], None]] = field(default_factory=list)  # What came while the party stood still.

    @property
    def life(self) -> Life:
        """Whose it is."""
        return self.hands.life

    async def request(self, subject: str, data: bytes, headers: Mapping[str, str], timeout_s: float) -> bytes:
        """See Bus."""
        _bound(subject, data)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.hands.do(
            f"> {short(subject)} {_about(data)}", self.fabric.send, self, Message(subject, data, dict(headers)), answer
        )
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError as error:
            raise Silent(f"{subject}: no answer in time") from error

    async def publish(self, subject: str, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        """See Bus."""
        _bound(subject, data)
        self.hands.do(
            f"! {short(subject)} {_about(data)}",
            self.fabric.send,
            self,
            Message(subject, data, dict(headers or {})),
            None,
        )

    async def subscribe(self, subject: str, handler: Handler, queue: str = "") -> _Standing:
        """See Bus."""
        self.life.require()
        made = _Standing(self, tuple(subject.split(".")), handler, queue, contextvars.copy_context())
        self.standing.append(made)
        self.fabric.forget_routes()
        return made

    def on_gap(self, callback: Callable[[], None]) -> None:
        """See Bus."""
        self.gaps.append((callback, contextvars.copy_context()))

    def drop(self, standing: _Standing) -> None:
        """End a subscription."""
        if standing in self.standing:
            self.standing.remove(standing)
            self.fabric.forget_routes()


class Fabric:
    """The bus itself, which never dies."""

    def __init__(self, loop: asyncio.AbstractEventLoop, chance: random.Random, trace: Trace, report: Report) -> None:
        self.weather = CALM
        self._loop = loop
        self._chance = chance
        self._trace = trace
        self._report = report
        self._endpoints: list[Endpoint] = []
        self._routes: dict[str, list[_Standing]] = {}
        self._nobody = contextvars.Context()
        self.carried = 0

    def attach(self, hands: Hands) -> Endpoint:
        """A new connection."""
        made = Endpoint(self, hands)
        self._endpoints.append(made)
        return made

    def detach(self, endpoint: Endpoint) -> None:
        """Its process has died: the server notices at once."""
        if endpoint in self._endpoints:
            self._endpoints.remove(endpoint)
            self.forget_routes()

    def cut(self, endpoint: Endpoint) -> None:
        """Nothing passes between this party and the bus from now on, and nobody notices."""
        endpoint.is_cut = True

    def heal(self, endpoint: Endpoint) -> None:
        """It is connected again, and knows that messages may have been lost."""
        if endpoint.is_cut:
            endpoint.is_cut = False
            endpoint.healed_at = self._loop.time()
            self.gap(endpoint)

    def catch_up(self, endpoint: Endpoint) -> None:
        """It goes on: what is in its socket comes after the timers that have passed."""
        inbox, endpoint.inbox = endpoint.inbox, []
        for arrive in inbox:
            self._loop.call_soon(arrive, context=self._nobody)

    def gap(self, endpoint: Endpoint) -> None:
        """Tell a party that messages may have been lost."""
        for callback, context in endpoint.gaps:
            self._loop.call_soon(callback, context=context)

    def forget_routes(self) -> None:
        """Subscriptions have changed."""
        self._routes.clear()

    def send(self, sender: Endpoint, message: Message, answer: "asyncio.Future[bytes] | None") -> None:
        """Carry a message to whoever listens, and an answer back to `answer`."""
        if sender.is_cut:
            return
        receivers = self._receivers(message.subject)
        if not receivers and answer is not None:
            error = Unheard(f"{message.subject}: nobody listens")
            self._later(0.001, _fail, answer, error)
        for standing in receivers:
            for delay_s in self._copies():
                self._later(delay_s, self._arrive, standing, message, sender, answer)

    def _receivers(self, subject: str) -> list[_Standing]:
        found = self._routes.get(subject)
        if found is None:
            words = subject.split(".")
            found = [one for endpoint in self._endpoints for one in endpoint.standing if one.matches(words)]
            self._routes[subject] = found
        if any(one.queue for one in found):
            return self._one_of_each_queue(found)
        return found

    def _one_of_each_queue(self, found: list[_Standing]) -> list[_Standing]:
        queues: dict[str, list[_Standing]] = {}
        for one in found:
            queues.setdefault(one.queue or f"{id(one)}", []).append(one)
        return [self._chance.choice(members) for members in queues.values()]

    def _copies(self) -> list[float]:
        """The delay of each copy that gets through."""
        weather, chance = self.weather, self._chance.random
        count = 2 if weather.repeat and chance() < weather.repeat else 1
        return [self._delay_s() for _ in range(count) if not (weather.drop and chance() < weather.drop)]

    def _delay_s(self) -> float:
        weather, chance = self.weather, self._chance
        if weather.linger and chance.random() < weather.linger:
            return chance.uniform(0.0, weather.linger_s)
        return chance.uniform(0.0002, weather.delay_s)

    def _arrive(
        self, standing: _Standing, message: Message, sender: Endpoint, answer: "asyncio.Future[bytes] | None"
    ) -> None:
        receiver = standing.endpoint
        if receiver.is_cut or not receiver.life.alive or standing not in receiver.standing:
            return
        if receiver.life.is_paused:
            receiver.inbox.append(partial(self._arrive, standing, message, sender, answer))
            return
        self.carried += 1
        self._trace.note(receiver.life.name, f"< {short(message.subject)} {_about(message.data)}", message.data)
        standing.context.run(self._loop.create_task, self._handle(standing, message, sender, answer))

    async def _handle(
        self, standing: _Standing, message: Message, sender: Endpoint, answer: "asyncio.Future[bytes] | None"
    ) -> None:
        receiver = standing.endpoint
        try:
            reply = await standing.handler(message)
            if reply is not None and answer is not None:
                reply = _within_bound(message.subject, reply)
                receiver.hands.do(
                    f"= {short(message.subject)} {_about(message.data)}", self._answer, receiver, sender, answer, reply
                )
        except (Severed, asyncio.CancelledError):
            raise
        except Exception as error:
            self._report(f"{receiver.life.name} {message.subject}", error)

    def _answer(self, receiver: Endpoint, sender: Endpoint, answer: "asyncio.Future[bytes]", reply: bytes) -> None:
        if not receiver.is_cut:
            for delay_s in self._copies():
                self._later(delay_s, self._answered, sender, answer, reply)

    def _answered(self, sender: Endpoint, answer: "asyncio.Future[bytes]", reply: bytes) -> None:
        if sender.is_cut or answer.done():
            return
        if sender.life.is_paused:
            sender.inbox.append(partial(self._answered, sender, answer, reply))
            return
        self._trace.note(sender.life.name, f"answered {_about(reply)}", reply)
        answer.set_result(reply)

    def _later(self, delay_s: float, callback: Callable[..., None], *args: object) -> None:
        self._loop.call_later(delay_s, callback, *args, context=self._nobody)


def _fail(answer: "asyncio.Future[bytes]", error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
        answer.exception()  # Seen: whoever waits may have just given up.


def short(subject: str) -> str:
    """A subject without what all have."""
    words = subject.split(".")[2:]
    return ".".join(f"h{word[-1]}" if len(word) == 36 else word for word in words)


_ABOUT = re.compile(rb'"id":"([^"]{8})[^"]*"(?:,"generation":\[\d+,(\d+)\])?(?:,"progress":"(\w+)")?')


def _about(data: bytes) -> str:
    """Which object a message is about, at which generation, how far: for people who read the trace."""
    found = _ABOUT.search(data)
    if found is None:
        return data[:80].decode() if data.startswith(b'{"fault') else ""
    return b" ".join(part for part in found.groups() if part).decode()


def in_life(life: Life) -> contextvars.Context:
    """A context of this life."""
    context = contextvars.Context()
    context.run(LIFE.set, life)
    return context
