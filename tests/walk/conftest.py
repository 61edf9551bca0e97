"""Fixtures of the walk: one cloud for the session, its client, and a look at what each test leaves."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.walk import client
from tests.walk.client import OpenStack
from tests.walk.cloud import Cloud, running_cloud
from tests.walk.leftovers import leftovers

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here is the walk, and has guests to wait for."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.walk)
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
def cloud() -> Iterator[Cloud]:
    with running_cloud() as cloud:
        yield cloud


@pytest.fixture(scope="session")
def openstack(cloud: Cloud) -> OpenStack:
    return client.openstack(cloud)


@pytest.fixture
def nothing_left(cloud: Cloud) -> Iterator[None]:
    """The test leaves the cloud as it found it."""
    with leftovers(cloud):
        yield
