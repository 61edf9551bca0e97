"""python-openstackclient as everybody gets it: from PyPI, in an environment of its own, with the cloud's own file."""

import fcntl
import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.walk.cloud import CHECKOUT, Cloud

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
VENV = CHECKOUT / ".cache" / "tests" / "client-venv"
INSTALL_S = 600
COMMAND_S = 180


@dataclass(frozen=True)
class OpenStack:
    """The command `openstack`, as one user of one cloud."""

    clouds_yaml: Path
    os_cloud: str = "hostler"
    options: dict[str, str] = field(default_factory=dict)

    def as_cloud(self, os_cloud: str) -> "OpenStack":
        """The same client with another entry of clouds.yaml."""
        return OpenStack(self.clouds_yaml, os_cloud)

    def as_user(self, name: str, password: str, project: str) -> "OpenStack":
        """The same client as a user that clouds.yaml does not name; what it does name is overridden."""
        options = {"--os-username": name, "--os-password": password, "--os-project-name": project}
        return OpenStack(self.clouds_yaml, self.os_cloud, options)

    def show(self, *words: str | Path) -> Any:
        """Run a command that prints something, and decode what it prints."""
        return json.loads(self.do(*words, "-f", "json"))

    def do(self, *words: str | Path) -> str:
        """Run a command that must succeed; what it printed."""
        done = self._run(words)
        assert done.returncode == 0, f"openstack {_said(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def refused(self, *words: str | Path) -> str:
        """Run a command that must fail; what it said about it."""
        done = self._run(words)
        assert done.returncode != 0, f"openstack {_said(words)} should have failed\n{done.stdout}"
        return done.stdout + done.stderr

    def _run(self, words: tuple[str | Path, ...]) -> subprocess.CompletedProcess[str]:
        argv = [str(VENV / "bin" / "openstack"), *(word for pair in self.options.items() for word in pair)]
        env = {key: value for key, value in os.environ.items() if not key.startswith("OS_")}
        env |= {"OS_CLIENT_CONFIG_FILE": str(self.clouds_yaml), "OS_CLOUD": self.os_cloud, "PYTHONPATH": ""}
        return subprocess.run(
            [*argv, *map(str, words)], env=env, capture_output=True, text=True, timeout=COMMAND_S, check=False
        )


def openstack(cloud: Cloud) -> OpenStack:
    """The client of a cloud, as its demo user."""
    _install()
    return OpenStack(cloud.trial.folder / "clouds.yaml")


def _said(words: tuple[str | Path, ...]) -> str:
    return " ".join(map(str, words))


def _install() -> None:
    """Once, and again when the requirements change."""
    VENV.parent.mkdir(parents=True, exist_ok=True)
    with VENV.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = VENV / f"requirements-{hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:16]}"
        if stamp.exists():
            return
        subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=True, timeout=INSTALL_S)
        pip: list[str | Path] = [
            VENV / "bin" / "python",
            "-m",
            "pip",
            "install",
            "-q",
            "--disable-pip-version-check",
            "-r",
            REQUIREMENTS,
        ]
        subprocess.run(pip, check=True, timeout=INSTALL_S)
        stamp.touch()
