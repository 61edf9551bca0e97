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
from collections.abc import AsyncIterator, Iterator
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
from telemetry.config import Collector
from tests.agent.rig import SERVER, TAG, WHOLE, NoSource, a_domain
from tests.bus_server import BusServer, HostKey, bus_server, free_port
from tests.telemetry.prometheus import prometheus

HOST = "h1"
UID = Collector().uid


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
def a_collector(server: BusServer, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """`hostler-collector`, with exactly the files that it is given. Started as root it is not root for long."""
    folder = Path(tempfile.mkdtemp(prefix="hostler-collector-", dir="/var/tmp"))
    folder.chmod(0o755)
    for path in (*server.identity.credentials("collector"), server.authority.ca_path):
        (folder / path.name).write_bytes(path.read_bytes())
        (folder / path.name).chmod(0o600)
        if os.geteuid() == 0:
            os.chown(folder / path.name, UID, UID)
    env = {
        **os.environ,
        "HOSTLER_COLLECTOR_STATE": str(folder),
        "HOSTLER_COLLECTOR_NATS": f'["{server.url}"]',
        "HOSTLER_COLLECTOR_METRICS_LISTEN": f"127.0.0.1:{port}",
        "HOSTLER_COLLECTOR_PERIOD_S": "1",
    }
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen([sys.executable, "-m", "telemetry"], env=env, stderr=log)
    try:
        yield process
    finally:
        if process.poll() is None:
            assert "0" not in (Path("/proc") / str(process.pid) / "status").read_text().partition("Uid:")[2].split()[:4]
            process.kill()
            process.wait()
        shutil.rmtree(folder)


async def test_a_real_prometheus_sees_what_guests_do_over_restarts_of_everybody(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("bus", "prometheus", "host")]
    for folder in folders:
        folder.mkdir()
    fakes, port = FakeHost(), free_port()
    cpu = f'hostler_server_cpu_seconds_total{{resource_id="{SERVER}"}}'

    async def until(expression: str, at_least: float) -> float:
        return await asyncio.to_thread(prom.until, expression, at_least)

    async with bus_server(folders[0]) as server:
        with a_collector(server, port) as first, prometheus(folders[1], f"127.0.0.1:{port}") as prom:
            async with a_host(server, fakes, folders[2]):
                before = await until(cpu, 1.0)
                fakes.work(SERVER, 3000)
                assert await until(cpu, before + 3.0) == before + 3.0
                labels, _ = prom.series(cpu)[SERVER]
                assert labels["project_id"] == "p1" and labels["host_id"] == HOST
                fakes.power_failure()
                FakeHypervisor(fakes, TAG).start(SERVER)
                after = await until(cpu, before + 4.0)
                assert after == before + 4.0
            async with a_host(server, fakes, folders[2]):
                first.send_signal(signal.SIGKILL)
                first.wait()
                with a_collector(server, port) as second:
                    fakes.work(SERVER, 500)
                    assert await until(cpu, after + 0.5) == after + 0.5
                    assert prom.value(f"resets({cpu}[5m])") == 0.0
                    second.send_signal(signal.SIGTERM)
                    assert await asyncio.to_thread(second.wait, 10) == 0


@pytest.mark.parametrize(
    ("variable", "value", "why"),
    [
        ("HOSTLER_COLLECTOR_PERIOD_S", "often", "period_s"),
        ("HOSTLER_COLLECTOR_LOG_LEVEL", "loud", "LOUD"),
        ("HOSTLER_COLLECTOR_STATE", "/nonexistent", "collector.jwt"),
    ],
)
def test_settings_that_cannot_be_used_are_named(variable: str, value: str, why: str) -> None:
    env = {**os.environ, variable: value}
    done = subprocess.run([sys.executable, "-m", "telemetry"], env=env, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2 and why in done.stderr and "Traceback" not in done.stderr
