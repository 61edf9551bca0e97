"""The whole way of a sample: an agent, a real bus, the collector's own process, and a real Prometheus."""

import asyncio
import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from agent.effects import Drivers, Places
from agent.guarding import MemoryGuard
from agent.inventory import Identity
from agent.ledger import Ledger
from agent.node import Agent
from agent.probe import FixedProbe
from agent.wire import bus as wire
from agent.wire.world import system_world
from drivers.hypervisor.fake import FakeHost, FakeHypervisor
from drivers.image.fake import FakeDisks, FakeImageCache, FakeImageHost
from drivers.network.fake import FakeDhcp, FakeFabric, FakeFilter, FakeNetwork
from drivers.volume.fake import FakeExporter, FakeStorage, FakeVolumes
from tests.agent.rig import SERVER, TAG, WHOLE, NoSource, a_domain
from tests.bus_server import BusServer, HostKey, bus_server, free_port
from tests.rootless import read_late, watching
from tests.telemetry.prometheus import prometheus

HOST = "h1"

REPOSITORY = Path(__file__).parent.parent.parent

WATCHED = watching("from telemetry import __main__\n__main__.main()\n")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that a collector which has given up root still reaches; pytest's own are closed to it."""
    folder = Path(tempfile.mkdtemp(prefix="hostler-test-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@contextlib.asynccontextmanager
async def a_host(server: BusServer, fakes: FakeHost, folder: Path) -> AsyncIterator[None]:
    """An agent over fakes on a real bus, with one guest. Leaving it is kill -9: the guest stays."""
    bus, controller = await server.host_bus(HOST, HostKey()), await server.bus("controller")
    net, images, storage = FakeNetwork(physical_networks=()), FakeImageHost(), FakeStorage()
    drivers = Drivers(
        hypervisor=FakeHypervisor(fakes, TAG),
        fabric=FakeFabric(net, TAG),
        filter=FakeFilter(net),
        dhcp=FakeDhcp(net),
        images=FakeImageCache(images),
        disks=FakeDisks(images),
        volumes=FakeVolumes(storage),
        exporter=FakeExporter(storage, TAG, "127.0.0.1"),
    )
    agent = Agent(
        system_world(4, "test"),
        bus,
        Ledger(sqlite3.connect(":memory:", isolation_level=None), "ledger"),
        drivers,
        Identity(host_id=HOST, cloud="test", tag=TAG, underlay_address="127.0.0.1"),
        probe=FixedProbe("host1"),
        guard=MemoryGuard(),
        source=NoSource(),
        places=Places(guests="/fake/guests", totals=folder / "totals.json"),
    )
    running = asyncio.create_task(agent.run())
    try:
        async with asyncio.timeout(30):
            await agent.is_ready.wait()
            for row, spec in (*WHOLE[:-1], (WHOLE[-1][0], a_domain(labels={"project_id": "p1"}))):
                await wire.call(controller, HOST, row, spec)
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await bus.close()
        await controller.close()


@contextlib.contextmanager
def a_collector(
    server: BusServer, folder: Path, port: int, command: Sequence[str] = ("-m", "telemetry"), **settings: str
) -> Iterator[subprocess.Popen[bytes]]:
    """`hostler-collector`, with exactly the files that it is given."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    for path in (*server.identity.credentials("collector"), server.authority.ca_path):
        (folder / path.name).write_bytes(path.read_bytes())
    env = {
        **os.environ,
        "HOSTLER_COLLECTOR_STATE": str(folder),
        "HOSTLER_COLLECTOR_NATS": f'["{server.url}"]',
        "HOSTLER_COLLECTOR_METRICS_LISTEN": f"127.0.0.1:{port}",
        "HOSTLER_COLLECTOR_PERIOD_S": "1",
        **{f"HOSTLER_COLLECTOR_{key}": value for key, value in settings.items()},
    }
    with folder.with_suffix(".log").open("ab") as log:
        process = subprocess.Popen([sys.executable, *command], cwd=REPOSITORY, env=env, stderr=log)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


async def test_a_real_prometheus_sees_what_guests_do_over_restarts_of_everybody(place: Path) -> None:
    folders = [place / name for name in ("bus", "collector", "prometheus", "host")]
    for folder in folders:
        folder.mkdir()
    fakes, port = FakeHost(), free_port()
    cpu = f'hostler_server_cpu_seconds_total{{resource_id="{SERVER}"}}'

    async def until(expression: str, at_least: float) -> float:
        return await asyncio.to_thread(prom.until, expression, at_least)

    async with bus_server(folders[0]) as server:
        with a_collector(server, folders[1], port) as first, prometheus(folders[2], f"127.0.0.1:{port}") as prom:
            async with a_host(server, fakes, folders[3]):
                before = await until(cpu, 1.0)
                fakes.work(SERVER, 3000)
                assert await until(cpu, before + 3.0) == before + 3.0
                labels, _ = prom.series(cpu)[SERVER]
                assert labels["project_id"] == "p1" and labels["host_id"] == HOST
                fakes.power_failure()
                FakeHypervisor(fakes, TAG).start(SERVER)
                after = await until(cpu, before + 4.0)
                assert after == before + 4.0
            async with a_host(server, fakes, folders[3]):
                first.send_signal(signal.SIGKILL)
                first.wait()
                with a_collector(server, folders[1], port) as second:
                    fakes.work(SERVER, 500)
                    assert await until(cpu, after + 0.5) == after + 0.5
                    assert prom.value(f"resets({cpu}[5m])") == 0.0
                    second.send_signal(signal.SIGTERM)
                    assert await asyncio.to_thread(second.wait, 10) == 0


def shown(port: int) -> str:
    """The collector's page; waits until there is one. Else this test is timed out."""
    while True:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page,
        ):
            return str(page.read().decode())
        time.sleep(0.05)


def rights_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: " ".join(value.split()) for name, _, value in (line.partition(":") for line in lines)}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to give up")
async def test_started_as_root_it_is_somebody_else_before_it_connects(place: Path) -> None:
    folder, port = place / "collector", free_port()
    (place / "bus").mkdir(mode=0o700)
    async with bus_server(place / "bus") as server:
        with a_collector(server, folder, port, UID="65513") as process:
            await asyncio.to_thread(shown, port)
            found = rights_of(process.pid)
            assert found["Uid"] == found["Gid"] == "65513 65513 65513 65513"
            assert (found["Groups"], found["NoNewPrivs"]) == ("", "1")
            assert {int(found[kind], 16) for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
            assert {path.stat().st_uid for path in (folder, *folder.iterdir())} == {65513}
            assert folder.stat().st_mode & 0o777 == 0o700
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 30) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to give up")
async def test_no_code_is_read_once_root_is_given_up(place: Path) -> None:
    port = free_port()
    for name in ("bus", "host"):
        (place / name).mkdir()
    async with bus_server(place / "bus") as server:
        command = ("-c", WATCHED, "--config", "/nonexistent")
        with a_collector(server, place / "collector", port, command) as process:
            async with a_host(server, FakeHost(), place / "host"):
                while f'resource_id="{SERVER}"' not in await asyncio.to_thread(shown, port):
                    await asyncio.sleep(0.05)
            server.stop()  # Connections are lost and made again.
            await server.start()
            async with a_host(server, FakeHost(), place / "host"):
                while f'hostler_collector_host_up{{host_id="{HOST}"}} 1.0' not in await asyncio.to_thread(shown, port):
                    await asyncio.sleep(0.05)
            process.send_signal(signal.SIGHUP)
            await asyncio.to_thread(shown, port)
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 30) == 0
    log = (place / "collector.log").read_text()
    assert read_late(log) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to give up")
def test_credentials_that_are_out_of_reach_are_one_sentence(place: Path) -> None:
    folder = place / "closed" / "collector"
    folder.mkdir(parents=True)
    (place / "closed").chmod(0o700)
    for name in ("collector.jwt", "collector.seed", "ca.pem"):
        (folder / name).touch(mode=0o600)
    env = {**os.environ, "HOSTLER_COLLECTOR_STATE": str(folder)}
    done = subprocess.run([sys.executable, "-m", "telemetry"], env=env, capture_output=True, text=True, timeout=90)
    assert done.returncode == 2 and "cannot be read by uid" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("variable", "value", "why"),
    [
        ("HOSTLER_COLLECTOR_PERIOD_S", "often", "period_s"),
        ("HOSTLER_COLLECTOR_UID", "root", "uid"),
        ("HOSTLER_COLLECTOR_LOG_LEVEL", "loud", "LOUD"),
        ("HOSTLER_COLLECTOR_STATE", "/nonexistent", "collector.jwt"),
    ],
)
def test_settings_that_cannot_be_used_are_named(variable: str, value: str, why: str) -> None:
    env = {**os.environ, variable: value}
    done = subprocess.run([sys.executable, "-m", "telemetry"], env=env, capture_output=True, text=True, timeout=90)
    assert done.returncode == 2 and why in done.stderr and "Traceback" not in done.stderr
