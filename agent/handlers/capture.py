"""Calls about captures."""

from agent.handlers.objects import Desk, Routes, converging
from agent.nouns import Noun
from agent.wire.capture import ABSENT, ENSURE, GET


def routes(desk: Desk) -> Routes:
    """See agent.wire.capture."""
    return converging(desk, Noun.CAPTURE, ENSURE, ABSENT, GET)
