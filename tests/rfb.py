"""As much of a VNC client (RFC 6143) as tests need: the handshake, and a whole frame of raw pixels."""

import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

BYTES_PER_PIXEL = 4


class Line(Protocol):
    """Bytes both ways."""

    def send(self, data: bytes) -> None: ...

    def receive(self) -> bytes:
        """Some more; empty at the end."""
        ...


class SocketLine:
    """A socket as a line."""

    def __init__(self, sock: socket.socket, timeout_s: float = 30.0) -> None:
        self.sock = sock
        sock.setblocking(True)
        sock.settimeout(timeout_s)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def receive(self) -> bytes:
        return self.sock.recv(65536)


@dataclass
class Frame:
    """What a screen shows."""

    width: int
    height: int
    pixels: bytes

    def colours(self) -> int:
        """How many there are."""
        size = BYTES_PER_PIXEL
        return len({self.pixels[i : i + size] for i in range(0, len(self.pixels), size)})


class Viewer:
    """Somebody who looks at a screen."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._heard = b""
        assert self._exactly(12) == b"RFB 003.008\n"
        line.send(b"RFB 003.008\n")
        types = self._exactly(self._exactly(1)[0])
        assert 1 in types, f"a password is asked for: {types!r}"
        line.send(b"\x01")
        assert self._exactly(4) == b"\0\0\0\0"
        line.send(b"\x01")
        self.width, self.height = struct.unpack(">HH", self._exactly(4))
        self._exactly(16)
        self.name = self._exactly(struct.unpack(">I", self._exactly(4))[0]).decode()
        line.send(b"\x00\0\0\0" + struct.pack(">BBBBHHHBBBxxx", 32, 24, 0, 1, 255, 255, 255, 16, 8, 0))
        line.send(struct.pack(">BxHii", 2, 2, 0, -223))  # Raw, and to be told of a new size.

    def frame(self) -> Frame:
        """The whole screen."""
        while True:
            size = self.width, self.height
            self._line.send(struct.pack(">BBHHHH", 3, 0, 0, 0, *size))
            pixels = bytearray(size[0] * size[1] * BYTES_PER_PIXEL)
            missing = size[0] * size[1]
            while missing > 0 and size == (self.width, self.height):
                missing -= self._update(pixels, size[0])
            if size == (self.width, self.height):
                return Frame(*size, bytes(pixels))

    def until(self, wanted: Callable[[Frame], bool], pause: Callable[[], None], tries: int = 120) -> Frame:
        """The first frame that is as wanted."""
        for _ in range(tries):
            frame = self.frame()
            if wanted(frame):
                return frame
            pause()
        raise AssertionError(f"the screen never showed it in {tries} looks; colours: {frame.colours()}")

    def _update(self, pixels: bytearray, width: int) -> int:
        """One message of the server; how many pixels it brought."""
        kind = self._exactly(1)[0]
        if kind == 2:  # Bell
            return 0
        if kind == 3:  # Cut text
            self._exactly(struct.unpack(">xxxI", self._exactly(7))[0])
            return 0
        assert kind == 0, f"message {kind}"
        brought = 0
        for _ in range(struct.unpack(">xH", self._exactly(3))[0]):
            x, y, columns, rows, encoding = struct.unpack(">HHHHi", self._exactly(12))
            if encoding == -223:
                self.width, self.height = columns, rows
                continue
            assert encoding == 0, f"encoding {encoding}"
            data = self._exactly(columns * rows * BYTES_PER_PIXEL)
            if (self.width, x + columns <= width) == (width, True):
                for row in range(rows):
                    at = ((y + row) * width + x) * BYTES_PER_PIXEL
                    piece = data[row * columns * BYTES_PER_PIXEL : (row + 1) * columns * BYTES_PER_PIXEL]
                    pixels[at : at + len(piece)] = piece
            brought += columns * rows
        return brought

    def _exactly(self, count: int) -> bytes:
        while len(self._heard) < count:
            piece = self._line.receive()
            assert piece, "the line was cut"
            self._heard += piece
        data, self._heard = self._heard[:count], self._heard[count:]
        return data
