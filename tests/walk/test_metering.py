"""What a guest uses, from the guest's own counters to a real Prometheus."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.cli.api import Client
from tests.telemetry.prometheus import Prometheus, prometheus
from tests.walk.cloud import HOST, PATIENCE_S, Cloud, eventually
from tests.walk.leftovers import leftovers
from tests.walk.login import Login
from tests.walk.test_restarts import first, runs_anew

__all__ = ["first"]

TOLERANCE = 0.05
SPIN_S = 3
SPIN = "rm -f enough; while [ ! -e enough ]; do j=0; while [ $j -lt 2000 ]; do j=$((j + 1)); done; done"
"""Until somebody says so: on a busy machine a guest's own clock counts time that it was not given."""

MIB = 1 << 20
TICKS = os.sysconf("SC_CLK_TCK")


@pytest.fixture
def prom(cloud: Cloud, tmp_path: Path) -> Iterator[Prometheus]:
    with prometheus(tmp_path, f"127.0.0.1:{cloud.trial.exporter_port}") as found:
        yield found


def meter(name: str, server_id: str) -> str:
    return f'sum(hostler_server_{name}{{resource_id="{server_id}"}})'


def project_of(client: Client) -> str:
    client.login()
    return client.project_id


def qemu_cpu_s(cloud: Cloud, server_id: str) -> float:
    """CPU time of a guest's whole process, as the kernel of this machine counts it."""
    fields = Path(f"/proc/{cloud.qemu_pid(server_id)}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def test_cpu_time_is_what_the_kernel_says_and_rises_by_what_the_guest_uses(
    cloud: Cloud, first: tuple[str, Login], prom: Prometheus
) -> None:
    server_id, login = first
    cpu = meter("cpu_seconds_total", server_id)
    before = prom.until(cpu, 0.1, 2 * PATIENCE_S)
    with leftovers(cloud):
        spinning = subprocess.Popen(login.argv(SPIN))
        began = qemu_cpu_s(cloud, server_id)
        eventually("the guest has spun", lambda: qemu_cpu_s(cloud, server_id) >= began + SPIN_S, 4 * PATIENCE_S)
        login.run("touch enough")
        assert spinning.wait(PATIENCE_S) == 0
    least = qemu_cpu_s(cloud, server_id)
    after = prom.until(cpu, least - 1 / TICKS)  # One that was measured after the guest had done it.
    assert after - before >= 2.0
    assert after <= qemu_cpu_s(cloud, server_id) + 1 / TICKS
    (labels,) = [labels for labels, _ in prom.series(f'hostler_server_vcpus{{resource_id="{server_id}"}}').values()]
    assert labels["project_id"] == project_of(cloud.demo()) and labels["host_id"]


NIC = "/sys/class/net/eth0/statistics"
COUNTED = {
    "network_incoming_bytes_total": f"cat {NIC}/rx_bytes",
    "network_outgoing_bytes_total": f"cat {NIC}/tx_bytes",
    "network_incoming_packets_total": f"cat {NIC}/rx_packets",
    "network_outgoing_packets_total": f"cat {NIC}/tx_packets",
    "disk_read_bytes_total": "echo $(($(awk '{print $3}' /sys/block/vda/stat) * 512))",
    "disk_read_requests_total": "awk '{print $1}' /sys/block/vda/stat",
    "disk_write_bytes_total": "echo $(($(awk '{print $7}' /sys/block/vda/stat) * 512))",
}
"""Meter → how the guest's kernel tells the same."""


def test_bytes_are_the_guests_own(cloud: Cloud, first: tuple[str, Login], prom: Prometheus) -> None:
    server_id, login = first
    prom.until(meter("cpu_seconds_total", server_id), 0.1, 2 * PATIENCE_S)
    metered_before, counted_before = both(cloud, prom, server_id, login)
    assert len(login.run("dd if=/dev/zero of=walked bs=1M count=6 2>/dev/null; cat walked", PATIENCE_S)) == 6 * MIB
    feed(login, "cat > fed; sync", os.urandom(6 * MIB))
    login.run("find / -xdev -type f -size -8192 2>/dev/null | xargs cat > /dev/null 2>&1; sync; true", PATIENCE_S)
    metered_after, counted_after = both(cloud, prom, server_id, login)
    login.run("rm walked fed; sync")
    for name in COUNTED:
        ours = metered_after[name] - metered_before[name]
        theirs = counted_after[name] - counted_before[name]
        print(f"{name}: {ours:.0f} metered, {theirs} counted by the guest")
        assert theirs > (MIB // 4 if "bytes" in name else 10), name
        assert abs(ours - theirs) <= TOLERANCE * theirs, (name, ours, theirs)
    used = prom.until(meter("memory_usage_bytes", server_id), 1)
    assert 16 * MIB < used < 128 * MIB


def both(cloud: Cloud, prom: Prometheus, server_id: str, login: Login) -> tuple[dict[str, float], dict[str, int]]:
    """What is metered and what the guest says, while it does nothing: one was taken right after the other."""
    said = login.run("; ".join(COUNTED.values())).split()
    turns = 'sum(hostler_collector_polls_total{result="ok"})'
    prom.until(turns, (prom.value(turns) or 0.0) + 2 * len(cloud.trial.hosts))
    metered = {name: prom.until(meter(name, server_id)) for name in COUNTED}
    return metered, dict(zip(COUNTED, map(int, said), strict=True))


def feed(login: Login, command: str, data: bytes) -> None:
    """Send bytes into a guest."""
    subprocess.run(login.argv(command), input=data, capture_output=True, timeout=PATIENCE_S, check=True)


def test_counters_go_on_when_anybody_is_killed_and_over_a_power_cycle(
    cloud: Cloud, first: tuple[str, Login], prom: Prometheus
) -> None:
    server_id, login = first
    cpu = meter("cpu_seconds_total", server_id)
    seen = prom.until(cpu, 0.1, 2 * PATIENCE_S)
    for process in ("collector", f"agent-{HOST}", "nats"):
        pid = cloud.pid(process)
        os.kill(pid, signal.SIGKILL)
        runs_anew(cloud, process, pid)
        login.run("true")
        seen = prom.until(cpu, seen + 0.01, 2 * PATIENCE_S)
    cloud.demo().post(f"/compute/v2.1/servers/{server_id}/action", {"reboot": {"type": "HARD"}})
    login.wait()
    after = prom.until(cpu, seen + 0.01, 2 * PATIENCE_S)
    assert qemu_cpu_s(cloud, server_id) < seen < after  # libvirt counts from zero again, we do not.
    assert prom.value(f'max(resets(hostler_server_cpu_seconds_total{{resource_id="{server_id}"}}[1h]))') == 0.0
