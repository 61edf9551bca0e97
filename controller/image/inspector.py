"""The process in which uploads are inspected: a small server without rights, and a child of it for each upload.

    python -m controller.image.inspector DESCRIPTOR UID

Theory of operation. The controller starts it, as root if it is root itself, before it gives that up: then this one
loads its code, leaves the networks, and becomes a uid of its own, which owns nothing. DESCRIPTOR is a socket to the
controller; a message on it is the declared format of an image together with a socket for that image's bytes. Each is
given to a child, which is forked, so that it needs to read no code. The child limits itself: processor time, memory,
no file and no socket that is not open yet, nothing written, no process. It says READY, reads until it knows or the
bytes end, says its verdict as one JSON document, and ends. No stranger's byte reaches the server.

The server says READY on the first socket when it is loaded. It holds a second end of every child's socket, which tells
it that the controller has lost interest: then it kills the child. When a child has died, it closes that end, which
tells the controller. It ends when the controller does.
"""

import contextlib
import os
import resource
import select
import signal
import socket
import sys
from typing import Final

import msgspec

from agent.wire import rights
from controller.image.inspection import Inspection
from controller.image.verdict import READY

CHILDREN_MAX: Final = 64
"""At once; a child lives until it has seen the head of its image. More are turned away: the client may try again."""

MEMORY_MAX: Final = 256 << 20
"""Address space, of which the interpreter with its libraries takes a sixth."""

CPU_S_MAX: Final = 20
"""Of one inspection. A good image takes milliseconds; one that must be seen to its end, a second for some GiB."""

_CHUNK: Final = 1 << 20
_REQUEST_MAX: Final = 64


class Server:
    """All there is, but for the children."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._children: dict[int, tuple[int, socket.socket]] = {}  # pidfd → pid, the second end of its socket
        self._ends: dict[int, int] = {}  # That end's descriptor → pidfd

    def run(self) -> None:
        """Until the controller has gone; then no child is left."""
        try:
            self._serve()
        finally:
            for pid, _ in self._children.values():
                os.kill(pid, signal.SIGKILL)

    def _serve(self) -> None:
        while True:
            ready = [descriptor for descriptor, _ in self._poll.poll()]
            for descriptor in self._ends.keys() & ready:  # The controller has closed its end.
                self._poll.unregister(descriptor)
                os.kill(self._children[self._ends[descriptor]][0], signal.SIGKILL)
            for descriptor in self._children.keys() & ready:
                self._bury(descriptor)
            # Last: a new child's descriptors may have the numbers of those that were closed just now.
            if self._control.fileno() in ready and not self._attend():
                return

    def _attend(self) -> bool:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._control, _REQUEST_MAX, 1)
        except ConnectionResetError:  # The controller has gone without having read that we are ready.
            return False
        if not data:
            return False
        if descriptors:
            with contextlib.suppress(OSError):  # Closing the socket says what there is to say.
                self._begin(data.decode(), socket.socket(fileno=descriptors[0]))
        return True

    def _begin(self, declared: str, sock: socket.socket) -> None:
        if len(self._children) >= CHILDREN_MAX:
            sock.close()
            return
        pid = os.fork()
        if pid == 0:
            self._become_child(declared, sock)
        pidfd = os.pidfd_open(pid)
        self._children[pidfd] = (pid, sock)
        self._ends[sock.fileno()] = pidfd
        self._poll.register(pidfd, select.POLLIN)
        self._poll.register(sock, 0)  # Only that the other end was closed.

    def _bury(self, pidfd: int) -> None:
        pid, sock = self._children.pop(pidfd)
        self._poll.unregister(pidfd)
        os.waitpid(pid, 0)
        os.close(pidfd)
        del self._ends[sock.fileno()]
        with contextlib.suppress(KeyError):
            self._poll.unregister(sock)
        sock.close()

    def _become_child(self, declared: str, sock: socket.socket) -> None:
        """Never returns: whatever happens in here, no second server comes out."""
        code = 1
        try:
            self._control.close()
            for pidfd, (_, other) in self._children.items():
                os.close(pidfd)
                other.close()
            confine()
            inspect(declared, sock)
            code = 0
        finally:
            os._exit(code)


def confine() -> None:
    """What is left: computing, and what is open already."""
    rights.end_with_parent()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(nowhere, standard)
    os.close(nowhere)
    for limit, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, 0),
        (resource.RLIMIT_AS, MEMORY_MAX),
        (resource.RLIMIT_CPU, CPU_S_MAX),
    ):
        resource.setrlimit(limit, (most, most))


def inspect(declared: str, sock: socket.socket) -> None:
    """Answer for one image."""
    sock.sendall(READY)
    inspection = Inspection(declared)
    while not inspection.is_satisfied and (chunk := sock.recv(_CHUNK)):
        inspection.feed(chunk)
    sock.sendall(msgspec.json.encode(inspection.verdict()))


def main() -> None:
    """The process."""
    control, uid = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # A terminal's are for the controller; this one ends with it.
    Inspection("raw").verdict()  # What is imported late is imported now.
    rights.leave_networks()
    os.chdir("/")
    rights.become(uid)
    with contextlib.suppress(BrokenPipeError):  # A controller that has gone already needs nobody.
        control.sendall(READY)
        Server(control).run()


if __name__ == "__main__":
    main()
