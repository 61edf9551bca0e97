"""Calls about who is behind which tunnel end."""

import msgspec

from agent.handlers.objects import Desk, Routes, converging
from agent.nouns import Key, Noun
from agent.wire.bus import Message, answering
from agent.wire.errors import Conflict, Stale
from agent.wire.forwarding import (
    ABSENT,
    DELTA,
    ENSURE,
    GET,
    ForwardingDelta,
    ForwardingSpec,
    ForwardingStatus,
    applied,
)
from agent.wire.specs import encode


def routes(desk: Desk) -> Routes:
    """See agent.wire.forwarding."""

    async def on_delta(delta: ForwardingDelta, message: Message) -> ForwardingStatus:
        return await change(desk, delta, message)

    return {
        **converging(desk, Noun.FORWARDING, ENSURE, ABSENT, GET),
        DELTA.name: answering(DELTA, on_delta),
    }


async def change(desk: Desk, delta: ForwardingDelta, message: Message) -> ForwardingStatus:
    """Take over a change of what is held. A repeat does nothing. Raises Conflict for a gap, Stale for older ones."""
    key = Key(Noun.FORWARDING, delta.id)
    entry = desk.fx.ledger.find(key)
    if entry is not None and entry.generation > delta.generation:
        raise Stale(f"{key}: generation {entry.generation} is newer than {delta.generation}")
    if entry is None or entry.absent or not isinstance(entry.spec, ForwardingSpec):
        raise Conflict(f"{key} is not known to this host")
    spec = entry.spec if entry.generation == delta.generation else applied(entry.spec, delta)
    whole = msgspec.structs.replace(message, data=encode(spec))  # What the ledger keeps.
    status = await desk.ensure(Noun.FORWARDING, spec, whole)
    assert isinstance(status, ForwardingStatus), "statuses are kept by noun"
    return status
