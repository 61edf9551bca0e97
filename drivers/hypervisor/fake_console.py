"""Screens and serial ports of guests that do not exist: what a client must be able to talk to, and no more.

The screen speaks RFB 3.8 (RFC 6143) with the security type None, as QEMU does without a password, and shows one frame
of raw pixels whenever it is asked for one. The serial port repeats what it was told. Each connection has a thread,
which ends with it; none is started before somebody looks, so simulations have none.
"""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from typing import Final

WIDTH: Final = 64
HEIGHT: Final = 48
BYTES_PER_PIXEL: Final = 4
LIFE_S: Final = 600.0
"""Of a connection on which nothing is said."""

_FORMAT: Final = struct.pack(">BBBBHHHBBBxxx", 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
_LENGTHS: Final = {0: 19, 4: 7, 5: 5}
"""Bytes that follow the type of SetPixelFormat, KeyEvent and PointerEvent."""


def screen(name: str) -> socket.socket:
    """The client's end of a connection to a screen."""
    return _served(lambda far: _show(far, name.encode()))


def serial(said: str) -> socket.socket:
    """The client's end of a connection to a serial port where that was said before."""
    return _served(lambda far: _echo(far, said.encode()))


def _served(serve: Callable[[socket.socket], None]) -> socket.socket:
    near, far = socket.socketpair()
    far.settimeout(LIFE_S)

    def run() -> None:
        with far, contextlib.suppress(OSError, EOFError):
            serve(far)

    threading.Thread(target=run, name="fake-console", daemon=True).start()
    return near


def _echo(far: socket.socket, said: bytes) -> None:
    far.sendall(said)
    while heard := far.recv(4096):
        far.sendall(heard)


def _show(far: socket.socket, name: bytes) -> None:
    far.sendall(b"RFB 003.008\n")
    _exactly(far, 12)
    far.sendall(b"\x01\x01")  # One security type: None.
    if _exactly(far, 1) != b"\x01":
        return
    far.sendall(b"\0\0\0\0")
    _exactly(far, 1)  # Shared or not.
    far.sendall(struct.pack(">HH", WIDTH, HEIGHT) + _FORMAT + struct.pack(">I", len(name)) + name)
    while True:
        _obey(far, _exactly(far, 1)[0])


def _obey(far: socket.socket, kind: int) -> None:
    """One message of the client."""
    if kind in _LENGTHS:
        _exactly(far, _LENGTHS[kind])
    elif kind == 2:  # SetEncodings
        (count,) = struct.unpack(">xH", _exactly(far, 3))
        _exactly(far, 4 * count)
    elif kind == 6:  # ClientCutText
        (length,) = struct.unpack(">xxxI", _exactly(far, 7))
        _exactly(far, min(length, 1 << 20))
    elif kind == 3:  # FramebufferUpdateRequest
        _exactly(far, 9)
        far.sendall(struct.pack(">BxH4Hi", 0, 1, 0, 0, WIDTH, HEIGHT, 0) + _frame())
    else:
        raise EOFError(f"nobody says {kind}")


def _frame() -> bytes:
    """Not of one colour: every row is another shade of grey."""
    return b"".join(bytes([row, row, row, 0]) * WIDTH for row in range(HEIGHT))


def _exactly(far: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = far.recv(count - len(data))
        if not piece:
            raise EOFError("hung up")
        data += piece
    return data
