"""What all nouns share: decode → ledger → wake the worker → wait a little → answer how far it is."""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec
import structlog

from agent.effects import Effects
from agent.nouns import Key, Noun
from agent.reconciler import Reconciler
from agent.wire.bus import REQUEST_ID_HEADER, Handler, Message, answering
from agent.wire.errors import Conflict, Stale
from agent.wire.lifecycle import Generation, Progress
from agent.wire.specs import FAST_S, Absence, Call, ObjectSpec, ObjectStatus, Ref, encode

WAIT_S: Final = FAST_S - 0.5
"""How long an answer waits for the work to end. Longer: the caller gives up first. Shorter: more asking again."""

R = TypeVar("R", bound=ObjectStatus)
S = TypeVar("S", bound=ObjectSpec)
D = TypeVar("D", bound=ObjectSpec)

Routes = Mapping[str, Handler]
"""Handlers by the call's name."""

log = structlog.get_logger()


class Desk:
    """Where commands arrive."""

    def __init__(self, fx: Effects, reconciler: Reconciler) -> None:
        self.fx = fx
        self.reconciler = reconciler

    async def ensure(self, noun: Noun, spec: ObjectSpec, message: Message) -> ObjectStatus:
        """Take over an intent. Raises Stale, Conflict, ReadOnly."""
        key = Key(noun, spec.id)
        is_new = self.fx.ledger.put(noun, spec, message.data, self.fx.world.clock.now())
        entry = self.fx.ledger.find(key)
        assert entry is not None, "it was just written"
        if noun is Noun.DOMAIN:
            self.fx.ledger.release(spec.id)
        self.fx.accepted(entry)
        _note("ensure", key, spec.generation, message)
        return await self._answer(key, is_new or self.reconciler.progress(entry) is not Progress.READY)

    async def change(self, noun: Noun, kind: type[S], delta: D, applied: Callable[[S, D], S], message: Message) -> Any:
        """Take over a change of what is held; a repeat does nothing. Raises Conflict for a gap, Stale if it is old."""
        key = Key(noun, delta.id)
        entry = self.fx.ledger.find(key)
        if entry is not None and entry.generation > delta.generation:
            raise Stale(f"{key}: generation {entry.generation} is newer than {delta.generation}")
        if entry is None or entry.absent or not isinstance(entry.spec, kind):
            raise Conflict(f"{key} is not known to this host")
        spec = entry.spec if entry.generation == delta.generation else applied(entry.spec, delta)
        whole = msgspec.structs.replace(message, data=encode(spec))  # What the ledger keeps.
        return await self.ensure(noun, spec, whole)

    async def absent(self, noun: Noun, absence: Absence, message: Message) -> ObjectStatus:
        """Take over that something should be gone. Raises Stale, Conflict."""
        key = Key(noun, absence.id)
        is_new = self.fx.ledger.bury(key, absence.generation, self.fx.world.clock.now())
        entry = self.fx.ledger.find(key)
        assert entry is not None, "it was just written"
        _note("absent", key, absence.generation, message)
        return await self._answer(key, is_new or self.reconciler.progress(entry) is not Progress.ABSENT)

    async def _answer(self, key: Key, has_work: bool) -> ObjectStatus:
        if has_work:
            self.reconciler.kick(key)
            await self.reconciler.rest(key, WAIT_S)
        return self.reconciler.status(key)


def converging(
    desk: Desk, noun: Noun, ensure: Call[Any, Any], absent: Call[Absence, Any], get: Call[Ref, Any]
) -> dict[str, Handler]:
    """The three routes that every noun has."""

    async def on_ensure(spec: ObjectSpec, message: Message) -> ObjectStatus:
        return await desk.ensure(noun, spec, message)

    async def on_absent(absence: Absence, message: Message) -> ObjectStatus:
        return await desk.absent(noun, absence, message)

    async def on_get(ref: Ref, message: Message) -> ObjectStatus:
        return desk.reconciler.status(Key(noun, ref.id))

    return {
        ensure.name: answering(ensure, on_ensure),
        absent.name: answering(absent, on_absent),
        get.name: answering(get, on_get),
    }


def _note(verb: str, key: Key, generation: Generation, message: Message) -> None:
    request_id = message.headers.get(REQUEST_ID_HEADER, "")
    log.info("asked", verb=verb, noun=key.noun, id=key.id, generation=str(generation), request_id=request_id)
