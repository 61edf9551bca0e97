"""Fixtures of the walk: one cloud for the session, its client, and a look at what each test leaves."""

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.walk import client
from tests.walk.client import OpenStack
from tests.walk.cloud import Cloud, running_cloud
from tests.walk.leftovers import leftovers, traces
from tests.walk.sweep import sweep

HERE = Path(__file__).parent
FAILED = pytest.StashKey[bool]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here is the walk, and has guests to wait for."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.walk)
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
def cloud() -> Iterator[Cloud]:
    """The session's cloud, gone without a trace at its end."""
    with running_cloud() as cloud:
        trial = cloud.trial
        yield cloud
    left = traces(trial)
    assert not left, "left on this machine:\n" + "\n".join(left)


@pytest.fixture(scope="session")
def pair() -> Iterator[Cloud]:
    """A cloud of two hosts, for what one alone cannot show."""
    with running_cloud("pair-", hosts=2) as pair:
        trial = pair.trial
        yield pair
    left = traces(trial)
    assert not left, "left on this machine:\n" + "\n".join(left)


@pytest.fixture(scope="session")
def openstack(cloud: Cloud) -> OpenStack:
    return client.openstack(cloud)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fixtures may ask how the test ended."""
    report = yield
    item.stash.setdefault(FAILED, False)
    item.stash[FAILED] |= report.failed
    return report


@pytest.fixture
def nothing_left(cloud: Cloud, request: pytest.FixtureRequest) -> Iterator[None]:
    """The test leaves the cloud as it found it. After a failed one somebody sweeps, and nobody compares."""
    watch = leftovers(cloud)
    watch.__enter__()
    yield
    if request.node.stash.get(FAILED, False):
        sweep(cloud)
    else:
        watch.__exit__(None, None, None)
