"""The agent's end of the socket to the guard: says what should be, and only what the guard does not know yet.

The agent listens, the guard connects: so whichever of them starts again finds the other. Only a process with the
guard's own uid is let in, one at a time.
"""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import structlog

from agent import guard_frames
from agent.guard_frames import Forget, Frames, Hello, Listen, Sync, Synced, Tell, ToAgent, ToGuard, Withdraw
from agent.guarding import Documents, Guard
from agent.wire.errors import WireError
from agent.wire.world import Threads
from drivers.network import netns

ADDRESS: Final = "169.254.169.254"
PORT: Final = 80
OPEN_S: Final = 10.0
"""For opening one listening socket."""

ANSWER_S: Final = 10.0
"""For the guard to answer. One that does not is as good as gone: the connection is closed."""

RETRY_S: Final = 5.0
"""Until what could not be opened is tried again."""

_CHUNK: Final = 65536
_PEER: Final = struct.Struct("3i")

log = structlog.get_logger()


class GuardLink:
    """See agent.guarding.Guard. `run` keeps the guard up to date."""

    def __init__(
        self, path: Path, uid: int, threads: Threads, *, listen: Callable[[str], socket.socket] | None = None
    ) -> None:
        self._path = path
        self._uid = uid
        self._threads = threads
        self._listen = listen or listener_in
        self._networks: dict[str, str] = {}
        self._documents: Documents = {}
        self._version = 0  # Of what should be.
        self._told_version = -1  # What the guard was told,
        self._is_complete = False  # and whether it could be told all of it.
        self._changed = asyncio.Event()
        self._told = asyncio.Condition()

    def serve(self, network_id: str, namespace: str) -> None:
        """See Guard."""
        self._networks[network_id] = namespace
        self._change()

    def withdraw(self, network_id: str) -> None:
        """See Guard."""
        if self._networks.pop(network_id, None) is not None:
            self._change()

    def publish(self, documents: Documents) -> None:
        """See Guard."""
        if documents != self._documents:
            self._documents = dict(documents)
            self._change()

    async def settle(self, timeout_s: float) -> bool:
        """See Guard. What could not be opened is tried again later: nobody waits for that."""
        want = self._version
        try:
            async with asyncio.timeout(timeout_s), self._told:
                await self._told.wait_for(lambda: self._told_version >= want)
        except TimeoutError:
            return False
        return self._is_complete

    async def run(self) -> None:
        """Let guards in, until cancelled."""
        self._path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as server:
            server.bind(str(self._path))
            if self._uid != os.getuid():
                os.chown(self._path, self._uid, -1)
            self._path.chmod(0o600)
            server.listen(4)
            while True:
                sock, _ = await asyncio.get_running_loop().sock_accept(server)
                with sock:
                    await self._keep(sock)

    async def _keep(self, sock: socket.socket) -> None:
        """One guard, until it goes."""
        uid = _PEER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))[1]
        if uid != self._uid:
            log.warning("somebody else wants to be the guard", uid=uid)
            return
        try:
            await _Session(sock, self).run()
        except (OSError, ValueError, TimeoutError) as error:
            log.info("the guard is away", why=str(error) or type(error).__name__)
        self._told_version = -1

    def _change(self) -> None:
        self._version += 1
        self._changed.set()


class _Session:
    """One connection of a guard: what it has, and what it is told."""

    def __init__(self, sock: socket.socket, link: GuardLink) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._link = link
        self._frames = Frames()
        self._listening: dict[str, str] = {}
        self._said: dict[tuple[str, str], str] = {}
        self._serial = 0
        self._troubles: dict[str, str] = {}
        self._decoder = msgspec.msgpack.Decoder(ToAgent)

    async def run(self) -> None:
        """Until the guard goes, which raises."""
        hello = await self._answer()
        if not isinstance(hello, Hello):
            raise ValueError("the guard did not say what it has")
        self._listening = dict(hello.listening)
        self._said = {(network_id, address): digest for network_id, address, digest in hello.said}
        log.info("the guard is there", networks=len(self._listening), guests=len(self._said))
        while True:
            self._link._changed.clear()
            version = self._link._version
            is_complete = await self._tell()
            await self._sync()
            async with self._link._told:
                self._link._told_version, self._link._is_complete = version, is_complete
                self._link._told.notify_all()
            await self._wait_for_change(None if is_complete else RETRY_S)

    async def _tell(self) -> bool:
        """Everything that the guard does not have, or should not. False if something could not be opened."""
        documents, networks = self._link._documents, dict(self._link._networks)
        for who in sorted(self._said.keys() - documents.keys()):
            await self._send(Forget(*who))
            del self._said[who]
        for network_id in sorted(self._listening.keys() - networks.keys()):
            await self._send(Withdraw(network_id))
            del self._listening[network_id]
        for who, guest in sorted(documents.items(), key=lambda row: row[0]):
            digest = guard_frames.digest(guest)
            if self._said.get(who) != digest:
                await self._send(Tell(*who, guest))
                self._said[who] = digest
        return all([await self._serve(network_id, name) for network_id, name in sorted(networks.items())])

    async def _serve(self, network_id: str, namespace: str) -> bool:
        """Pass a listening socket, unless the guard has one of this very namespace."""
        identity = namespace_identity(namespace)
        if self._listening.get(network_id) == identity:
            return True
        if network_id in self._listening:
            await self._send(Withdraw(network_id))
            del self._listening[network_id]
            await self._sync()  # Its port is free before it is taken again.
        try:
            listener = await self._link._threads.run(self._link._listen, namespace, timeout_s=OPEN_S)
        except (OSError, WireError, TimeoutError) as error:
            self._note(network_id, str(error) or type(error).__name__)
            return False
        with listener:
            await self._send(Listen(network_id, identity), listener)
        self._listening[network_id] = identity
        self._troubles.pop(network_id, None)
        return True

    def _note(self, network_id: str, why: str) -> None:
        """Once for each reason, not with every try."""
        if self._troubles.get(network_id) != why:
            self._troubles[network_id] = why
            log.warning("metadata cannot be served", network=network_id, why=why)

    async def _sync(self) -> None:
        self._serial += 1
        await self._send(Sync(self._serial))
        answer = await self._answer()
        if answer != Synced(self._serial):
            raise ValueError("the guard answered something else")

    async def _send(self, frame: ToGuard, descriptor: socket.socket | None = None) -> None:
        data = guard_frames.encode(frame)
        async with asyncio.timeout(ANSWER_S):
            if descriptor is not None:
                data = data[await self._pass(data, descriptor) :]
            await asyncio.get_running_loop().sock_sendall(self._sock, data)

    async def _pass(self, data: bytes, descriptor: socket.socket) -> int:
        """Send a beginning of `data` with a descriptor; how much of it went."""
        while True:
            try:
                return socket.send_fds(self._sock, [data], [descriptor.fileno()])
            except BlockingIOError:
                await asyncio.sleep(0.01)

    async def _answer(self) -> ToAgent:
        async with asyncio.timeout(ANSWER_S):
            while True:
                data = await asyncio.get_running_loop().sock_recv(self._sock, _CHUNK)
                if not data:
                    raise ConnectionError("it closed the connection")
                bodies = self._frames.feed(data)
                if bodies:
                    frame: ToAgent = self._decoder.decode(bodies[0])
                    return frame

    async def _wait_for_change(self, timeout_s: float | None) -> None:
        """Until there is news, or the guard goes, or it is time to try again."""
        loop = asyncio.get_running_loop()
        gone = loop.create_task(loop.sock_recv(self._sock, 1))
        changed = loop.create_task(self._link._changed.wait())
        try:
            await asyncio.wait({gone, changed}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                raise ConnectionError("it closed the connection")
        finally:
            gone.cancel()
            changed.cancel()
            await asyncio.gather(gone, changed, return_exceptions=True)


def listener_in(namespace: str) -> socket.socket:
    """A listening socket for metadata inside a namespace. Blocks."""
    return netns.listen(namespace, ADDRESS, PORT)


def namespace_identity(namespace: str) -> str:
    """Tells a namespace from a later one of the same name."""
    with contextlib.suppress(OSError):
        return str(netns.path(namespace).stat().st_ino)
    return ""


_: type[Guard] = GuardLink
