"""Calls about disks."""

from agent.handlers.objects import Desk, Routes, converging
from agent.nouns import Noun
from agent.wire.disk import ABSENT, ENSURE, GET


def routes(desk: Desk) -> Routes:
    """See agent.wire.disk."""
    return converging(desk, Noun.DISK, ENSURE, ABSENT, GET)
