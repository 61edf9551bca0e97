"""`hostler host`: what hosts carry, and emptying one before it is repaired.

A drained host takes no new server, its gateways go to others within seconds, and its servers one by one, through the
same API as everybody's: those that run go while they run; the others are off anyway, migrate, and are confirmed where
they are then. What cannot go is told, with the why; the others go nevertheless. A server that was moved before, and
that nobody has confirmed, still has its disk here.
"""

import time
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from controller.cli.api import ApiError, Client
from controller.cli.trial import Trial

MOVE_S: Final = 900.0
"""For one server; its disk is copied."""

EVERY_S: Final = 1.0
NAMED_HOST: Final = "compute 2.56"
ANY_DISKS: Final = "compute 2.25"


class NotDrained(RuntimeError):
    """Something is still there."""


def show(trial: Trial) -> None:
    """Print every host with what it carries."""
    admin = _admin(trial)
    table = Table("host", "state", "scheduling", "servers")
    for one in _services(admin):
        reason = f" ({one['disabled_reason']})" if one["disabled_reason"] else ""
        count = len(_servers(admin, one["host"]))
        table.add_row(one["host"], one["state"], f"{one['status']}{reason}", str(count))
    Console(highlight=False).print(table)


def enable(trial: Trial, host: str) -> None:
    """Let new servers come again. Raises NotDrained for a host that is not there."""
    admin = _admin(trial)
    _change(admin, _service(admin, host), {"status": "enabled"})


def drain(trial: Trial, host: str, to: str | None) -> None:
    """Send everything away from a host. Raises NotDrained when something stays."""
    admin, console = _admin(trial), Console(highlight=False)
    _change(admin, _service(admin, host), {"status": "disabled", "disabled_reason": "drained"})
    console.print(f"{host} takes no new servers; its gateways go to other hosts.")
    stays: list[str] = []
    for server in _servers(admin, host):
        said = _move(admin, server["id"], to)
        console.print(f"{server['name']} ({server['id']}): {said or 'moved'}")
        stays += [server["name"]] if said else []
    stays += [f"the disk of {server_id}, which waits for its confirmation" for server_id in _unconfirmed(admin, host)]
    if stays:
        raise NotDrained(f"{host} still has: {', '.join(stays)}")
    console.print(f"{host} is empty.")


def _move(admin: Client, server_id: str, to: str | None) -> str:
    """Why a server stays; empty when it has gone."""
    path = f"/compute/v2.1/servers/{server_id}"
    before = admin.get(path)["server"]["OS-EXT-SRV-ATTR:host"]
    try:
        _ask(admin, path, to)
        now = _rested(admin, path)
        if now is not None and now["status"] == "VERIFY_RESIZE" and now["OS-EXT-SRV-ATTR:host"] != before:
            admin.post(f"{path}/action", {"confirmResize": None})
            now = _rested(admin, path)
    except ApiError as error:
        return str(error)
    except TimeoutError as error:
        return str(error)
    if now is None:
        return ""
    has_gone = now["OS-EXT-SRV-ATTR:host"] != before and now["status"] != "VERIFY_RESIZE"
    return "" if has_gone else _why(admin, server_id)


def _rested(admin: Client, path: str) -> dict[str, Any] | None:
    """A server that nobody works on any more; None if it is gone. Raises TimeoutError."""
    deadline = time.monotonic() + MOVE_S
    while time.monotonic() < deadline:
        try:
            now: dict[str, Any] = admin.get(path)["server"]
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        if now["OS-EXT-STS:task_state"] is None:
            return now
        time.sleep(EVERY_S)
    raise TimeoutError(f"not within {MOVE_S:g} s")


def _unconfirmed(admin: Client, host: str) -> list[str]:
    """Servers that left it, and may be sent back."""
    found = admin.get(f"/compute/v2.1/os-migrations?status=finished&source_compute={host}")["migrations"]
    return [one["instance_uuid"] for one in found if one["dest_compute"] != host]


def _ask(admin: Client, path: str, to: str | None) -> None:
    if admin.get(path)["server"]["status"] in ("ACTIVE", "PAUSED"):
        live = {"host": to, "block_migration": "auto"}
        admin.post(f"{path}/action", {"os-migrateLive": live}, version=ANY_DISKS)
        return
    body = None if to is None else {"host": to}
    admin.post(f"{path}/action", {"migrate": body}, version="" if to is None else NAMED_HOST)


def _why(admin: Client, server_id: str) -> str:
    actions = admin.get(f"/compute/v2.1/servers/{server_id}/os-instance-actions")["instanceActions"]
    newest = actions[0]["request_id"] if actions else "-"
    return f"it could not be moved; `hostler explain {newest}` says why"


def _service(admin: Client, host: str) -> dict[str, Any]:
    for one in _services(admin):
        if one["host"] == host:
            return one
    raise NotDrained(f"there is no host called {host}")


def _services(admin: Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = admin.get("/compute/v2.1/os-services?binary=nova-compute")["services"]
    return found


def _change(admin: Client, service: dict[str, Any], values: dict[str, Any]) -> None:
    verb = "enable" if values["status"] == "enabled" else "disable-log-reason"
    body = {"host": service["host"], "binary": service["binary"]}
    if "disabled_reason" in values:
        body["disabled_reason"] = values["disabled_reason"]
    admin.put(f"/compute/v2.1/os-services/{verb}", body)


def _servers(admin: Client, host: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = admin.get(f"/compute/v2.1/servers?all_tenants=1&host={host}")["servers"]
    return found


def _admin(trial: Trial) -> Client:
    return Client(trial.api_url, "admin", trial.password("admin"), "admin")
