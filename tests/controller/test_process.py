"""`hostler-controller` as a process: it founds a cloud, says when it is ready, and ends when it is told."""

import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from controller.services import services
from tests.bus_server import free_port
from tests.rootless import read_late, watching

REPOSITORY = Path(__file__).parent.parent.parent

WATCHED = watching("from controller import __main__\n__main__.main()\n")


def environment(state: Path, **settings: str) -> dict[str, str]:
    """Ports of its own; a bus that nobody serves, which must not keep the API from answering."""
    port = free_port()
    own = {
        "STATE": str(state),
        "LISTEN": f"127.0.0.1:{port}",
        "PUBLIC_URL": f"http://127.0.0.1:{port}",
        "CHANNEL_LISTEN": f"127.0.0.1:{free_port()}",
        "METRICS_LISTEN": f"127.0.0.1:{free_port()}",
        "NATS": f"tls://127.0.0.1:{free_port()}",
        **settings,
    }
    return {"PATH": os.environ["PATH"], **{f"HOSTLER_CONTROLLER_{key}": value for key, value in own.items()}}


def argv(*more: str) -> list[str]:
    return [sys.executable, "-m", "controller", *more, "--config", "/nonexistent"]


@contextlib.contextmanager
def started(env: dict[str, str], command: Sequence[str] = ()) -> Iterator["subprocess.Popen[str]"]:
    """A controller that has said that it is ready."""
    process = subprocess.Popen(
        command or argv(), cwd=REPOSITORY, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("hostler-controller serves http://127.0.0.1:"), process.stderr and process.stderr.read()
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that a controller which has given up root still reaches; pytest's own are closed to it."""
    folder = Path(tempfile.mkdtemp(prefix="hostler-test-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


def fetched(url: str, body: Any = None, token: str = "") -> tuple[int, str]:
    headers = {"Content-Type": "application/json", **({"X-Auth-Token": token} if token else {})}
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=10) as reply:
            return reply.status, reply.headers.get("X-Subject-Token") or reply.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def login(url: str, state: Path) -> int:
    return _logged_in(url, state)[0]


def _token(url: str, state: Path) -> str:
    """The admin's, of the project admin."""
    return _logged_in(url, state, {"project": {"name": "admin", "domain": {"id": "default"}}})[1]


def _logged_in(url: str, state: Path, scope: dict[str, Any] | None = None) -> tuple[int, str]:
    user = {"name": "admin", "password": (state / "passwords" / "admin").read_text(), "domain": {"id": "default"}}
    auth: dict[str, Any] = {"identity": {"methods": ["password"], "password": {"user": user}}}
    return fetched(f"{url}/identity/v3/auth/tokens", {"auth": auth if scope is None else {**auth, "scope": scope}})


def upload(url: str, state: Path) -> int:
    """What an image's content is answered with."""
    fields = {"name": "one", "disk_format": "raw", "container_format": "bare"}
    token = _token(url, state)
    image = json.loads(fetched(f"{url}/image/v2/images", fields, token)[1])
    headers = {"Content-Type": "application/octet-stream", "X-Auth-Token": token}
    file = f"{url}/image/v2/images/{image['id']}/file"
    request = urllib.request.Request(file, bytes(1 << 20), headers, method="PUT")
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_it_founds_a_cloud_serves_it_and_ends_cleanly(place: Path) -> None:
    state = place / "controller"
    env = environment(state)
    url = env["HOSTLER_CONTROLLER_PUBLIC_URL"]
    with started(env) as process:
        assert fetched(f"{url}/identity/v3")[0] == 200
        assert login(url, state) == 201
        process.send_signal(signal.SIGHUP)
        assert login(url, state) == 201
        page = fetched(f"http://{env['HOSTLER_CONTROLLER_METRICS_LISTEN']}/metrics")[1]
        assert 'hostler_api_requests_total{service="identity",status="2xx"} 3' in page
        assert (state / "passwords" / "admin").stat().st_mode & 0o777 == 0o600
        assert state.stat().st_mode & 0o777 == 0o700
        second = subprocess.run(
            argv(), cwd=REPOSITORY, env=environment(state), capture_output=True, text=True, timeout=60
        )
        assert second.returncode == 2
        assert second.stderr.count("\n") == 1, "one sentence, no traceback"
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=30)
        assert process.returncode == 0
        assert (state / "passwords" / "admin").read_text() not in log
    with started(env):
        assert login(url, state) == 201


def rights_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: " ".join(value.split()) for name, _, value in (line.partition(":") for line in lines)}


def has_given_up_everything(pid: int, uid: int) -> bool:
    found = rights_of(pid)
    return (found["Uid"], found["Gid"], found["Groups"], found["NoNewPrivs"], int(found["CapEff"], 16)) == (
        f"{uid} {uid} {uid} {uid}",
        f"{uid} {uid} {uid} {uid}",
        "",
        "1",
        0,
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to give up")
def test_it_backs_its_database_up(place: Path) -> None:
    with started(environment(place / "controller")):
        copies: list[Path] = []
        for _ in range(300):
            copies = list((place / "controller" / "backups").glob("controller-*.db"))
            if copies:
                break
            time.sleep(0.1)
    (copy,) = copies
    with contextlib.closing(sqlite3.connect(f"file:{copy}?mode=ro", uri=True)) as database:
        assert database.execute("SELECT count(*) FROM user").fetchone()[0] >= 2


def test_started_as_root_it_is_somebody_else_before_it_serves(place: Path) -> None:
    state = place / "controller"
    (state / "images").mkdir(parents=True)
    (state / "images" / "old").touch()  # Of an earlier version that was root.
    (state / "images" / "elsewhere").symlink_to("/etc/passwd")
    env = environment(state, UID="65512", INSPECTOR_UID="65511")
    with started(env) as process:
        assert has_given_up_everything(process.pid, 65512)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        (inspector,) = (int(child) for child in children)
        assert has_given_up_everything(inspector, 65511)
        own_network, ours = (Path(f"/proc/{pid}/ns/net").readlink() for pid in (inspector, "self"))
        assert own_network != ours
        assert login(env["HOSTLER_CONTROLLER_PUBLIC_URL"], state) == 201
        assert {path.lstat().st_uid for path in (state, *state.rglob("*"))} == {65512}
        assert Path("/etc/passwd").stat().st_uid == 0
        assert not any(path.stat().st_mode & 0o077 for path in state.iterdir() if path.name != "images")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        assert process.returncode == 0
    assert not Path(f"/proc/{inspector}").exists()


def is_gone(pid: int) -> bool:
    """Nothing of it runs; its new parent may take its time to notice."""
    try:
        return rights_of(pid)["State"].startswith("Z")
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_controller_that_is_killed_leaves_no_inspector(place: Path) -> None:
    with started(environment(place / "controller")) as process:
        (inspector,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert not is_gone(int(inspector))
        process.kill()
    while not is_gone(int(inspector)):  # Else this test is timed out.
        time.sleep(0.02)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to give up")
def test_no_code_is_read_once_root_is_given_up(place: Path) -> None:
    state = place / "controller"
    page = place / "novnc"
    page.mkdir()
    (page / "vnc_lite.html").write_text("a page")
    env = environment(state, NOVNC=str(page)) | {"PYTHONPATH": str(REPOSITORY)}
    url = env["HOSTLER_CONTROLLER_PUBLIC_URL"]
    with started(env, [sys.executable, "-c", WATCHED, "--config", "/nonexistent"]) as process:
        assert login(url, state) == 201
        token = _token(url, state)
        for service in services():
            for op in service.ops:
                if op.method == "GET" and "{" not in op.path:
                    assert fetched(f"{url}{service.prefix}{op.path}", token=token)[0] < 500, op.path
        assert fetched(f"{url}/console/vnc_lite.html") == (200, "a page")
        assert fetched(f"{url}/compute/v2.1/servers")[0] == 401
        assert fetched(f"{url}/identity/v3/auth/tokens", {"auth": 1})[0] == 400
        fetched(f"http://{env['HOSTLER_CONTROLLER_METRICS_LISTEN']}/metrics")
        process.send_signal(signal.SIGHUP)
        assert login(url, state) == 201
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=30)
    assert read_late(log) == []


_UNREADABLE = """
import sys
from agent.wire import rights
from controller import __main__
become = rights.become
def and_lose_python(uid):
    become(uid)
    sys.executable = "/root/python"  # As for one whose code is in a folder of root's.
rights.become = and_lose_python
__main__.main()
"""


def test_a_controller_whose_inspector_cannot_come_back_ends(place: Path) -> None:
    state = place / "controller"
    env = environment(state) | {"PYTHONPATH": str(REPOSITORY)}
    url = env["HOSTLER_CONTROLLER_PUBLIC_URL"]
    with started(env, [sys.executable, "-c", _UNREADABLE, "--config", "/nonexistent"]) as process:
        assert upload(url, state) == 204
        (inspector,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(inspector), signal.SIGKILL)
        while not is_gone(int(inspector)):
            time.sleep(0.02)
        assert upload(url, state) == 503
        _, log = process.communicate(timeout=30)
        assert process.returncode == 1
    assert log.count("the inspector of images cannot be started again") == 1 and "Traceback" not in log


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to give up")
def test_a_state_folder_that_is_out_of_reach_is_one_sentence(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    env = environment(closed / "controller")
    ended = subprocess.run(argv(), cwd=REPOSITORY, env=env, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert "cannot be reached" in ended.stderr and "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"LISTEN": "0.0.0.0:5000"}, "tls_certificate"),
        ({"LISTEN": "nonsense"}, "host:port"),
        ({"SLOW": "very"}, "slow"),
        ({"NATS": "nats"}, "controller.nats"),
    ],
)
def test_settings_that_cannot_be_used_are_one_sentence(place: Path, settings: dict[str, str], word: str) -> None:
    env = environment(place / "controller", **settings)
    ended = subprocess.run(argv(), cwd=REPOSITORY, env=env, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert word in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_address_in_use_is_one_sentence(place: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        env = environment(place / "controller", LISTEN=f"127.0.0.1:{taken.getsockname()[1]}")
        ended = subprocess.run(argv(), cwd=REPOSITORY, env=env, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert "in use" in ended.stderr


def test_routes_and_openapi_print_every_row() -> None:
    from controller.services import services

    printed = subprocess.run(
        argv("routes"), cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=60
    ).stdout
    rows = sum(len(service.ops) + len(service.documents) for service in services())
    assert printed.count("\n") == rows
    found = subprocess.run(argv("openapi"), cwd=REPOSITORY, capture_output=True, check=True, timeout=60).stdout
    paths = json.loads(found)["paths"]
    for service in services():
        for op in service.ops:
            operation = paths[service.prefix + op.path][op.method.lower()]
            assert op.policy in operation["x-policies"]


def test_heads_without_end_and_garbage_do_no_harm(place: Path) -> None:
    state = place / "controller"
    env = environment(state)
    port = int(env["HOSTLER_CONTROLLER_PUBLIC_URL"].rpartition(":")[2])
    with started(env) as process:
        for attack in (
            b"GET / HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * (8 << 20),
            b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X-A: b\r\n" * (1 << 20),
            b"GET /" + b"a" * (8 << 20),
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET http://[::1 HTTP/1.1\r\n\r\n",
        ):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
                with contextlib.suppress(ConnectionError):
                    client.sendall(attack)
                    assert b" 400 " in client.recv(100)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(b"GET /identity/v3 HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
            received = b""
            while received.count(b"HTTP/1.1 200") < 3:
                received += client.recv(65536)
        assert login(env["HOSTLER_CONTROLLER_PUBLIC_URL"], state) == 201
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=30)
        assert "Traceback" not in log
