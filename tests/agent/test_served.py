"""What a host serves over its channel: of its own guests and cache, and nothing else."""

import socket

import pytest

from agent.served import Served
from agent.wire import domain, image
from agent.wire.errors import Failed, NotFound
from agent.wire.lifecycle import Progress
from agent.wire.specs import Empty
from tests.agent.rig import DISK, GONE, IMAGE, SERVER, SHA, WHOLE, Rig, simulated
from tests.rfb import SocketLine, Viewer


async def a_host_with_a_guest() -> tuple[Rig, Served]:
    rig = Rig()
    rig.start()
    await rig.ready()
    for row, spec in WHOLE:
        await rig.until(row, spec)
    assert rig.agent is not None
    return rig, Served(rig.agent.effects)


def test_a_guests_screen_is_shown_and_a_strangers_is_not() -> None:
    async def play() -> None:
        rig, served = await a_host_with_a_guest()
        with await served.tunnels()["vnc"](SERVER) as screen:
            assert Viewer(SocketLine(screen)).frame().colours() > 1
        for kind in ("vnc", "serial"):
            with pytest.raises(NotFound):
                await served.tunnels()[kind]("../../etc")
        rig.host.power_off_from_inside(SERVER)
        with pytest.raises(Failed):
            await served.tunnels()["vnc"](SERVER)

    simulated(play)


def test_the_newest_connection_has_the_serial_port() -> None:
    async def play() -> None:
        _, served = await a_host_with_a_guest()
        first = await served.tunnels()["serial"](SERVER)
        second = await served.tunnels()["serial"](SERVER)
        line = SocketLine(first)
        while line.receive():  # What was said before; then the end.
            pass
        other = SocketLine(second)
        assert b"login:" in other.receive()
        other.send(b"root\n")
        assert other.receive() == b"root\n"
        for one in (first, second):
            one.close()
        (await served.tunnels()["serial"](SERVER)).close()

    simulated(play)


def test_images_are_served_from_the_cache_alone() -> None:
    async def play() -> None:
        _, served = await a_host_with_a_guest()
        assert SHA in await served.image(SHA)
        with pytest.raises(NotFound):
            await served.image("cd" * 32)

    simulated(play)


def test_the_host_says_which_images_are_in_use() -> None:
    async def play() -> None:
        rig, _ = await a_host_with_a_guest()
        assert (await rig.call(image.LIST, Empty())).used == (IMAGE,)
        gone = {row.name: (row, absence) for row, absence in GONE}
        await rig.until(*gone[domain.ABSENT.name], end=Progress.ABSENT)
        assert (await rig.call(image.LIST, Empty())).used == (IMAGE,), f"{DISK} is still there"
        await rig.until(*gone["disk.absent"], end=Progress.ABSENT)
        assert (await rig.call(image.LIST, Empty())).used == ()

    simulated(play)


def test_a_closed_socket_is_no_trouble_for_the_next() -> None:
    async def play() -> None:
        _, served = await a_host_with_a_guest()
        (await served.tunnels()["serial"](SERVER)).close()
        with await served.tunnels()["serial"](SERVER) as second:
            assert second.type is socket.SOCK_STREAM

    simulated(play)
