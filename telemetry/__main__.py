"""`hostler-collector`: pulls what guests use from every host, and shows it to Prometheus.

    hostler-collector [--config /etc/hostler/collector.toml]

It keeps nothing: its state folder holds the credentials that it was given. SIGTERM and SIGINT end it, SIGHUP reads
the log level again.

Started as root it loads its code, hands that folder to `collector.uid` and becomes that, before it reads anything that
came over a network.
"""

import argparse
import asyncio
import gc
import importlib
import os
import pkgutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog
import uvloop

from agent.wire import logs, rights
from agent.wire.bus import NatsBus, file_credentials
from agent.wire.exposition import Exposition
from agent.wire.settings import BadSettings, load
from agent.wire.world import SystemEntropy
from telemetry.collector import Collector
from telemetry.config import Settings
from telemetry.exporter import Exporter
from telemetry.store import Store

DEFAULT_CONFIG: Final = Path("/etc/hostler/collector.toml")

IDENTITY: Final = "collector"
"""On the bus, as in its JWT."""

LATE_IMPORTS: Final = ("encodings.idna",)
"""Of libraries, which import them when they are first needed."""

log = structlog.get_logger()


def main() -> None:
    """The entry point. Ends with status 2 for settings that cannot be used."""
    config = _options(sys.argv[1:]).config
    try:
        settings = load(Settings, config)
        logs.configure(settings.collector.log_level, "collector")
        _check(settings)
        _give_up_root(settings)
    except (BadSettings, KeyError, OSError) as error:
        sys.stderr.write(f"hostler-collector: {error}\n")
        raise SystemExit(2) from error
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_until_signal(settings, config))


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="hostler-collector", description="Hostler's metering")
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help=f"settings (default {DEFAULT_CONFIG})")
    return parser.parse_args(arguments)


def _check(settings: Settings) -> None:
    missing = [path.name for path in _credentials(settings) if not path.exists()]
    if missing:
        raise BadSettings(
            f"{settings.collector.folder} lacks {', '.join(missing)}: copy them from the controller's state folder"
            " (bus/collector.jwt, bus/collector.seed, authority/ca.pem)"
        )


def _give_up_root(settings: Settings) -> None:
    """Be the service's uid. Raises BadSettings if that one could not work then."""
    own = settings.collector
    if rights.is_root():
        if own.uid == 0:
            raise BadSettings("collector.uid is never 0")
        _load_everything()
        rights.hand_over(own.folder, own.uid)
    rights.become(own.uid)
    os.umask(0o077)
    for path in _credentials(settings):
        if not os.access(path, os.R_OK):
            raise BadSettings(f"{path} cannot be read by uid {os.geteuid()}")


def _load_everything() -> None:
    """Import what is otherwise imported when it is needed: our code and Python's may be root's alone to read."""
    for module in pkgutil.walk_packages([str(Path(__file__).parent)], "telemetry."):
        importlib.import_module(module.name)
    for name in LATE_IMPORTS:
        importlib.import_module(name)


def _credentials(settings: Settings) -> tuple[Path, Path, Path]:
    folder = settings.collector.folder
    return folder / f"{IDENTITY}.jwt", folder / f"{IDENTITY}.seed", folder / "ca.pem"


async def _until_signal(settings: Settings, config: Path) -> None:
    loop, enough = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, enough.set)
    loop.add_signal_handler(signal.SIGHUP, _reload, config)
    serving = asyncio.create_task(serve(settings))
    waiting = asyncio.create_task(enough.wait())
    await asyncio.wait((serving, waiting), return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        serving.result()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    log.info("stopped")


def _reload(config: Path) -> None:
    try:
        logs.configure(load(Settings, config).collector.log_level, "collector")
    except (BadSettings, KeyError) as error:
        log.error("the settings cannot be read again", why=str(error))


async def serve(settings: Settings) -> None:
    """Collect and export until cancelled."""
    own, entropy, store = settings.collector, SystemEntropy(), Store()
    bus = NatsBus(own.nats, IDENTITY, file_credentials(*_credentials(settings)), entropy)
    collector = Collector(bus, entropy, store, own.period_s)
    exporter = Exporter(store, collector, asyncio.get_running_loop().time)
    await bus.start()
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(collector.run(), name="collector")
            tasks.create_task(Exposition(exporter.page, own.metrics_listen).run(), name="exporter")
            log.info("ready", listen=own.metrics_listen)
            gc.collect()
            gc.freeze()  # What was imported and built stays: no collection needs to look at it again.
    finally:
        await bus.close()


if __name__ == "__main__":
    main()
