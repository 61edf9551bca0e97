"""Changes of a server that no host is asked for while the user waits: name, metadata, tags, lock, groups, state.

What the guest reads of them (name, metadata) raises the row's generation; a reconciler pushes it to the host.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from controller.compute import nets, resizes, store, texts
from controller.compute.model import Event, Server, VmState
from controller.compute.servers import act, check_metadata_quota, check_unlocked
from controller.context import Context
from controller.db.tx import Tx
from controller.errors import Conflict, Forbidden, NotFound
from controller.http.policy import is_allowed

if TYPE_CHECKING:
    from controller.cloud import Cloud


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """What PUT may change; UNSET stays."""

    name: str | msgspec.UnsetType = msgspec.UNSET
    description: str | msgspec.UnsetType | None = msgspec.UNSET
    access_ip_v4: str | msgspec.UnsetType = msgspec.UNSET
    access_ip_v6: str | msgspec.UnsetType = msgspec.UNSET
    is_auto_disk: bool | msgspec.UnsetType = msgspec.UNSET


async def update(cloud: "Cloud", ctx: Context, server_id: str, changes: Changes) -> None:
    """Change what PUT may change. The guest learns of a new name; its hostname stays."""
    if await cloud.db.write(_update, ctx, server_id, changes, cloud.world.clock.now()):
        cloud.tasks.kick("server_push")


def _update(tx: Tx, ctx: Context, server_id: str, changes: Changes, now: float) -> bool:
    server = store.get(tx, ctx, server_id)
    asked = {name: getattr(changes, name) for name in Changes.__struct_fields__}
    values = {name: value for name, value in asked.items() if value is not msgspec.UNSET}
    is_news: bool = values.get("name", server.name) != server.name
    if is_news:
        values["generation"] = store.NEXT_GENERATION
    if values:
        store.change(tx, server_id, {**values, "updated_at": now})
    return is_news


async def set_metadata(
    cloud: "Cloud", ctx: Context, server_id: str, wanted: dict[str, str], *, replaces: bool
) -> dict[str, str]:
    """Replace or extend the metadata; all of it then."""
    meta = await cloud.db.write(_set_metadata, ctx, server_id, (wanted, replaces), cloud.world.clock.now())
    cloud.tasks.kick("server_push")
    return meta


def _set_metadata(
    tx: Tx, ctx: Context, server_id: str, wanted: tuple[dict[str, str], bool], now: float
) -> dict[str, str]:
    server = _open_for_metadata(tx, ctx, server_id, "update metadata")
    values, replaces = wanted
    meta = values if replaces else {**server.meta, **values}
    check_metadata_quota(tx, server.project_id, meta)
    store.change(tx, server_id, {"meta": meta, "generation": store.NEXT_GENERATION, "updated_at": now})
    return meta


async def drop_metadata(cloud: "Cloud", ctx: Context, server_id: str, key: str) -> None:
    """Remove one key. Raises NotFound."""
    await cloud.db.write(_drop_metadata, ctx, server_id, key, cloud.world.clock.now())
    cloud.tasks.kick("server_push")


def _drop_metadata(tx: Tx, ctx: Context, server_id: str, key: str, now: float) -> None:
    server = _open_for_metadata(tx, ctx, server_id, "delete metadata")
    if key not in server.meta:
        raise NotFound("Metadata item was not found")
    meta = {name: value for name, value in server.meta.items() if name != key}
    store.change(tx, server_id, {"meta": meta, "generation": store.NEXT_GENERATION, "updated_at": now})


def _open_for_metadata(tx: Tx, ctx: Context, server_id: str, verb: str) -> Server:
    server = store.get(tx, ctx, server_id)
    check_unlocked(ctx, server)
    if server.vm_state not in (VmState.ACTIVE, VmState.PAUSED, VmState.SUSPENDED, VmState.STOPPED):
        raise Conflict(f"Cannot '{verb}' instance {server_id} while it is in vm_state {server.vm_state}")
    return server


async def lock(cloud: "Cloud", ctx: Context, server_id: str, reason: str | None) -> None:
    """Lock it against everyone but admins."""
    await cloud.db.write(_lock, ctx, server_id, reason, cloud.world.clock.now())


def _lock(tx: Tx, ctx: Context, server_id: str, reason: str | None, now: float) -> None:
    server = store.get(tx, ctx, server_id)
    is_owner = server.project_id == ctx.project_id
    if server.locked_by == "admin" and is_owner and not ctx.is_admin:
        return
    values = {"locked_by": "owner" if is_owner and not ctx.is_admin else "admin", "locked_reason": reason}
    store.change(tx, server_id, {**values, "updated_at": now})
    act(tx, ctx, server, "lock", None, now)


async def unlock(cloud: "Cloud", ctx: Context, server_id: str) -> None:
    """Open it again. What an admin has locked only an admin opens."""
    await cloud.db.write(_unlock, ctx, server_id, cloud.world.clock.now())


def _unlock(tx: Tx, ctx: Context, server_id: str, now: float) -> None:
    server = store.get(tx, ctx, server_id)
    rule = "os_compute_api:os-lock-server:unlock:unlock_override"
    if server.locked_by == "admin" and not is_allowed(ctx, rule, {"project_id": server.project_id}):
        raise Forbidden(f"Policy doesn't allow {rule} to be performed.", why={"rule": rule})
    store.change(tx, server_id, {"locked_by": None, "locked_reason": None, "updated_at": now})
    act(tx, ctx, server, "unlock", None, now)


async def reset_state(cloud: "Cloud", ctx: Context, server_id: str, event: Event) -> None:
    """An admin's word about what a server is."""
    leave_id = cloud.world.entropy.uuid()
    await cloud.db.write(_reset_state, ctx, server_id, event, leave_id, cloud.world.clock.now())


def _reset_state(tx: Tx, ctx: Context, server_id: str, event: Event, leave_id: str, now: float) -> None:
    server = store.get(tx, ctx, server_id)
    after = store.take(tx, server, event, now)
    if event is Event.RESET_ACTIVE:
        resizes.settle_as_is(tx, ctx, after, leave_id, now)
    act(tx, ctx, server, "reset_state", None, now)


async def change_groups(cloud: "Cloud", ctx: Context, server_id: str, name: str, *, adds: bool) -> None:
    """Put a security group on the server's ports, or take it off."""
    await cloud.db.write(_change_groups, ctx, server_id, (name, adds), cloud.world.clock.now())
    cloud.tasks.kick("network_sync")


def _change_groups(tx: Tx, ctx: Context, server_id: str, change: tuple[str, bool], now: float) -> None:
    server = store.get(tx, ctx, server_id)
    name, adds = change
    if adds:
        nets.add_group(tx, server, name, now)
    else:
        nets.remove_group(tx, server, name, now)


async def set_tags(cloud: "Cloud", ctx: Context, server_id: str, wanted: Sequence[str]) -> None:
    """Replace all tags."""
    await cloud.db.write(_set_tags, ctx, server_id, tuple(wanted))


def _set_tags(tx: Tx, ctx: Context, server_id: str, wanted: tuple[str, ...]) -> None:
    server = store.get(tx, ctx, server_id)
    check_unlocked(ctx, server)
    store.set_tags(tx, server_id, wanted)


async def add_tag(cloud: "Cloud", ctx: Context, server_id: str, tag: str) -> bool:
    """Add one tag; False if it was there."""
    return await cloud.db.write(_add_tag, ctx, server_id, tag)


def _add_tag(tx: Tx, ctx: Context, server_id: str, tag: str) -> bool:
    server = store.get(tx, ctx, server_id)
    check_unlocked(ctx, server)
    known = store.tags(tx, server_id)
    if tag in known:
        return False
    store.set_tags(tx, server_id, texts.tags([*known, tag]))
    return True


async def drop_tag(cloud: "Cloud", ctx: Context, server_id: str, tag: str) -> None:
    """Remove one tag. Raises NotFound."""
    await cloud.db.write(_drop_tag, ctx, server_id, tag)


def _drop_tag(tx: Tx, ctx: Context, server_id: str, tag: str) -> None:
    server = store.get(tx, ctx, server_id)
    check_unlocked(ctx, server)
    known = store.tags(tx, server_id)
    if tag not in known:
        raise NotFound(f"Instance {server_id} has no tag '{tag}'")
    store.set_tags(tx, server_id, [other for other in known if other != tag])
