"""Calls about routers."""

from agent.handlers.objects import Desk, Routes, converging
from agent.nouns import Noun
from agent.wire.router import ABSENT, ENSURE, GET


def routes(desk: Desk) -> Routes:
    """See agent.wire.router."""
    return converging(desk, Noun.ROUTER, ENSURE, ABSENT, GET)
