"""Keys and configuration of the bus: private, stable, and never more than asked for."""

import base64
import json
import stat
import time
from pathlib import Path

import pytest

from agent.wire.subjects import agent_permissions
from controller import bus_identity
from controller.bus_identity import BusIdentity, Listen, is_recent, is_user_key, reload, server_binary
from controller.errors import Invalid
from tests.bus_server import HostKey

NOW = time.time()


def claims(jwt: str) -> dict:
    part = jwt.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def listen(folder: Path, address: str = "198.18.0.1") -> Listen:
    return Listen(
        address=address, port=4222, certificate=folder / "c", key=folder / "k", folder=folder, ca=folder / "a"
    )


def test_keys_and_configuration_are_private_and_outlive_restarts(tmp_path: Path) -> None:
    first = BusIdentity(tmp_path)
    first.ensure_own_users(NOW)
    first.write_config(listen(tmp_path / "nats"), NOW)
    before = json.loads((tmp_path / "nats" / "nats.conf").read_text().partition("\n")[2])
    again = BusIdentity(tmp_path)
    again.write_config(listen(tmp_path / "nats"), NOW + 100)
    after = json.loads((tmp_path / "nats" / "nats.conf").read_text().partition("\n")[2])
    assert before["operator"] == after["operator"], "a running server refuses another operator"
    assert before["resolver_preload"].keys() == after["resolver_preload"].keys()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_a_host_is_given_its_own_subjects_and_nothing_else(tmp_path: Path) -> None:
    key = HostKey()
    jwt = claims(BusIdentity(tmp_path).host_jwt("h1", key.public, NOW))
    wanted = agent_permissions("h1")
    assert jwt["sub"] == key.public
    assert jwt["nats"]["pub"] == {"allow": list(wanted.publish)}
    assert jwt["nats"]["sub"] == {"allow": list(wanted.subscribe)}
    assert jwt["nats"]["resp"]["max"] == 1
    assert "exp" not in jwt, "a dead controller must not lock its fleet out"


_KEY = HostKey().public


@pytest.mark.parametrize(
    "key",
    ["", "U", "x" * 56, "A" + _KEY[1:], _KEY[:-1] + ("B" if _KEY[-1] == "A" else "A"), "ü" * 56],
    ids=["empty", "prefix-only", "not-base32", "an-account", "wrong-checksum", "not-ascii"],
)
def test_what_is_no_user_key_is_refused(tmp_path: Path, key: str) -> None:
    if key == HostKey().public:  # One in a million.
        return
    assert not is_user_key(key)
    with pytest.raises(Invalid):
        BusIdentity(tmp_path).host_jwt("h1", key, NOW)


def test_revocations_only_grow(tmp_path: Path) -> None:
    identity = BusIdentity(tmp_path)
    assert identity.revoke(["UA", "UB"], NOW)
    assert not identity.revoke(["UB"], NOW)
    assert BusIdentity(tmp_path).revoke(["UC"], NOW)
    assert sorted(identity.revoked()) == ["UA", "UB", "UC"]


@pytest.mark.parametrize("address", ["", "0.0.0.0", "::"])
def test_the_server_never_listens_everywhere(tmp_path: Path, address: str) -> None:
    with pytest.raises(AssertionError):
        BusIdentity(tmp_path).write_config(listen(tmp_path, address), NOW)


def test_a_pid_that_is_another_process_now_is_not_signalled(tmp_path: Path) -> None:
    import os

    (tmp_path / "pid").write_text(str(os.getpid()))
    assert not reload(tmp_path / "pid")
    assert not reload(tmp_path / "missing")


def test_a_server_that_is_too_old_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [is_recent(f"nats-server: v{n}\n") for n in ("2.9.10", "2.10.0", "2.15.1", "3.0.0", "1.99")] == [
        False,
        True,
        True,
        True,
        False,
    ]
    assert not is_recent("no such thing")
    monkeypatch.setattr(bus_identity.shutil, "which", lambda name: "/usr/bin/nats-server")
    assert server_binary(lambda path: "nats-server: v2.10.3") == Path("/usr/bin/nats-server")
    assert server_binary(lambda path: "nats-server: v2.9.3") != Path("/usr/bin/nats-server")
