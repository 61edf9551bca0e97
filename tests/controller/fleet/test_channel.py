"""The host channel as seen from outside: who may ask what, tickets, bounds."""

import asyncio
import hashlib
import http.client
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.join import IdentityFiles, join
from agent.streams import ChannelSource
from agent.wire.errors import Failed
from agent.wire.image import ImageSpec, Offer
from agent.wire.lifecycle import Generation
from agent.wire.ticket import LIFE_S
from controller import channel
from controller.authority import Authority
from controller.errors import OverQuota
from tests.controller.fleet.fleet import Fleet

BYTES = [b"a" * 1_000_000, b"b" * 1_000_000, b"c"]


async def joined(fleet: Fleet, folder: Path, name: str = "h1") -> str:
    token = await fleet.enrollment.issue_token()
    return (await join(token, fleet.address, folder, name, "198.18.0.11")).host_id


def trusting(fleet: Fleet) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(fleet.server.authority.ca_path))


async def ask(
    fleet: Fleet, context: ssl.SSLContext, method: str, path: str, body: bytes | None = None, ticket: str = ""
) -> tuple[int, bytes]:
    def exchange() -> tuple[int, bytes]:
        host, _, port = fleet.address.partition(":")
        connection = http.client.HTTPSConnection(host, int(port), timeout=10, context=context)
        try:
            connection.request(method, path, body, {"Hostler-Ticket": ticket} if ticket else {})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    return await asyncio.to_thread(exchange)


async def test_an_image_is_fetched_as_the_agent_fetches_it(fleet: Fleet, tmp_path: Path) -> None:
    host_id = await joined(fleet, tmp_path / "host")
    fleet.images["i"] = BYTES
    files = IdentityFiles(tmp_path / "host")
    spec = ImageSpec(
        id="i",
        generation=Generation(1, 1),
        sha256=hashlib.sha256(b"".join(BYTES)).hexdigest(),
        size_bytes=len(b"".join(BYTES)),
        disk_format="raw",
        sources=(fleet.channel.image_url("i"),),
        ticket=fleet.channel.ticket(host_id, "i"),
    )
    fetch = ChannelSource(files.channel_context).fetch(spec)
    await asyncio.to_thread(fetch, str(tmp_path / "image"))
    assert (tmp_path / "image").read_bytes() == b"".join(BYTES)
    with pytest.raises(Failed, match="403"):
        await asyncio.to_thread(fetch, str(tmp_path / "again"))


async def test_a_ticket_opens_one_object_for_one_host_once_within_its_time(fleet: Fleet, tmp_path: Path) -> None:
    mine, other = await joined(fleet, tmp_path / "a", "a"), await joined(fleet, tmp_path / "b", "b")
    fleet.images["i"] = fleet.images["j"] = [b"bytes"]
    context = IdentityFiles(tmp_path / "a").channel_context()
    good = fleet.channel.ticket(mine, "i")
    late = fleet.channel.ticket(mine, "i")
    for path, ticket in (
        ("/image/i", ""),
        ("/image/i", "nonsense"),
        ("/image/i", "ä".encode().decode("latin-1")),
        ("/image/i", good[:-6] + "AAAAAA"),
        ("/image/i", fleet.channel.ticket(other, "i")),
        ("/image/j", good),
        ("/image/i", fleet.channel.tickets.issue(mine, "volume", "i")),
    ):
        status, _ = await ask(fleet, context, "GET", path, ticket=ticket)
        assert status == 403, (path, ticket)
    assert await ask(fleet, context, "GET", "/image/i", ticket=good) == (200, b"bytes")
    assert (await ask(fleet, context, "GET", "/image/i", ticket=good))[0] == 403
    fleet.clock.ahead_s = LIFE_S + 1
    assert (await ask(fleet, context, "GET", "/image/i", ticket=late))[0] == 403


async def test_an_image_without_bytes_is_not_found(fleet: Fleet, tmp_path: Path) -> None:
    host_id = await joined(fleet, tmp_path / "host")
    context = IdentityFiles(tmp_path / "host").channel_context()
    status, body = await ask(fleet, context, "GET", "/image/none", ticket=fleet.channel.ticket(host_id, "none"))
    assert status == 404
    assert b"has no bytes" in body


async def test_without_a_certificate_only_the_join_is_open(fleet: Fleet, tmp_path: Path) -> None:
    host_id = await joined(fleet, tmp_path / "host")
    fleet.images["i"] = [b"bytes"]
    nobody, ticket = trusting(fleet), fleet.channel.ticket(host_id, "i")
    assert (await ask(fleet, nobody, "GET", "/ca"))[0] == 200
    for method, path in (("GET", "/image/i"), ("POST", "/renew"), ("GET", "/"), ("GET", "/elsewhere")):
        assert (await ask(fleet, nobody, method, path, ticket=ticket))[0] == 403
    assert (await ask(fleet, nobody, "GET", "/join"))[0] == 405
    assert (await ask(fleet, nobody, "POST", "/join", b"{}"))[0] == 400
    assert (await ask(fleet, nobody, "POST", "/join", b"\xff"))[0] == 400


async def test_a_certificate_of_another_authority_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other", time.time())
    context = trusting(fleet)
    context.load_cert_chain(*other.ensure_server("channel", ["127.0.0.1"], time.time()))
    with pytest.raises((OSError, http.client.HTTPException)):
        await ask(fleet, context, "GET", "/ca")


async def test_a_certificate_that_is_ours_but_no_hosts_is_refused(fleet: Fleet) -> None:
    context = trusting(fleet)
    context.load_cert_chain(*fleet.server.authority.ensure_server("nats", ["127.0.0.1"], time.time()))
    with pytest.raises((OSError, http.client.HTTPException, AssertionError)):
        assert (await ask(fleet, context, "GET", "/ca"))[0] == 200


async def test_a_removed_hosts_stream_ends_at_once(fleet: Fleet, tmp_path: Path) -> None:
    host_id = await joined(fleet, tmp_path / "host")
    flowing = asyncio.Event()

    async def endless(image_id: str, begin: int):
        while True:
            flowing.set()
            yield b"x" * 65536
            await asyncio.sleep(0)

    fleet.listener._images = endless
    context = IdentityFiles(tmp_path / "host").channel_context()
    fetch = asyncio.create_task(ask(fleet, context, "GET", "/image/i", ticket=fleet.channel.ticket(host_id, "i")))
    await flowing.wait()
    await fleet.enrollment.remove(host_id)
    with pytest.raises((OSError, http.client.HTTPException)):
        await asyncio.wait_for(fetch, 10)


async def test_too_much_is_refused(fleet: Fleet) -> None:
    nobody = trusting(fleet)
    try:
        status, _ = await ask(fleet, nobody, "POST", "/join", b"x" * (channel.BODY_MAX + 1))
    except OSError:
        status = 413  # Our answer was overtaken by the end of the connection.
    assert status == 413


async def test_endless_headers_end_the_connection(fleet: Fleet) -> None:
    with pytest.raises((OSError, http.client.HTTPException)):
        await ask(fleet, trusting(fleet), "GET", "/" + "x" * (channel.HEADERS_MAX * 8))


async def test_old_protocols_are_refused(fleet: Fleet) -> None:
    context = trusting(fleet)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(OSError, match=r"(?i)protocol|alert|version"):
        await ask(fleet, context, "GET", "/ca")


async def test_who_says_nothing_is_not_waited_for(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "REQUEST_S", 0.2)
    host, _, port = fleet.address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=trusting(fleet))
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()


async def test_connections_are_bounded(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "CONNECTIONS_MAX", 1)
    host, _, port = fleet.address.partition(":")
    first = await asyncio.open_connection(host, int(port), ssl=trusting(fleet))
    second = await asyncio.open_connection(host, int(port), ssl=trusting(fleet))
    assert await asyncio.wait_for(second[0].read(), 10) == b""
    for _, writer in (first, second):
        writer.close()


# Snapshots on their way in.


def a_file(tmp_path: Path, data: bytes = b"".join(BYTES)) -> str:
    path = tmp_path / "snapshot"
    path.write_bytes(data)
    return str(path)


async def send(folder: Path, path: str, offer: Offer) -> None:
    await asyncio.to_thread(ChannelSource(IdentityFiles(folder).channel_context).send, path, offer)


async def test_a_snapshot_is_sent_as_the_agent_sends_it_once(fleet: Fleet, tmp_path: Path) -> None:
    host_id = await joined(fleet, tmp_path / "host")
    offer = fleet.channel.upload_offer(host_id, "i")
    await send(tmp_path / "host", a_file(tmp_path), offer)
    assert b"".join(fleet.images["i"]) == b"".join(BYTES)
    with pytest.raises(Failed, match="403"):
        await send(tmp_path / "host", a_file(tmp_path), offer)


async def test_permissions_to_fetch_and_to_send_are_two(fleet: Fleet, tmp_path: Path) -> None:
    mine, other = await joined(fleet, tmp_path / "a", "a"), await joined(fleet, tmp_path / "b", "b")
    fleet.images["i"] = [b"bytes"]
    context = IdentityFiles(tmp_path / "a").channel_context()
    to_send, to_fetch = fleet.channel.upload_offer(mine, "i").ticket, fleet.channel.ticket(mine, "i")
    for method, path, ticket in (
        ("GET", "/image/i", to_send),
        ("PUT", "/image/i", to_fetch),
        ("PUT", "/image/j", to_send),
        ("PUT", "/image/i", fleet.channel.upload_offer(other, "i").ticket),
        ("PUT", "/image/i", ""),
    ):
        status, _ = await ask(fleet, context, method, path, b"x" if method == "PUT" else None, ticket)
        assert status == 403, (method, path)
    assert (await ask(fleet, trusting(fleet), "PUT", "/image/i", b"x", to_send))[0] == 403
    assert fleet.images["i"] == [b"bytes"]


async def test_who_sends_too_much_hears_why(fleet: Fleet, tmp_path: Path) -> None:
    """Also a sender that is not done yet: the connection stays until it has read the answer."""
    host_id = await joined(fleet, tmp_path / "host")

    async def refuse(image_id: str, chunks: AsyncIterator[bytes], size: int | None) -> None:
        await anext(chunks)
        raise OverQuota("The project has no room for that.")

    fleet.listener._take = refuse
    with pytest.raises(Failed, match="no room"):
        await send(tmp_path / "host", a_file(tmp_path, b"x" * 30_000_000), fleet.channel.upload_offer(host_id, "i"))


async def test_an_image_is_fetched_from_a_byte_on(fleet: Fleet, tmp_path: Path) -> None:
    host_id = await joined(fleet, tmp_path / "host")
    fleet.images["i"] = BYTES
    context = IdentityFiles(tmp_path / "host").channel_context()

    def rest(begin: str) -> tuple[int, bytes]:
        host, _, port = fleet.address.partition(":")
        connection = http.client.HTTPSConnection(host, int(port), timeout=10, context=context)
        ticket = fleet.channel.ticket(host_id, "i")
        connection.request("GET", "/image/i", headers={"Hostler-Ticket": ticket, "Range": begin})
        response = connection.getresponse()
        return response.status, response.read()

    assert await asyncio.to_thread(rest, "bytes=1999999-") == (206, b"bc")
    assert (await asyncio.to_thread(rest, "bytes=1-2"))[0] == 400
