"""Calls about security groups and their members."""

from agent.handlers.objects import Desk, Routes, converging
from agent.nouns import Noun
from agent.wire.bus import Message, answering
from agent.wire.group import (
    ABSENT,
    ADDRESSES_ABSENT,
    ADDRESSES_DELTA,
    ADDRESSES_ENSURE,
    ADDRESSES_GET,
    ENSURE,
    GET,
    AddressesDelta,
    AddressesSpec,
    GroupStatus,
    applied,
)


def routes(desk: Desk) -> Routes:
    """See agent.wire.group."""

    async def on_delta(delta: AddressesDelta, message: Message) -> GroupStatus:
        status = await desk.change(Noun.ADDRESSES, AddressesSpec, delta, applied, message)
        assert isinstance(status, GroupStatus), "statuses are kept by noun"
        return status

    return {
        **converging(desk, Noun.GROUP, ENSURE, ABSENT, GET),
        **converging(desk, Noun.ADDRESSES, ADDRESSES_ENSURE, ADDRESSES_ABSENT, ADDRESSES_GET),
        ADDRESSES_DELTA.name: answering(ADDRESSES_DELTA, on_delta),
    }
