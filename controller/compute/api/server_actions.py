"""Handlers of POST /servers/{server_id}/action: one function an action."""

import re
from typing import Any, Final

from agent.wire.domain import RebootKind
from controller.compute import edits, powers, texts
from controller.compute.model import Event
from controller.errors import Invalid
from controller.http.op import Call

_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f]")
"""What Nova takes out of console output; clients are used to clean text."""


async def start(call: Call) -> None:
    """os-start"""
    await powers.power_on(call.cloud, call.ctx, call.params["server_id"])


async def stop(call: Call) -> None:
    """os-stop"""
    await powers.power_off(call.cloud, call.ctx, call.params["server_id"])


async def reboot(call: Call) -> None:
    """reboot"""
    kind = RebootKind(call.body.type.lower())
    await powers.reboot(call.cloud, call.ctx, call.params["server_id"], kind)


async def console(call: Call) -> dict[str, Any]:
    """os-getConsoleOutput"""
    length = call.body.length
    lines = None if length is None else texts.number(length, "length", -1)
    output = await powers.console_log(call.cloud, call.ctx, call.params["server_id"], lines)
    return {"output": _CONTROL.sub("", output)}


async def lock(call: Call) -> None:
    """lock"""
    reason = call.body.locked_reason if call.version >= (2, 73) and call.body is not None else None
    await edits.lock(call.cloud, call.ctx, call.params["server_id"], reason)


async def unlock(call: Call) -> None:
    """unlock"""
    await edits.unlock(call.cloud, call.ctx, call.params["server_id"])


async def reset_state(call: Call) -> None:
    """os-resetState"""
    event = Event.RESET_ACTIVE if call.body.state == "active" else Event.RESET_ERROR
    await edits.reset_state(call.cloud, call.ctx, call.params["server_id"], event)


async def add_group(call: Call) -> None:
    """addSecurityGroup"""
    await edits.change_groups(call.cloud, call.ctx, call.params["server_id"], _group(call), adds=True)


async def remove_group(call: Call) -> None:
    """removeSecurityGroup"""
    await edits.change_groups(call.cloud, call.ctx, call.params["server_id"], _group(call), adds=False)


def _group(call: Call) -> str:
    name: str = call.body.name
    if not name.strip():
        raise Invalid("Security group name cannot be empty")
    return name
