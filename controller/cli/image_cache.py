"""`hostler image-cache`: what hosts keep of images, and sending one away."""

import time
from typing import Any

from rich.console import Console
from rich.table import Table

from controller.cli.api import Client
from controller.cli.trial import Trial

MIB = 1 << 20


class NoSuchHost(RuntimeError):
    """No host is called so."""


def show(trial: Trial) -> None:
    """Print every host's cache."""
    table = Table("host", "image", "sha256", "MiB", "last wanted", "state")
    for host in _hosts(trial):
        if host["error"]:
            table.add_row(host["hostname"], "", "", "", "", host["error"])
        for one in host["images"]:
            state = "in use" if one["is_used"] else "leaving" if one["is_leaving"] else "idle"
            when = time.strftime("%Y-%m-%d %H:%M", time.localtime(one["used_at"]))
            names = ", ".join(one["names"]) or "(no image any more)"
            table.add_row(host["hostname"], names, one["sha256"][:12], f"{one['size'] / MIB:.1f}", when, state)
    Console(highlight=False).print(table)


def evict(trial: Trial, image: str, hostname: str | None, *, force: bool) -> None:
    """Send an image away from one host, or from every one that has it. Raises ApiError with the why."""
    hosts = [host for host in _hosts(trial) if hostname in (None, host["hostname"])]
    if not hosts:
        raise NoSuchHost(f"there is no host called {hostname}")
    having = [host for host in hosts if hostname is not None or _has(host, image)]
    if not having:
        raise NoSuchHost(f"no host has an image called {image}")
    for host in having:
        path = f"/operator/v1/hosts/{host['id']}/image-cache/evict"
        gone = _admin(trial).post(path, {"image": image, "force": force})
        Console(highlight=False).print(
            f"{host['hostname']}: {gone['sha256'][:12]} is gone, {gone['size'] / MIB:.1f} MiB are free"
        )


def _has(host: dict[str, Any], image: str) -> bool:
    return any(image in one["names"] or one["sha256"].startswith(image) for one in host["images"])


def _hosts(trial: Trial) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = _admin(trial).get("/operator/v1/image-cache")["hosts"]
    return found


def _admin(trial: Trial) -> Client:
    return Client(trial.api_url, "admin", trial.password("admin"), "admin")
