"""A cloud of processes on loopback: several real controllers on one PostgreSQL, a bus, and agents with fake drivers.

Nothing here needs root. Every process is started by this module and ended by its process id.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cryptography.fernet import Fernet

from controller.authority import Authority
from controller.bus_identity import BusIdentity, Listen
from controller.cli.api import ApiError, Client
from tests.bus_server import free_port

T = TypeVar("T")

PATIENCE_S = 60.0
FOREVER_S = 120.0


@dataclass
class Process:
    """One process of ours."""

    name: str
    argv: list[str]
    env: dict[str, str]
    log: Path
    running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert self.running is None or self.running.poll() is not None, f"{self.name} runs"
        with self.log.open("ab") as sink:
            self.running = subprocess.Popen(
                self.argv,
                env={**_clean(), **self.env},
                stdout=sink,
                stderr=sink,
                preexec_fn=_die_with_parent,
            )

    def kill(self, how: int = signal.SIGKILL) -> int:
        assert self.running is not None
        if self.running.poll() is None:
            self.running.send_signal(how)
        return self.running.wait(30)

    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""


@dataclass
class Controller(Process):
    """`hostler-controller` with a state folder of its own."""

    state: Path = Path()
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, user: str, password: str, project: str) -> Client:
        return Client(self.url, user, password, project)

    def answers(self) -> bool:
        assert self.running is not None and self.running.poll() is None, self.said()[-3000:]
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{self.url}/identity/v3", timeout=2).close()
            return True
        return False


@dataclass
class Site:
    """What a test sees."""

    folder: Path
    controllers: list[Controller]
    agents: list[Process]
    nats: Process

    def password(self, user: str) -> str:
        """Whichever controller founded the cloud has it."""
        found = [one.state / "passwords" / user for one in self.controllers]
        (path,) = [path for path in found if path.exists()]
        return path.read_text().strip()

    def admin(self, number: int = 0) -> Client:
        return self.controllers[number].client("admin", self.password("admin"), "admin")

    def demo(self, number: int = 0) -> Client:
        return self.controllers[number].client("demo", self.password("demo"), "demo")


def until(what: str, probe: Callable[[], T | None], timeout_s: float = PATIENCE_S, every_s: float = 0.1) -> T:
    """What `probe` returns once it is neither None nor False."""
    deadline = time.monotonic() + timeout_s
    trouble: Any = None
    while True:
        try:
            found = probe()
            trouble = found
        except (OSError, ApiError, KeyError) as error:
            found, trouble = None, error
        if found is not None and found is not False:
            return found
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:g} s; last: {trouble!r}"
        time.sleep(every_s)


@contextlib.contextmanager
def site(
    database: str,
    *,
    controllers: int = 2,
    agents: int = 2,
    slow_driver_s: float = 0.0,
    at_once: bool = False,
) -> Iterator[Site]:
    """A running cloud. An empty `database` is SQLite. `at_once`: no controller waits for another to found it."""
    folder = Path(tempfile.mkdtemp(prefix="hostler-several-", dir="/var/tmp"))
    folder.chmod(0o755)  # Controllers give up root.
    nats_port = free_port()
    found = [_controller(folder, number, database, nats_port) for number in range(controllers)]
    hosts = [_agent(folder, number, found[0], slow_driver_s) for number in range(agents)]
    made = Site(folder, found, hosts, _bus(folder))
    everything = [*made.agents, *made.controllers, made.nats]
    try:
        _begin(made, at_once)
        _configure_bus(made, nats_port)
        made.nats.start()
        _join(made)
        yield made
    except BaseException:
        for process in everything:
            print(f"--- {process.name}\n{process.said()[-4000:]}")
        raise
    finally:
        for process in everything:
            if process.running is not None:
                process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _begin(made: Site, at_once: bool) -> None:
    """The operator brings the first controller's key to the others, or one key to all."""
    first, *others = made.controllers
    if not at_once:
        first.start()
        until(first.name, first.answers)
    for other in others:
        other.state.mkdir(parents=True, exist_ok=True)
        first.state.mkdir(parents=True, exist_ok=True)
        key = first.state / "sealing-key"
        if at_once and not key.exists():
            key.write_bytes(Fernet.generate_key())
        (other.state / "sealing-key").write_bytes(key.read_bytes())
    for one in made.controllers if at_once else others:
        one.start()
    for one in made.controllers:
        until(one.name, one.answers)


def _bus(folder: Path) -> Process:
    binary = str(Path(sys.executable).parent / "nats-server")
    return Process("nats", [binary, "-c", str(folder / "nats" / "nats.conf")], {}, folder / "nats.log")


def _configure_bus(made: Site, port: int) -> None:
    first, now = made.controllers[0].state, time.time()
    authority = Authority(first / "authority", now)
    certificate, key = authority.ensure_server("nats", ["127.0.0.1"], now)
    folder = made.folder / "nats"
    folder.mkdir(exist_ok=True)
    listen = Listen(
        address="127.0.0.1", port=port, certificate=certificate, key=key, folder=folder, ca=authority.ca_path
    )
    BusIdentity(first / "bus").write_config(listen, now)


def _controller(folder: Path, number: int, database: str, nats_port: int) -> Controller:
    port, state = free_port(), folder / f"controller{number}"
    env = {
        "DATABASE": database,
        "CLOUD": "several",
        "STATE": str(state),
        "IMAGES": str(folder / "images"),
        "LISTEN": f"127.0.0.1:{port}",
        "PUBLIC_URL": f"http://127.0.0.1:{port}",
        "CHANNEL_LISTEN": f"127.0.0.1:{free_port()}",
        "METRICS_LISTEN": "",
        "NATS": f"tls://127.0.0.1:{nats_port}",
        "NATS_FOLDER": str(folder / "nats"),
    }
    name = f"controller{number}"
    argv = [sys.executable, "-m", "controller", "--config", str(folder / "none.toml")]
    given = {f"HOSTLER_CONTROLLER_{key}": value for key, value in env.items()}
    return Controller(name, argv, given, folder / f"{name}.log", None, state, port)


def _agent(folder: Path, number: int, first: Controller, slow_driver_s: float) -> Process:
    state = folder / f"agent{number}"
    env = {
        "AGENT_STATE": str(state),
        "AGENT_RUN": str(folder / f"run{number}"),
        "AGENT_HOSTNAME": f"host{number}",
        "AGENT_CONTROLLER": first.env["HOSTLER_CONTROLLER_CHANNEL_LISTEN"],
        "AGENT_METRICS_LISTEN": "",
        "AGENT_CHANNEL_PORT": str(free_port()),
        "GUARD_UID": str(os.getuid()),
    }
    for section in ("HYPERVISOR", "NETWORK", "IMAGE", "VOLUME"):
        env[f"{section}_DRIVER"] = "fake"
    env["HYPERVISOR_FAKE_LATENCY_S"] = str(slow_driver_s)
    given = {f"HOSTLER_{key}": value for key, value in env.items()}
    return Process(f"agent{number}", [sys.executable, "-m", "agent"], given, folder / f"agent{number}.log")


def _join(made: Site) -> None:
    admin = made.admin()
    for agent in made.agents:
        token = admin.post("/operator/v1/join-tokens", {})["token"]
        state = Path(agent.env["HOSTLER_AGENT_STATE"])
        state.mkdir(parents=True, exist_ok=True)
        (state / "join-token").write_text(token)
        agent.start()

    def all_up() -> bool:
        hosts = admin.get("/operator/v1/status")["hosts"]
        return len(hosts) == len(made.agents) and all(one["is_up"] for one in hosts)

    until("every host is up", all_up)


def _clean() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith(("HOSTLER_", "OS_"))}


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
