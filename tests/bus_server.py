"""A real nats-server for tests: on loopback, on a port of its own, stopped by its process id."""

import asyncio
import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import nkeys

from agent.wire.bus import Credentials, NatsBus, file_credentials
from agent.wire.subjects import Permissions
from agent.wire.world import SystemEntropy
from controller.authority import Authority
from controller.bus_identity import BusIdentity, Listen, reload


class BusServer:
    """One server with the configuration that a controller writes for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder / "ca", time.time())
        self.identity = BusIdentity(folder / "bus")
        self.identity.ensure_own_users(time.time())
        certificate, key = self.authority.ensure_server("nats", ["127.0.0.1"], time.time())
        self.listen = Listen(
            address="127.0.0.1",
            port=free_port(),
            certificate=certificate,
            key=key,
            folder=folder / "nats",
            ca=self.authority.ca_path,
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return self.listen.url

    async def start(self) -> None:
        self.identity.write_config(self.listen, time.time())
        binary = Path(sys.executable).parent / "nats-server"
        with (self.folder / "nats.log").open("ab") as log:
            self._process = subprocess.Popen([binary, "-c", self.listen.config], stdout=log, stderr=log)
        for _ in range(500):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.listen.port), 0.2).close()
                return
            await asyncio.sleep(0.02)
        raise AssertionError((self.folder / "nats.log").read_text())

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def reload(self) -> None:
        self.identity.write_config(self.listen, time.time())
        assert reload(self.listen.pid_file)

    async def bus(self, name: str) -> NatsBus:
        """A connected bus of one of our own identities: controller, collector."""
        jwt, seed = self.identity.credentials(name)
        return await self._connected(NatsBus([self.url], name, self.file_credentials(jwt, seed), SystemEntropy()))

    async def host_bus(self, host_id: str, host: "HostKey") -> NatsBus:
        """A connected bus of a host."""
        credentials = self.credentials(self.identity.host_jwt(host_id, host.public, time.time()), host)
        return await self._connected(NatsBus([self.url], host_id, lambda: credentials, SystemEntropy()))

    async def bus_with(self, name: str, permissions: Permissions) -> NatsBus:
        """A connected bus with permissions of one's own."""
        key = HostKey()
        credentials = self.credentials(self.identity.user_jwt(name, key.public, permissions, time.time()), key)
        return await self._connected(NatsBus([self.url], name, lambda: credentials, SystemEntropy()))

    def credentials(self, jwt: str, key: "HostKey") -> Credentials:
        import ssl

        return Credentials(jwt=jwt, seed=key.seed, tls=ssl.create_default_context(cafile=str(self.authority.ca_path)))

    def file_credentials(self, jwt: Path, seed: Path):
        return file_credentials(jwt, seed, self.authority.ca_path)

    async def _connected(self, bus: NatsBus) -> NatsBus:
        await bus.start()
        assert await bus.connected(10), (self.folder / "nats.log").read_text()
        return bus


class HostKey:
    """A user key as a host makes it."""

    def __init__(self) -> None:
        import os

        self.seed = bytes(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER))
        self.public = bytes(nkeys.from_seed(bytearray(self.seed)).public_key).decode()


def free_port() -> int:
    """A port of loopback that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.asynccontextmanager
async def bus_server(folder: Path) -> AsyncIterator[BusServer]:
    """A running server; stopped at the end."""
    server = BusServer(folder)
    try:
        await server.start()
        yield server
    finally:
        server.stop()
