"""Calls about who is behind which tunnel end."""

from agent.handlers.objects import Desk, Routes, converging
from agent.nouns import Noun
from agent.wire.bus import Message, answering
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


def routes(desk: Desk) -> Routes:
    """See agent.wire.forwarding."""

    async def on_delta(delta: ForwardingDelta, message: Message) -> ForwardingStatus:
        status = await desk.change(Noun.FORWARDING, ForwardingSpec, delta, applied, message)
        assert isinstance(status, ForwardingStatus), "statuses are kept by noun"
        return status

    return {
        **converging(desk, Noun.FORWARDING, ENSURE, ABSENT, GET),
        DELTA.name: answering(DELTA, on_delta),
    }
