"""Calls about volumes and their snapshots."""

from agent.handlers.objects import Desk, Routes, converging
from agent.nouns import Noun
from agent.wire.volume import ABSENT, ENSURE, GET, SNAPSHOT_ABSENT, SNAPSHOT_ENSURE, SNAPSHOT_GET


def routes(desk: Desk) -> Routes:
    """See agent.wire.volume."""
    return {
        **converging(desk, Noun.VOLUME, ENSURE, ABSENT, GET),
        **converging(desk, Noun.SNAPSHOT, SNAPSHOT_ENSURE, SNAPSHOT_ABSENT, SNAPSHOT_GET),
    }
