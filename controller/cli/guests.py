"""The guests of a trial cloud when all of it stops and starts: switched off in order, and on again if they were on.

`down` stops controller and agents first, so nobody notes that guests go: their rows still say which ones should run.
`up` reads that from the rows before a host is heard, which would report its guests as off. The same serves after a
crash or a boot of the machine. The list is kept in a file until every guest on it was started.
"""

import contextlib
import json
import time
from pathlib import Path
from typing import Any, Final

from controller.cli.api import ApiError, Client
from controller.cli.space import Space
from controller.cli.trial import Trial
from drivers.command import CommandFailed, run

GRACE_S: Final = 30.0
"""From the power button to the plug. A tiny guest needs one second, emulated on a busy machine ten."""
_PRESS_AGAIN_S: Final = 10.0
_QUICK_S: Final = 15.0


def switch_off(trial: Trial) -> None:
    """Press every guest's power button and wait. Harmless if nothing runs; who does not listen stays on."""
    deadline = time.monotonic() + GRACE_S
    press_at = time.monotonic()
    while running := [(space, name) for space in _spaces(trial) for name in _running(space)]:
        now = time.monotonic()
        if now > deadline:
            return
        if now >= press_at:
            for space, name in running:
                with contextlib.suppress(CommandFailed):  # It may have gone by itself.
                    _virsh(space, "shutdown", name)
            press_at = now + _PRESS_AGAIN_S
        time.sleep(0.3)


def note_running(trial: Trial, admin: Client) -> None:
    """Remember the guests that should run and cannot: their hosts are being started."""
    servers = admin.get("/compute/v2.1/servers?all_tenants=1&status=ACTIVE")["servers"]
    noted = sorted({*_noted(trial), *(str(one["id"]) for one in servers)})
    if noted:
        _file(trial).write_text(json.dumps(noted))


def switch_on(trial: Trial, admin: Client) -> int:
    """Start the guests that were noted; returns how many."""
    noted = _noted(trial)
    for server_id in noted:
        with contextlib.suppress(ApiError):  # Deleted or locked meanwhile: its owner's will.
            status = admin.get(f"/compute/v2.1/servers/{server_id}")["server"]["status"]
            act: dict[str, Any] = {"os-start": None} if status == "SHUTOFF" else {"reboot": {"type": "HARD"}}
            admin.post(f"/compute/v2.1/servers/{server_id}/action", act)
    _file(trial).unlink(missing_ok=True)
    return len(noted)


def _spaces(trial: Trial) -> list[Space]:
    return [space for space in (Space(trial, host) for host in trial.hosts) if space.exists]


def _running(space: Space) -> list[str]:
    try:
        return _virsh(space, "list", "--name").split()
    except CommandFailed:  # No libvirtd: nobody to press a button for.
        return []


def _virsh(space: Space, *words: str) -> str:
    return run(space.enter("virsh", "-q", "-c", "qemu:///system", *words), timeout_s=_QUICK_S).text


def _noted(trial: Trial) -> list[str]:
    try:
        return [str(one) for one in json.loads(_file(trial).read_text())]
    except (OSError, ValueError):
        return []


def _file(trial: Trial) -> Path:
    return trial.folder / "guests-to-start.json"
