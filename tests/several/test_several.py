"""Two controllers on one PostgreSQL are one cloud: tokens, sagas and what is scarce, whichever of them one asks."""

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.databases import fresh_database
from tests.several import ground
from tests.several.site import FOREVER_S, Controller, Site, site, until

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def database(postgres_url: str) -> Iterator[str]:
    with fresh_database(postgres_url) as url:
        yield url


@pytest.fixture(scope="module")
def two(database: str) -> Iterator[Site]:
    with site(database, slow_driver_s=0.3) as made:
        yield made


def ask(
    controller: Controller, token: str, method: str = "GET", path: str = "/compute/v2.1/servers", **more: str
) -> int:
    """The status of a request with this very token."""
    request = urllib.request.Request(controller.url + path, method=method, headers={"X-Auth-Token": token, **more})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def a_token(two: Site, number: int) -> str:
    client = two.demo(number)
    client.login()
    return client._token


def test_a_token_of_one_is_good_at_the_other_and_a_revoked_one_is_refused_there_within_a_second(two: Site) -> None:
    for here, there in ((0, 1), (1, 0)):
        token = a_token(two, here)
        controllers = two.controllers
        assert ask(controllers[here], token) == ask(controllers[there], token) == 200
        revoked = {"X-Subject-Token": token}
        other = a_token(two, here)
        assert ask(controllers[here], other, "DELETE", "/identity/v3/auth/tokens", **revoked) == 204
        time.sleep(1.0)
        assert ask(controllers[there], token) == ask(controllers[here], token) == 401
        assert ask(controllers[there], other) == 200


def test_what_ends_tokens_at_one_ends_them_at_the_other_with_the_bus_away(two: Site) -> None:
    """The bus only hastens it."""
    admin = two.admin()
    body = {"user": {"name": "leaver", "password": "a long way", "domain_id": "default"}}
    user = admin.post("/identity/v3/users", body)["user"]["id"]
    (role,) = [one["id"] for one in admin.get("/identity/v3/roles?name=member")["roles"]]
    admin.put(f"/identity/v3/projects/{admin.project_id}/users/{user}/roles/{role}", None)
    leaver = two.controllers[1].client("leaver", "a long way", "admin")
    leaver.login()
    assert ask(two.controllers[1], leaver._token) == 200
    two.nats.kill()
    try:
        admin.delete(f"/identity/v3/users/{user}")
        time.sleep(1.0)
        assert ask(two.controllers[1], leaver._token) == 401
    finally:
        two.nats.start()


def test_each_shows_what_the_other_made_and_knows_the_same_hosts(two: Site) -> None:
    network = ground.network(two.demo(0), "seen")
    assert two.demo(1).get(f"/network/v2.0/networks/{network}")["network"]["name"] == "seen"
    names = [{one["hostname"] for one in two.admin(n).get("/operator/v1/hosts")["hosts"]} for n in (0, 1)]
    assert names[0] == names[1] == {"host0", "host1"}

    def both_see_them_up() -> bool:
        return all(one["is_up"] for n in (0, 1) for one in two.admin(n).get("/operator/v1/status")["hosts"])

    until("both see every host up", both_see_them_up)


def test_servers_are_made_and_removed_through_either(two: Site) -> None:
    image = ground.image(two.admin(0))
    network = ground.network(two.demo(1), "either")
    servers = [ground.server(two.demo(n), f"either{n}", image, network) for n in (0, 1)]
    for n, server in enumerate(servers):
        ground.settled(two.demo(1 - n), server, "ACTIVE")
    for n, server in enumerate(servers):
        two.demo(1 - n).delete(f"/compute/v2.1/servers/{server}")
        until("it is gone", lambda n=n, server=server: ground.is_gone(two.demo(n), server))  # type: ignore[misc]


def test_what_was_used_is_told_by_either(two: Site) -> None:
    """With the times that the `openstack` client sends. A controller that gave up root can import nothing more."""
    demo = two.demo(0)
    server = ground.server(demo, "used", ground.image(two.admin(0)), ground.network(demo, "used"))
    ground.settled(demo, server, "ACTIVE")
    query = "start=2026-01-01T20:26:17.849504&end=2199-01-01T00:00:00.000000"
    for client in (two.demo(0), two.demo(1)):
        client.login()
        found = client.get(f"/compute/v2.1/os-simple-tenant-usage/{client.project_id}?{query}")["tenant_usage"]
        (one,) = [one for one in found["server_usages"] if one["instance_id"] == server]
        assert one["hours"] > 0.0 and one["state"] == "active"
    listed = two.admin(1).get(f"/compute/v2.1/os-simple-tenant-usage?{query}&detailed=1")["tenant_usages"]
    assert demo.project_id in {one["tenant_id"] for one in listed}
    demo.delete(f"/compute/v2.1/servers/{server}")


@pytest.mark.parametrize("what", ["create", "delete"])
def test_a_saga_whose_controller_was_killed_is_finished_by_the_other(two: Site, what: str) -> None:
    image = ground.image(two.admin(1))
    network = ground.network(two.demo(1), f"left-{what}")
    first, second = two.controllers
    if what == "create":
        server = ground.server(two.demo(0), "left", image, network)
    else:
        server = ground.server(two.demo(1), "left", image, network)
        ground.settled(two.demo(1), server, "ACTIVE")
        two.demo(0).delete(f"/compute/v2.1/servers/{server}")
    until("the saga is under way", lambda: _step_of(two, server))
    first.kill()
    try:
        admin = second.client("admin", two.password("admin"), "admin")
        assert _kinds(admin, server), "it was killed too late: the saga had ended"
        if what == "create":
            ground.settled(two.demo(1), server, "ACTIVE", FOREVER_S)
            actions = two.demo(1).get(f"/compute/v2.1/servers/{server}/os-instance-actions")["instanceActions"]
            assert [(one["action"], one["message"]) for one in actions] == [("create", None)]
            two.demo(1).delete(f"/compute/v2.1/servers/{server}")
        until("it is gone", lambda: ground.is_gone(two.demo(1), server), FOREVER_S)
        assert two.demo(1).get(f"/network/v2.0/ports?network_id={network}&device_id={server}")["ports"] == []
    finally:
        first.start()
        until("the first controller is back", first.answers)


def _kinds(admin: Any, server: str) -> list[str]:
    return [one["kind"] for one in admin.get("/operator/v1/status")["sagas"] if one["target"] == server]


def _step_of(two: Site, server: str) -> str | None:
    """Where the server's saga is, as the controller shows that does not run it."""
    for one in two.admin(1).get("/operator/v1/status")["sagas"]:
        if one["target"] == server:
            return str(one["step"] or "begun")
    return None


def test_two_that_start_at_once_found_one_cloud(postgres_url: str) -> None:
    with fresh_database(postgres_url) as url, site(url, agents=1, at_once=True) as made:
        found = [one.state / "passwords" / "admin" for one in made.controllers]
        assert len([path for path in found if path.exists()]) == 1
        for name in ("authority/ca.key", "bus/account.seed", "bus/operator.jwt", "fernet/0", "fernet/1", "volume-key"):
            assert len({(one.state / name).read_bytes() for one in made.controllers}) == 1, name
        token = a_token(made, 0)
        assert ask(made.controllers[1], token) == 200


def test_a_controller_that_lacks_the_key_or_takes_anothers_folder_says_so(two: Site) -> None:
    env = dict(two.controllers[1].env)
    for changes, why in (
        ({"HOSTLER_CONTROLLER_STATE": str(two.folder / "new")}, "copy sealing-key"),
        ({}, "another controller works in"),
    ):
        argv = two.controllers[1].argv
        given = {**env, "HOSTLER_CONTROLLER_LISTEN": f"127.0.0.1:{ground.free_port()}", **changes}
        done = subprocess.run(argv, env={**ground.plain(), **given}, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2 and why in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_nothing_secret_is_readable_in_the_database(two: Site, database: str) -> None:
    said = ground.dump(database)
    for controller in two.controllers:
        for name in ("authority/ca.key", "bus/account.seed", "fernet/1", "volume-key"):
            secret = (controller.state / name).read_text().strip()
            assert secret not in said and json.dumps(secret)[1:-1] not in said, name
