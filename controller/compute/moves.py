"""Servers that go to another host: while they are off, while they run, or because their host is dead."""

from typing import TYPE_CHECKING

import msgspec

from agent.wire import domain as domain_calls
from agent.wire.domain import Hasten, Transfer
from agent.wire.specs import Ref
from controller.compute import migration_store, model, plugs, powers, resizes, sizes, store
from controller.compute.migration_store import Migration
from controller.compute.model import Event, Server, VmState
from controller.compute.resizes import Wish
from controller.compute.sagas import server_resize
from controller.compute.sagas.elsewhere import MoveParams, look_for_room
from controller.compute.sagas.server_evacuate import EVACUATE
from controller.compute.sagas.server_live_migrate import LIVE_MIGRATE, LiveParams
from controller.context import Context
from controller.db.tx import Tx
from controller.errors import CloudError, Conflict, Invalid, NotFound, Unavailable
from controller.fleet import store as fleet
from controller.fleet.model import Host
from controller.image import store as image_store
from controller.saga.log import request_cancel, settled
from controller.saga.model import Transient
from controller.schedule import claim

if TYPE_CHECKING:
    from controller.cloud import Cloud

Ids = tuple[str, str, str, str]
"""Of the saga, of the migration, of the saga that cleans up behind it, and of the one that goes on before it."""


class LiveWish(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of a live migration. `has_disks`: whether there is a disk to be copied; None: whatever there is."""

    host: str | None = None
    is_forced: bool = False
    has_disks: bool | None = None


async def migrate(cloud: "Cloud", ctx: Context, server_id: str, host: str | None) -> None:
    """Accept a change of host while it is off, to one of that name or to any other; then it waits for a word, as after
    a resize. Raises NotFound, Conflict, Invalid, NoValidHost."""
    uuid = cloud.world.entropy.uuid
    ids: resizes.Ids = (uuid(), uuid(), uuid())
    survey = await cloud.db.read(_look_elsewhere, ctx, server_id, host)
    claim.plan_by_wish(survey.rooms, survey.wishes, cloud.settings.scheduler)  # What could never be is refused at once.
    await cloud.db.write(_migrate, ctx, server_id, host, ids, cloud.world.clock.now())
    cloud.sagas.kick(ids[0])


async def live_migrate(cloud: "Cloud", ctx: Context, server_id: str, wish: LiveWish) -> None:
    """Accept that it goes to another host while it runs. Raises NotFound, Conflict, Invalid, NoValidHost."""
    uuid = cloud.world.entropy.uuid
    ids: Ids = (uuid(), uuid(), uuid(), uuid())
    params = await cloud.db.read(_live_params, ctx, server_id, wish, ids)
    survey = await cloud.db.read(look_for_room, params)
    claim.plan(survey.rooms, survey.wanted, cloud.settings.scheduler)  # What could never be is refused at once.
    await cloud.db.write(_live_migrate, ctx, server_id, wish, ids, cloud.world.clock.now())
    cloud.sagas.kick(ids[0])


async def call_off(cloud: "Cloud", ctx: Context, server_id: str, number: str) -> None:
    """Accept that a live migration ends where it began. Raises NotFound, Invalid, Conflict."""
    for saga_id in await cloud.db.write(_call_off, ctx, server_id, number, cloud.world.clock.now()):
        cloud.sagas.kick(saga_id)


async def hasten(cloud: "Cloud", ctx: Context, server_id: str, number: str) -> None:
    """Let the guest stand still until it is there. Raises NotFound, Invalid, Conflict, Unavailable."""
    one = await cloud.db.read(get_under_way, ctx, server_id, number)
    if one.status != "running":
        raise Invalid(f"Migration {number} state of instance {server_id} is {one.status}. Cannot force_complete it.")
    try:
        await cloud.hosts.call(one.source_host_id, domain_calls.HASTEN, Hasten(id=server_id))
    except Transient as error:
        raise Unavailable("The host of this server does not answer.") from error


async def evacuate(cloud: "Cloud", ctx: Context, server_id: str, host: str | None, *, is_forced: bool) -> None:
    """Accept that it is made anew elsewhere, its host being dead. Raises NotFound, Conflict, Invalid."""
    uuid, up = cloud.world.entropy.uuid, frozenset(cloud.hosts.up())
    ids: resizes.Ids = (uuid(), uuid(), uuid())
    await cloud.db.write(_evacuate, ctx, server_id, host, is_forced, up, ids, cloud.world.clock.now())
    cloud.sagas.kick(ids[0])


def _look_elsewhere(tx: Tx, ctx: Context, server_id: str, host: str | None) -> server_resize.Survey:
    server, wish = _migratable(tx, ctx, server_id, host)
    return server_resize.look_elsewhere(tx, server, wish)


def _migratable(tx: Tx, ctx: Context, server_id: str, host: str | None) -> tuple[Server, str | None]:
    """It, and the name of the host that is wanted."""
    server = powers.ready(tx, ctx, server_id)
    if not model.allows(Event.MIGRATE, server.vm_state, server.task_state):
        raise model.refusal(Event.MIGRATE, server.id, server.vm_state, server.task_state)
    _check_movable(tx, server)
    return server, None if host is None else _other_host(tx, server, host)


def _migrate(tx: Tx, ctx: Context, server_id: str, host: str | None, ids: resizes.Ids, now: float) -> None:
    server, there = _migratable(tx, ctx, server_id, host)
    after = store.take(tx, server, Event.MIGRATE, now)
    wish = Wish(is_migration=True, size=sizes.of_server(server), root_gib=server.root_gib, host=there)
    resizes.begin(tx, ctx, server, after, wish, ids)


def _evacuate(
    tx: Tx,
    ctx: Context,
    server_id: str,
    host: str | None,
    is_forced: bool,
    up: frozenset[str],
    ids: resizes.Ids,
    now: float,
) -> None:
    server = powers.ready(tx, ctx, server_id)
    # A volume that is on its way to it, or away from it, waits for the dead host; it follows the server then.
    resizes.refuse_open(tx, server.id)
    _check_dead(tx, server, up)
    if migration_store.find_open(tx, server.id) is not None:
        raise Conflict(f"Instance {server.id} is just leaving its host alive; remove the host if it is gone for good.")
    after = store.take(tx, server, Event.EVACUATE, now)
    wish = None if host is None else _other_host(tx, server, host)
    was_on = server.desired == "running"
    params = MoveParams(
        **powers.params_of(ctx, after),
        was_on=was_on,
        migration_id=ids[1],
        leave_id=ids[2],
        nics=len(store.nics(tx, server.id)),
        image_id=server.image_id or "",
        image_sha256=_image_sha256(tx, server),
        wish_host=wish,
        is_forced=is_forced,
    )
    migration_store.insert(tx, server, params.migration_id, migration_store.EVACUATION, ctx.user_id, now)
    powers.run(tx, ctx, after, "evacuate", EVACUATE, params, ids[0])


def _live_params(tx: Tx, ctx: Context, server_id: str, wish: LiveWish, ids: Ids) -> LiveParams:
    server = powers.ready(tx, ctx, server_id)
    _check_movable(tx, server)
    has_disks = server.image_id is not None
    if wish.has_disks is not None and wish.has_disks is not has_disks:
        why = (
            "has a disk of its host's own, which must be copied" if has_disks else "has only volumes, which are shared"
        )
        raise Invalid(f"Instance {server.id} {why}: ask for block_migration {str(has_disks).lower()}, or auto.")
    return LiveParams(
        **powers.params_of(ctx, server),
        was_on=True,
        migration_id=ids[1],
        leave_id=ids[2],
        arrive_id=ids[3],
        is_paused=server.vm_state == VmState.PAUSED,
        nics=len(store.nics(tx, server.id)),
        image_id=server.image_id or "",
        image_sha256="" if server.is_disk_whole else _image_sha256(tx, server),
        size_mib=server.memory_mib + (0 if server.image_id is None else server.root_gib << 10),
        wish_host=None if wish.host is None else _other_host(tx, server, wish.host),
        is_forced=wish.is_forced,
    )


def _live_migrate(tx: Tx, ctx: Context, server_id: str, wish: LiveWish, ids: Ids, now: float) -> None:
    server = powers.ready(tx, ctx, server_id)
    after = store.take(tx, server, Event.LIVE_MIGRATE, now)
    params = _live_params(tx, ctx, server_id, wish, ids)
    migration_store.insert(tx, server, params.migration_id, migration_store.LIVE, ctx.user_id, now)
    powers.run(tx, ctx, after, "live-migration", LIVE_MIGRATE, params, ids[0])


def under_way(tx: Tx, ctx: Context, server_id: str) -> list[Migration]:
    """The live migrations of a server that go on. Raises NotFound."""
    store.get(tx, ctx, server_id)
    return migration_store.open_of(tx, server_id)


async def transfer(cloud: "Cloud", one: Migration) -> Transfer | None:
    """How far one is, as its host says; None if it says nothing."""
    try:
        status = await cloud.hosts.call(one.source_host_id, domain_calls.GET, Ref(id=one.server_id))
    except (Transient, CloudError):
        return None
    return status.transfer


def get_under_way(tx: Tx, ctx: Context, server_id: str, number: str) -> Migration:
    """A live migration that goes on. Raises NotFound."""
    store.get(tx, ctx, server_id)
    found = migration_store.find_open(tx, server_id, number)
    if found is None:
        raise NotFound(f"Migration {number} for server {server_id} could not be found.")
    return found


def _call_off(tx: Tx, ctx: Context, server_id: str, number: str, now: float) -> list[str]:
    one = get_under_way(tx, ctx, server_id, number)
    server = store.get(tx, ctx, server_id)
    if server.host_id != one.source_host_id:
        raise Conflict(f"Instance {server_id} has left already: its migration {number} cannot be aborted any more.")
    act = (ctx.request_id, "live_migration_cancel", ctx.user_id, server.project_id, None, now, now, None)
    store.insert_action(tx, store.Action(server_id, *act))
    return request_cancel(tx, server_id, now)


def _check_movable(tx: Tx, server: Server) -> None:
    resizes.refuse_open(tx, server.id)
    if not plugs.is_settled(tx, server.id):
        raise Conflict(f"Instance {server.id} has a volume that is just being attached or detached; try again soon.")
    if not settled(tx, server.id):
        raise Conflict(f"Instance {server.id} has an interface that is just coming or going; try again soon.")


def _check_dead(tx: Tx, server: Server, up: frozenset[str]) -> None:
    """While its host may still run it, a second one must not be made. An operator's word (force-down) counts."""
    here = fleet.find_host(tx, server.host_id or "")
    if here is not None and fleet.is_alive(here, up):
        raise Invalid(f"Compute service of {here.hostname} is still in use.")


def _other_host(tx: Tx, server: Server, name: str) -> str:
    """The name of a host that an administrator wants. Raises Invalid."""
    found: Host | None = next((one for one in fleet.list_hosts(tx) if one.hostname == name), None)
    if found is None:
        raise Invalid(f"Compute host {name} could not be found.")
    if found.id == server.host_id:
        raise Invalid(f"The target host can't be the same one: instance {server.id} is on {name}.")
    return found.hostname


def _image_sha256(tx: Tx, server: Server) -> str:
    """What its root disk is made of. Raises Conflict when that is nowhere any more."""
    if server.image_id is None:
        return ""
    image = image_store.find(tx, server.image_id)
    if image is None or image.sha256 is None:
        raise Conflict(f"The image {server.image_id} of instance {server.id} is gone.")
    return image.sha256
