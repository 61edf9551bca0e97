"""`hostler-guard`: answers guests that ask about themselves, and is nobody on this host.

    hostler-guard [SOCKET]

SOCKET is HOSTLER_GUARD_SOCKET, or `guard.sock` in the folder HOSTLER_AGENT_RUN, if it is not given.

Theory of operation. The agent is root and never reads a byte that a guest sent; the guard reads them, and has no
rights. The agent opens a listening socket in each network's namespace and passes it over the Unix socket SOCKET,
with the documents by (network, source address). Where a connection was accepted and the address it came from say
who asks; anti-spoofing keeps that honest, and nothing in the request counts.

The guard keeps sockets and documents while the agent is away, so guests are answered during its restart, with the
controller down too. When the guard is restarted, the agent tells it everything again.

Started as root it becomes HOSTLER_GUARD_UID before it opens anything. One thread, the standard library's selectors and
msgspec: its memory matters, it runs on every host. Every connection has a deadline and a bounded request; whoever opens
many at once only gets in its own way.
"""

import contextlib
import itertools
import os
import selectors
import signal
import socket
import sys
import time
from collections import Counter
from typing import Final

import msgspec

from agent import guard_frames, guard_http
from agent.guard_frames import Forget, Frames, Hello, Listen, Sync, Synced, Tell, ToGuard, Withdraw
from agent.wire import rights
from agent.wire.domain import GuestData

UID: Final = 65533
"""Nobody's uid but the guard's: it owns no file and no other process."""

RUN: Final = "/run/hostler/agent"
"""The agent's run folder, if nobody says another."""

CONNECTION_S: Final = 10.0
"""From accept to the last byte. Longer: slow or malicious guests hold more. Shorter: a loaded guest is cut off."""

CONNECTIONS_MAX: Final = 256
"""At once; the oldest goes when one more comes."""

PER_GUEST_MAX: Final = 16
"""At once from one address; more are closed unread."""

ACCEPTS_MAX: Final = 16
"""From one listener before the others have their turn."""

RECONNECT_S: Final = 1.0
"""Between two tries to reach the agent."""

_CHUNK: Final = 65536
_DESCRIPTORS_MAX: Final = 16

Who = tuple[str, str]
"""(network, source address)"""


class Connection:
    """One guest's request."""

    __slots__ = ("deadline", "head", "response", "sock", "who")

    def __init__(self, sock: socket.socket, who: Who, deadline: float) -> None:
        self.sock = sock
        self.who = who
        self.deadline = deadline
        self.head = bytearray()
        self.response: memoryview | None = None


class Listener:
    """Where guests of one network connect."""

    __slots__ = ("namespace", "network_id", "sock")

    def __init__(self, sock: socket.socket, network_id: str, namespace: str) -> None:
        self.sock = sock
        self.network_id = network_id
        self.namespace = namespace


class AgentLine:
    """The connection to the agent, while there is one."""

    __slots__ = ("descriptors", "frames", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.frames = Frames()
        self.descriptors: list[int] = []


class Guard:
    """All there is."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._selector = selectors.DefaultSelector()
        self._listeners: dict[str, Listener] = {}
        self._guests: dict[Who, GuestData] = {}
        self._connections: dict[int, Connection] = {}  # By descriptor, oldest first.
        self._per_guest: Counter[Who] = Counter()
        self._agent: AgentLine | None = None
        self._next_try = 0.0
        self._decoder = msgspec.msgpack.Decoder(ToGuard)

    def run(self) -> None:
        """For ever."""
        while True:
            self.turn(60.0)

    def turn(self, wait_s: float) -> None:
        """Wait for something to happen, but no longer than that, and deal with it."""
        now = time.monotonic()
        if self._agent is None and now >= self._next_try:
            self._reach_agent(now)
        for key, _ in self._selector.select(max(0.0, min(wait_s, self._idle_s(now)))):
            if key.data.sock.fileno() < 0:  # What came before in this turn has closed it.
                continue
            match key.data:
                case Listener():
                    self._accept(key.data)
                case Connection():
                    self._serve(key.data)
                case AgentLine():
                    self._hear(key.data)
        self._expire(time.monotonic())

    def close(self) -> None:
        """Let go of everything; for tests."""
        for connection in list(self._connections.values()):
            self._drop(connection)
        for network_id in list(self._listeners):
            self._withdraw(network_id)
        if self._agent is not None:
            self._lose(self._agent)
        self._selector.close()

    def _idle_s(self, now: float) -> float:
        """Until something is due by itself."""
        due = [connection.deadline for connection in itertools.islice(self._connections.values(), 1)]
        if self._agent is None:
            due.append(self._next_try)
        return min(due, default=now + 60.0) - now

    # Guests.

    def _accept(self, listener: Listener) -> None:
        for _ in range(ACCEPTS_MAX):
            try:
                sock, address = listener.sock.accept()
            except OSError:  # Nobody waits any more, or there are no descriptors left: later.
                return
            who = (listener.network_id, str(address[0]).partition("%")[0])
            if self._per_guest[who] >= PER_GUEST_MAX:
                sock.close()
                continue
            if len(self._connections) >= CONNECTIONS_MAX:
                self._drop(next(iter(self._connections.values())))
            sock.setblocking(False)
            connection = Connection(sock, who, time.monotonic() + CONNECTION_S)
            self._connections[sock.fileno()] = connection
            self._per_guest[who] += 1
            self._selector.register(sock, selectors.EVENT_READ, connection)

    def _serve(self, connection: Connection) -> None:
        try:
            is_done = self._write(connection) if connection.response is not None else self._read(connection)
        except BlockingIOError:
            return
        except OSError:
            is_done = True
        if is_done:
            self._drop(connection)

    def _read(self, connection: Connection) -> bool:
        chunk = connection.sock.recv(guard_http.HEAD_BYTES_MAX)
        if not chunk:
            return True
        connection.head += chunk
        if guard_http.is_complete(connection.head):
            guest = self._guests.get(connection.who)
            connection.response = memoryview(guard_http.respond(bytes(connection.head), guest))
        elif len(connection.head) >= guard_http.HEAD_BYTES_MAX:
            connection.response = memoryview(guard_http.refuse(431))
        else:
            return False
        self._selector.modify(connection.sock, selectors.EVENT_WRITE, connection)
        return self._write(connection)

    def _write(self, connection: Connection) -> bool:
        assert connection.response is not None, "there is something to write"
        connection.response = connection.response[connection.sock.send(connection.response) :]
        return not connection.response

    def _drop(self, connection: Connection) -> None:
        del self._connections[connection.sock.fileno()]
        self._per_guest[connection.who] -= 1
        if not self._per_guest[connection.who]:
            del self._per_guest[connection.who]
        self._selector.unregister(connection.sock)
        with contextlib.suppress(OSError):
            connection.sock.shutdown(socket.SHUT_WR)
        connection.sock.close()

    def _expire(self, now: float) -> None:
        for connection in list(self._connections.values()):
            if connection.deadline > now:
                return
            self._drop(connection)

    # The agent.

    def _reach_agent(self, now: float) -> None:
        self._next_try = now + RECONNECT_S
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(RECONNECT_S)
            sock.connect(self._path)
            said = [(*who, guard_frames.digest(guest)) for who, guest in self._guests.items()]
            listening = {listener.network_id: listener.namespace for listener in self._listeners.values()}
            sock.sendall(guard_frames.encode(Hello(listening, said)))
        except OSError:
            sock.close()
            return
        sock.setblocking(False)
        self._agent = AgentLine(sock)
        self._selector.register(sock, selectors.EVENT_READ, self._agent)
        _say("the agent is there")

    def _hear(self, agent: AgentLine) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(agent.sock, _CHUNK, _DESCRIPTORS_MAX)
        except BlockingIOError:
            return
        except OSError:
            self._lose(agent)
            return
        agent.descriptors += descriptors
        try:
            for body in agent.frames.feed(data):
                self._obey(agent, self._decoder.decode(body))
        except (ValueError, IndexError, OSError) as error:
            _say("the agent cannot be understood", error=str(error))
            data = b""
        if not data:
            self._lose(agent)

    def _obey(self, agent: AgentLine, frame: ToGuard) -> None:
        match frame:
            case Listen(network_id=network_id, namespace=namespace):
                self._listen(agent.descriptors.pop(0), network_id, namespace)
            case Withdraw(network_id=network_id):
                self._withdraw(network_id)
            case Tell(network_id=network_id, address=address, guest=guest):
                self._guests[network_id, address] = guest
            case Forget(network_id=network_id, address=address):
                self._guests.pop((network_id, address), None)
            case Sync(serial=serial):
                agent.sock.sendall(guard_frames.encode(Synced(serial)))

    def _listen(self, descriptor: int, network_id: str, namespace: str) -> None:
        self._withdraw(network_id)
        sock = socket.socket(fileno=descriptor)
        sock.setblocking(False)
        listener = self._listeners[network_id] = Listener(sock, network_id, namespace)
        self._selector.register(sock, selectors.EVENT_READ, listener)

    def _withdraw(self, network_id: str) -> None:
        listener = self._listeners.pop(network_id, None)
        if listener is not None:
            self._selector.unregister(listener.sock)
            listener.sock.close()

    def _lose(self, agent: AgentLine) -> None:
        self._selector.unregister(agent.sock)
        agent.sock.close()
        for descriptor in agent.descriptors:
            os.close(descriptor)
        self._agent = None
        _say("the agent is away")


def _say(event: str, **fields: str) -> None:
    line = {"event": event, "role": "guard", **fields}
    sys.stderr.write(msgspec.json.encode(line).decode() + "\n")
    sys.stderr.flush()


def main() -> None:
    """The process."""
    if len(sys.argv) > 2:
        sys.exit("usage: hostler-guard [SOCKET]")
    run = os.environ.get("HOSTLER_AGENT_RUN", RUN)
    path = sys.argv[1] if len(sys.argv) == 2 else os.environ.get("HOSTLER_GUARD_SOCKET") or f"{run}/guard.sock"
    rights.become(int(os.environ.get("HOSTLER_GUARD_UID", UID)))
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(0))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    Guard(path).run()


if __name__ == "__main__":
    main()
