"""One cloud with every service a test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.services import services
from tests.api.clouds import ApiCloud, api_cloud


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[ApiCloud]:
    async with api_cloud(tmp_path, services()) as made:
        yield made
