"""clouds.yaml for OpenStack clients, in the cloud's own folder: nothing is written to anybody's home."""

from pathlib import Path
from typing import Any

import msgspec

from controller.cli.trial import Trial
from controller.volume.api.versions import VERSIONS


def path(trial: Trial) -> Path:
    """Where it is; pass it as OS_CLIENT_CONFIG_FILE."""
    return trial.folder / "clouds.yaml"


def write(trial: Trial) -> None:
    """`hostler` (demo, member), `hostler-admin`, `hostler-system`."""
    admin = {"username": "admin", "password": trial.password("admin")}
    demo = {"username": "demo", "password": trial.password("demo")}
    found = {
        "hostler": _cloud(trial, {**demo, "project_name": "demo", "project_domain_id": "default"}),
        "hostler-admin": _cloud(trial, {**admin, "project_name": "admin", "project_domain_id": "default"}),
        "hostler-system": _cloud(trial, {**admin, "system_scope": "all"}),
    }
    target = path(trial)
    target.touch(mode=0o600)
    target.write_bytes(msgspec.json.format(msgspec.json.encode({"clouds": found}), indent=2) + b"\n")


def _cloud(trial: Trial, auth: dict[str, Any]) -> dict[str, Any]:
    return {
        "auth": {"auth_url": f"{trial.api_url}/identity/v3", "user_domain_id": "default", **auth},
        "region_name": "RegionOne",
        "identity_api_version": 3,
        # Unless told, the client asks for 3.65, and leaves out the `--force` that 3.65 wants for volumes in use.
        "volume_api_version": "{}.{}".format(*VERSIONS[-1]),
    }
