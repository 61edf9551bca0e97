"""A cloud of the tests' own: `hostler up` with its own name, ranges, ports and state, beside whatever runs.

State lies below /var/tmp, because every folder above a guest's disk must let the guest's user pass. A session that
was killed could not clean up; the next one finds its cloud by its name, which ends in the dead session's pid.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from controller.cli import processes
from controller.cli.api import Client
from controller.cli.space import Space
from controller.cli.trial import Trial, load, run_root

T = TypeVar("T")

CHECKOUT = Path(__file__).resolve().parents[2]
HOSTLER = CHECKOUT / ".venv" / "bin" / "hostler"
PREFIX = "walk-"
HOST = "host1"

UP_S = 400
"""The first cloud of a checkout also downloads packages and builds images."""
COMMAND_S = 120
PATIENCE_S = 90
"""For what takes two seconds on an idle machine: emulated guests on busy cores are forty times slower."""


@dataclass(frozen=True)
class Cloud:
    """One running cloud, its command line, and what an operator sees of its host."""

    name: str
    states: Path
    options: tuple[str, ...]

    @property
    def trial(self) -> Trial:
        found = load(self.name, self.states)
        assert found is not None, f"{self.name} is not up"
        return found

    @property
    def space(self) -> Space:
        return self.space_of(HOST)

    def space_of(self, host: str) -> Space:
        return Space(self.trial, host)

    def hostler(self, *words: str, timeout_s: float = COMMAND_S, ok: bool = True) -> str:
        """Run `hostler`; what it printed."""
        argv = [str(HOSTLER), *words, "--cloud", self.name, "--state", str(self.states)]
        env = {**os.environ, "COLUMNS": "200"}
        done = subprocess.run(
            argv, cwd=CHECKOUT, env=env, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        assert (done.returncode == 0) is ok, f"{' '.join(argv)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def up(self, *words: str) -> str:
        return self.hostler("up", *words, *self.options, timeout_s=UP_S)

    def admin(self) -> Client:
        return Client(self.trial.api_url, "admin", self.trial.password("admin"), "admin")

    def demo(self) -> Client:
        return Client(self.trial.api_url, "demo", self.trial.password("demo"), "demo")

    def inside(self, *argv: str, host: str = HOST) -> str:
        """Run a program in a host's namespaces; its output."""
        return output(*self.space_of(host).enter(*argv))

    def pid(self, process: str) -> int:
        found = processes.states(self.trial)[process]
        assert found is not None, f"{process} does not run"
        return found

    def qemu_pid(self, server_id: str) -> int:
        """The process of a guest, by libvirt's pid file."""
        name = f"instance-{server_id[:8]}.pid"
        return int((self.libvirt("run") / "qemu" / name).read_text())

    def libvirt(self, part: str) -> Path:
        """A folder of the host's libvirt, seen from outside."""
        return self.trial.agent_folder(HOST) / "libvirt" / part

    def server_id(self, name: str) -> str:
        servers = self.demo().get(f"/compute/v2.1/servers?name=^{name}$")["servers"]
        assert len(servers) == 1, servers
        return str(servers[0]["id"])

    def floating_address(self, server_id: str) -> str:
        addresses = self.demo().get(f"/compute/v2.1/servers/{server_id}")["server"]["addresses"]
        found = [one["addr"] for ports in addresses.values() for one in ports if one["OS-EXT-IPS:type"] == "floating"]
        assert len(found) == 1, addresses
        return str(found[0])


def output(*argv: str, timeout_s: float = COMMAND_S) -> str:
    """What a program printed; it must succeed."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def eventually(what: str, probe: Callable[[], T | None], timeout_s: float = PATIENCE_S, every_s: float = 0.3) -> T:
    """What `probe` returns once it is neither None nor False. Errors of `probe` count as not yet."""
    deadline = time.monotonic() + timeout_s
    trouble: Any = None
    while True:
        try:
            found = probe()
            trouble = found
        except Exception as error:  # Told when time is up.
            found, trouble = None, error
        if found is not None and found is not False:
            return found
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {timeout_s:g} s; last: {trouble!r}")
        time.sleep(every_s)


@contextlib.contextmanager
def running_cloud(label: str = "", hosts: int = 1, *words: str) -> Iterator[Cloud]:
    """A furnished cloud with its server `first`; nothing of it is left afterwards. `words`: more for `hostler up`."""
    if os.geteuid() != 0:
        pytest.fail("a cloud makes bridges, namespaces and virtual machines: run the walk as root")
    _remove_abandoned()
    name = f"{PREFIX}{label}{os.getpid()}"
    states = Path(tempfile.mkdtemp(prefix=f"hostler-{name}-", dir="/var/tmp"))
    states.chmod(0o755)
    third = _free_third()
    options = {
        "--underlay": f"198.18.{third}.0/24",
        "--external": f"198.19.{third}.0/24",
        "--api-port": str(_free_port()),
        "--metrics-port": str(_free_port(pair=2)),
        "--hosts": str(hosts),
    }
    cloud = Cloud(name, states, (*(word for pair in options.items() for word in pair), *words))
    try:
        print(cloud.up())
        yield cloud
    finally:
        _keep_logs(cloud)
        cloud.hostler("clean")
        shutil.rmtree(states, ignore_errors=True)


def _remove_abandoned() -> None:
    """Clouds of sessions that are no more."""
    for folder in run_root().glob(f"{PREFIX}*"):
        pid = folder.name.removeprefix(PREFIX).lstrip("abcdefghijklmnopqrstuvwxyz-")
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            subprocess.run([HOSTLER, "clean", "--cloud", folder.name], cwd=CHECKOUT, check=False, timeout=COMMAND_S)


def _keep_logs(cloud: Cloud) -> None:
    """What the processes said, for whoever looks into a failure; the previous session's go."""
    kept = CHECKOUT / ".cache" / "tests" / "walk-logs" / cloud.name.rstrip("0123456789").rstrip("-")
    shutil.rmtree(kept, ignore_errors=True)
    with contextlib.suppress(OSError):
        shutil.copytree(cloud.states / cloud.name / "logs", kept)


def _free_third() -> int:
    """A third byte that neither an underlay nor floating IPs on this machine have."""
    taken = output("ip", "route", "show", "table", "all")
    for offset in range(200):
        third = 20 + (os.getpid() + offset) % 200
        if f"198.18.{third}." not in taken and f"198.19.{third}." not in taken:
            return third
    pytest.fail("every range of 198.18.0.0/15 is taken")


def _free_port(pair: int = 0) -> int:
    """A free port; with `pair`, one whose neighbour at that distance is free too."""
    while True:
        with socket.socket() as probe, socket.socket() as other:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
            with contextlib.suppress(OSError, OverflowError):
                other.bind(("127.0.0.1", port + pair if pair else 0))
                return port
