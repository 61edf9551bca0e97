"""Bulk bytes over host channels, as the one who asks: how an image comes to this host, and a snapshot from it.

The channel is mutual TLS: the far end proves itself by the cloud's own CA, this host by its certificate. A ticket,
signed by the controller, opens one object once. `agent.channel` is the other end: what this host serves.

An image may come from several sources in turn. A source that dies in the middle costs nothing: the next one goes on at
the byte where it broke off. Nobody's bytes are believed: when all have come and do not hash to what they should, they
are thrown away, and the sources that are left begin anew; the controller is there twice, so it can always do that.
"""

import contextlib
import hashlib
import http.client
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import IO, Final, Protocol
from urllib.parse import urlsplit

import structlog

from agent import passage
from agent.wire.domain import Passage
from agent.wire.errors import Failed
from agent.wire.image import ImageSpec, Offer
from agent.wire.port import TcpFlow
from drivers.image.base import Fetch

CHUNK_BYTES: Final = 1 << 20
SILENCE_S: Final = 20.0
"""How long the far end may say nothing. Shorter: a busy controller loses every stream. Longer: a dead one holds a
thread for so long."""
VERDICT_S: Final = 120.0
"""How long the far end may take to look at what was sent: it makes it durable before it answers."""
BYTES_PER_S_MIN: Final = 1 << 20
"""Slower streams than this are given up, so that none holds its thread for ever."""

TICKET_HEADER: Final = "Hostler-Ticket"

log = structlog.get_logger()


Arrive = Callable[[tuple[TcpFlow, ...]], Awaitable[None]]
"""Tells the other host that a guest with these connections is not here any more. What goes wrong is only told."""


class Source(Protocol):
    """Where images come from, and where they go."""

    def fetch(self, spec: ImageSpec) -> Fetch:
        """What writes this image's bytes to a path. It blocks; it is called in a thread."""
        ...

    def send(self, path: str, offer: Offer) -> None:
        """Bring a file to where the offer says. Blocks. Raises Failed, also when it was refused there."""
        ...

    def bring(self, offer: Offer, size_bytes_max: int) -> Fetch:
        """What writes the bytes of a disk of another host to a path. It blocks, and raises Failed."""
        ...

    def passage(self, domain_id: str, way: Passage, uid: int) -> contextlib.AbstractAsyncContextManager[Arrive]:
        """The way for a guest that leaves: sockets that its QEMU, which runs as `uid`, finds at the guest's gate."""
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
            with Path(path).open("wb") as file:
                arrival = _Arrival(file, spec)
                for offer in _offers(spec):
                    try:
                        self._stream(offer, arrival)
                        arrival.check()
                    except (OSError, http.client.HTTPException, Failed) as error:
                        why = f"{offer.url}: {error or type(error).__name__}"
                        log.warning("an image could not be fetched from there", image=spec.id, why=why)
                    else:
                        log.info("image fetched", image=spec.id, size_bytes=spec.size_bytes, last=offer.url)
                        return
            raise Failed(f"image {spec.id} could not be fetched: {why}")

        return fetch

    def send(self, path: str, offer: Offer) -> None:
        """See Source."""
        size_bytes = Path(path).stat().st_size
        deadline = self._clock() + duration_s(size_bytes)
        connection = self._connect(offer)
        try:
            connection.putrequest("PUT", urlsplit(offer.url).path)
            connection.putheader(TICKET_HEADER, offer.ticket)
            connection.putheader("Content-Length", str(size_bytes))
            connection.endheaders()
            with Path(path).open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    connection.send(chunk)
                    if self._clock() > deadline:
                        raise Failed("too slow: it was not taken in time")
            connection.sock.settimeout(VERDICT_S)
            response = connection.getresponse()
            if response.status not in (200, 204):
                raise Failed(f"refused with {response.status}: {response.read(2048).decode('utf-8', 'replace')}")
        except (OSError, http.client.HTTPException) as error:
            raise Failed(f"{path} could not be sent to {offer.url}: {error or type(error).__name__}") from error
        finally:
            connection.close()

    def bring(self, offer: Offer, size_bytes_max: int) -> Fetch:
        """See Source. From one place, once: nobody else has it."""

        def fetch(path: str) -> None:
            try:
                self._bring(offer, size_bytes_max, path)
            except (OSError, http.client.HTTPException) as error:
                raise Failed(f"{offer.url} could not be brought here: {error or type(error).__name__}") from error

        return fetch

    def passage(self, domain_id: str, way: Passage, uid: int) -> contextlib.AbstractAsyncContextManager[Arrive]:
        """See Source."""
        return passage.opened(domain_id, way, uid, self._context())

    def _bring(self, offer: Offer, size_bytes_max: int, path: str) -> None:
        deadline = self._clock() + duration_s(size_bytes_max)
        connection = self._connect(offer)
        try:
            connection.request("GET", urlsplit(offer.url).path, headers={TICKET_HEADER: offer.ticket})
            response = connection.getresponse()
            size_bytes = int(response.getheader("Content-Length") or -1)
            if response.status != 200:
                raise Failed(f"{offer.url} answers {response.status}: {response.read(2048).decode('utf-8', 'replace')}")
            if not 0 <= size_bytes <= size_bytes_max:
                raise Failed(f"{offer.url} has {size_bytes} bytes, and at most {size_bytes_max} are expected")
            written = 0
            with Path(path).open("r+b") as file:
                while chunk := response.read(CHUNK_BYTES):
                    written += file.write(chunk)
                    if self._clock() > deadline:
                        raise Failed(f"too slow: {written} of {size_bytes} bytes came in time")
            if written != size_bytes:
                raise Failed(f"{offer.url} sent {written} of {size_bytes} bytes")
        finally:
            connection.close()

    def _connect(self, offer: Offer) -> http.client.HTTPSConnection:
        parts = urlsplit(offer.url)
        if parts.scheme != "https" or parts.hostname is None:
            raise Failed("not a host channel")
        return _NamedConnection(parts.hostname, parts.port or 443, offer.name or parts.hostname, self._context())

    def _stream(self, offer: Offer, arrival: "_Arrival") -> None:
        """One try at one source: what is missing."""
        deadline = self._clock() + duration_s(arrival.size_bytes)
        connection = self._connect(offer)
        try:
            headers = {TICKET_HEADER: offer.ticket}
            if arrival.written:
                headers["Range"] = f"bytes={arrival.written}-"
            connection.request("GET", urlsplit(offer.url).path, headers=headers)
            response = connection.getresponse()
            if response.status == 200:
                arrival.begin_anew()
            elif response.status != 206:
                raise Failed(f"answered {response.status}")
            while chunk := response.read(CHUNK_BYTES):
                arrival.write(chunk)
                if self._clock() > deadline:
                    raise Failed(f"too slow: {arrival.written} of {arrival.size_bytes} bytes came in time")
        finally:
            connection.close()


class _Arrival:
    """What has come of an image so far."""

    def __init__(self, file: IO[bytes], spec: ImageSpec) -> None:
        self.size_bytes = spec.size_bytes
        self.written = 0
        self._file = file
        self._sha256 = spec.sha256
        self._digest = hashlib.sha256()

    def begin_anew(self) -> None:
        """Nothing has come."""
        self._file.seek(0)
        self._file.truncate()
        self.written, self._digest = 0, hashlib.sha256()

    def write(self, chunk: bytes) -> None:
        """More has come. Raises Failed if it is too much."""
        if self.written + len(chunk) > self.size_bytes:
            self.begin_anew()
            raise Failed(f"sends more than the {self.size_bytes} bytes of the image")
        self._file.write(chunk)
        self._digest.update(chunk)
        self.written += len(chunk)

    def check(self) -> None:
        """All has come, and it is what it should be; what is whole and wrong is forgotten. Raises Failed."""
        if self.written != self.size_bytes:
            raise Failed(f"sent {self.written} of {self.size_bytes} bytes")
        if self._digest.hexdigest() != self._sha256:
            found = self._digest.hexdigest()
            self.begin_anew()
            raise Failed(f"the bytes that came hash to {found}")


class _NamedConnection(http.client.HTTPSConnection):
    """To an address whose certificate names somebody: hosts' certificates have no addresses."""

    def __init__(self, host: str, port: int, name: str, context: ssl.SSLContext) -> None:
        super().__init__(host, port, timeout=SILENCE_S, context=context)
        self._name, self._tls = name, context

    def connect(self) -> None:
        """See HTTPConnection."""
        http.client.HTTPConnection.connect(self)
        self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._name)


def _offers(spec: ImageSpec) -> Iterator[Offer]:
    """Every source in turn."""
    yield from spec.offers
    for url in spec.sources:
        yield Offer(url=url, name="", ticket=spec.ticket)


def duration_s(size_bytes: int) -> float:
    """How long moving so many bytes may take."""
    return 60.0 + size_bytes / BYTES_PER_S_MIN
