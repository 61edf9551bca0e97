"""Handlers of /servers/{server_id}/os-volume_attachments: volumes of a server that is there."""

import re
from typing import Any, Final

from controller.compute import texts, volumes
from controller.compute.api import queries
from controller.compute.plugs import Plug
from controller.compute.volumes import NewPlug
from controller.errors import Invalid
from controller.http.fields import Field, render
from controller.http.op import Call

_DEVICE: Final = re.compile("/dev/x?[a-z]?d?[a-z]+[0-9]*")
"""Nova's pattern."""

_PLUG: Final = (
    Field("id", "volume_id"),
    Field("volumeId", "volume_id"),
    Field("serverId", "server_id"),
    Field("device", "device"),
    Field("tag", "tag", since=(2, 70)),
    Field("delete_on_termination", "is_ended_with_server", since=(2, 79)),
)


async def index(call: Call) -> dict[str, Any]:
    """GET: all of them, or a part by `limit` and `offset`."""
    queries.check_keys(call, ("limit", "offset"))
    found = await call.cloud.db.read(volumes.of_server, call.ctx, call.params["server_id"])
    page = queries.page_of(call)
    offset = texts.number(call.query.get("offset") or 0, "offset", 0)
    return {"volumeAttachments": [_view(call, plug) for plug in found[offset : offset + page.limit]]}


async def show(call: Call) -> dict[str, Any]:
    """GET /{volume_id}"""
    params = call.params
    found = await call.cloud.db.read(volumes.of_both, call.ctx, params["server_id"], params["volume_id"])
    return {"volumeAttachment": _view(call, found)}


async def create(call: Call) -> dict[str, Any]:
    """POST"""
    row = call.body.attachment
    tag = getattr(row, "tag", None)
    new = NewPlug(
        volume_id=texts.uuid(row.volume_id, "volumeId"),
        device=_device(row.device),
        tag=None if tag is None else texts.tag(tag),
        is_ended_with_server=texts.boolean(getattr(row, "delete_on_termination", False), "delete_on_termination"),
        may_share=call.version >= (2, 60),
    )
    made = await volumes.attach(call.cloud, call.ctx, call.params["server_id"], new)
    return {"volumeAttachment": _view(call, made)}


def _device(wanted: str | None) -> str | None:
    if wanted is not None and not _DEVICE.fullmatch(wanted):
        raise Invalid(f"Invalid input for field/attribute device. Value: {wanted}. It is not like /dev/vdb.")
    return wanted


async def delete(call: Call) -> None:
    """DELETE /{volume_id}"""
    await volumes.detach(call.cloud, call.ctx, call.params["server_id"], call.params["volume_id"])


def _view(call: Call, plug: Plug) -> dict[str, Any]:
    return render(_PLUG, plug, call.version)
