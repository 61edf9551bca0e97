"""Handlers of POST /servers/{server_id}/action: one function an action."""

import re
from typing import Any, Final

from agent.wire.domain import RebootKind
from controller.compute import edits, powers, rebuilds, rescues, resizes, shelves, texts
from controller.compute.api import requests, servers
from controller.compute.model import Event
from controller.errors import Invalid
from controller.http.op import Call, Reply

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


async def pause(call: Call) -> None:
    """pause"""
    await powers.pause(call.cloud, call.ctx, call.params["server_id"])


async def unpause(call: Call) -> None:
    """unpause"""
    await powers.unpause(call.cloud, call.ctx, call.params["server_id"])


async def suspend(call: Call) -> None:
    """suspend"""
    await powers.suspend(call.cloud, call.ctx, call.params["server_id"])


async def resume(call: Call) -> None:
    """resume"""
    await powers.resume(call.cloud, call.ctx, call.params["server_id"])


async def rescue(call: Call) -> dict[str, Any]:
    """rescue: no adminPass is told, because hosts set none."""
    ref = call.body.rescue_image_ref if call.body is not None else None
    image_id = texts.uuid(ref.rpartition("/")[2], "rescue_image_ref") if ref else None
    await rescues.rescue(call.cloud, call.ctx, call.params["server_id"], image_id)
    return {}


async def unrescue(call: Call) -> None:
    """unrescue"""
    await rescues.unrescue(call.cloud, call.ctx, call.params["server_id"])


async def rebuild(call: Call) -> Reply:
    """rebuild: the server as it is from now on."""
    await rebuilds.rebuild(call.cloud, call.ctx, call.params["server_id"], requests.rebuilt(call))
    return await servers.rebuilt(call)


async def resize(call: Call) -> None:
    """resize"""
    flavor_id, config = requests.flavor_id(call.body.flavor_ref), call.body.disk_config
    is_auto_disk = None if config is None else config == "AUTO"
    await resizes.resize(call.cloud, call.ctx, call.params["server_id"], flavor_id, is_auto_disk)


async def confirm_resize(call: Call) -> None:
    """confirmResize"""
    await resizes.confirm(call.cloud, call.ctx, call.params["server_id"])


async def revert_resize(call: Call) -> None:
    """revertResize"""
    await resizes.revert(call.cloud, call.ctx, call.params["server_id"])


async def create_image(call: Call) -> Reply:
    """createImage: where the image is, in a header until 2.44."""
    name, properties = texts.name(call.body.name), texts.metadata(call.body.metadata)
    image_id = await shelves.create_image(call.cloud, call.ctx, call.params["server_id"], name, properties)
    if call.version >= (2, 45):
        return Reply({"image_id": image_id})
    return Reply(headers={"Location": f"{call.base_url}/images/{image_id}"})


async def shelve(call: Call) -> None:
    """shelve"""
    await shelves.shelve(call.cloud, call.ctx, call.params["server_id"])


async def offload(call: Call) -> None:
    """shelveOffload"""
    await shelves.offload(call.cloud, call.ctx, call.params["server_id"])


async def unshelve(call: Call) -> None:
    """unshelve"""
    zone = call.body.availability_zone if call.version >= (2, 77) and call.body is not None else None
    await shelves.unshelve(call.cloud, call.ctx, call.params["server_id"], zone)


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
