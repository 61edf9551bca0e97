"""Servers that go to another host: while they are off, or because their host is dead."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from controller.compute import migration_store, plugs, powers, resizes, store
from controller.compute.model import Event, Server, VmState
from controller.compute.sagas.server_migrate import MIGRATE, MigrateParams
from controller.context import Context
from controller.db.tx import Tx
from controller.errors import Conflict, Invalid
from controller.fleet import store as fleet
from controller.fleet.model import Host
from controller.image import store as image_store
from controller.saga.log import settled

if TYPE_CHECKING:
    from controller.cloud import Cloud

Ids = tuple[str, str, str]
"""Of the saga, of the migration, and of the saga that cleans up behind it."""


async def migrate(cloud: "Cloud", ctx: Context, server_id: str, host: str | None) -> None:
    """Accept a cold migration, to a host of that name or to any other. Raises NotFound, Conflict, Invalid."""
    await _begin(cloud, _migrate, ctx, server_id, host)


async def evacuate(cloud: "Cloud", ctx: Context, server_id: str, host: str | None, *, is_forced: bool) -> None:
    """Accept that it is made anew elsewhere, its host being dead. Raises NotFound, Conflict, Invalid."""
    await _begin(cloud, _evacuate, ctx, server_id, host, is_forced, frozenset(cloud.hosts.up()))


async def _begin(cloud: "Cloud", accept: Callable[..., None], *asked: Any) -> None:
    uuid = cloud.world.entropy.uuid
    ids: Ids = (uuid(), uuid(), uuid())
    await cloud.db.write(accept, *asked, ids, cloud.world.clock.now())
    cloud.sagas.kick(ids[0])


def _migrate(tx: Tx, ctx: Context, server_id: str, host: str | None, ids: Ids, now: float) -> None:
    server = powers.ready(tx, ctx, server_id)
    _check_movable(tx, server)
    after = store.take(tx, server, Event.MIGRATE, now)
    wish = None if host is None else _other_host(tx, server, host)
    was_on = server.vm_state == VmState.ACTIVE
    params = _params(tx, ctx, after, ids, was_on=was_on, is_evacuation=False, wish=wish, is_forced=False)
    _start(tx, ctx, after, "migrate", params, ids[0], now)


def _evacuate(
    tx: Tx, ctx: Context, server_id: str, host: str | None, is_forced: bool, up: frozenset[str], ids: Ids, now: float
) -> None:
    server = powers.ready(tx, ctx, server_id)
    # A volume that is on its way to it, or away from it, waits for the dead host; it follows the server then.
    resizes.refuse_open(tx, server.id)
    _check_dead(tx, server, up)
    after = store.take(tx, server, Event.EVACUATE, now)
    wish = None if host is None else _other_host(tx, server, host)
    was_on = server.desired == "running"
    params = _params(tx, ctx, after, ids, was_on=was_on, is_evacuation=True, wish=wish, is_forced=is_forced)
    _start(tx, ctx, after, "evacuate", params, ids[0], now)


def _check_movable(tx: Tx, server: Server) -> None:
    resizes.refuse_open(tx, server.id)
    if not plugs.is_settled(tx, server.id):
        raise Conflict(f"Instance {server.id} has a volume that is just being attached or detached; try again soon.")
    if not settled(tx, server.id):
        raise Conflict(f"Instance {server.id} has an interface that is just coming or going; try again soon.")


def _check_dead(tx: Tx, server: Server, up: frozenset[str]) -> None:
    """While its host may still run it, a second one must not be made. An operator's word (force-down) counts."""
    here = fleet.find_host(tx, server.host_id or "")
    if here is not None and (here.up or here.id in up) and not here.forced_down:
        raise Invalid(f"Compute service of {here.hostname} is still in use.")


def _other_host(tx: Tx, server: Server, name: str) -> str:
    """The name of a host that an administrator wants. Raises Invalid."""
    found: Host | None = next((one for one in fleet.list_hosts(tx) if one.hostname == name), None)
    if found is None:
        raise Invalid(f"Compute host {name} could not be found.")
    if found.id == server.host_id:
        raise Invalid(f"The target host can't be the same one: instance {server.id} is on {name}.")
    return found.hostname


def _params(
    tx: Tx, ctx: Context, server: Server, ids: Ids, *, was_on: bool, is_evacuation: bool, wish: str | None,
    is_forced: bool,
) -> MigrateParams:  # fmt: skip
    return MigrateParams(
        **powers.params_of(ctx, server),
        was_on=was_on,
        migration_id=ids[1],
        leave_id=ids[2],
        is_evacuation=is_evacuation,
        nics=len(store.nics(tx, server.id)),
        image_id=server.image_id or "",
        image_sha256=_image_sha256(tx, server),
        wish_host=wish,
        is_forced=is_forced,
    )


def _image_sha256(tx: Tx, server: Server) -> str:
    """What its root disk lies upon. Raises Conflict when that is nowhere any more."""
    if server.image_id is None:
        return ""
    image = image_store.find(tx, server.image_id)
    if image is None or image.sha256 is None:
        raise Conflict(f"The image {server.image_id} under the disk of instance {server.id} is gone.")
    return image.sha256


def _start(tx: Tx, ctx: Context, server: Server, action: str, params: MigrateParams, saga_id: str, now: float) -> None:
    migration_store.insert(
        tx,
        uuid=params.migration_id,
        server_id=server.id,
        project_id=server.project_id,
        user_id=ctx.user_id,
        kind=migration_store.EVACUATION if params.is_evacuation else migration_store.MIGRATION,
        status="accepted",
        source_host_id=params.host_id,
        source_host_name=params.host_name,
        target_host_id=None,
        target_host_name=None,
        flavor_id=server.flavor_id,
        created_at=now,
        updated_at=now,
    )
    powers.run(tx, ctx, server, action, MIGRATE, params, saga_id)
