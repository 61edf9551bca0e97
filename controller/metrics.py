"""What operators watch of a controller, in Prometheus' text format, on a listener of its own.

A page of a few numbers, rendered when it is asked for, without a client library. It says nothing of tenants, and it
listens on loopback unless a setting says otherwise.
"""

import asyncio
from collections.abc import Iterator
from typing import Final

import structlog

from controller.cloud import Cloud
from controller.http.app import App

REQUEST_S: Final = 5.0
HEAD_BYTES_MAX: Final = 8192
_KIND: Final = "text/plain; version=0.0.4; charset=utf-8"

log = structlog.get_logger()


class Metrics:
    """The page and its listener."""

    def __init__(self, cloud: Cloud, app: App, address: str) -> None:
        self._cloud = cloud
        self._app = app
        self._host, _, self._port = address.rpartition(":")

    async def run(self) -> None:
        """Serve until cancelled; not at all if the address cannot be had, which is no reason to serve no API."""
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
        yield "# HELP hostler_api_requests_total Requests answered, by service and kind of status."
        yield "# TYPE hostler_api_requests_total counter"
        for (service, kind), count in sorted(self._app.answered.items()):
            yield f'hostler_api_requests_total{{service="{service}",status="{kind}xx"}} {count}'
        yield "# HELP hostler_sagas Sagas in this controller's hands."
        yield "# TYPE hostler_sagas gauge"
        yield f"hostler_sagas {self._cloud.sagas.running}"
        yield "# HELP hostler_sagas_stuck Sagas that wait for an operator."
        yield "# TYPE hostler_sagas_stuck gauge"
        yield f"hostler_sagas_stuck {self._cloud.sagas.recovery.stuck}"
        yield "# HELP hostler_hosts_up Hosts that are alive."
        yield "# TYPE hostler_hosts_up gauge"
        yield f"hostler_hosts_up {len(self._cloud.hosts.up())}"
        yield "# HELP hostler_task_failures Failures in a row of a reconciler."
        yield "# TYPE hostler_task_failures gauge"
        for task in self._cloud.tasks.statuses():
            yield f'hostler_task_failures{{task="{task.name}"}} {task.failures}'

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
