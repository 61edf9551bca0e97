"""Inspection in children: what a child that misbehaves does to its image, and does not do to the controller."""

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from controller.errors import Unavailable, UnsupportedMedia
from controller.image import inspector, inspectors
from controller.image.inspection import Inspection
from controller.image.inspectors import Inspected, Inspectors
from controller.image.verdict import READY, Verdict

RAW = bytes(1 << 20)


@pytest.fixture
def real() -> Iterator[Inspectors]:
    made = Inspectors()
    yield made
    made.close()


@pytest.fixture
def with_child(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[socket.socket], None]], Inspectors]]:
    """Inspectors of a real server, whose children are confined as usual and then do something else."""
    made: list[Inspectors] = []
    monkeypatch.setattr(inspectors, "ANSWER_S", 3.0)

    def make(behave: Callable[[socket.socket], None]) -> Inspectors:
        def inspect(declared: str, sock: socket.socket) -> None:
            sock.sendall(READY)
            behave(sock)

        monkeypatch.setattr(inspector, "inspect", inspect)
        found = Inspectors()
        found._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        found._control.setblocking(False)
        pid = os.fork()
        if pid == 0:
            try:
                found._control.close()
                inspector.Server(theirs).run()
            finally:
                os._exit(0)
        theirs.close()
        found._server = _Forked(pid)  # type: ignore[assignment]
        made.append(found)
        return found

    yield make
    for one in made:
        one.close()


class _Forked:
    """The server, forked from here."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def poll(self) -> None:
        return None

    def wait(self, timeout_s: float) -> None:
        os.waitpid(self.pid, 0)


async def inspected(given: Inspectors, *chunks: bytes, declared: str = "raw") -> int:
    one = await given.begin(declared)
    try:
        for chunk in chunks:
            await one.feed(chunk)
        return await one.finish(sum(map(len, chunks)))
    finally:
        await one.aclose()


def _opens(sock: socket.socket) -> None:
    Path("/etc/passwd").read_bytes()
    sock.sendall(b"{}")


def _connects(sock: socket.socket) -> None:
    socket.socket()
    sock.sendall(b"{}")


def _eats(sock: socket.socket) -> None:
    hoard = bytearray(inspector.MEMORY_MAX)
    sock.sendall(b"{}" if hoard else b"")


def _spins(sock: socket.socket) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CPU, (1, 1))
    while True:
        pass


def _sleeps(sock: socket.socket) -> None:
    threading.Event().wait()


def _crashes(sock: socket.socket) -> None:
    os.kill(os.getpid(), signal.SIGTRAP)


@pytest.mark.parametrize("behave", [_opens, _connects, _eats, _spins, _sleeps, _crashes], ids=lambda fn: fn.__name__)
async def test_a_child_that_does_not_behave_refuses_its_image(
    with_child: Callable[[Callable[[socket.socket], None]], Inspectors], behave: Callable[[socket.socket], None]
) -> None:
    given = with_child(behave)
    with pytest.raises(UnsupportedMedia, match="could not be inspected"):
        await inspected(given, RAW, RAW)


@pytest.mark.parametrize(
    "answer",
    [b"", b"garbage", b"\xff\xfe", b'{"virtual_bytes": -1}', b'{"virtual_bytes": 99999999999999999}', b"{" * 100_000],
    ids=["nothing", "no-json", "no-text", "negative", "too-large", "endless"],
)
async def test_a_garbage_answer_refuses_the_image(
    with_child: Callable[[Callable[[socket.socket], None]], Inspectors], answer: bytes
) -> None:
    given = with_child(lambda sock: sock.sendall(answer))
    with pytest.raises(UnsupportedMedia, match="could not be inspected"):
        await inspected(given, RAW)


async def test_the_server_kills_a_child_that_nobody_waits_for(
    with_child: Callable[[Callable[[socket.socket], None]], Inspectors],
) -> None:
    told = os.pipe()

    def behave(sock: socket.socket) -> None:
        os.write(told[1], f"{os.getpid()}\n".encode())
        _sleeps(sock)

    given = with_child(behave)
    one = await given.begin("raw")
    pid = int(await asyncio.to_thread(os.read, told[0], 100))
    await one.aclose()
    await _eventually(lambda: not Path(f"/proc/{pid}").exists())
    for end in told:
        os.close(end)


async def _eventually(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not claim():
            await asyncio.sleep(0.02)


async def test_the_head_is_enough(real: Inspectors) -> None:
    one = await real.begin("raw")
    for _ in range(4):
        await one.feed(RAW)
    assert one._answer is not None
    await asyncio.wait_for(asyncio.shield(one._answer), 20)  # Nobody has said that the bytes end.
    assert await one.finish(1 << 40) == 1 << 40
    await one.aclose()


def _verdict(declared: str, data: bytes, chunk_bytes: int, is_whole: bool) -> Verdict:
    inspection = Inspection(declared)
    for at in range(0, len(data), chunk_bytes):
        if is_whole or not inspection.is_satisfied:
            inspection.feed(data[at : at + chunk_bytes])
    return inspection.verdict()


def _with(*parts: tuple[int, bytes]) -> bytes:
    data = bytearray(2 << 20)
    for at, part in parts:
        data[at : at + len(part)] = part
    return bytes(data)


@pytest.mark.parametrize("chunk_bytes", [4096, 65536, 1 << 20])
@pytest.mark.parametrize(
    ("data", "is_refused"),
    [
        (_with(), False),
        (_with((510, b"\x55\xaa"), (450, b"\x83")), False),
        (_with((32769, b"CD001")), True),
        (_with((0, b"vhdxfile")), True),
        (_with((0, b"conectix")), True),
        (_with((0, b"LUKS\xba\xbe")), True),
        (_with((0, b"KDMV\x01"), ((2 << 20) - 1024, b"KDMV")), True),
        (_with((510, b"\x55\xaa"), (32769, b"CD001")), True),
        (b'# Disk DescriptorFile\ncreateType="monolithicFlat"\n' + b"x\n" * (1 << 19), True),
    ],
    ids=["zeros", "partitions", "iso", "vhdx", "vhd", "luks", "vmdk", "hybrid", "vmdk-text"],
)
def test_the_head_says_what_the_whole_would(data: bytes, is_refused: bool, chunk_bytes: int) -> None:
    head, whole = (_verdict("raw", data, chunk_bytes, is_whole) for is_whole in (False, True))
    assert (bool(head.refused), head.virtual_bytes) == (bool(whole.refused), whole.virtual_bytes) == (is_refused, None)


async def test_a_server_that_died_is_started_again(real: Inspectors) -> None:
    assert await inspected(real, RAW) == len(RAW)
    first = real.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert real._server is not None
    real._server.wait(20)
    assert await inspected(real, RAW) == len(RAW)
    assert real.pid != first


async def test_no_child_means_try_again(real: Inspectors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspectors.sys, "executable", "/nonexistent")
    with pytest.raises(Unavailable):
        await real.begin("raw")


async def test_a_server_that_worked_and_cannot_be_started_again_is_lost(
    real: Inspectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await inspected(real, RAW) == len(RAW)
    assert real._server is not None
    real._server.kill()
    real._server.wait(20)
    assert not real.lost.is_set()
    monkeypatch.setattr(inspectors.sys, "executable", "/bin/false")  # As for a Python that finds no code.
    with pytest.raises(Unavailable):
        await real.begin("raw")
    assert real.lost.is_set()


async def test_a_server_that_never_worked_is_not_lost(real: Inspectors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspectors.sys, "executable", "/bin/false")
    with pytest.raises(Unavailable):
        await real.begin("raw")
    assert not real.lost.is_set()


async def test_many_at_once_are_many_children(real: Inspectors) -> None:
    begun: list[Awaitable[Inspected]] = [real.begin("raw") for _ in range(8)]
    children = await asyncio.gather(*begun)
    for one in children:
        await one.feed(RAW)
    assert await asyncio.gather(*(one.finish(len(RAW)) for one in children)) == [len(RAW)] * 8
    for one in children:
        await one.aclose()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to give up")
async def test_the_server_of_root_has_no_rights_and_no_network(real: Inspectors) -> None:
    await inspected(real, RAW)
    status = Path(f"/proc/{real.pid}/status").read_text()
    words = {line.split()[0]: line.split()[1:] for line in status.splitlines()}
    assert words["Uid:"] == words["Gid:"] == [str(inspectors.UID)] * 4
    assert words["Groups:"] == [] and words["NoNewPrivs:"] == ["1"] and int(words["CapEff:"][0], 16) == 0
    assert Path(f"/proc/{real.pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()
