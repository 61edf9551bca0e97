"""Back to the size that a server had, and to the host where it had it.

    step      do                                                     undo
    off       the guest is off (the request's intent)                as it was
    port[i]   elsewhere: the port is also wanted there               only where it is
    disk      elsewhere: the host knows the disk that stayed         (it stays until the word)
    plug[i]   elsewhere: the port is wired there                     absent
    turn      the row has the old size, where it had it, and the     the new one, where it is, off
              intent that it had
    reach     elsewhere: that host reaches its volumes               the other way round
    domain    the domain is as it was; only that size is claimed     absent there; here: off
              and counted any more

Elsewhere is the host that it came from. The disk there is as it was when the server left, so what was written on the
other host since is lost, and goes with that host's disk (`server-leave`). On one host the disk is the same one: it
holds what was written, and if it has grown it stays so. What fails leaves the server waiting for a word, as before.
"""

from typing import Final

import msgspec

from agent.wire import disk as disk_calls
from agent.wire.domain import DomainStatus
from controller.compute import carrying, domains, migration_store, nets, resize_store, store
from controller.compute.model import Event
from controller.compute.resize_store import Resize
from controller.compute.sagas import moving, patience, power, turning
from controller.compute.sagas.turning import TurnParams
from controller.db.tx import Tx
from controller.image import store as image_store
from controller.network import wiring
from controller.saga.model import Cause, Commit, Run, Saga, Step, Transient
from controller.schedule import claim


class RevertParams(TurnParams, frozen=True, kw_only=True):
    """`host_id` is where it is. `back_host_id`: where it was, if that is another host, else empty."""

    resize_id: str
    leave_id: str  # Of a saga.
    back_host_id: str
    back_host_name: str
    back_root_gib: int  # Of the disk that stayed.
    root_gib: int  # Of the disk that it has.
    nics: int
    has_disk: bool


def _nics(params: RevertParams) -> int:
    return params.nics if params.back_host_id else 0


def _disks(params: RevertParams) -> int:
    return 1 if params.back_host_id and params.has_disk else 0


def _hosts(params: RevertParams) -> int:
    return 1 if params.back_host_id else 0


# off


async def as_it_was(run: Run[RevertParams]) -> None:
    """With the size that it has."""
    await turning.back(run, turning.desired(run.params.was_on), Event.REVERT_FAILED)


# port[i], disk, plug[i]: elsewhere


async def want_port(run: Run[RevertParams]) -> Commit:
    """The port is on its way back."""
    return Commit(_point, (run.params, run.index, run.deps.world.clock.now()))


def _point(tx: Tx, params: RevertParams, index: int, now: float) -> None:
    _check_is_clean(tx, params)
    moving.point(tx, params.server_id, index, params.back_host_id, now)


def _check_is_clean(tx: Tx, params: RevertParams) -> None:
    """Domain and wiring of when it was there are gone, or their removal would take the new ones away."""
    if params.back_host_id in migration_store.hosts_left_behind(tx, params.server_id):
        raise Transient("what the server left there is still being removed")


async def unwant_port(run: Run[RevertParams]) -> Commit:
    """It stays where it is."""
    return Commit(moving.point, (run.params.server_id, run.index, "", run.deps.world.clock.now()))


async def know_disk(run: Run[RevertParams]) -> None:
    """It is there, and is never made anew."""
    cloud, params = run.deps, run.params
    run.notes["host"] = params.back_host_name
    server = (await cloud.db.read(domains.whole, params.server_id)).server
    image = await cloud.db.read(image_store.find, server.image_id or "")
    sha256 = "" if image is None or image.sha256 is None else image.sha256
    had = msgspec.structs.replace(server, root_gib=params.back_root_gib)
    spec = msgspec.structs.replace(domains.disk_spec_of(had, sha256, cloud.epoch), is_kept=True)
    await patience.ensure(run, params.back_host_id, disk_calls.ENSURE, disk_calls.GET, spec)


async def plug_port(run: Run[RevertParams]) -> None:
    """The port is wired and filtered there."""
    run.notes["host"] = run.params.back_host_name
    await moving.plug(run, run.params.back_host_id)


async def unplug_port(run: Run[RevertParams]) -> None:
    """It is not."""
    await moving.unplug(run, run.params.back_host_id)


# turn, reach


async def turn(run: Run[RevertParams]) -> Commit:
    """It is the old one from now on."""
    return Commit(_turn, (run.params, run.deps.world.clock.now()))


def _turn(tx: Tx, params: RevertParams, now: float) -> None:
    _check_is_clean(tx, params)
    resize = resize_store.get(tx, params.server_id)
    values = {**resize.old_size.columns(), **turning.desired(params.was_on)}
    if params.back_host_id:
        back = {"host_id": params.back_host_id, "host_name": params.back_host_name}
        values |= {**back, "root_gib": params.back_root_gib}
    turning.intend(tx, params.server_id, values)
    resize_store.change(tx, params.server_id, **resize_store.reserve(resize.old_size, resize.new_size))
    if params.back_host_id:
        _put_ports(tx, params.server_id, params.back_host_id, now)


def _put_ports(tx: Tx, server_id: str, host_id: str, now: float) -> None:
    server = store.find(tx, server_id)
    assert server is not None, "rows of servers outlive their sagas"
    moving.put_ports(tx, server_id, host_id, server.availability_zone or "", now)
    nets.note_network(tx, server_id)


async def turn_back(run: Run[RevertParams]) -> Commit:
    """It is the new one again, where it is."""
    return Commit(_turn_back, (run.params, run.deps.world.clock.now()))


def _turn_back(tx: Tx, params: RevertParams, now: float) -> None:
    server = store.find(tx, params.server_id)
    assert server is not None, "rows of servers outlive their sagas"
    if server.host_id != params.host_id:
        # Also for its deletion, which begins from where the row says that it is.
        here = {"host_id": params.host_id, "host_name": params.host_name, "root_gib": params.root_gib}
        store.change(tx, params.server_id, here)
        _put_ports(tx, params.server_id, params.host_id, now)
    resize = resize_store.find(tx, params.server_id)
    if resize is not None and store.intend(tx, params.server_id, {**resize.new_size.columns(), **turning.OFF}):
        resize_store.change(tx, params.server_id, **resize_store.reserve(resize.new_size, resize.old_size))


async def reach(run: Run[RevertParams]) -> None:
    """Its volumes are reached from there."""
    params = run.params
    await carrying.reach(run, params.server_id, (params.back_host_id,), params.back_host_name)


async def reach_back(run: Run[RevertParams]) -> None:
    """They are reached from where it is."""
    await carrying.reach(run, run.params.server_id, (run.params.host_id,), run.params.host_name)


# domain


async def run_domain(run: Run[RevertParams]) -> Commit:
    """It is as it was."""
    cloud, params = run.deps, run.params
    if params.back_host_id:
        cloud.tasks.kick(wiring.SPREAD)
        run.notes["host"] = params.back_host_name
        status = await domains.push_patiently(run, params.server_id, params.back_host_id)
    else:
        status = await power.push(run)
    return Commit(_reverted, (params, status, cloud.world.clock.now()))


def _reverted(tx: Tx, params: RevertParams, status: DomainStatus, now: float) -> None:
    server = store.find(tx, params.server_id)
    assert server is not None, "rows of servers outlive their sagas"
    resize: Resize = resize_store.get(tx, params.server_id)
    if params.back_host_id:
        moving.ports_plugged(tx, params.server_id, now)
        moving.leave_other_size(tx, server, resize, status.generation.n, params.leave_id, params.request_id, now)
    claim.take_back(tx, params.server_id, params.resize_id, server.root_gib)
    resize_store.drop(tx, params.server_id)
    migration_store.change(tx, params.resize_id, now, status="reverted")
    event = Event.REVERTED_ON if params.was_on else Event.REVERTED_OFF
    turning.ended(tx, params, event, status, now)


async def switch_off(run: Run[RevertParams]) -> None:
    """Nothing of it is there; here it is off, so that it can become the other machine again."""
    if run.params.back_host_id:
        await moving.remove_domain(run, run.params.back_host_id)
    else:
        await turning.back(run, turning.OFF, Event.REVERT_FAILED)


# The ends.


def undone(tx: Tx, params: RevertParams, cause: Cause, now: float) -> None:
    """It still waits for a word."""
    migration_store.change(tx, params.resize_id, now, status="finished")
    store.report(tx, params.server_id, Event.WAITS_FOR_WORD, now)
    store.end_action(tx, params.server_id, params.request_id, now, is_error=True)


def overdue(tx: Tx, params: RevertParams, cause: Cause, now: float) -> None:
    """The way back waits for a silent host."""
    power.failed(tx, params, Event.REVERT_FAILED, cause, now)


REVERT: Final = Saga(
    "server-revert-resize",
    1,
    RevertParams,
    steps=(
        Step("off", turning.push, as_it_was, deferred=True),
        Step("port", want_port, unwant_port, each=_nics),
        Step("disk", know_disk, each=_disks, deferred=True),
        Step("plug", plug_port, unplug_port, each=_nics, deferred=True),
        Step("turn", turn, turn_back),
        Step("reach", reach, reach_back, each=_hosts, deferred=True),
        Step("domain", run_domain, switch_off),
    ),
    undone=undone,
    overdue=overdue,
    rested=power.network_rested,
)
