"""How tgtd is spoken to: its control socket, and what it says of its targets.

The same bytes that `tgtadm` writes (usr/tgtadm.h of tgt, unchanged since 1.0.40), without the program: an argument of a
program is seen by everybody on the host, and one of these is a secret.

tgtd obeys its own uid and gid alone, not even root. So the connection is made by a throw-away thread which has taken
them, as far as the kernel is concerned: the C library would change all threads. Only the effective ones, so that tgtd
may not signal that thread.
"""

import ctypes
import enum
import os
import re
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import msgspec

from agent.wire.errors import Busy, Failed

_REQUEST: Final = struct.Struct("=ii64sIiQQIIIIII")
_REPLY: Final = struct.Struct("=II")
_REPLY_BYTES_MAX: Final = 64 << 20
"""Some KiB for each target."""

_ALL: Final = -1

_SETRESUID_SETRESGID: Final = {"x86_64": (117, 119), "aarch64": (147, 149)}
"""Numbers of two system calls."""


class Mode(enum.IntEnum):
    """What a request is about (enum tgtadm_mode)."""

    SYSTEM = 0
    TARGET = 1
    DEVICE = 2
    PORTAL = 3
    CONNECTION = 6
    ACCOUNT = 7


class Op(enum.IntEnum):
    """What is to be done (enum tgtadm_op)."""

    NEW = 0
    DELETE = 1
    SHOW = 2
    BIND = 3
    UNBIND = 4
    UPDATE = 5


class Code(enum.IntEnum):
    """Why tgtd said no, as far as we care (enum tgtadm_errno)."""

    NO_TARGET = 4
    NO_CONNECTION = 7
    USER_EXIST = 14
    NO_USER = 15
    TARGET_ACTIVE = 19
    LUN_ACTIVE = 20


class Refused(Failed):
    """tgtd said no."""

    def __init__(self, mode: Mode, op: Op, code: int) -> None:
        self.no = code
        super().__init__(f"tgtd refuses {op.name.lower()} {mode.name.lower()}: error {code}")


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who is logged in."""

    id: int
    initiator: str
    connections: tuple[int, ...]


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A target as tgtd shows it."""

    tid: int
    iqn: str
    sessions: tuple[Session, ...]
    signature: str  # What we left as the LUN's SCSI id.
    accounts: tuple[str, ...]
    initiators: tuple[str, ...]


class Control:
    """The control socket of one tgtd. Every request is a connection of its own."""

    def __init__(self, path: str, *, uid: int, timeout_s: float) -> None:
        self._path = path
        self._uid = uid
        self._timeout_s = timeout_s

    def ask(
        self,
        mode: Mode,
        op: Op,
        parameters: str = "",
        *,
        tid: int = 0,
        lun: int = 0,
        session: int = 0,
        connection: int = 0,
        force: bool = False,
    ) -> str:
        """One request. Raises Refused, or Busy when tgtd does not answer."""
        body = parameters.encode() + b"\0" if parameters else b""
        length = _REQUEST.size + len(body)
        numbers = (tid, session, lun, connection, 0, 0, 0, 0, int(force))
        request = _REQUEST.pack(mode, op, b"iscsi", length, *numbers) + body
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as wire:
                wire.settimeout(self._timeout_s)
                with ThreadPoolExecutor(1, thread_name_prefix="tgt-connect") as throw_away:
                    throw_away.submit(self._connect, wire).result()
                wire.sendall(request)
                code, size = _REPLY.unpack(_exactly(wire, _REPLY.size))
                text = _exactly(wire, min(size - _REPLY.size, _REPLY_BYTES_MAX)) if code == 0 else b""
        except (OSError, EOFError) as error:
            raise Busy(f"tgtd does not answer at {self._path}: {error}") from error
        if code != 0:
            raise Refused(mode, op, code)
        return text.rstrip(b"\0").decode("utf-8", "replace")

    def _connect(self, wire: socket.socket) -> None:
        """In a thread of its own, which ends with it."""
        if os.geteuid() != self._uid:
            _become_effectively(self._uid)
        wire.connect(self._path)

    def targets(self) -> tuple[Target, ...]:
        """All of them."""
        return parse(self.ask(Mode.TARGET, Op.SHOW, tid=_ALL))


def _become_effectively(uid: int) -> None:
    """Of this thread alone, the gid first: there is no way back to it. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    set_uid, set_gid = _SETRESUID_SETRESGID[os.uname().machine]
    for call in (set_gid, set_uid):
        if libc.syscall(call, -1, uid, -1) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def parse(text: str) -> tuple[Target, ...]:
    """What `show target` says. Pure."""
    blocks = re.split(r"^(?=Target \d+: )", text, flags=re.MULTILINE)
    return tuple(_target(block) for block in blocks if block.startswith("Target "))


def _target(block: str) -> Target:
    head, _, rest = block.partition("\n")
    tid, _, iqn = head.removeprefix("Target ").partition(": ")
    sections = _sections(rest)
    ids = re.findall(r"^ +SCSI ID: (.*)$", sections.get("LUN information", ""), flags=re.MULTILINE)
    return Target(
        tid=int(tid),
        iqn=iqn,
        sessions=_sessions(sections.get("I_T nexus information", "")),
        signature=ids[1].strip() if len(ids) > 1 else "",  # The first is the controller's.
        accounts=_words(sections.get("Account information", "")),
        initiators=_words(sections.get("ACL information", "")),
    )


def _sections(text: str) -> dict[str, str]:
    """By the headlines, which stand four columns in."""
    sections: dict[str, str] = {}
    headline = ""
    for line in text.splitlines():
        if line.startswith("    ") and not line.startswith("     ") and line.endswith(":"):
            headline = line.strip().removesuffix(":")
        else:
            sections[headline] = sections.get(headline, "") + line + "\n"
    return sections


def _sessions(text: str) -> tuple[Session, ...]:
    found = []
    for block in re.split(r"^(?= +I_T nexus: )", text, flags=re.MULTILINE):
        nexus = re.search(r"I_T nexus: (\d+)", block)
        if nexus is None:
            continue
        initiator = re.search(r"Initiator: (\S+)", block)
        connections = tuple(int(number) for number in re.findall(r"Connection: (\d+)", block))
        name = "" if initiator is None else initiator[1]
        found.append(Session(id=int(nexus[1]), initiator=name, connections=connections))
    return tuple(found)


def _words(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def _exactly(wire: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        chunk = wire.recv(min(length - len(data), 65536))
        if not chunk:
            raise EOFError("it closed the socket in the middle of an answer")
        data += chunk
    return bytes(data)
