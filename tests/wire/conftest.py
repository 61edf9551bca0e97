"""Fixtures of the bus tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.bus_server import BusServer, bus_server


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[BusServer]:
    async with bus_server(tmp_path) as running:
        yield running
