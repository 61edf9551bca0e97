"""Bulk bytes over the host channel: how an image comes to this host. Never over the bus.

The channel is mutual TLS: the far end proves itself by the cloud's own CA, this host by its certificate. A ticket,
signed by the controller, opens one object once.
"""

import http.client
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

from agent.wire.errors import Failed
from agent.wire.image import ImageSpec
from drivers.image.base import Fetch

CHUNK_BYTES: Final = 1 << 20
SILENCE_S: Final = 20.0
"""How long the far end may say nothing. Shorter: a busy controller loses every stream. Longer: a dead one holds a
thread for so long."""
BYTES_PER_S_MIN: Final = 1 << 20
"""Slower streams than this are given up, so that none holds its thread for ever."""

TICKET_HEADER: Final = "Hostler-Ticket"


class Source(Protocol):
    """Where images come from."""

    def fetch(self, spec: ImageSpec) -> Fetch:
        """What writes this image's bytes to a path. It blocks; it is called in a thread."""
        ...


class ChannelSource:
    """The host channels of controllers and other hosts. `context` is asked each time: certificates are renewed."""

    def __init__(self, context: Callable[[], ssl.SSLContext], clock: Callable[[], float] = time.monotonic) -> None:
        self._context = context
        self._clock = clock

    def fetch(self, spec: ImageSpec) -> Fetch:
        """See Source."""

        def fetch(path: str) -> None:
            why = "it has no source"
            for url in spec.sources:
                try:
                    self._stream(url, spec, path)
                except (OSError, http.client.HTTPException, Failed) as error:
                    why = f"{url}: {error or type(error).__name__}"
                else:
                    return
            raise Failed(f"image {spec.id} could not be fetched: {why}")

        return fetch

    def _stream(self, url: str, spec: ImageSpec, path: str) -> None:
        """One try at one source. What was written before is overwritten."""
        parts = urlsplit(url)
        if parts.scheme != "https" or parts.hostname is None:
            raise Failed("not a host channel")
        deadline = self._clock() + duration_s(spec.size_bytes)
        connection = http.client.HTTPSConnection(
            parts.hostname, parts.port or 443, timeout=SILENCE_S, context=self._context()
        )
        try:
            target = parts.path + (f"?{parts.query}" if parts.query else "")
            connection.request("GET", target, headers={TICKET_HEADER: spec.ticket})
            response = connection.getresponse()
            if response.status != 200:
                raise Failed(f"answered {response.status}")
            self._copy(response, Path(path), spec.size_bytes, deadline)
        finally:
            connection.close()

    def _copy(self, response: http.client.HTTPResponse, path: Path, size_bytes: int, deadline: float) -> None:
        written = 0
        with path.open("wb") as file:
            while chunk := response.read(CHUNK_BYTES):
                written += len(chunk)
                if written > size_bytes:
                    raise Failed(f"sends more than the {size_bytes} bytes of the image")
                if self._clock() > deadline:
                    raise Failed(f"too slow: {written} of {size_bytes} bytes came in time")
                file.write(chunk)
        if written != size_bytes:
            raise Failed(f"sent {written} of {size_bytes} bytes")


def duration_s(size_bytes: int) -> float:
    """How long fetching so many bytes may take."""
    return 60.0 + size_bytes / BYTES_PER_S_MIN
