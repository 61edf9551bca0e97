"""Another size for a server, or another host in the size that it has: asked for, then confirmed or reverted."""

from typing import TYPE_CHECKING

import msgspec

from controller import quota
from controller.compute import migration_store, powers, resize_store, sizes, store
from controller.compute.model import Event, Server, VmState
from controller.compute.resize_store import Resize
from controller.compute.sagas import moving
from controller.compute.sagas.server_confirm_resize import CONFIRM, ConfirmParams
from controller.compute.sagas.server_resize import RESIZE, ResizeParams
from controller.compute.sagas.server_revert_resize import REVERT, RevertParams
from controller.compute.servers import flavor_of
from controller.compute.sizes import Size
from controller.context import Context
from controller.db.tx import Tx
from controller.errors import Conflict, Invalid
from controller.saga.log import settled
from controller.schedule import claim

if TYPE_CHECKING:
    from controller.cloud import Cloud


Ids = tuple[str, str, str]
"""Of the saga, of the change of size, and of the saga that cleans up on another host."""


async def resize(cloud: "Cloud", ctx: Context, server_id: str, flavor_id: str, is_auto_disk: bool | None) -> None:
    """Accept a change of size. Raises Invalid, Forbidden, OverQuota, NotFound, Conflict."""
    uuid = cloud.world.entropy.uuid
    ids: Ids = (uuid(), uuid(), uuid())
    await cloud.db.write(_resize, ctx, server_id, (flavor_id, is_auto_disk), ids, cloud.world.clock.now())
    cloud.sagas.kick(ids[0])


def _resize(tx: Tx, ctx: Context, server_id: str, asked: tuple[str, bool | None], ids: Ids, now: float) -> None:
    server = powers.ready(tx, ctx, server_id)
    flavor_id, is_auto_disk = asked
    values = {} if is_auto_disk is None else {"is_auto_disk": is_auto_disk}
    after = store.take(tx, server, Event.RESIZE, now, **values)
    flavor = flavor_of(tx, ctx, flavor_id)
    if flavor.id == server.flavor_id:
        raise Invalid("When resizing, instances must change flavor!")
    new, root_gib = sizes.of_flavor(flavor), sizes.root_gib(server, flavor)
    extra = resize_store.reserve(sizes.of_server(server), new)
    needed = {"cores": extra["extra_vcpus"], "ram": extra["extra_memory_mib"]}
    quota.charge(tx, server.project_id, "compute", needed, store.used)
    begin(tx, ctx, server, after, Wish(is_migration=False, size=new, root_gib=root_gib), ids)


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for: a size, or in the size that it has another host, maybe of that name."""

    is_migration: bool
    size: Size
    root_gib: int
    host: str | None = None


def begin(tx: Tx, ctx: Context, server: Server, after: Server, wish: Wish, ids: Ids) -> None:
    """The rows and the saga; `after` is the server's row once it has taken the event."""
    (saga_id, resize_id, leave_id), now, old = ids, after.updated_at, sizes.of_server(server)
    assert server.host_id is not None, "checked before"
    was_on = server.vm_state == VmState.ACTIVE
    resize_store.insert(
        tx,
        Resize(
            server_id=server.id,
            id=resize_id,
            project_id=server.project_id,
            old=msgspec.to_builtins(old),
            new=msgspec.to_builtins(wish.size),
            from_host_id=server.host_id,
            from_host_name=server.host_name or "",
            to_host_id=None,
            to_host_name=None,
            was_on=was_on,
            created_at=now,
            **resize_store.reserve(old, wish.size),
        ),
    )
    action, kind = ("migrate", migration_store.MIGRATION) if wish.is_migration else ("resize", migration_store.RESIZE)
    migration_store.insert(tx, server, resize_id, kind, ctx.user_id, now, new_flavor_id=wish.size.flavor_id)
    params = ResizeParams(
        **powers.params_of(ctx, after),
        was_on=was_on,
        resize_id=resize_id,
        leave_id=leave_id,
        is_migration=wish.is_migration,
        wish_host=wish.host,
        root_gib=wish.root_gib,
        old_root_gib=server.root_gib,
        nics=len(store.nics(tx, server.id)),
        image_id=server.image_id or "",
    )
    powers.run(tx, ctx, after, action, RESIZE, params, saga_id)


async def confirm(cloud: "Cloud", ctx: Context, server_id: str) -> None:
    """Keep the new size. Raises NotFound, Conflict."""
    saga_id, leave_id = cloud.world.entropy.uuid(), cloud.world.entropy.uuid()
    await cloud.db.write(_confirm, ctx, server_id, (saga_id, leave_id), cloud.world.clock.now())
    cloud.sagas.kick(saga_id)


def _confirm(tx: Tx, ctx: Context, server_id: str, ids: tuple[str, str], now: float) -> None:
    server, (saga_id, leave_id) = powers.ready(tx, ctx, server_id), ids
    after = store.take(tx, server, Event.CONFIRM_RESIZE, now)
    resize_id = resize_store.get(tx, server_id).id
    migration_store.change(tx, resize_id, now, status="confirming")
    params = ConfirmParams(**powers.params_of(ctx, after), resize_id=resize_id, leave_id=leave_id)
    powers.run(tx, ctx, after, "confirmResize", CONFIRM, params, saga_id)


async def revert(cloud: "Cloud", ctx: Context, server_id: str) -> None:
    """Back to the old size. Raises NotFound, Conflict."""
    saga_id, leave_id = cloud.world.entropy.uuid(), cloud.world.entropy.uuid()
    await cloud.db.write(_revert, ctx, server_id, (saga_id, leave_id), cloud.world.clock.now())
    cloud.sagas.kick(saga_id)


def _revert(tx: Tx, ctx: Context, server_id: str, ids: tuple[str, str], now: float) -> None:
    server, (saga_id, leave_id) = powers.ready(tx, ctx, server_id), ids
    after = store.take(tx, server, Event.REVERT_RESIZE, now, desired="shutoff", generation=store.NEXT_GENERATION)
    change = resize_store.get(tx, server_id)
    migration_store.change(tx, change.id, now, status="reverting")
    back_id, back_name = change.other_host(server.host_id)
    had = claim.held(tx, change.id)
    params = RevertParams(
        **powers.params_of(ctx, after),
        was_on=change.was_on,
        resize_id=change.id,
        leave_id=leave_id,
        back_host_id=back_id or "",
        back_host_name=back_name or "",
        back_root_gib=server.root_gib if had is None else had.disk_gib,
        root_gib=server.root_gib,
        nics=len(store.nics(tx, server_id)),
        has_disk=server.image_id is not None,
    )
    powers.run(tx, ctx, after, "revertResize", REVERT, params, saga_id)


def settle_as_is(tx: Tx, ctx: Context, server: Server, leave_id: str, now: float) -> None:
    """Nobody waits for a word about it any more: it has the size that its row says, where that says."""
    change = resize_store.find(tx, server.id)
    if change is None or not settled(tx, server.id):
        return  # Who is at work on it settles that by itself.
    moving.leave_other_size(tx, server, change, server.generation, leave_id, ctx.request_id, now)
    claim.release(tx, change.id)
    migration_store.change(tx, change.id, now, status="confirmed")
    resize_store.drop(tx, server.id)


def refuse_open(tx: Tx, server_id: str) -> None:
    """What must not come between a change of size and the word about it. Raises Conflict."""
    if resize_store.find(tx, server_id) is not None:
        raise Conflict(f"Instance {server_id} has a resize that is neither confirmed nor reverted.")
