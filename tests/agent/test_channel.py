"""A host's own channel, over real TLS: who may fetch what, what a dead or lying neighbour costs, and streams."""

import asyncio
import contextlib
import http.client
import socket
import ssl
import time
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import pytest

from agent import channel as channels
from agent.channel import HostChannel
from agent.join import IdentityFiles
from agent.streams import ChannelSource
from agent.wire import ticket
from agent.wire.errors import Failed, NotFound
from agent.wire.host import Door
from agent.wire.image import ImageSpec, Offer
from agent.wire.world import PoolThreads, SystemEntropy, World
from controller.authority import Authority
from tests.agent.identities import a_host
from tests.agent.rig import an_image
from tests.controller.fleet.fleet import SkewedClock

BYTES = bytes(range(256)) * 20_000
SHA = sha256(BYTES).hexdigest()


class Host:
    """One that serves, or only asks."""

    def __init__(self, fleet: "Hosts", host_id: str) -> None:
        self.id = host_id
        self.files: IdentityFiles = a_host(fleet.authority, fleet.folder / host_id, host_id, time.time())
        self.images: dict[str, Path] = {}
        self.streams: list[socket.socket] = []  # Far ends.
        self.clock = SkewedClock()
        world = World(self.clock, SystemEntropy(), fleet.threads)
        self.channel = HostChannel(
            world, "127.0.0.1:0", self.files, images=self._image, disks=self._image, tunnels={"vnc": self._stream}
        )

    def has(self, folder: Path, data: bytes = BYTES) -> None:
        path = folder / f"image-of-{self.id}"
        path.write_bytes(data)
        self.images[SHA] = path

    @property
    def door(self) -> Door:
        found = self.channel.door()
        assert found is not None, "it listens"
        return found

    async def _image(self, sha: str) -> str:
        if sha not in self.images:
            raise NotFound(f"image {sha} is not in the cache of this host")
        return str(self.images[sha])

    async def _stream(self, domain_id: str) -> socket.socket:
        near, far = socket.socketpair()
        self.streams.append(far)
        return near


class Hosts:
    """An authority and its hosts."""

    def __init__(self, folder: Path, threads: PoolThreads) -> None:
        self.folder = folder
        self.threads = threads
        self.authority = Authority(folder / "authority", time.time())
        self.nonces = 0

    def ticket(self, host: Host, peer: str, kind: str = "image", object_id: str = SHA) -> str:
        self.nonces += 1
        return ticket.issue(self.authority.sign_ticket, str(self.nonces), host.door, peer, kind, object_id)

    def offer(self, host: Host, peer: str) -> Offer:
        url = f"https://{host.door.address}/image/{SHA}"
        return Offer(url=url, name=f"{host.id}.host.internal", ticket=self.ticket(host, peer))


@contextlib.asynccontextmanager
async def hosts_at(folder: Path, *names: str) -> AsyncIterator[tuple[Hosts, list[Host]]]:
    threads = PoolThreads(4, "channel-test")
    fleet = Hosts(folder, threads)
    made = [Host(fleet, name) for name in names]
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(host.channel.run()) for host in made]
        while any(host.channel.door() is None for host in made):
            await asyncio.sleep(0.01)
        yield fleet, made
        for task in running:
            task.cancel()
    threads.close()


def spec(*offers: Offer) -> ImageSpec:
    return an_image(sha256=SHA, size_bytes=len(BYTES), sources=(), offers=offers)


async def fetch(host: Host, wanted: ImageSpec, path: Path) -> None:
    await asyncio.to_thread(ChannelSource(host.files.channel_context).fetch(wanted), str(path))


async def ask(host: Host, context: ssl.SSLContext, path: str, headers: dict[str, str], method: str = "GET") -> int:
    def exchange() -> int:
        address, _, port = host.door.address.rpartition(":")
        raw = socket.create_connection((address, int(port)), timeout=10)
        connection = http.client.HTTPConnection(address, int(port))
        with context.wrap_socket(raw, server_hostname=f"{host.id}.host.internal") as connection.sock:
            connection.request(method, path, headers=headers)
            return connection.getresponse().status

    return await asyncio.to_thread(exchange)


async def test_a_neighbour_that_has_the_image_gives_it(tmp_path: Path) -> None:
    async with hosts_at(tmp_path, "h1", "h2") as (fleet, (asking, neighbour)):
        neighbour.has(tmp_path)
        await fetch(asking, spec(fleet.offer(neighbour, "h1")), tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == BYTES


async def test_a_neighbour_that_dies_in_the_middle_costs_nothing_that_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "CHUNK_BYTES", 100_000)
    async with hosts_at(tmp_path, "h1", "h2", "h3") as (fleet, (asking, dying, other)):
        dying.has(tmp_path)
        other.has(tmp_path)
        begun: list[int] = []
        copy_file = channels.HostChannel._copy_file

        async def copied(self: HostChannel, http: object, writer: asyncio.StreamWriter, path: Path, begin: int) -> None:
            begun.append(begin)
            await copy_file(self, http, writer, path, begin)  # type: ignore[arg-type]

        monkeypatch.setattr(channels.HostChannel, "_copy_file", copied)
        send = channels._send
        sent = 0

        async def cut(http: object, writer: asyncio.StreamWriter, event: object) -> None:
            nonlocal sent
            await send(http, writer, event)  # type: ignore[arg-type]
            sent += 1
            if len(begun) == 1 and sent == 11:
                raise ConnectionResetError("the neighbour dies")

        monkeypatch.setattr(channels, "_send", cut)
        offers = fleet.offer(dying, "h1"), fleet.offer(other, "h1")
        await fetch(asking, spec(*offers), tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == BYTES
        assert begun == [0, 1_000_000], "the next one went on where the first broke off"


async def test_a_neighbour_that_lies_is_not_believed(tmp_path: Path) -> None:
    async with hosts_at(tmp_path, "h1", "h2", "h3") as (fleet, (asking, lying, honest)):
        lying.has(tmp_path, BYTES[:-1] + b"!")
        honest.has(tmp_path)
        offers = fleet.offer(lying, "h1"), fleet.offer(honest, "h1")
        await fetch(asking, spec(*offers), tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == BYTES
        with pytest.raises(Failed, match="hash to"):
            await fetch(asking, spec(fleet.offer(lying, "h1")), tmp_path / "out")


async def test_half_a_lie_is_found_out_too(tmp_path: Path) -> None:
    """A corrupt beginning and an honest end are thrown away together, and who is left is asked from the first byte."""
    async with hosts_at(tmp_path, "h1", "h2", "h3") as (fleet, (asking, lying, honest)):
        lying.has(tmp_path, b"!" * 1_000_000)
        honest.has(tmp_path)
        offers = fleet.offer(lying, "h1"), fleet.offer(honest, "h1"), fleet.offer(honest, "h1")
        await fetch(asking, spec(*offers), tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == BYTES


async def test_who_is_gone_is_passed_over(tmp_path: Path) -> None:
    async with hosts_at(tmp_path, "h1", "h2") as (fleet, (asking, neighbour)):
        neighbour.has(tmp_path)
        gone = Offer(url="https://127.0.0.1:1/image/x", name="h9.host.internal", ticket="t")
        await fetch(asking, spec(gone, fleet.offer(neighbour, "h1")), tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == BYTES


async def test_a_ticket_opens_one_thing_for_one_host_once_within_its_time(tmp_path: Path) -> None:
    async with hosts_at(tmp_path, "h1", "h2", "h3") as (fleet, (asking, serving, other)):
        serving.has(tmp_path)
        context = asking.files.channel_context()
        good, late = fleet.ticket(serving, "h1"), fleet.ticket(serving, "h1")
        for bad in (
            "",
            "nonsense",
            good[:-6] + "AAAAAA",
            fleet.ticket(serving, "h3"),
            fleet.ticket(other, "h1"),
            fleet.ticket(serving, "h1", "vnc"),
            fleet.ticket(serving, "h1", "image", "ab" * 32),
        ):
            assert await ask(serving, context, f"/image/{SHA}", {"Hostler-Ticket": bad}) == 403, bad
        stolen = other.files.channel_context()
        assert await ask(serving, stolen, f"/image/{SHA}", {"Hostler-Ticket": good}) == 403
        assert await ask(serving, context, f"/image/{SHA}", {"Hostler-Ticket": good}) == 200
        assert await ask(serving, context, f"/image/{SHA}", {"Hostler-Ticket": good}) == 403
        serving.clock.ahead_s = ticket.LIFE_S + 1
        assert await ask(serving, context, f"/image/{SHA}", {"Hostler-Ticket": late}) == 403


async def test_other_requests_are_refused(tmp_path: Path) -> None:
    async with hosts_at(tmp_path, "h1", "h2") as (fleet, (asking, serving)):
        context = asking.files.channel_context()

        async def status(path: str, method: str = "GET", **headers: str) -> int:
            named = {"Hostler-Ticket": fleet.ticket(serving, "h1"), **headers}
            return await ask(serving, context, path, named, method)

        assert await status(f"/image/{SHA}") == 404, "it has none"
        assert await status("/") == 404
        assert await status("/vnc/x") == 426
        assert await status(f"/image/{SHA}", "PUT") == 405
        serving.has(tmp_path)
        assert await status(f"/image/{SHA}", Range="bytes=5-6") == 416
        assert await status(f"/image/{SHA}", Range=f"bytes={len(BYTES) + 1}-") == 416
        assert await status(f"/image/{SHA}", Range="bytes=5-") == 206


async def test_nobody_comes_in_without_a_certificate_of_this_cloud(tmp_path: Path) -> None:
    async with hosts_at(tmp_path, "h1", "h2") as (fleet, (_, serving)):
        nobody = ssl.create_default_context(cafile=str(fleet.authority.ca_path))
        stranger = a_host(Authority(tmp_path / "other", time.time()), tmp_path / "stranger", "h1", time.time())
        foreign = ssl.create_default_context(cafile=str(fleet.authority.ca_path))
        foreign.load_cert_chain(stranger.certificate, stranger.key)
        listener = ssl.create_default_context(cafile=str(fleet.authority.ca_path))
        listener.load_cert_chain(*fleet.authority.ensure_server("channel", ["127.0.0.1"], time.time()))
        for context in (nobody, foreign, listener):
            with pytest.raises((OSError, http.client.HTTPException)):
                await ask(serving, context, f"/image/{SHA}", {"Hostler-Ticket": fleet.ticket(serving, "h1")})


async def test_a_host_is_who_its_certificate_says(tmp_path: Path) -> None:
    """Another host of this cloud at the neighbour's address is not taken for it."""
    async with hosts_at(tmp_path, "h1", "h2") as (fleet, (asking, neighbour)):
        neighbour.has(tmp_path)
        offer = fleet.offer(neighbour, "h1")
        with pytest.raises(Failed, match=r"(?i)hostname|certificate"):
            await fetch(
                asking, spec(Offer(url=offer.url, name="h3.host.internal", ticket=offer.ticket)), tmp_path / "o"
            )


async def test_a_stream_goes_both_ways_until_one_end_hangs_up(tmp_path: Path) -> None:
    async with hosts_at(tmp_path, "h1") as (fleet, (serving,)):
        context = ssl.create_default_context(cafile=str(fleet.authority.ca_path))
        context.load_cert_chain(*fleet.authority.ensure_client("controller", time.time()))
        address, _, port = serving.door.address.rpartition(":")
        reader, writer = await asyncio.open_connection(
            address, int(port), ssl=context, server_hostname="h1.host.internal"
        )
        opening = fleet.ticket(serving, "controller", "vnc", "s1")
        head = f"GET /vnc/s1 HTTP/1.1\r\nHost: x\r\nHostler-Ticket: {opening}\r\n"
        writer.write(f"{head}Connection: Upgrade\r\nUpgrade: hostler-stream\r\n\r\nhello".encode())
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        (far,) = serving.streams
        far.setblocking(False)
        loop = asyncio.get_running_loop()
        assert await loop.sock_recv(far, 100) == b"hello", "what came with the request is not lost"
        big = b"x" * 3_000_000
        sending = asyncio.create_task(loop.sock_sendall(far, big))
        assert await reader.readexactly(len(big)) == big
        await sending
        writer.write(b"bye")
        assert await loop.sock_recv(far, 100) == b"bye"
        far.close()
        assert await reader.read() == b""
        writer.close()


async def test_connections_and_their_time_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "REQUEST_S", 0.2)
    monkeypatch.setattr(channels, "CONNECTIONS_MAX", 1)
    async with hosts_at(tmp_path, "h1") as (_, (serving,)):
        address, _, port = serving.door.address.rpartition(":")

        async def silent() -> bytes:
            reader, writer = await asyncio.open_connection(
                address, int(port), ssl=serving.files.channel_context(), server_hostname="h1.host.internal"
            )
            try:
                return await asyncio.wait_for(reader.read(), 10)
            finally:
                writer.close()

        assert await asyncio.gather(silent(), silent()) == [b"", b""]
