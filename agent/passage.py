"""The way by which a guest leaves this host while it runs: sockets here, whose far ends are on the host where it goes.

    control   libvirtd here asks libvirtd there
    memory    QEMU's own stream
    disks     QEMU here writes to the disks there, block by block, while its guest goes on writing to them

Each socket leads to one stream of the host channel, which a ticket opens once; so no host listens for another one's
libvirt or QEMU, and what passes is encrypted. Bytes are copied, never read. A fourth stream tells the other host that
the guest is not here any more: until then it stands still there, so it never runs twice.
"""

import asyncio
import contextlib
import os
import shutil
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
import structlog

from agent.channel import UPGRADE, End, copy_both
from agent.wire.domain import CONTROL, DISKS, MEMORY, Passage
from agent.wire.errors import Failed
from agent.wire.image import Offer
from agent.wire.port import TcpFlow
from drivers.hypervisor.base import GATES

CONNECT_S: Final = 15.0
"""Until the other host has opened a stream."""

HEAD_MAX: Final = 8192
GO: Final = b"g"

log = structlog.get_logger()


@contextlib.asynccontextmanager
async def opened(
    domain_id: str, way: Passage, uid: int, context: ssl.SSLContext
) -> AsyncIterator[Callable[[tuple[TcpFlow, ...]], Awaitable[None]]]:
    """The sockets are there; what is yielded lets the guest go on at the other end. Raises Failed.

    They are in the guest's own gate on this host, whatever the other one calls its: what is there is removed.
    """
    folder = GATES / domain_id
    offers = {CONTROL: way.control, MEMORY: way.memory}
    offers |= {} if way.disks is None else {DISKS: way.disks}
    copies: set[asyncio.Task[None]] = set()
    async with contextlib.AsyncExitStack() as stack:
        arrival = await connect(way.arrival, context)
        stack.callback(arrival[1].close)
        _begin(folder)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        for name, offer in offers.items():
            server = await asyncio.start_unix_server(_copier(offer, context, copies), path=folder / name)
            stack.callback(server.close)
            os.chown(folder / name, uid, uid)
            (folder / name).chmod(0o600)
        try:
            yield lambda flows: _arrive(arrival, flows)
        finally:
            for copy in copies:
                copy.cancel()
            await asyncio.gather(*copies, return_exceptions=True)


async def connect(offer: Offer, context: ssl.SSLContext) -> End:
    """A stream both ways with what an offer opens. Raises Failed."""
    parts = urlsplit(offer.url)
    try:
        async with asyncio.timeout(CONNECT_S):
            reader, writer = await asyncio.open_connection(
                parts.hostname, parts.port, ssl=context, server_hostname=offer.name, limit=1 << 18
            )
            try:
                await _upgrade(reader, writer, parts.path, offer.ticket)
            except BaseException:
                writer.close()
                raise
    except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise Failed(f"{offer.url} cannot be reached: {error or type(error).__name__}") from error
    return reader, writer


async def _upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, ticket: str) -> None:
    lines = (
        f"GET {path} HTTP/1.1",
        "Host: hostler",
        "Connection: upgrade",
        f"Upgrade: {UPGRADE.decode()}",
        f"Hostler-Ticket: {ticket}",
    )
    writer.write("".join(f"{line}\r\n" for line in (*lines, "")).encode())
    head = await reader.readuntil(b"\r\n\r\n")
    status = head.split(b" ", 2)[1:2]
    if status != [b"101"]:
        raise Failed(f"{path} was refused by the other host: {head.splitlines()[0].decode('ascii', 'replace')}")


def _begin(folder: Path) -> None:
    """Empty, root's, and passable for who knows a name."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o711)
    folder.chmod(0o711)


def _copier(
    offer: Offer, context: ssl.SSLContext, copies: set[asyncio.Task[None]]
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "the server calls us in a task"
        copies.add(task)
        try:
            far = await connect(offer, context)
            try:
                await copy_both((reader, writer), far)
            finally:
                far[1].close()
        except (OSError, Failed) as error:
            log.warning("a guest's way to another host broke", url=offer.url, why=str(error))
        finally:
            copies.discard(task)
            writer.close()

    return connected


async def _arrive(arrival: End, flows: tuple[TcpFlow, ...]) -> None:
    _, writer = arrival
    try:
        writer.write(GO + msgspec.json.encode(flows))
        await writer.drain()
    except OSError as error:
        log.warning("the other host was not told that the guest is gone here", why=str(error))
