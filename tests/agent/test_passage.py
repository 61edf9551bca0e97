"""The way of a guest that leaves, on the host that it leaves."""

import asyncio
import contextlib
import os
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agent import passage
from agent.channel import End
from agent.wire.domain import CONTROL, DISKS, MEMORY, Landing, Passage
from agent.wire.image import Offer

DOMAIN = "6a1f1d94-5d3c-4c0e-8d0f-3f3a5b1f7c11"


def a_way(gate: str) -> Passage:
    landing = Landing(uid=200000, gid=200000, folder="/there", gate=gate)
    ways = {
        name: Offer(url=f"https://198.18.0.9:1/{name}", ticket="t", name="host2")
        for name in ("control", "memory", "disks", "arrival")
    }
    return Passage(landing=landing, limit_s=60.0, **ways)


@contextlib.asynccontextmanager
async def a_far_end(monkeypatch: pytest.MonkeyPatch, folder: Path) -> AsyncIterator[list[bytes]]:
    """What the other host hears."""
    heard: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read())
        writer.close()

    async def connect(offer: Offer, context: ssl.SSLContext) -> End:
        return await asyncio.open_unix_connection(folder / "far")

    monkeypatch.setattr(passage, "connect", connect)
    monkeypatch.setattr(passage, "GATES", folder / "gates")
    async with await asyncio.start_unix_server(answer, path=folder / "far"):
        yield heard


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: names of sockets have few characters."""
    with tempfile.TemporaryDirectory(prefix="way-") as made:
        yield Path(made)


def test_the_sockets_are_in_its_own_gate_wherever_the_other_host_has_its(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    """The agent is root: what another host names is neither emptied nor written to."""
    precious = folder / "precious"
    precious.mkdir()
    (precious / "ledger").write_text("kept")

    async def play() -> None:
        async with a_far_end(monkeypatch, folder) as heard:
            way = a_way(str(precious))
            async with passage.opened(DOMAIN, way, os.getuid(), ssl.create_default_context()) as arrive:
                gate = folder / "gates" / DOMAIN
                assert {one.name for one in gate.iterdir()} == {CONTROL, MEMORY, DISKS}
                assert gate.stat().st_mode & 0o777 == 0o711
                await arrive(())
            assert not gate.exists()
            while not heard:
                await asyncio.sleep(0.01)
            assert heard == [b"g[]"]

    asyncio.run(play())
    assert [one.read_text() for one in precious.iterdir()] == ["kept"]
