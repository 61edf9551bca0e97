"""The processes of a trial cloud: what runs, with which settings, and starting or stopping all of it."""

import ipaddress
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from controller.authority import Authority
from controller.bus_identity import COLLECTOR, BusIdentity, Listen, server_binary
from controller.cli import supervise
from controller.cli.seat import COLLECTOR_UID, UID, Seat
from controller.cli.space import AGENT_STATE, Space
from controller.cli.trial import Trial
from controller.private_file import write_private
from drivers.command import run, spawn


def prepare(trial: Trial) -> None:
    """Keys, certificates and NATS's configuration, so that it can start before the controller."""
    _place_page(trial)
    seat = Seat(trial)
    seat.make(server_binary(_version))
    credentials = seat.acting(partial(_prepare, trial, seat))
    seat.acting(partial(_keep, seat.collector_folder, credentials), COLLECTOR_UID)


def _prepare(trial: Trial, seat: Seat) -> bytes:
    """Returns what of the controller's is the collector's too: files by name. Nothing else is."""
    now = time.time()
    authority = Authority(seat.controller_folder / "authority", now)
    address = trial.underlay_address(0)
    certificate, key = authority.ensure_server("nats", [address], now)
    folder, ca = seat.nats_folder, authority.ca_path
    listen = Listen(address=address, port=trial.nats_port, certificate=certificate, key=key, folder=folder, ca=ca)
    identity = BusIdentity(seat.controller_folder / "bus")
    identity.ensure_own_users(now)
    identity.write_config(listen, now)
    return msgspec.msgpack.encode({path.name: path.read_bytes() for path in (*identity.credentials(COLLECTOR), ca)})


def _keep(folder: Path, files: bytes) -> bytes:
    for name, content in msgspec.msgpack.decode(files, type=dict[str, bytes]).items():
        write_private(folder / name, content)
    return b""


def _version(binary: Path) -> str:
    return run([binary, "--version"], timeout_s=10.0).text


def entries(trial: Trial) -> list[dict[str, Any]]:
    """Every process, in the order in which they start."""
    logs = trial.folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    scripts = Path(sys.executable).parent

    def entry(name: str, argv: tuple[str, ...], env: Mapping[str, str]) -> dict[str, Any]:
        return {"name": name, "argv": list(argv), "env": dict(env), "log": str(logs / f"{name}.log")}

    seat = Seat(trial)
    nats = seat.enter_without_rights(str(seat.nats_server), "-c", str(seat.nats_folder / "nats.conf"))
    found = [
        entry("nats", nats, {}),
        # They give up root themselves, once they are loaded: the checkout may be root's alone to read.
        entry("controller", seat.enter(str(scripts / "hostler-controller")), controller_env(trial)),
        entry("collector", seat.enter(str(scripts / "hostler-collector")), collector_env(trial)),
    ]
    for host in trial.hosts:
        space = Space(trial, host)
        found.append(entry(f"agent-{host}", space.enter(str(scripts / "hostler-agent")), agent_env(trial, host)))
        found.append(entry(f"guard-{host}", space.enter(str(scripts / "hostler-guard")), agent_env(trial, host)))
    return found


def controller_env(trial: Trial) -> dict[str, str]:
    """The controller's settings."""
    own = {
        "CLOUD": trial.name,
        "DATABASE": trial.database,
        "TAG": trial.tag,
        "STATE": str(Seat(trial).controller_folder),
        "UID": str(UID),
        "LISTEN": f"127.0.0.1:{trial.api_port}",
        "PUBLIC_URL": trial.api_url,
        "CHANNEL_LISTEN": f"{trial.underlay_address(0)}:{trial.channel_port}",
        "METRICS_LISTEN": f"127.0.0.1:{trial.metrics_port}",
        "NATS": trial.nats_url,
        "SLOW": "5" if trial.drivers == "real" else "1",
    }
    if _page(trial).is_dir():
        own["NOVNC"] = str(_page(trial))
    return {f"HOSTLER_CONTROLLER_{key}": value for key, value in own.items()}


def _page(trial: Trial) -> Path:
    """Where the controller finds the console's page: the checkout may be root's alone to read."""
    return trial.run_folder / "novnc"


def _place_page(trial: Trial) -> None:
    """From where packaging/setup.sh puts it, unless it is installed."""
    fetched = Path(trial.cache) / "novnc"
    if trial.cache and fetched.is_dir() and not _page(trial).is_dir():
        shutil.copytree(fetched, _page(trial))
        for path in (_page(trial), *_page(trial).rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)


def collector_env(trial: Trial) -> dict[str, str]:
    """The collector's settings."""
    return {
        "HOSTLER_COLLECTOR_STATE": str(Seat(trial).collector_folder),
        "HOSTLER_COLLECTOR_UID": str(COLLECTOR_UID),
        "HOSTLER_COLLECTOR_NATS": json.dumps([trial.nats_url]),
        "HOSTLER_COLLECTOR_METRICS_LISTEN": f"127.0.0.1:{trial.exporter_port}",
    }


_FAKED: Final = {
    "fake": ("HYPERVISOR", "NETWORK", "IMAGE", "VOLUME"),
    "network": ("HYPERVISOR", "IMAGE", "VOLUME"),
}
"""Sections of a host's settings whose drivers only pretend, by what a trial asks for."""


def agent_env(trial: Trial, host: str) -> dict[str, str]:
    """A host's settings, for its agent and its guard."""
    prefix = ipaddress.ip_network(trial.external).prefixlen
    end = f'addresses = ["{trial.external_gateway}/{prefix}"]' if trial.is_single else 'nic = "external"'
    external = f'{{ bridge = "br-ex", {end} }}'
    found = {
        "AGENT_STATE": AGENT_STATE,
        "AGENT_RUN": str(trial.run_folder / host),
        "AGENT_HOSTNAME": host,
        "AGENT_UNDERLAY_ADDRESS": Space(trial, host).address,
        "AGENT_UNDERLAY_CIDR": trial.underlay,
        "AGENT_CONTROLLER": f"{trial.underlay_address(0)}:{trial.channel_port}",
        "AGENT_METRICS_LISTEN": "127.0.0.1:9465",
        "HYPERVISOR_VIRT_TYPE": trial.virt_type,
        "HYPERVISOR_IS_DAEMON_OURS": "true",
        "HYPERVISOR_DAEMON_SEED": f"{trial.cache}/libvirt" if trial.cache else "",
        "NETWORK_PHYSICAL_NETWORKS": f"{{ external = {external} }}",
    }
    for section in _FAKED.get(trial.drivers, ()):
        found |= {f"{section}_DRIVER": "fake", f"{section}_FAKE_LATENCY_S": "0.005"}
    return {f"HOSTLER_{key}": value for key, value in found.items()}


def start(trial: Trial) -> None:
    """Start the supervisor with all processes; nothing if it runs with the same ones."""
    trial.run_folder.mkdir(parents=True, exist_ok=True)
    listed = trial.run_folder / "processes.json"
    wanted = json.dumps(entries(trial), indent=1)
    pid_file = trial.run_folder / "supervisor.pid"
    if supervise.running(pid_file) is not None:
        if listed.exists() and listed.read_text() == wanted:
            return
        stop(trial)
    listed.touch(mode=0o600)
    listed.write_text(wanted)
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": ""}
    argv = (sys.executable, "-m", "controller.cli.supervise", str(trial.run_folder))
    spawn(argv, log=trial.folder / "logs" / "supervisor.log", env=env)
    deadline = time.monotonic() + 10.0
    while supervise.running(pid_file) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the supervisor does not start; see {trial.folder / 'logs' / 'supervisor.log'}")
        time.sleep(0.05)


def stop(trial: Trial) -> None:
    """Stop the supervisor and with it all processes; guests run on. Harmless if nothing runs."""
    supervise.end(trial.run_folder / "supervisor.pid")
    for pid_file in sorted(trial.run_folder.glob("*.pid")):
        supervise.end(pid_file)


def states(trial: Trial) -> dict[str, int | None]:
    """Every process by name, with its pid if it runs."""
    listed = trial.run_folder / "processes.json"
    names = [entry["name"] for entry in json.loads(listed.read_text())] if listed.exists() else []
    return {name: supervise.running(trial.run_folder / f"{name}.pid") for name in ("supervisor", *names)}
