"""The process itself, with fake drivers and nobody at the other end of the bus."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import msgspec
import nkeys
import pytest

from agent.join import IdentityFiles, Joined
from agent.ledger import open_ledger
from agent.nouns import Noun
from agent.wire.specs import encode
from tests.agent.rig import a_network


class Process:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.env = {
            **os.environ,
            "HOSTLER_AGENT_STATE": str(folder / "state"),
            "HOSTLER_AGENT_RUN": str(folder / "run"),
            "HOSTLER_AGENT_HOSTNAME": "host1",
            "HOSTLER_AGENT_METRICS_LISTEN": f"127.0.0.1:{self.port}",
            "HOSTLER_GUARD_UID": str(os.getuid()),
            "HOSTLER_HYPERVISOR_DRIVER": "fake",
            "HOSTLER_NETWORK_DRIVER": "fake",
            "HOSTLER_IMAGE_DRIVER": "fake",
        }
        self.running: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str) -> None:
        with (self.folder / "log").open("ab") as sink:
            self.running = subprocess.Popen([sys.executable, "-m", "agent", *arguments], env=self.env, stderr=sink)

    def end(self, number: int = signal.SIGTERM) -> int:
        assert self.running is not None
        self.running.send_signal(number)
        return self.running.wait(10)

    def said(self) -> list[str]:
        return [json.loads(line)["event"] for line in (self.folder / "log").read_text().splitlines()]

    def until(self, event: str, times: int = 1) -> None:
        deadline = time.monotonic() + 30
        while self.said().count(event) < times:
            assert self.running is not None and self.running.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.05)

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as response:
            return str(response.read().decode())


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    found = Process(tmp_path)
    yield found
    if found.running is not None and found.running.poll() is None:
        found.end(signal.SIGKILL)


def as_host(process: Process) -> None:
    """What a join leaves."""
    files = IdentityFiles(process.folder / "state" / "identity")
    files.folder.mkdir(parents=True)
    files.jwt.write_text("x")
    files.seed.write_bytes(bytes(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)))
    files.ca.write_text("")
    joined = Joined(
        host_id="h1",
        cloud="test",
        tag="beef",
        nats_urls=("tls://127.0.0.1:1",),
        controller="127.0.0.1:1",
        hostname="host1",
        underlay_address="127.0.0.1",
    )
    files.joined.write_bytes(msgspec.json.encode(joined))


def test_it_is_ready_without_a_bus_and_ends_at_once(process: Process) -> None:
    as_host(process)
    for number in (1, 2):
        process.start()
        process.until("ready", number)
        assert "hostler_agent_strangers 0" in process.metrics()
        assert process.end() == 0


def test_it_finds_the_guard_whichever_starts_first(process: Process) -> None:
    as_host(process)
    guard = subprocess.Popen([sys.executable, "-m", "agent.guard"], env=process.env, stderr=subprocess.DEVNULL)
    try:
        process.start()
        process.until("the guard is there")
        process.end(signal.SIGKILL)
        process.start()
        process.until("the guard is there", 2)
    finally:
        guard.kill()
        guard.wait()
    process.until("the guard is away")


def test_after_kill_9_it_goes_on_from_its_ledger(process: Process) -> None:
    as_host(process)
    ledger = open_ledger(process.folder / "state" / "ledger" / "ledger.sqlite", lambda: "i")
    ledger.put(Noun.NETWORK, a_network(), encode(a_network()), 0.0)
    ledger.close()
    process.start()
    process.until("ready")
    process.end(signal.SIGKILL)
    process.start()
    process.until("ready", 2)
    assert 'hostler_agent_objects{noun="network",progress="ready"} 1' in process.metrics()
    assert process.said().count("converged") == 2


def test_the_log_level_is_read_again(process: Process) -> None:
    as_host(process)
    config = process.folder / "agent.toml"
    config.write_text('[agent]\nlog_level = "error"\n')
    process.start("--config", str(config))
    deadline = time.monotonic() + 30
    while True:
        try:
            process.metrics()
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    config.write_text('[agent]\nlog_level = "info"\n')
    assert process.running is not None
    process.running.send_signal(signal.SIGHUP)
    process.until("read the log level again")
    assert process.end() == 0
    assert process.said()[0] == "read the log level again"  # Nothing was said at the level of errors.


def test_before_it_is_a_host_it_waits_for_a_token(process: Process) -> None:
    process.start()
    process.until("this machine is no host yet; waiting for a join token")
    token = process.folder / "state" / "join-token"
    token.write_text("nonsense")
    process.until("the controller refuses the join token")
    token.write_text("hst1." + "0" * 64 + ".id.secret")
    process.until("the controller cannot be reached; trying again")
    assert process.end() == 0


def test_settings_that_cannot_be_used_are_named(process: Process) -> None:
    config = process.folder / "agent.toml"
    config.write_text("[agent]\nstaet = 1\n")
    done = subprocess.run(
        [sys.executable, "-m", "agent", "--config", str(config)], capture_output=True, env=process.env, timeout=30
    )
    assert done.returncode == 2 and b"staet" in done.stderr
