"""The controller's end of image inspection: uploads are looked at in `inspector`'s children, never in here.

What a child answers is a stranger's word: of bounded length, decoded into a type, checked again. One that crashes,
answers nonsense or does not answer refuses its image. One that could not be started says nothing about the image:
Unavailable, so that the client tries again.

A server that dies is started again. When that fails though it worked before, it does so for ever: root, who could read
its code, has been given up. `lost` says so, and the controller ends: the next one begins as root.
"""

import asyncio
import contextlib
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

import msgspec
import structlog

from controller.errors import Unavailable, UnsupportedMedia
from controller.image.verdict import READY, VIRTUAL_BYTES_MAX, Verdict

UID: Final = 65531
"""Nobody's uid but the inspector's: it owns no file and no other process."""

START_S: Final = 30.0
"""From the request to READY. The first one of a server waits until it is loaded, on a machine that may be busy."""

ANSWER_S: Final = 30.0
"""In which a child must take a chunk, and answer when all were given. More than its processor time may be."""

END_S: Final = 1.0
"""From the last that is heard of a server that could not be loaded until it is gone."""

ANSWER_MAX: Final = 4096

_ROOT: Final = Path(__file__).resolve().parents[2]

_UNCLEAR: Final = "The image could not be inspected: its content makes no sense."

log = structlog.get_logger()


class Inspectors:
    """Where inspections begin. The server is started at the first, or by `start`; one that has died, anew."""

    def __init__(self, uid: int = UID) -> None:
        self._uid = uid
        self._server: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._is_up = False
        self._has_worked = False
        self.lost = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """The server's."""
        return self._server.pid if self._server is not None else None

    def start(self) -> None:
        """Start the server: root does this before it stops being root. Raises OSError."""
        self.close()
        self._is_up = False
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        number = theirs.fileno()
        try:
            self._server = subprocess.Popen(
                [sys.executable, "-s", "-m", "controller.image.inspector", str(number), str(self._uid)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={"PYTHONPATH": str(_ROOT), "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8"},
                pass_fds=(number,),
            )
            self._control = ours
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()

    def close(self) -> None:
        """End the server and every inspection."""
        self._listen()
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._server is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._server.wait(START_S)
            self._server = None

    async def begin(self, declared: str) -> "Inspected":
        """A child for one image. Raises Unavailable."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        inspected = Inspected(ours)
        try:
            with theirs:
                self._request(declared, theirs)
            await inspected.ready()
        except (OSError, TimeoutError) as error:
            await inspected.aclose()
            log.error("no image can be inspected", error=str(error) or type(error).__name__)
            if await self._is_lost():
                self.lost.set()
            raise Unavailable("Images cannot be inspected at the moment; try again later.") from error
        except BaseException:
            await inspected.aclose()
            raise
        return inspected

    def _listen(self) -> None:
        """Whether the server has said that it is loaded."""
        if self._control is not None and not self._is_up:
            with contextlib.suppress(OSError):
                self._is_up = self._control.recv(len(READY)) == READY
            self._has_worked |= self._is_up

    async def _is_lost(self) -> bool:
        """Whether an earlier server worked, and this one ended before it was loaded, or never began."""
        self._listen()
        if self._is_up or not self._has_worked:
            return False
        if self._server is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):  # It closes its sockets a moment before it is gone.
                await asyncio.to_thread(self._server.wait, END_S)
        return self._server is None or self._server.poll() is not None

    def _request(self, declared: str, theirs: socket.socket) -> None:
        if self._control is None or self._server is None or self._server.poll() is not None:
            self.start()
        assert self._control is not None, "it was just started"
        socket.send_fds(self._control, [declared.encode()], [theirs.fileno()])


class Inspected:
    """One image's bytes on their way to its child. Feed it all of them; it takes what it needs."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._answer: asyncio.Task[bytes] | None = None

    async def ready(self) -> None:
        """Wait for the child. Raises OSError if it never came so far, TimeoutError."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(START_S):
            if await loop.sock_recv(self._sock, 1) != READY:
                raise ConnectionResetError("the child did not start")
        self._answer = asyncio.create_task(self._listen())

    async def feed(self, chunk: bytes) -> None:
        """The next bytes; nothing once the child has answered. Raises UnsupportedMedia if it does not take them."""
        assert self._answer is not None, "the child is ready"
        if self._answer.done():
            return
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(ANSWER_S):
                await loop.sock_sendall(self._sock, chunk)
        except TimeoutError as error:
            raise UnsupportedMedia(_UNCLEAR) from error
        except OSError:
            return  # It has answered, or died: `finish` will see.

    async def finish(self, size: int) -> int:
        """The virtual size in bytes of an image that has `size`. Raises UnsupportedMedia with what is wrong."""
        assert self._answer is not None, "the child is ready"
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
        try:
            async with asyncio.timeout(ANSWER_S):
                verdict = msgspec.json.decode(await asyncio.shield(self._answer), type=Verdict)
        except (OSError, TimeoutError, msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("an image's inspection ended without an answer", error=str(error) or type(error).__name__)
            raise UnsupportedMedia(_UNCLEAR) from error
        if verdict.refused:
            raise UnsupportedMedia(verdict.refused)
        virtual = size if verdict.virtual_bytes is None else verdict.virtual_bytes
        if verdict.virtual_bytes is not None and not 0 < virtual <= VIRTUAL_BYTES_MAX:
            raise UnsupportedMedia(_UNCLEAR)
        return virtual

    async def aclose(self) -> None:
        """Let go; a child that still runs is killed."""
        if self._answer is not None:
            self._answer.cancel()
            await asyncio.gather(self._answer, return_exceptions=True)
        self._sock.close()

    async def _listen(self) -> bytes:
        loop = asyncio.get_running_loop()
        answer = bytearray()
        with contextlib.suppress(ConnectionResetError):  # It ended without reading all that we sent: its good right.
            while len(answer) <= ANSWER_MAX and (part := await loop.sock_recv(self._sock, ANSWER_MAX)):
                answer += part
        return bytes(answer)
