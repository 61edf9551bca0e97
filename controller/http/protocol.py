"""Uvicorn's HTTP protocol with the bounds that it lacks: a request's head must be small, and must arrive.

Without them whoever can connect may keep a connection open for ever with nothing, or fill our memory with one header
that never ends; both before anybody has asked for a token.
"""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_S: Final = 20.0
"""From connecting, or from a request's first byte, to the end of its headers. Longer: idle connections pile up."""

HEAD_BYTES_MAX: Final = 64 << 10
"""Request line and headers; as much as nginx takes. Neutron's clients send queries of some 16 KiB. What arrived in one
read counts as a whole, so a body's first bytes may count too: it is a bound on memory, not on manners."""

READ_BYTES_MAX: Final = 256 << 10
"""What the loop reads at once."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._head_bytes = 0
        self._is_in_head = True
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # As uvicorn does.
        """A client connected."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Some bytes came."""
        if self._is_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX + READ_BYTES_MAX:
                self.send_400_response("The request's head is too large.")
                return
        super().data_received(data)
        if self._is_in_head and self._head_bytes > HEAD_BYTES_MAX:
            self.send_400_response("The request's head is too large.")

    def on_message_begin(self) -> None:
        """A request's first byte."""
        if not self._is_in_head:
            self._head_bytes = 0
            self._expect_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Its last header."""
        self._is_in_head = False
        self._cancel()
        super().on_headers_complete()

    def _expect_head(self) -> None:
        self._is_in_head = True
        self._cancel()
        self._timer = self.loop.call_later(HEAD_S, self._too_slow)

    def _too_slow(self) -> None:
        self.transport.close()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
