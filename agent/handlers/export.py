"""Calls about exports of volumes."""

from agent.handlers.objects import Desk, Routes, converging
from agent.nouns import Noun
from agent.wire.volume import EXPORT_ABSENT, EXPORT_ENSURE, EXPORT_GET


def routes(desk: Desk) -> Routes:
    """See agent.wire.volume."""
    return converging(desk, Noun.EXPORT, EXPORT_ENSURE, EXPORT_ABSENT, EXPORT_GET)
