"""Calls about networks."""

from agent.handlers.objects import Desk, Routes, converging
from agent.nouns import Noun
from agent.wire.network import ABSENT, ENSURE, GET


def routes(desk: Desk) -> Routes:
    """See agent.wire.network."""
    return converging(desk, Noun.NETWORK, ENSURE, ABSENT, GET)
