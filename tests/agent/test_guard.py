"""The guard over loopback: who asks is told by where the connection comes from, and by nothing else."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest

from agent import guard as guard_module
from agent.guard import CONNECTIONS_MAX, PER_GUEST_MAX, Guard
from agent.guard_link import GuardLink
from agent.wire.domain import GuestData
from agent.wire.world import PoolThreads

GONE = "gone"
ONE, TWO = "127.0.0.11", "127.0.0.12"
FIRST = GuestData(meta_data='{"name": "first"}', network_data="{}", user_data=b"x" * 65536)
SECOND = GuestData(meta_data='{"name": "second"}', network_data="{}")
GET = "GET /openstack/latest/meta_data.json HTTP/1.1\r\nHost: 169.254.169.254\r\n"


class Networks:
    """Stands for namespaces: one loopback port each."""

    def __init__(self) -> None:
        self.ports: dict[str, int] = {}

    def listen(self, namespace: str) -> socket.socket:
        if namespace == GONE:
            raise FileNotFoundError(namespace)
        sock = socket.create_server(("127.0.0.1", self.ports.get(namespace, 0)), backlog=300)
        self.ports[namespace] = sock.getsockname()[1]
        return sock


class Running:
    """A guard in a thread."""

    def __init__(self, path: Path) -> None:
        self.guard = Guard(str(path))
        self._is_over = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._is_over:
            self.guard.turn(0.02)
        self.guard.close()

    def stop(self) -> None:
        self._is_over = True
        self._thread.join()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "guard.sock"


@pytest.fixture
def guard(path: Path) -> Iterator[Running]:
    running = Running(path)
    yield running
    running.stop()


@contextlib.asynccontextmanager
async def a_link(path: Path, networks: Networks) -> AsyncIterator[GuardLink]:
    threads = PoolThreads(2, "test")
    link = GuardLink(path, os.getuid(), threads, listen=networks.listen)
    task = asyncio.create_task(link.run())
    try:
        yield link
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        threads.close()


async def ask(port: int, source: str, head: str = GET, *, end: str = "\r\n") -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
    try:
        writer.write((head + end).encode())
        async with asyncio.timeout(10):
            answer = await reader.read()
    except ConnectionResetError:  # Closed before the request was read: no answer, as by an orderly end.
        answer = b""
    finally:
        writer.close()
    first, _, rest = answer.partition(b"\r\n")
    return int(first.split()[1]) if first else 0, rest.partition(b"\r\n\r\n")[2]


async def test_each_guest_is_told_of_itself_only(path: Path, guard: Running) -> None:
    networks = Networks()
    async with a_link(path, networks) as link:
        link.serve("net-a", "a")
        link.serve("net-b", "b")
        link.publish({("net-a", ONE): FIRST, ("net-b", ONE): SECOND})
        assert await link.settle(10)
        assert await ask(networks.ports["a"], ONE) == (200, b'{"name": "first"}')
        assert await ask(networks.ports["b"], ONE) == (200, b'{"name": "second"}')
        assert (await ask(networks.ports["a"], TWO))[0] == 404
        status, body = await ask(networks.ports["a"], ONE, "GET /openstack/latest/user_data HTTP/1.1\r\n")
        assert (status, len(body)) == (200, 65536)


async def test_what_a_request_says_of_its_sender_is_ignored(path: Path, guard: Running) -> None:
    networks = Networks()
    async with a_link(path, networks) as link:
        link.serve("net-a", "a")
        link.publish({("net-a", ONE): FIRST, ("net-a", TWO): SECOND})
        assert await link.settle(10)
        forged = f"X-Forwarded-For: {ONE}\r\nX-Instance-ID: 1\r\nX-Instance-ID-Signature: 0\r\nForwarded: for={ONE}\r\n"
        assert await ask(networks.ports["a"], TWO, GET + forged) == (200, b'{"name": "second"}')


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET http://169.254.169.254/openstack/latest/meta_data.json HTTP/1.1\r\n", 200),
        ("GET /openstack/latest/meta_data.json?x=1 HTTP/1.0\r\n", 200),
        ("GET //openstack//latest/ HTTP/1.1\r\n", 200),
        ("HEAD / HTTP/1.1\r\n", 200),
        ("POST /openstack/latest/password HTTP/1.1\r\nContent-Length: 3\r\n", 405),
        ("GET /openstack/../../../etc/passwd HTTP/1.1\r\n", 404),
        ("GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\n", 404),
        ("GET etc/passwd HTTP/1.1\r\n", 400),
        ("GET / HTTP/2.0\r\n", 400),
        ("GET /\u00e9 HTTP/1.1\r\n", 400),
        ("nonsense\r\n", 400),
        ("GET / HTTP/1.1\r\nX: " + "a" * 9000 + "\r\n", 431),
    ],
)
async def test_requests_of_every_kind(path: Path, guard: Running, head: str, status: int) -> None:
    networks = Networks()
    async with a_link(path, networks) as link:
        link.serve("net-a", "a")
        link.publish({("net-a", ONE): FIRST})
        assert await link.settle(10)
        with contextlib.suppress(ConnectionError):  # Unread bytes at close may reset the connection.
            assert (await ask(networks.ports["a"], ONE, head))[0] == status


async def test_guests_are_answered_while_the_agent_is_away(path: Path, guard: Running) -> None:
    networks = Networks()
    async with a_link(path, networks) as link:
        link.serve("net-a", "a")
        link.publish({("net-a", ONE): FIRST, ("net-a", TWO): SECOND})
        assert await link.settle(10)
    assert (await ask(networks.ports["a"], ONE))[0] == 200
    async with a_link(path, networks) as link:  # The new one's first word is what should be; the rest goes.
        link.serve("net-a", "a")
        link.publish({("net-a", ONE): msgspec.structs.replace(FIRST, meta_data="{}")})
        assert await link.settle(10)
        assert await ask(networks.ports["a"], ONE) == (200, b"{}")
        assert (await ask(networks.ports["a"], TWO))[0] == 404
        link.withdraw("net-a")
        assert await link.settle(10)
    with pytest.raises(ConnectionRefusedError):
        await ask(networks.ports["a"], ONE)


async def test_a_guard_that_starts_again_is_told_everything(path: Path) -> None:
    networks = Networks()
    async with a_link(path, networks) as link:
        link.serve("net-a", "a")
        link.publish({("net-a", ONE): FIRST})
        for _ in range(2):
            running = Running(path)
            assert await link.settle(10)
            assert (await ask(networks.ports["a"], ONE))[0] == 200
            await asyncio.to_thread(running.stop)
            async with asyncio.timeout(10):
                while await link.settle(0.01):
                    await asyncio.sleep(0.01)


async def test_nobody_waits_for_a_network_that_cannot_be_served(path: Path, guard: Running) -> None:
    networks = Networks()
    async with a_link(path, networks) as link:
        link.serve("net-a", GONE)
        link.serve("net-b", "b")
        link.publish({("net-b", ONE): FIRST})
        async with asyncio.timeout(10):
            assert not await link.settle(3600)
        assert (await ask(networks.ports["b"], ONE))[0] == 200


@pytest.mark.skipif(os.getuid() != 0, reason="naming another uid takes root")
async def test_only_the_guards_uid_is_let_in(path: Path, guard: Running) -> None:
    threads = PoolThreads(1, "test")
    link = GuardLink(path, os.getuid() + 1, threads)
    task = asyncio.create_task(link.run())
    assert not await link.settle(1.5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    threads.close()


async def test_slow_guests_get_in_their_own_way_only(
    path: Path, guard: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard_module, "CONNECTION_S", 1.0)
    networks = Networks()
    async with a_link(path, networks) as link:
        link.serve("net-a", "a")
        link.publish({("net-a", ONE): FIRST, ("net-a", TWO): SECOND})
        assert await link.settle(10)
        slow = [_slow(networks.ports["a"], ONE) for _ in range(PER_GUEST_MAX + 20)]
        async with asyncio.timeout(10):
            while len(guard.guard._connections) < PER_GUEST_MAX:
                await asyncio.sleep(0.01)
        assert (await ask(networks.ports["a"], ONE))[0] == 0
        assert (await ask(networks.ports["a"], TWO))[0] == 200
        async with asyncio.timeout(10):
            while guard.guard._connections:
                await asyncio.sleep(0.01)
        assert (await ask(networks.ports["a"], ONE))[0] == 200
        for sock in slow:
            sock.close()


async def test_the_whole_number_of_connections_is_bounded(path: Path, guard: Running) -> None:
    networks = Networks()
    async with a_link(path, networks) as link:
        link.serve("net-a", "a")
        link.publish({("net-a", ONE): FIRST})
        assert await link.settle(10)
        slow = [_slow(networks.ports["a"], f"127.0.1.{i % 30 + 1}") for i in range(CONNECTIONS_MAX + 40)]
        assert (await ask(networks.ports["a"], ONE))[0] == 200
        assert len(guard.guard._connections) <= CONNECTIONS_MAX
        for sock in slow:
            sock.close()


def _slow(port: int, source: str) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), source_address=(source, 0))
    sock.send(b"GET / HT")
    return sock


@pytest.mark.skipif(os.getuid() != 0, reason="becoming nobody takes root")
async def test_the_process_is_nobody_small_and_answers(tmp_path: Path) -> None:
    folder = Path("/tmp") / f"guard-test-{os.getpid()}"
    folder.mkdir(mode=0o755)
    networks, uid = Networks(), 65_533
    threads = PoolThreads(1, "test")
    link = GuardLink(folder / "guard.sock", uid, threads, listen=networks.listen)
    task = asyncio.create_task(link.run())
    process = subprocess.Popen([sys.executable, "-m", "agent.guard", str(folder / "guard.sock")])
    try:
        link.serve("net-a", "a")
        link.publish({("net-a", ONE): FIRST})
        assert await link.settle(20)
        assert (await ask(networks.ports["a"], ONE))[0] == 200
        status = Path(f"/proc/{process.pid}/status").read_text()
        lines = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert lines["Uid"].split() == [str(uid)] * 4 and lines["Gid"].split() == [str(uid)] * 4
        assert lines["Groups"].strip() == "" and lines["NoNewPrivs"] == "1"
        assert int(lines["CapEff"], 16) == 0 and int(lines["CapPrm"], 16) == 0
        assert int(lines["VmRSS"].split()[0]) <= 20 * 1024
    finally:
        process.terminate()
        process.wait(5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        threads.close()
        for left in folder.iterdir():
            left.unlink()
        folder.rmdir()
