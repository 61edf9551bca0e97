"""Work inside another network namespace without another process.

setns(2) changes the calling thread only, so everything here happens in a throw-away thread that enters the
namespace, does its work and ends: no thread that lives on ever sits in a foreign namespace. What the thread
makes (sockets, child processes) stays in the namespace it was made in, also after the thread is gone, which is how
one agent listens in every network's namespace.

Namespaces are named as `ip netns` names them: files under /run/netns.
"""

import ctypes
import errno
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from agent.wire.errors import Failed, NotFound

FOLDER: Final = Path("/run/netns")
_CLONE_NEWNET: Final = 0x40000000
_MS_BIND, _MS_REC, _MS_SHARED, _MNT_DETACH = 0x1000, 0x4000, 0x100000, 2
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1
_BACKLOG: Final = 64
"""Connections that may wait to be accepted. Fewer: guests that boot together are refused. More: only kernel memory."""

_IP_FREEBIND: Final = 15

_libc = ctypes.CDLL(None, use_errno=True)

T = TypeVar("T")


def path(name: str) -> Path:
    """The file that stands for a namespace."""
    return FOLDER / name


def exists(name: str) -> bool:
    """Whether there is such a namespace. A file that stands for none (a crash, another mount namespace) is not one."""
    try:
        return path(name).stat().st_dev == Path("/proc/self/ns/net").stat().st_dev
    except OSError:
        return False


def holds(name: str, pid: int) -> bool:
    """Whether a process runs inside a namespace."""
    try:
        return path(name).stat().st_ino == Path(f"/proc/{pid}/ns/net").stat().st_ino
    except OSError:
        return False


def pids(name: str) -> list[int]:
    """Every process inside a namespace."""
    return [
        int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and holds(name, int(entry.name))
    ]


def listed() -> tuple[str, ...]:
    """Names of all of them, also of files that stand for none any more."""
    return tuple(sorted(entry.name for entry in FOLDER.iterdir())) if FOLDER.is_dir() else ()


def ensure(name: str) -> bool:
    """Make a namespace, its loopback up; True if it is new.

    As `ip netns add`: the namespace of a thread, kept alive by a bind mount after the thread has ended. The folder is
    a shared mount, so that namespaces made here are seen in other mount namespaces, too.
    """
    if exists(name):
        return False
    FOLDER.mkdir(mode=0o755, parents=True, exist_ok=True)
    _share_folder()
    path(name).touch(mode=0o444)
    failures: list[BaseException] = []

    def inside() -> None:
        try:
            _check(_libc.unshare(_CLONE_NEWNET), "unshare")
            _mount(f"/proc/self/task/{threading.get_native_id()}/ns/net", path(name), _MS_BIND)
            _loopback_up()
        except BaseException as failure:  # noqa: BLE001, RUF100  carried over to the caller's thread
            failures.append(failure)

    thread = threading.Thread(target=inside, name=f"netns-{name}", daemon=True)
    thread.start()
    thread.join()
    if failures:
        absent(name)
        raise failures[0]
    return True


def absent(name: str) -> None:
    """Remove a namespace's name. It ends when the last process and socket inside are gone, so stop those first."""
    target = str(path(name)).encode()
    if _libc.umount2(target, _MNT_DETACH) != 0 and ctypes.get_errno() not in (errno.EINVAL, errno.ENOENT):
        raise OSError(ctypes.get_errno(), f"umount {path(name)}: {os.strerror(ctypes.get_errno())}")
    path(name).unlink(missing_ok=True)


def _share_folder() -> None:
    """Make the folder a mount of its own, of the shared kind, once (it may be a bind mount onto itself)."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    if not any(line.split()[4] == str(FOLDER) for line in mounts):
        _mount(str(FOLDER), FOLDER, _MS_BIND | _MS_REC)
        _mount("none", FOLDER, _MS_SHARED | _MS_REC)


def _mount(source: str, target: Path, flags: int) -> None:
    _check(_libc.mount(source.encode(), str(target).encode(), b"none", flags, None), f"mount {source} on {target}")


def _check(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        request = struct.pack("16sh14x", b"lo", _IFF_UP)
        fcntl.ioctl(handle, _SIOCSIFFLAGS, request)


def enter(name: str) -> None:
    """Move the calling thread into a namespace, for good. Raises NotFound, Failed."""
    try:
        handle = os.open(path(name), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as cause:
        raise NotFound(f"there is no network namespace {name}") from cause
    try:
        if _libc.setns(handle, _CLONE_NEWNET) != 0:
            code = ctypes.get_errno()
            raise Failed(f"network namespace {name} cannot be entered: {os.strerror(code)}")
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
