"""One cloud a test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.api.clouds import ApiCloud, api_cloud


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[ApiCloud]:
    async with api_cloud(tmp_path) as made:
        yield made
