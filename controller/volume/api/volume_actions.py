"""Handlers of POST /volumes/{volume_id}/action: one function an action."""

from typing import Any

from controller.errors import Invalid
from controller.http.op import Call
from controller.volume import notes, volumes
from controller.volume.api import texts
from controller.volume.model import SETTABLE, Volume
from controller.volume.store import volumes as store


def _now(call: Call) -> float:
    return call.cloud.world.clock.now()


async def extend(call: Call) -> None:
    """os-extend"""
    size = texts.number(call.body.new_size, "new_size", 1, volumes.SIZE_MAX)
    attached = call.version >= (3, 42)
    await volumes.extend(call.cloud, call.ctx, call.params["volume_id"], size, attached=attached)


async def reset_status(call: Call) -> None:
    """os-reset_status"""
    row = call.body
    if row.status is None and row.attach_status is None and row.migration_status is None:
        raise Invalid("Must specify 'status', 'attach_status' or 'migration_status'.")
    if row.status is None:
        await call.cloud.db.read(store.get, call.ctx, call.params["volume_id"])
        return
    if row.status not in SETTABLE:
        raise Invalid(f"Invalid input for field/attribute status. Value: {row.status}.")
    await call.cloud.db.write(volumes.reset_status, call.ctx, call.params["volume_id"], row.status, _now(call))


async def force_delete(call: Call) -> None:
    """os-force_delete"""
    await volumes.delete(call.cloud, call.ctx, call.params["volume_id"], force=True)


async def set_bootable(call: Call) -> None:
    """os-set_bootable"""
    wanted = texts.boolean(call.body.bootable, "bootable")
    await call.cloud.db.write(volumes.set_bootable, call.ctx, call.params["volume_id"], wanted, _now(call))


async def set_readonly(call: Call) -> None:
    """os-update_readonly_flag"""
    wanted = texts.boolean(call.body.readonly, "readonly")
    await call.cloud.db.write(volumes.set_readonly, call.ctx, call.params["volume_id"], wanted, _now(call))


async def set_image_metadata(call: Call) -> dict[str, Any]:
    """os-set_image_metadata"""
    wanted = texts.metadata(call.body.metadata)
    given = (call.ctx, call.params["volume_id"], wanted, (), _now(call))
    return {"metadata": await call.cloud.db.write(volumes.set_image_meta, *given)}


async def unset_image_metadata(call: Call) -> None:
    """os-unset_image_metadata"""
    nothing: dict[str, str] = {}
    given = (call.ctx, call.params["volume_id"], nothing, (call.body.key,), _now(call))
    await call.cloud.db.write(volumes.set_image_meta, *given)


async def show_image_metadata(call: Call) -> dict[str, Any]:
    """os-show_image_metadata"""
    row: Volume = await call.cloud.db.read(store.get, call.ctx, call.params["volume_id"])
    return {"metadata": row.image_meta}


# Somebody else than the compute service notes that they use a volume. Nothing is exported for that.


async def attach(call: Call) -> None:
    """os-attach"""
    row = call.body
    if not row.instance_uuid and not row.host_name:
        raise Invalid("Invalid request to attach volume to an invalid target.")
    drawn = (call.cloud.world.entropy.uuid(), _now(call))
    noted = notes.Note(server_id=row.instance_uuid, host_name=row.host_name, device=row.mountpoint, mode=row.mode)
    await call.cloud.db.write(notes.attach, call.ctx, call.params["volume_id"], noted, drawn)


async def detach(call: Call) -> None:
    """os-detach"""
    attachment_id = None if call.body is None else call.body.attachment_id
    await call.cloud.db.write(notes.detach, call.ctx, call.params["volume_id"], attachment_id, _now(call))


async def reserve(call: Call) -> None:
    """os-reserve"""
    drawn = (call.cloud.world.entropy.uuid(), _now(call))
    await call.cloud.db.write(notes.reserve, call.ctx, call.params["volume_id"], drawn)


async def unreserve(call: Call) -> None:
    """os-unreserve"""
    await call.cloud.db.write(notes.unreserve, call.ctx, call.params["volume_id"], _now(call))
