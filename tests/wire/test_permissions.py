"""What the server lets each identity do: a stolen credential of one host reaches no other."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator

import pytest

from agent.wire import subjects
from agent.wire.bus import Message, NatsBus
from agent.wire.errors import Silent
from agent.wire.world import SystemEntropy
from tests.bus_server import BusServer, HostKey


@contextlib.asynccontextmanager
async def parties(server: BusServer) -> AsyncIterator[tuple[NatsBus, NatsBus, NatsBus]]:
    """Controller, an honest host, and one whose credentials somebody has stolen."""
    buses = [await server.bus("controller"), await server.host_bus("honest", HostKey())]
    buses.append(await server.host_bus("evil", HostKey()))
    try:
        yield buses[0], buses[1], buses[2]
    finally:
        for bus in buses:
            await bus.close()


async def heard(bus: NatsBus, subject: str) -> list[Message]:
    """A list that grows with what arrives."""
    messages: list[Message] = []

    async def hear(message: Message) -> None:
        messages.append(message)

    await bus.subscribe(subject, hear)
    return messages


def denied(server: BusServer, verb: str) -> set[str]:
    """Subjects of the violations that the server has logged."""
    return set(re.findall(rf'{verb} Violation - Subject "([^"]+)"', (server.folder / "nats.log").read_text()))


async def settled(bus: NatsBus) -> None:
    """Everything that this bus has sent was read by the server, and had time to arrive."""
    assert bus._client is not None
    await bus._client.flush()
    await bus._client.flush()
    await asyncio.sleep(0.1)


FOREIGN = [
    "hostler.v1.event.host.honest.heartbeat",
    "hostler.v1.event.host.honest.started",
    "hostler.v1.controller.honest.host.resume",
    "hostler.v1.host.honest.domain.absent",
    "hostler.v1.event.fleet.x.echo",
    "hostler.v1.event.compute.instance.delete",
    "_INBOX.controller.x.1",
    "_INBOX.honest.x.1",
    "$SYS.REQ.SERVER.PING",
]


async def test_a_host_cannot_publish_as_anybody_else(server: BusServer) -> None:
    async with parties(server) as (controller, honest, evil):
        everything = [
            await heard(controller, "hostler.v1.event.>"),
            await heard(controller, "hostler.v1.controller.>"),
            await heard(controller, "_INBOX.controller.>"),
            await heard(honest, "hostler.v1.host.honest.>"),
            await heard(honest, "_INBOX.honest.>"),
        ]
        for subject in FOREIGN:
            await evil.publish(subject, b"forged")
        await settled(evil)
        assert not any(everything)
        assert denied(server, "Publish") == set(FOREIGN)


async def test_a_host_publishes_its_own_events(server: BusServer) -> None:
    async with parties(server) as (controller, honest, _):
        events = await heard(controller, "hostler.v1.event.host.*.*")
        await honest.publish(subjects.host_event("honest", "heartbeat"), b"{}")
        await settled(honest)
        assert [subjects.host_of(message.subject) for message in events] == ["honest"]


OVERHEARD = [
    ">",
    "*.>",
    "hostler.>",
    "hostler.v1.host.>",
    "hostler.v1.host.*.port.ensure",
    "hostler.v1.host.honest.>",
    "hostler.v1.event.>",
    "hostler.v1.event.host.honest.*",
    "hostler.v1.controller.>",
    "hostler.v1.controller.honest.>",
    "_INBOX.>",
    "_INBOX.*.>",
    "_INBOX.controller.>",
    "_INBOX.honest.>",
    "$SYS.>",
]


async def test_a_host_cannot_listen_to_anybody_else(server: BusServer) -> None:
    async with parties(server) as (controller, honest, evil):
        spied = [await heard(evil, subject) for subject in OVERHEARD]

        async def answer(message: Message) -> bytes:
            return b"secret"

        await honest.subscribe("hostler.v1.host.honest.>", answer)
        await controller.subscribe("hostler.v1.controller.*.>", answer, queue="controllers")
        assert await controller.request("hostler.v1.host.honest.port.ensure", b"spec", {}, 5.0) == b"secret"
        assert await honest.request("hostler.v1.controller.honest.a.b", b"question", {}, 5.0) == b"secret"
        await honest.publish("hostler.v1.event.host.honest.port", b"event")
        await settled(honest)
        await settled(controller)
        assert not any(spied)
        assert denied(server, "Subscription") == set(OVERHEARD)


async def test_the_collector_asks_for_samples_and_nothing_else(server: BusServer) -> None:
    async with parties(server) as (controller, honest, _):
        collector = await server.bus("collector")
        try:
            asked: list[str] = []

            async def answer(message: Message) -> bytes:
                asked.append(message.subject)
                return b"samples"

            await honest.subscribe("hostler.v1.host.honest.>", answer)
            others = ("event.>", "event.host.*.*", "event.host.honest.domain", "host.>", "controller.>")
            spied = [await heard(collector, f"hostler.v1.{subject}") for subject in others]
            beats = await heard(collector, "hostler.v1.event.host.*.heartbeat")
            assert await collector.request("hostler.v1.host.honest.samples.get", b"", {}, 5.0) == b"samples"
            for name in ("domain.absent", "domain.get", "host.ledger", "samples.forget"):
                with pytest.raises(Silent):
                    await collector.request(subjects.host("honest", name), b"", {}, 0.2)
            await controller.publish("hostler.v1.event.compute.a.b", b"")
            await settled(controller)
            await honest.publish(subjects.host_event("honest", "domain"), b"{}")
            await honest.publish(subjects.host_event("honest", "heartbeat"), b"{}")
            await settled(honest)
            assert [subjects.host_of(message.subject) for message in beats] == ["honest"]
            assert asked == ["hostler.v1.host.honest.samples.get"]
            assert not any(spied)
        finally:
            await collector.close()


async def test_a_revoked_host_is_disconnected_and_cannot_return(server: BusServer) -> None:
    async with parties(server) as (controller, honest, _):
        key = HostKey()
        removed = await server.host_bus("removed", key)
        try:
            server.identity.revoke([key.public], time.time())
            server.reload()
            async with asyncio.timeout(10):
                while removed.is_connected:
                    await asyncio.sleep(0.01)
            assert not await removed.connected(2.0)
            assert controller.is_connected
            assert honest.is_connected
        finally:
            await removed.close()


async def test_a_revocation_outlives_the_server_and_a_new_configuration(server: BusServer) -> None:
    key = HostKey()
    server.identity.revoke([key.public], time.time())
    assert not server.identity.revoke([key.public], time.time())
    server.stop()
    await server.start()
    jwt = server.identity.host_jwt("removed", key.public, time.time() - 1)
    bus = NatsBus([server.url], "removed", lambda: server.credentials(jwt, key), SystemEntropy())
    await bus.start()
    try:
        assert not await bus.connected(1.0)
    finally:
        await bus.close()


async def test_the_server_refuses_a_client_without_credentials_or_of_another_authority(
    server: BusServer, tmp_path
) -> None:
    import ssl

    import nats.errors
    from nats.aio.client import Client

    from controller.bus_identity import BusIdentity

    trusted = ssl.create_default_context(cafile=str(server.authority.ca_path))
    once = {"allow_reconnect": False, "max_reconnect_attempts": 1, "reconnect_time_wait": 0.1}

    async def quiet(error: Exception) -> None: ...

    with pytest.raises(nats.errors.Error):
        await Client().connect(server.url, tls=trusted, error_cb=quiet, **once)
    with pytest.raises(ssl.SSLCertVerificationError):
        await Client().connect(server.url, tls=ssl.create_default_context(), error_cb=quiet, **once)
    stranger, key = BusIdentity(tmp_path / "other"), HostKey()
    jwt = stranger.host_jwt("honest", key.public, time.time())
    bus = NatsBus([server.url], "honest", lambda: server.credentials(jwt, key), SystemEntropy())
    await bus.start()
    try:
        assert not await bus.connected(1.5)
    finally:
        await bus.close()
