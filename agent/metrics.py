"""What operators watch of one host, in Prometheus' text format, on a listener of its own.

A page of a few numbers, rendered when it is asked for: no client library, whose registry and server would cost every
host some megabytes.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Final

import structlog

from agent.effects import Effects
from agent.nouns import Noun
from agent.probe import Probe
from agent.tracks import progress
from agent.wire.domain import DomainStatus

REQUEST_S: Final = 5.0
HEAD_BYTES_MAX: Final = 8192
_KIND: Final = "text/plain; version=0.0.4; charset=utf-8"

log = structlog.get_logger()


class Metrics:
    """The page and its listener."""

    def __init__(self, fx: Effects, probe: Probe, address: str) -> None:
        self._fx = fx
        self._probe = probe
        self._host, _, self._port = address.rpartition(":")

    async def run(self) -> None:
        """Serve until cancelled; not at all if the address cannot be had, which is no reason to stop being a host."""
        host = self._host.strip("[]")
        try:
            server = await asyncio.start_server(self._serve, host, int(self._port), limit=HEAD_BYTES_MAX)
        except OSError as error:
            log.error("metrics cannot be served", address=f"{host}:{self._port}", why=str(error))
            return
        async with server:
            await server.serve_forever()

    def page(self) -> str:
        """The page now."""
        return "".join(f"{line}\n" for line in self._lines())

    def _lines(self) -> Iterator[str]:
        objects: Counter[tuple[str, str]] = Counter()
        powers: Counter[str] = Counter()
        for entry in self._fx.ledger.entries():
            track = self._fx.tracks.get(entry.key)
            objects[entry.key.noun.value, progress(entry, track).value] += 1
            if entry.key.noun is Noun.DOMAIN and track is not None and isinstance(track.seen, DomainStatus):
                powers[track.seen.power.value] += 1
        yield "# HELP hostler_agent_objects Objects in the ledger, by how far they are."
        yield "# TYPE hostler_agent_objects gauge"
        for (noun, how), count in sorted(objects.items()):
            yield f'hostler_agent_objects{{noun="{noun}",progress="{how}"}} {count}'
        yield "# HELP hostler_agent_domains Domains, by power state."
        yield "# TYPE hostler_agent_domains gauge"
        for power, count in sorted(powers.items()):
            yield f'hostler_agent_domains{{power="{power}"}} {count}'
        yield "# HELP hostler_agent_driver_timeouts Time-outs of a driver in a row; at 3 it is left alone for a while."
        yield "# TYPE hostler_agent_driver_timeouts gauge"
        for name, breaker in sorted(self._fx.blocking.breakers.items()):
            yield f'hostler_agent_driver_timeouts{{driver="{name}"}} {breaker.timeouts}'
        facts = self._probe.facts()
        yield "# HELP hostler_agent_disk_free_bytes Free where guests' disks lie."
        yield "# TYPE hostler_agent_disk_free_bytes gauge"
        yield f"hostler_agent_disk_free_bytes {facts.disk_free_gib << 30}"
        yield "# HELP hostler_agent_strangers Objects on the host that nobody asked for."
        yield "# TYPE hostler_agent_strangers gauge"
        yield f"hostler_agent_strangers {len(self._fx.unknown())}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_S):
                head = await reader.readuntil(b"\r\n\r\n")
                is_known = head.split(b" ", 2)[:2] == [b"GET", b"/metrics"]
                body = self.page().encode() if is_known else b"there is only /metrics\n"
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
