"""`hostler-agent`: makes this host match what the controller asked for.

    hostler-agent [--config /etc/hostler/agent.toml]

Without an identity it first joins a cloud, with the token that somebody puts into the token file. SIGTERM and SIGINT
end it at once and touch no guest: everything that matters is in the ledger and on the host. SIGHUP reads the log level
again.
"""

import argparse
import asyncio
import ctypes
import gc
import os
import signal
import socket
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import structlog
import uvloop

from agent import join, metrics
from agent.channel import HostChannel
from agent.config import Settings
from agent.effects import Drivers
from agent.guard_link import GuardLink
from agent.guarding import MemoryGuard
from agent.inventory import Identity
from agent.join import IdentityFiles, Joined, JoinRefused
from agent.ledger import open_ledger
from agent.node import Agent
from agent.probe import FixedProbe, Probe, SystemProbe
from agent.served import Served
from agent.streams import ChannelSource
from agent.wire import logs
from agent.wire.bus import NatsBus
from agent.wire.errors import WireError
from agent.wire.exposition import Exposition
from agent.wire.settings import BadSettings, load
from agent.wire.world import World, system_world
from drivers.hypervisor import load as hypervisors
from drivers.image import load as images
from drivers.network import load as networks
from drivers.volume import load as volumes

DEFAULT_CONFIG: Final = Path("/etc/hostler/agent.toml")

TOKEN_S: Final = 1.0
"""Between two looks for a join token, or two tries to join."""

TRY_MAX_S: Final = 15.0
"""Between two tries to join, while the controller cannot be reached."""

RENEW_S: Final = 86400.0
"""Between two looks at the certificate. It is renewed when hundreds of days are left."""

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # malloc.h

log = structlog.get_logger()


def main() -> None:
    """The entry point. Ends with status 2 for settings that cannot be used, 1 for what it could not go on with."""
    config = _options(sys.argv[1:]).config
    try:
        settings = load(Settings, config)
        logs.configure(settings.agent.log_level, "agent")
        _make_folders(settings)
    except (BadSettings, OSError, ValueError, KeyError) as error:
        sys.stderr.write(f"hostler-agent: {error}\n")
        raise SystemExit(2) from error
    _bound_memory()
    code = 0
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_until_signal(settings, config))
        except Exception:
            log.exception("the agent ends")
            code = 1
        sys.stderr.flush()
        os._exit(code)  # A thread that hangs in a driver must not hold up the end.


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="hostler-agent", description="Hostler's agent, one on every host")
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help=f"settings (default {DEFAULT_CONFIG})")
    return parser.parse_args(arguments)


def _make_folders(settings: Settings) -> None:
    """Guests' uids pass through the state folder to their own folders; what is secret in it is 0600."""
    for folder in (settings.agent.folder, Path(settings.agent.run), settings.guard_socket().parent):
        folder.mkdir(parents=True, exist_ok=True)
    settings.agent.folder.chmod(0o711)
    Path(settings.agent.run).chmod(0o755)


def _bound_memory() -> None:
    """Threads share two heaps: glibc would keep what is freed once in every thread."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # Not in musl, which keeps nothing.
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 20)
        libc.mallopt(_M_ARENA_MAX, 2)


async def _until_signal(settings: Settings, config: Path) -> None:
    """Serve until somebody says that it is enough."""
    loop, enough = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, enough.set)
    loop.add_signal_handler(signal.SIGHUP, _reload, config)
    serving = asyncio.create_task(serve(settings))
    waiting = asyncio.create_task(enough.wait())
    await asyncio.wait((serving, waiting), return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        serving.result()
    log.info("told to end")


def _reload(config: Path) -> None:
    try:
        logs.configure(load(Settings, config).agent.log_level, "agent")
    except (BadSettings, KeyError) as error:
        log.error("the settings cannot be read again", why=str(error))
        return
    log.info("read the log level again")


async def serve(settings: Settings) -> None:
    """Join if need be, then be the host until cancelled."""
    world = system_world(settings.agent.threads, "driver")
    files = IdentityFiles(settings.agent.folder / "identity")
    joined = files.find() or await _join(settings, files.folder)
    bus = NatsBus(joined.nats_urls, joined.host_id, files.bus_credentials(), world.entropy)
    await bus.start()
    link = GuardLink(settings.guard_socket(), settings.guard.uid, world.threads)
    has_guests = settings.network.driver != "fake"
    probe = _probe(settings)
    agent = Agent(
        world,
        bus,
        open_ledger(settings.agent.folder / "ledger" / "ledger.sqlite", world.entropy.uuid),
        await _drivers(settings, joined.tag, world),
        _identity(settings, joined),
        probe=probe,
        guard=link if has_guests else MemoryGuard(),
        source=ChannelSource(files.channel_context),
        places=settings.places(),
    )
    served = Served(agent.effects)
    address = _at(settings.agent.underlay_address, settings.agent.channel_port)
    channel = HostChannel(world, address, files, images=served.image, disks=served.disk, tunnels=served.tunnels())
    agent.door = channel.door
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(channel.run(), name="channel")
        tasks.create_task(link.run(), name="guard")
        tasks.create_task(_renew(files.folder), name="certificate")
        if settings.agent.metrics_listen:
            shown = Exposition(partial(metrics.page, agent.effects, probe), settings.agent.metrics_listen)
            tasks.create_task(shown.run(), name="metrics")
        tasks.create_task(agent.run(), name="agent")
        await agent.is_ready.wait()
        gc.collect()
        gc.freeze()  # What was imported and built stays: no collection needs to look at it again.


def _at(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _probe(settings: Settings) -> Probe:
    """Fake disks take nothing of this machine's, so that it does not bound them."""
    if settings.image.driver == "fake":
        return FixedProbe(settings.agent.hostname or socket.gethostname())
    return SystemProbe(settings.agent.folder, settings.agent.hostname)


def _identity(settings: Settings, joined: Joined) -> Identity:
    return Identity(
        host_id=joined.host_id,
        cloud=joined.cloud,
        tag=joined.tag,
        underlay_address=settings.agent.underlay_address,
    )


async def _drivers(settings: Settings, tag: str, world: World) -> Drivers:
    """The mechanisms of this host. Loading them may probe for seconds, so it happens in a thread."""

    def build() -> Drivers:
        state = str(settings.agent.folder)
        net = networks.load(settings.network_settings(tag))
        disk = images.load(settings.image, state=state)
        kept = volumes.load(settings.volume, settings.volume_place(tag))
        return Drivers(
            hypervisor=hypervisors.load(settings.hypervisor, tag=tag, state=state),
            fabric=net.fabric,
            filter=net.filter,
            dhcp=net.dhcp,
            images=disk.cache,
            disks=disk.disks,
            volumes=kept.volumes,
            exporter=kept.exporter,
        )

    return await world.threads.run(build, timeout_s=120.0)


async def _join(settings: Settings, folder: Path) -> Joined:
    """Wait for a token and join with it. One that was refused is not tried again; another one is."""
    path, refused, pause_s = settings.agent.token_path, "", TOKEN_S
    hostname = settings.agent.hostname or os.uname().nodename
    log.info("this machine is no host yet; waiting for a join token", path=str(path))
    while True:
        token = path.read_text().strip() if path.exists() else ""
        if token and token != refused:
            try:
                joined = await join.join(
                    token, settings.agent.controller, folder, hostname, settings.agent.underlay_address
                )
            except JoinRefused as error:
                log.error("the controller refuses the join token", why=str(error))
                refused = token
            except OSError as error:
                log.warning("the controller cannot be reached; trying again", why=str(error))
                pause_s = min(pause_s * 1.5, TRY_MAX_S)
            else:
                path.unlink(missing_ok=True)
                return joined
        await asyncio.sleep(pause_s)


async def _renew(folder: Path) -> None:
    """Look after this host's certificate."""
    while True:
        try:
            if await join.renew_if_due(folder):
                log.info("the certificate was renewed")
        except (JoinRefused, OSError, WireError) as error:
            log.warning("the certificate could not be renewed", why=str(error))
        await asyncio.sleep(RENEW_S)


if __name__ == "__main__":
    main()
