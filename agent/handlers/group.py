"""Calls about security groups and their members."""

from agent.handlers.objects import Desk, Routes, converging
from agent.nouns import Noun
from agent.wire.group import ABSENT, ADDRESSES_ABSENT, ADDRESSES_ENSURE, ADDRESSES_GET, ENSURE, GET


def routes(desk: Desk) -> Routes:
    """See agent.wire.group."""
    return {
        **converging(desk, Noun.GROUP, ENSURE, ABSENT, GET),
        **converging(desk, Noun.ADDRESSES, ADDRESSES_ENSURE, ADDRESSES_ABSENT, ADDRESSES_GET),
    }
