"""A trial cloud: everything on one machine, in a folder of its own. Where its files, ports and addresses are.

`make up` runs each agent in network, mount and UTS namespaces of its own (see `space`), controller and NATS in
the machine's. Names and routes carry the cloud's tag, so that several clouds live beside each other and
`make clean` finds what belongs to one without any state.
"""

import contextlib
import ipaddress
import os
import secrets
from pathlib import Path
from typing import Final

import msgspec

from controller.private_file import write_private

_PASSWORD_MAX: Final = 1024


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One cloud on this machine. Written to `cloud.json` at first `up` and kept."""

    name: str
    tag: str  # Four hex digits.
    state: str
    run: str
    cache: str = ""  # Outlives clouds: packages, built images, what libvirtd learned of QEMU. Empty: nothing is kept.
    underlay: str = "198.18.0.0/24"  # Hosts and controller meet here.
    external: str = "198.51.100.0/24"  # Floating IPs; routed to the cloud, never to this machine's uplink.
    api_port: int = 5000
    nats_port: int = 4222
    channel_port: int = 5443
    metrics_port: int = 9464  # The controller's; the collector's is the second one above.
    database: str = ""  # SQLAlchemy URL of a PostgreSQL; empty: SQLite in the controller's folder.
    drivers: str = "real"  # real | fake: hosts for benchmarks of the control plane | network: real in this alone.
    virt_type: str = "auto"  # auto | kvm | qemu
    hosts: tuple[str, ...] = ("host1",)

    @property
    def folder(self) -> Path:
        """Everything that survives `down`."""
        return Path(self.state)

    @property
    def run_folder(self) -> Path:
        """Sockets, pid files, namespaces: gone after a boot."""
        return Path(self.run)

    @property
    def bridge(self) -> str:
        """The machine's leg in the underlay."""
        return f"hu{self.tag}"

    @property
    def is_single(self) -> bool:
        """One host is its external network's gateway itself; several share one that is outside of them."""
        return len(self.hosts) == 1

    @property
    def outside_address(self) -> str:
        """Where the external network's gateway is in the underlay."""
        return self.underlay_address(1) if self.is_single else str(ipaddress.ip_network(self.underlay)[2])

    def underlay_address(self, index: int) -> str:
        """0 is the controller; hosts follow from 11."""
        return str(ipaddress.ip_network(self.underlay)[1 if index == 0 else 10 + index])

    @property
    def underlay_prefix(self) -> int:
        """Length of the underlay's prefix."""
        return ipaddress.ip_network(self.underlay).prefixlen

    @property
    def external_gateway(self) -> str:
        """The external network's gateway: the host's own address on it, or that of what is outside of all hosts."""
        return str(ipaddress.ip_network(self.external)[1])

    @property
    def api_url(self) -> str:
        """Where clients reach the cloud."""
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def exporter_port(self) -> int:
        """Where the collector shows what guests use."""
        return self.metrics_port + 2

    @property
    def nats_url(self) -> str:
        """Where controller and agents reach NATS."""
        return f"tls://{self.underlay_address(0)}:{self.nats_port}"

    @property
    def controller_folder(self) -> Path:
        """State of the controller."""
        return self.folder / "controller"

    @property
    def nats_folder(self) -> Path:
        """Configuration and pid file of NATS."""
        return self.folder / "nats"

    @property
    def collector_folder(self) -> Path:
        """Credentials of the collector."""
        return self.folder / "collector"

    def agent_folder(self, host: str) -> Path:
        """State of one host."""
        return self.folder / f"agent-{host}"

    def password(self, user: str) -> str:
        """What the controller drew for a user when the cloud was founded."""
        return _read_within(self.controller_folder, "passwords", user).strip()


def _read_within(folder: Path, *names: str) -> str:
    """A file in a folder that is not ours: a symbolic link in there would lead us to a file that is."""
    with contextlib.ExitStack() as opened:
        at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        opened.callback(os.close, at)
        for name in names:
            at = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=at)
            opened.callback(os.close, at)
        return os.read(at, _PASSWORD_MAX).decode()


def locate(name: str, root: Path | None = None) -> Path:
    """The folder of a cloud: below the checkout's `.state`, or `root`."""
    return (root or Path.cwd() / ".state") / name


def run_root() -> Path:
    """Below it every cloud has its run folder."""
    return Path("/run/hostler")


def load(name: str, root: Path | None = None) -> Trial | None:
    """The cloud that was made here, or None."""
    path = locate(name, root) / "cloud.json"
    return msgspec.json.decode(path.read_bytes(), type=Trial) if path.exists() else None


def save(trial: Trial) -> None:
    """Write it down for the next command, and once more where `clean` finds it when the state is gone."""
    if not trial.folder.parent.exists():
        trial.folder.parent.mkdir(parents=True)
        trial.folder.parent.chmod(0o755)
    trial.folder.mkdir(exist_ok=True)
    trial.folder.chmod(0o711)  # QEMU's uids pass through to their own folders; everything else inside is closed.
    trial.run_folder.mkdir(parents=True, exist_ok=True)
    for folder in (trial.run_folder.parent, trial.run_folder):
        folder.chmod(0o755)  # Controller, NATS and the guard, who are not root, pass through to what is theirs.
    described = msgspec.json.format(msgspec.json.encode(trial), indent=2)
    for folder in (trial.folder, trial.run_folder):
        write_private(folder / "cloud.json", described)  # The database's URL may hold a password.


def host_names(count: int) -> tuple[str, ...]:
    """host1, host2, …"""
    return tuple(f"host{number}" for number in range(1, count + 1))


def new_tag() -> str:
    """Four random hex digits."""
    return secrets.token_hex(2)
