"""`hostler-controller`: one process that serves the APIs, drives sagas and reconcilers, and talks to the hosts.

    hostler-controller [--config /etc/hostler/controller.toml]
    hostler-controller routes                          every endpoint of every service
    hostler-controller openapi                         the same for machines

SIGTERM and SIGINT end it: requests that are being served are finished, sagas rest where their rows say. SIGHUP reads
the token keys and the log level again. When the API answers, one line says so on stdout. It ends with status 1 when
it has lost what only its next start can bring back: then whoever supervises it starts it.

Started as root it loads its code, binds the API's socket, starts the inspector of images, hands its folders to
`controller.uid` and becomes that, before it reads anything that came over a network.
"""

import argparse
import asyncio
import contextlib
import ctypes
import gc
import importlib
import logging
import os
import pkgutil
import resource
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog
import uvicorn
import uvloop

from agent.wire import logs, rights
from agent.wire.exposition import Exposition
from agent.wire.settings import BadSettings, load
from agent.wire.world import World, system_world
from controller import composition, metrics, surroundings
from controller.channel import Listener
from controller.config import Settings
from controller.console import gate
from controller.db import migrations
from controller.db.sqlite import Damaged, Locked, SqliteDatabase
from controller.http import openapi, routes
from controller.http.app import App, build
from controller.http.protocol import BoundedProtocol
from controller.image import uploads
from controller.image.inspectors import Inspectors
from controller.services import services
from controller.tasks import backup
from controller.tasks.driver import Task

DEFAULT_CONFIG: Final = Path("/etc/hostler/controller.toml")

GRACE_S: Final = 10
"""How long requests may take to finish after SIGTERM. Image uploads that take longer are begun again by the client."""

BACKLOG: Final = 2048
"""Connections that the kernel holds for us. Fewer are refused in a burst of logins; more only wait longer."""

CONNECTIONS_MAX: Final = 4000
"""At once; more are answered 503 without being read. Each takes some 10 KiB and a file descriptor."""

KEEP_ALIVE_S: Final = 75
"""Idle connections. Clients that poll servers every second or two keep theirs."""

WEBSOCKET_BYTES_MAX: Final = 1 << 20
"""One message of a console's client: keys and clicks, or what was copied elsewhere to be pasted."""

PING_S: Final = 20.0
"""Between two pings of a websocket, and for the answer to one."""

THREADS: Final = 8
"""Blocking calls at once: files of images, inspections, password hashes (one at a time of their own accord)."""

OTHERS: Final = ("controller.__main__", "controller.cli", "controller.db.migrations.", "controller.image.inspection")
"""Modules of this package that are not the controller's."""

LATE_IMPORTS: Final = (
    "_strptime",
    "anyio._backends._asyncio",
    "anyio._core._fileio",
    "asyncpg",
    "encodings.idna",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "sqlalchemy.dialects.sqlite.pysqlite",
    "uvicorn.lifespan.off",
    "uvicorn.protocols.websockets.wsproto_impl",
)
"""Of libraries, which import them when they are first needed."""

_log: Final = structlog.get_logger()


class Server(uvicorn.Server):
    """Uvicorn in our loop: signals are ours, not its; `ready` is set when it answers."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
        self.ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def main() -> None:
    """The entry point. Ends with status 2 for settings that cannot be used."""
    options = _options(sys.argv[1:])
    if options.command == "routes":
        sys.stdout.writelines(f"{line}\n" for line in routes.lines(services()))
        return
    if options.command == "openapi":
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(openapi.document(services()))) + b"\n")
        return
    _bound_memory()
    _raise_descriptors()
    try:
        settings = load(Settings, options.config)
        logs.configure(settings.controller.log_level, "controller")
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # Not a line for each scanner's garbage.
        listener = listen(settings)
        inspectors = Inspectors(settings.controller.inspector_uid)
        inspectors.start()
        _give_up_root(settings)
    except (BadSettings, OSError) as error:
        sys.stderr.write(f"hostler-controller: {error}\n")
        raise SystemExit(2) from error
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings, options.config, listener, inspectors))
        if inspectors.lost.is_set():
            raise SystemExit(1)
    except (BadSettings, Locked, Damaged) as error:
        sys.stderr.write(f"hostler-controller: {error}\n")
        raise SystemExit(2) from error
    finally:
        inspectors.close()


_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # malloc.h


def _bound_memory() -> None:
    """Give back what is freed. glibc would keep the 19 MiB of a password hash, once in every thread that made one."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # Not in musl, which keeps nothing.
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 20)
        libc.mallopt(_M_ARENA_MAX, 2)


def _raise_descriptors() -> None:
    """As many files and sockets as the system allows: the default of 1024 is fewer than the connections we serve."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _give_up_root(settings: Settings) -> None:
    """Be the service's uid. Raises BadSettings if that one could not work then."""
    uid, state = settings.controller.uid, Path(settings.controller.state)
    was_root = rights.is_root()
    if was_root:
        if 0 in (uid, settings.controller.inspector_uid):
            raise BadSettings("controller.uid and controller.inspector_uid are never 0")
        _load_everything()
        for folder in (state, surroundings.bus_folder(settings), surroundings.image_folder(settings)):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            rights.hand_over(folder, uid)
    rights.become(uid)
    os.umask(0o077)
    if was_root and not os.access(state, os.R_OK | os.W_OK | os.X_OK):
        raise BadSettings(f"controller.state {state} cannot be reached by uid {os.geteuid()}")
    for path in (settings.controller.tls_certificate, settings.controller.tls_key):
        if path and not os.access(path, os.R_OK):
            raise BadSettings(f"{path} cannot be read by uid {os.geteuid()}")


def _load_everything() -> None:
    """Import what is otherwise imported when it is needed: our code and Python's may be root's alone to read."""
    for module in pkgutil.walk_packages([str(Path(__file__).parent)], "controller."):
        if not module.name.startswith(OTHERS):
            importlib.import_module(module.name)
    for name in LATE_IMPORTS:
        importlib.import_module(name)
    migrations.history()


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="hostler-controller", description="Hostler's controller")
    parser.add_argument("command", nargs="?", choices=("serve", "routes", "openapi"), default="serve")
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help=f"settings (default {DEFAULT_CONFIG})")
    return parser.parse_args(arguments)


def listen(settings: Settings) -> socket.socket:
    """The API's socket. Raises BadSettings if it cannot be had, and for plain HTTP beyond this machine."""
    address = settings.controller.listen
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not port.isdecimal() or not host:
        raise BadSettings(f"controller.listen is host:port, not {address!r}")
    if not _is_loopback(host) and not settings.controller.tls_certificate:
        raise BadSettings(f"controller.listen is {address}: beyond loopback the API needs controller.tls_certificate")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, int(port)), family=family, backlog=BACKLOG)
    except OSError as error:
        raise BadSettings(f"controller.listen: {address}: {error.strerror}") from error


def _is_loopback(host: str) -> bool:
    return host == "localhost" or host.startswith("127.") or host == "::1"


async def serve(settings: Settings, config: Path, listener: socket.socket, inspectors: Inspectors) -> None:
    """Until a signal says so."""
    world = system_world(THREADS, "controller")
    async with controller(settings, world, inspectors) as app:
        server = _server(settings, app)
        _attend_signals(settings, config, server, app)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        metrics = asyncio.create_task(_metrics(settings, app))
        watching = asyncio.create_task(_end_with(inspectors, server))
        ready = asyncio.create_task(server.ready.wait())
        await asyncio.wait((ready, serving), return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        gc.collect()
        gc.freeze()  # What was imported and built stays: no collection needs to look at it again.
        if server.started:
            sys.stdout.write(f"hostler-controller serves {settings.controller.public_url}\n")
            sys.stdout.flush()
            _log.info("ready", url=settings.controller.public_url, listen=settings.controller.listen)
        await serving
        for task in (metrics, watching):
            task.cancel()
        await asyncio.gather(metrics, watching, return_exceptions=True)
    _log.info("stopped")


async def _end_with(inspectors: Inspectors, server: Server) -> None:
    await inspectors.lost.wait()
    _log.error("the inspector of images cannot be started again: this process ends, the next one starts both")
    server.should_exit = True


async def _metrics(settings: Settings, app: App) -> None:
    if settings.controller.metrics_listen:
        await Exposition(partial(metrics.page, app.cloud, app), settings.controller.metrics_listen).run()


@contextlib.asynccontextmanager
async def controller(settings: Settings, world: World, inspectors: Inspectors) -> AsyncIterator[App]:
    """A controller at work, with everything real. Yields its application."""
    async with surroundings.real(settings, world, inspectors) as given:
        cloud = composition.assemble(given)
        take = partial(uploads.take, cloud)
        channel = Listener(cloud.channel, given.authority, cloud.enrollment, cloud.images.open, take)

        async def renew_certificate() -> None:
            channel.renew(world.clock.now())

        cloud.tasks.add(Task("channel_certificate", composition.DAY_S, renew_certificate))
        if isinstance(given.db, SqliteDatabase):
            cloud.tasks.add(backup.task(given.db, Path(settings.controller.state) / "backups", world))
        await channel.start(world.clock.now())
        try:
            async with composition.running(cloud, given.bus):
                yield build(cloud, services(), mounts={gate.PREFIX: gate.Gate(cloud)})
        finally:
            await channel.close()


def _server(settings: Settings, app: App) -> Server:
    certificate = settings.controller.tls_certificate
    options: dict[str, Any] = {}
    if certificate:
        options = {
            "ssl_certfile": certificate,
            "ssl_keyfile": settings.controller.tls_key or None,
            "ssl_version": ssl.PROTOCOL_TLS_SERVER,
        }
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        limit_concurrency=CONNECTIONS_MAX,
        ws="wsproto",
        ws_max_size=WEBSOCKET_BYTES_MAX,
        ws_ping_interval=PING_S,
        ws_ping_timeout=PING_S,
        ws_per_message_deflate=False,
        loop="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
        **options,
    )
    return Server(config)


def _attend_signals(settings: Settings, config: Path, server: Server, app: App) -> None:
    loop = asyncio.get_running_loop()

    def stop() -> None:
        server.should_exit = True

    def reload() -> None:
        app.cloud.tokens.reload_keys()
        with contextlib.suppress(BadSettings, OSError):
            logs.configure(load(Settings, config).controller.log_level, "controller")
        _log.info("read keys and log level again")

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, reload)


if __name__ == "__main__":
    main()
