"""One connection to libvirtd that is opened again when it is lost, and libvirt's failures as ours.

libvirtd may be restarted, upgraded or killed at any time; guests go on. A call that meets a dead connection opens a new
one and is made once more, which is right because every call of the driver converges; the one that does not (`reboot`)
says so. Keep-alive finds a libvirtd that hangs. Between calls nothing opens a connection by itself: `lost` tells the
driver's keeper, which wants its events back.

libvirt needs an event loop in the process for keep-alive and events. It runs in one daemon thread, started before the
first connection and never stopped: libvirt cannot unregister its default loop.
"""

import contextlib
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

import libvirt

from agent.wire.errors import Busy, Failed, NotFound, WireError

T = TypeVar("T")

KEEPALIVE_INTERVAL_S: Final = 5
KEEPALIVE_COUNT: Final = 4
"""A libvirtd that says nothing for 25 s is taken for dead. Less, and one busy with a slow host would be."""

_LOST_CODES: Final = (libvirt.VIR_ERR_RPC, libvirt.VIR_ERR_NO_CONNECT, libvirt.VIR_ERR_INVALID_CONN)
_LOST_IN_RPC: Final = (libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_ERR_INTERNAL_ERROR)
_BUSY_CODES: Final = (libvirt.VIR_ERR_OPERATION_TIMEOUT, libvirt.VIR_ERR_AGENT_UNRESPONSIVE)

_loop_lock = threading.Lock()
_loop_threads: list[threading.Thread] = []


class Connection:
    """The connection. Thread-safe; calls of several threads share it.

    `prepare` is called when nobody answers, before a second attempt (it may start a libvirtd). `opened` is called with
    every new connection, under the lock.
    """

    def __init__(
        self,
        uri: str,
        *,
        prepare: Callable[[], None] | None = None,
        opened: Callable[[libvirt.virConnect], None] | None = None,
    ) -> None:
        self.lost = threading.Event()
        self.lost.set()
        self._uri = uri
        self._prepare = prepare
        self._opened = opened
        self._lock = threading.Lock()
        self._live: libvirt.virConnect | None = None
        self._is_closed = False

    def call(self, act: Callable[[libvirt.virConnect], T], *, is_repeatable: bool = True) -> T:
        """`act` on a living connection. Raises a WireError; Busy when libvirtd does not answer."""
        for is_last in (False, True):
            connection = self.get()
            try:
                return act(connection)
            except libvirt.libvirtError as error:
                if not is_loss(error, connection):
                    raise failure(error) from error
                self._drop(connection)
                if is_last or not is_repeatable:
                    raise Busy(f"libvirt went away in the middle of a call: {error}") from error
        raise AssertionError("the second attempt returns or raises")

    def get(self) -> libvirt.virConnect:
        """The living connection, opened if need be. Raises Busy."""
        with self._lock:
            if self._is_closed:
                raise Busy("the hypervisor driver was closed")
            if self._live is None:
                self._live = self._open()
            self.lost.clear()  # Should the connection be dead after all, the caller's act finds it out.
            return self._live

    def close(self) -> None:
        """Let go, for good."""
        with self._lock:
            self._is_closed = True
            live, self._live = self._live, None
        self.lost.set()
        if live is not None:
            _close(live)

    def _open(self) -> libvirt.virConnect:
        ensure_event_loop()
        try:
            connection = libvirt.open(self._uri)
        except libvirt.libvirtError as error:
            if self._prepare is None:
                raise Busy(f"libvirt does not answer at {self._uri}: {error}") from error
            self._prepare()
            connection = self._open_again()
        connection.setKeepAlive(KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT)
        connection.registerCloseCallback(self._on_close, None)
        if self._opened is not None:
            self._opened(connection)
        return connection

    def _open_again(self) -> libvirt.virConnect:
        try:
            return libvirt.open(self._uri)
        except libvirt.libvirtError as error:
            raise Busy(f"libvirt does not answer at {self._uri}: {error}") from error

    def _drop(self, connection: libvirt.virConnect) -> None:
        with self._lock:
            if self._live is not connection:  # Another thread met the loss first.
                return
            self._live = None
            self.lost.set()
        _close(connection)

    def _on_close(self, _connection: libvirt.virConnect, _reason: int, _opaque: Any) -> None:
        """In the event loop's thread, where no call to libvirt may be made."""
        self.lost.set()


def is_loss(error: libvirt.libvirtError, connection: libvirt.virConnect) -> bool:
    """Whether the connection is gone, as opposed to libvirtd having said no."""
    code, domain = error.get_error_code(), error.get_error_domain()
    if code in _LOST_CODES or (code in _LOST_IN_RPC and domain == libvirt.VIR_FROM_RPC):
        return True
    try:
        return not connection.isAlive()
    except libvirt.libvirtError:
        return True


def failure(error: libvirt.libvirtError) -> WireError:
    """libvirt's no, in our family."""
    code = error.get_error_code()
    if code == libvirt.VIR_ERR_NO_DOMAIN:
        return NotFound(f"libvirt: {error}")
    if code in _BUSY_CODES:
        return Busy(f"libvirt: {error}")
    return Failed(f"libvirt: {error}")


def ensure_event_loop() -> None:
    """libvirt's default event loop runs in this process."""
    with _loop_lock:
        if _loop_threads:
            return
        libvirt.registerErrorHandler(_ignore, None)  # Else every failure that we handle is also printed to stderr.
        libvirt.virEventRegisterDefaultImpl()
        thread = threading.Thread(target=_run_loop, name="libvirt-events", daemon=True)
        _loop_threads.append(thread)
        thread.start()


def _run_loop() -> None:
    while True:
        with contextlib.suppress(libvirt.libvirtError):
            libvirt.virEventRunDefaultImpl()


def _ignore(_opaque: Any, _error: Any) -> None:
    return


def _close(connection: libvirt.virConnect) -> None:
    with contextlib.suppress(libvirt.libvirtError):
        connection.unregisterCloseCallback()
    with contextlib.suppress(libvirt.libvirtError):
        connection.close()
