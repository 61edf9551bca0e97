"""Work inside another network namespace without another process.

setns(2) changes the calling thread only, so everything here happens in a throw-away thread that enters the
namespace, does its work and ends: no thread that lives on ever sits in a foreign namespace. What the thread
makes (sockets, child processes) stays in the namespace it was made in, also after the thread is gone, which is how
one agent listens in every network's namespace.

Namespaces are named as `ip netns` names them: files under /run/netns.
"""

import ctypes
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from agent.wire.errors import NotFound

FOLDER: Final = Path("/run/netns")
_CLONE_NEWNET: Final = 0x40000000
_BACKLOG: Final = 64
"""Connections that may wait to be accepted. Fewer: guests that boot together are refused. More: only kernel memory."""

_libc = ctypes.CDLL(None, use_errno=True)

T = TypeVar("T")


def path(name: str) -> Path:
    """The file that stands for a namespace."""
    return FOLDER / name


def exists(name: str) -> bool:
    """Whether there is such a namespace (its file may be stale after a crash in `ip netns add`)."""
    return path(name).exists()


def enter(name: str) -> None:
    """Move the calling thread into a namespace, for good. Raises NotFound."""
    try:
        handle = os.open(path(name), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as cause:
        raise NotFound(f"there is no network namespace {name}") from cause
    try:
        if _libc.setns(handle, _CLONE_NEWNET) != 0:
            errno = ctypes.get_errno()
            raise OSError(errno, f"setns to {name}: {os.strerror(errno)}")
    finally:
        os.close(handle)


def call(name: str | None, fn: Callable[[], T]) -> T:
    """`fn()` inside the namespace `name`, or simply here if that is None. Its exception is raised here.

    `fn` must end by itself: it runs in a thread that nobody can stop.
    """
    if name is None:
        return fn()
    results: list[T] = []
    failures: list[BaseException] = []

    def inside() -> None:
        try:
            enter(name)
            results.append(fn())
        except BaseException as failure:  # noqa: BLE001, RUF100  carried over to the caller's thread
            failures.append(failure)

    thread = threading.Thread(target=inside, name=f"netns-{name}", daemon=True)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def listen(name: str | None, address: str, port: int) -> socket.socket:
    """A listening TCP socket inside the namespace, non-blocking; it stays there wherever it is used afterwards.

    The address need not be up yet (IP_FREEBIND), so listening does not race with the leg's creation.
    """

    def inside() -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
            listener.bind((address, port))
            listener.listen(_BACKLOG)
            listener.setblocking(False)
        except BaseException:
            listener.close()
            raise
        return listener

    return call(name, inside)


_IP_FREEBIND: Final = 15


def write_sysctl(name: str | None, key: str, value: str) -> bool:
    """Set a network sysctl (`net.ipv4.ip_forward`) inside a namespace; False if this kernel has no such knob.

    /proc/sys/net shows the namespace of the thread that looks, so this needs no mount of its own.
    """
    knob = Path("/proc/sys") / key.replace(".", "/")

    def inside() -> bool:
        try:
            if knob.read_text().strip() != value:
                knob.write_text(value)
        except FileNotFoundError:
            return False
        return True

    return call(name, inside)
