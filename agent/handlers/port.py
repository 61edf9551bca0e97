"""Calls about ports."""

from agent.handlers.objects import Desk, Routes, converging
from agent.nouns import Noun
from agent.wire.port import ABSENT, ENSURE, GET


def routes(desk: Desk) -> Routes:
    """See agent.wire.port."""
    return converging(desk, Noun.PORT, ENSURE, ABSENT, GET)
