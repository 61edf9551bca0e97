"""Fixtures of the fleet tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.controller.fleet.fleet import Fleet, running_fleet


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    async with running_fleet(tmp_path / "controller") as running:
        yield running
