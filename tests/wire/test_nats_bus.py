"""The real bus against a real server: requests, silence, gaps, and connections that are lost."""

import asyncio
import contextlib
import time
import uuid

import pytest

from agent.wire import bus as wire
from agent.wire import forwarding
from agent.wire import host as host_calls
from agent.wire.bus import Message, NatsBus, answering, assembling
from agent.wire.errors import Failed, Invalid, Silent
from agent.wire.lifecycle import Generation, Progress
from agent.wire.parts import Collector
from agent.wire.specs import MESSAGE_BYTES_MAX, Empty, encode
from agent.wire.subjects import Permissions
from agent.wire.world import SystemEntropy
from tests.bus_server import BusServer, HostKey


@contextlib.asynccontextmanager
async def closing(*buses: NatsBus):
    try:
        yield
    finally:
        for bus in buses:
            await bus.close()


async def eventually(claim, timeout_s: float = 20.0) -> None:
    """Wait until `claim()` holds."""
    async with asyncio.timeout(timeout_s):
        while not claim():
            await asyncio.sleep(0.02)


async def echo(message: Message) -> bytes:
    return message.data


async def test_a_call_reaches_one_host_and_comes_back(server: BusServer) -> None:
    controller, host = await server.bus("controller"), await server.host_bus("h1", HostKey())
    async with closing(controller, host):
        seen: list[Message] = []

        async def ledger(request: host_calls.LedgerRequest, message: Message) -> host_calls.LedgerPage:
            seen.append(message)
            entry = host_calls.LedgerEntry("port", "p", Generation(1, 2), False, "ready")
            return host_calls.LedgerPage(entries=(entry,), next=request.after)

        await host.subscribe("hostler.v1.host.h1.host.ledger", answering(host_calls.LEDGER, ledger))
        request = host_calls.LedgerRequest(after="x")
        reply = await wire.call(controller, "h1", host_calls.LEDGER, request, {"Hostler-Request-Id": "req-1"})
        assert reply.entries[0].generation == Generation(1, 2)
        assert reply.next == "x"
        assert seen[0].headers["Hostler-Request-Id"] == "req-1"


async def test_nobody_listening_is_silence_at_once(server: BusServer) -> None:
    controller = await server.bus("controller")
    async with closing(controller):
        async with asyncio.timeout(10):
            with pytest.raises(Silent, match="nobody listens"):
                await controller.request("hostler.v1.host.h1.port.get", b"{}", {}, 60.0)


async def test_no_answer_in_time_is_silence(server: BusServer) -> None:
    controller, host = await server.bus("controller"), await server.host_bus("h1", HostKey())
    async with closing(controller, host):

        async def mute(message: Message) -> None:
            return None

        await host.subscribe("hostler.v1.host.h1.>", mute)
        with pytest.raises(Silent, match="in time"):
            await controller.request("hostler.v1.host.h1.port.get", b"{}", {}, 0.2)


async def test_a_message_over_the_bound_is_refused_here(server: BusServer) -> None:
    controller = await server.bus("controller")
    async with closing(controller):
        with pytest.raises(Invalid, match="larger"):
            await controller.request("hostler.v1.host.h1.a.b", b"x" * (MESSAGE_BYTES_MAX + 1), {}, 1.0)
        with pytest.raises(Invalid, match="larger"):
            await controller.publish("hostler.v1.event.a.b", b"x" * (MESSAGE_BYTES_MAX + 1))


async def test_a_call_over_the_bound_goes_in_parts(server: BusServer) -> None:
    """A network of five thousand ports, as the controller tells it to a host."""
    controller, host = await server.bus("controller"), await server.host_bus("h1", HostKey())
    peers = tuple(
        forwarding.Peer(port_id=str(uuid.UUID(int=number)), mac="fa:16:3e:00:00:01", addresses=(), end="198.18.0.11")
        for number in range(5000)
    )
    spec = forwarding.ForwardingSpec(id="n1", generation=Generation(1, 2), peers=peers)
    assert len(encode(spec)) > 2 * MESSAGE_BYTES_MAX
    async with closing(controller, host):
        seen: list[forwarding.ForwardingSpec] = []

        async def ensure(request: forwarding.ForwardingSpec, message: Message) -> forwarding.ForwardingStatus:
            seen.append(request)
            return forwarding.ForwardingStatus(id=request.id, generation=request.generation, progress=Progress.READY)

        answer = assembling(Collector(), answering(forwarding.ENSURE, ensure))
        await host.subscribe("hostler.v1.host.h1.forwarding.ensure", answer)
        headers = {"Hostler-Request-Id": "req-1"}
        assert (await wire.call(controller, "h1", forwarding.ENSURE, spec, headers)).progress is Progress.READY
        assert seen == [spec]


async def test_an_answer_over_the_bound_becomes_a_fault_and_the_largest_one_passes(server: BusServer) -> None:
    controller, host = await server.bus("controller"), await server.host_bus("h1", HostKey())
    async with closing(controller, host):

        async def long(message: Message) -> bytes:
            return b" " * int(message.data)

        await host.subscribe("hostler.v1.host.h1.>", long)
        subject = "hostler.v1.host.h1.host.get"
        assert len(await controller.request(subject, b"%d" % MESSAGE_BYTES_MAX, {}, 5.0)) == MESSAGE_BYTES_MAX
        answer = await controller.request(subject, b"%d" % (MESSAGE_BYTES_MAX + 1), {}, 5.0)
        with pytest.raises(Failed, match="more than one message"):
            wire._opened(answer, Empty)


async def test_handlers_of_one_subscription_run_at_once_but_bounded(server: BusServer) -> None:
    controller, host = await server.bus("controller"), await server.host_bus("h1", HostKey())
    async with closing(controller, host):
        running, most, gate = 0, 0, asyncio.Event()

        async def slow(message: Message) -> bytes:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await gate.wait()
            running -= 1
            return b""

        await host.subscribe("hostler.v1.host.h1.>", slow)
        calls = [
            asyncio.create_task(controller.request("hostler.v1.host.h1.a.b", b"", {}, 30.0))
            for _ in range(wire.HANDLERS_MAX + 20)
        ]
        await eventually(lambda: running == wire.HANDLERS_MAX)
        await asyncio.sleep(0.1)
        assert most == wire.HANDLERS_MAX
        gate.set()
        await asyncio.gather(*calls)


async def test_a_failing_handler_leaves_the_others_alone(server: BusServer) -> None:
    controller, host = await server.bus("controller"), await server.host_bus("h1", HostKey())
    async with closing(controller, host):

        async def broken(message: Message) -> bytes:
            if message.data == b"bad":
                raise RuntimeError("a bug")
            return b"fine"

        await host.subscribe("hostler.v1.host.h1.>", broken)
        with pytest.raises(Silent):
            await controller.request("hostler.v1.host.h1.a.b", b"bad", {}, 0.2)
        assert await controller.request("hostler.v1.host.h1.a.b", b"good", {}, 5.0) == b"fine"


async def test_a_closed_subscription_hears_no_more(server: BusServer) -> None:
    controller, host = await server.bus("controller"), await server.host_bus("h1", HostKey())
    async with closing(controller, host):
        subscription = await host.subscribe("hostler.v1.host.h1.>", echo)
        assert await controller.request("hostler.v1.host.h1.a.b", b"1", {}, 5.0) == b"1"
        await subscription.close()
        with pytest.raises(Silent):
            await controller.request("hostler.v1.host.h1.a.b", b"2", {}, 0.5)


async def test_after_a_restart_of_the_server_everything_works_again_and_the_gap_is_told(server: BusServer) -> None:
    controller, host = await server.bus("controller"), await server.host_bus("h1", HostKey())
    async with closing(controller, host):
        gaps: list[str] = []
        controller.on_gap(lambda: gaps.append("controller"))
        host.on_gap(lambda: gaps.append("host"))
        await host.subscribe("hostler.v1.host.h1.>", echo)
        server.stop()
        await eventually(lambda: not controller.is_connected and not host.is_connected)
        late = await controller.subscribe("hostler.v1.event.host.*.*", echo)
        await server.start()
        await eventually(lambda: sorted(gaps) == ["controller", "host"])
        assert await controller.request("hostler.v1.host.h1.a.b", b"x", {}, 5.0) == b"x"
        await late.close()


async def test_a_request_under_way_when_the_connection_is_lost_is_silence_at_once(server: BusServer) -> None:
    controller, host = await server.bus("controller"), await server.host_bus("h1", HostKey())
    async with closing(controller, host):
        asked = asyncio.Event()

        async def never(message: Message) -> bytes:
            asked.set()
            await asyncio.Event().wait()
            return b""

        await host.subscribe("hostler.v1.host.h1.>", never)
        call = asyncio.create_task(controller.request("hostler.v1.host.h1.a.b", b"", {}, 600.0))
        await asked.wait()
        server.stop()
        async with asyncio.timeout(20):
            with pytest.raises(Silent):
                await call


async def test_what_is_asked_before_there_is_a_connection_waits_for_it(server: BusServer) -> None:
    server.stop()
    jwt, seed = server.identity.credentials("controller")
    controller = NatsBus([server.url], "controller", server.file_credentials(jwt, seed), SystemEntropy())
    await controller.start()
    async with closing(controller):
        heard = asyncio.Event()

        async def hear(message: Message) -> None:
            heard.set()

        await controller.subscribe("hostler.v1.event.test.*.*", hear)
        with pytest.raises(Silent):
            await controller.request("hostler.v1.host.h1.a.b", b"", {}, 0.1)
        await controller.publish("hostler.v1.event.test.a.lost", b"")
        await server.start()
        assert await controller.connected(40)
        await controller.publish("hostler.v1.event.test.a.b", b"")
        await asyncio.wait_for(heard.wait(), 5)


async def test_a_new_connection_is_made_with_credentials_read_anew(server: BusServer) -> None:
    old, new = HostKey(), HostKey()
    held = [server.credentials(server.identity.host_jwt("h1", old.public, time.time()), old)]
    host = NatsBus([server.url], "h1", lambda: held[0], SystemEntropy())
    controller = await server.bus("controller")
    await host.start()
    async with closing(controller, host):
        assert await host.connected(10)
        await host.subscribe("hostler.v1.host.h1.>", echo)
        server.identity.revoke([old.public], time.time())
        server.reload()
        await eventually(lambda: not host.is_connected)
        held[0] = server.credentials(server.identity.host_jwt("h1", new.public, time.time()), new)
        await eventually(lambda: host.is_connected)
        assert await controller.request("hostler.v1.host.h1.a.b", b"x", {}, 5.0) == b"x"


async def test_a_queue_group_hears_each_message_once(server: BusServer) -> None:
    host, one, two = (
        await server.host_bus("h1", HostKey()),
        await server.bus("controller"),
        await server.bus("controller"),
    )
    async with closing(host, one, two):
        heard: list[str] = []

        def hearing(name: str):
            async def hear(message: Message) -> bytes:
                heard.append(name)
                return b"ok"

            return hear

        await one.subscribe("hostler.v1.controller.*.>", hearing("one"), queue="controllers")
        await two.subscribe("hostler.v1.controller.*.>", hearing("two"), queue="controllers")
        for _ in range(20):
            assert await host.request("hostler.v1.controller.h1.a.b", b"", {}, 5.0) == b"ok"
        assert len(heard) == 20


async def test_no_answer_goes_to_a_subject_that_is_not_the_askers_inbox(server: BusServer) -> None:
    """A host that asks with another host's subject as reply must not have the controller speak to that host."""
    from nats.aio.client import Client

    controller, victim = await server.bus("controller"), await server.host_bus("victim", HostKey())
    key = HostKey()
    held = server.credentials(server.identity.host_jwt("evil", key.public, time.time()), key)
    evil = NatsBus([server.url], "evil", lambda: held, SystemEntropy())
    raw = Client()
    async with closing(controller, victim):
        hit, asked = [], []

        async def hear(message: Message) -> None:
            hit.append(message)

        async def answer(message: Message) -> bytes:
            asked.append(message.subject)
            return b"command"

        await victim.subscribe("hostler.v1.host.victim.>", hear)
        await controller.subscribe("hostler.v1.controller.*.>", answer, queue="controllers")
        await raw.connect(**evil._options(asyncio.Event()))
        for reply in ("hostler.v1.host.victim.domain.absent", "_INBOX.victim.x.1", "_INBOX.evil.x.1"):
            await raw.publish("hostler.v1.controller.evil.a.b", b"", reply=reply)
        await raw.flush()
        await eventually(lambda: len(asked) == 1)  # The last one only.
        await asyncio.sleep(0.1)
        assert not hit
        await raw.close()


async def test_permissions_of_the_answers_are_spent_after_one(server: BusServer) -> None:
    """`allow_responses` lets a host answer a request once; the inbox is not open to it afterwards."""
    controller, host = await server.bus("controller"), await server.host_bus("h1", HostKey())
    async with closing(controller, host):
        replies: list[str] = []
        heard: list[bytes] = []

        async def note(message: Message) -> None:
            replies.append(message.subject)

        await host.subscribe("hostler.v1.host.h1.>", note)
        listener = await server.bus_with(
            "spy", Permissions(publish=("hostler.v1.host.>",), subscribe=("_INBOX.spy.>",), responses=False)
        )
        async with closing(listener):

            async def hear(message: Message) -> None:
                heard.append(message.data)

            await listener.subscribe("_INBOX.spy.>", hear)
            assert listener._client is not None
            await listener._client.publish("hostler.v1.host.h1.a.b", b"", reply="_INBOX.spy.r")
            await eventually(lambda: replies)
            for text in (b"first", b"second"):
                await host.publish("_INBOX.spy.r", text)
            await eventually(lambda: heard)
            await asyncio.sleep(0.1)
            assert heard == [b"first"]
