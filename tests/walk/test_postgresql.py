"""The same cloud on PostgreSQL, with a real guest: only where the rows are differs."""

from collections.abc import Iterator

import pytest

from tests.databases import fresh_database, postgres_server
from tests.walk.cloud import Cloud, running_cloud
from tests.walk.leftovers import traces
from tests.walk.login import Login

pytestmark = pytest.mark.postgres


@pytest.fixture
def database() -> Iterator[str]:
    with postgres_server() as server, fresh_database(server) as url:
        yield url


def test_hostler_up_with_a_database_of_its_own_choice(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTLER_CONTROLLER_DATABASE", database)
    with running_cloud("postgres-") as cloud:
        trial = cloud.trial
        _works(cloud)
        assert (trial.folder / "cloud.json").stat().st_mode & 0o077 == 0
        cloud.hostler("down")
        cloud.up()
        _works(cloud)
    left = traces(trial)
    assert not left, "left on this machine:\n" + "\n".join(left)


def _works(cloud: Cloud) -> None:
    server_id = cloud.server_id("first")
    login = Login(cloud.floating_address(server_id), cloud.trial.folder / "id_ed25519")
    login.wait()
    assert server_id in login.run("timeout 5 wget -q -O - http://169.254.169.254/openstack/latest/meta_data.json", 60)
    assert not (cloud.trial.controller_folder / "controller.db").exists()
    assert "not running" not in cloud.hostler("status")
