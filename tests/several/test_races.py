"""Fifty at once on what is scarce, through real processes: the same on every kind of database."""

import pytest

from tests.databases import fresh_database
from tests.several import ground
from tests.several.site import site

pytestmark = pytest.mark.timeout(400)


def test_fifty_at_once_through_one_controller_on_sqlite() -> None:
    with site("", controllers=1) as one:
        ground.races(one)


@pytest.mark.postgres
def test_fifty_at_once_through_two_controllers_on_postgresql(postgres_url: str) -> None:
    with fresh_database(postgres_url) as url, site(url) as two:
        ground.races(two)
