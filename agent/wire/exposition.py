"""A page of metrics in Prometheus' text format, on a listener of its own: what every process of ours shows operators.

Rendered when it is asked for, without a client library, whose registry and server would cost each process some
megabytes.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import structlog

REQUEST_S: Final = 5.0
HEAD_BYTES_MAX: Final = 8192
_KIND: Final = "text/plain; version=0.0.4; charset=utf-8"

Labels = Mapping[str, str]
Sample = tuple[Labels, float]

log = structlog.get_logger()


def metric(name: str, help: str, samples: Iterable[Sample], kind: str = "gauge") -> str:
    """One metric with all its samples, as text. Label values are ours: no escaping is needed."""
    lines = [f"# HELP {name} {help}", f"# TYPE {name} {kind}"]
    for labels, value in samples:
        inside = ",".join(f'{key}="{text}"' for key, text in labels.items())
        lines.append(f"{name}{{{inside}}} {value}" if inside else f"{name} {value}")
    return "\n".join(lines) + "\n"


class Exposition:
    """Serves `page()` under /metrics."""

    def __init__(self, page: Callable[[], str], address: str) -> None:
        self._page = page
        self._host, _, self._port = address.rpartition(":")

    async def run(self) -> None:
        """Serve until cancelled; not at all if the address cannot be had, which is no reason to stop the process."""
        host = self._host.strip("[]")
        try:
            server = await asyncio.start_server(self._serve, host, int(self._port), limit=HEAD_BYTES_MAX)
        except OSError as error:
            log.error("metrics cannot be served", address=f"{host}:{self._port}", why=str(error))
            return
        async with server:
            await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_S):
                head = await reader.readuntil(b"\r\n\r\n")
                is_known = head.split(b" ", 2)[:2] == [b"GET", b"/metrics"]
                body = self._page().encode() if is_known else b"there is only /metrics\n"
                status = "200 OK" if is_known else "404 Not Found"
                writer.write(
                    f"HTTP/1.1 {status}\r\nContent-Type: {_KIND}\r\nContent-Length: {len(body)}\r\n"
                    "Connection: close\r\n\r\n".encode()
                )
                writer.write(body)
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return
        finally:
            writer.close()
