"""Making a server, on the host that the scheduler chooses.

    step      do                                                undo
    place     snapshot, filters, weights; claim a host          release the claim
    port[i]   make or bind the port, take addresses             remove ours, unbind the user's
    volume[i] the volume is made, and this host reaches it      nobody reaches it by this server
    image     the image is in the host's cache, verified        (a cache)
    disk      the root disk is on the host                      absent
    plug[i]   the port is wired and filtered on the host        absent
    domain    the domain runs; the row turns ACTIVE             absent

Order is a safety rule: undone from the end, so the domain is absent before its disk is freed, and a silent host
keeps the saga unwinding, because a disk that a lost host may still write must not be given away. The user does not
wait for that: past the deadline the row turns to ERROR (`overdue`).

Three writes between the request and ACTIVE, one more a port: the effects on the host are `deferred`, so their ends
are written together with the domain's.

Another host is another saga. When a host (and not the user's wish) was the cause, `undone` starts the next try
with that host excluded, in the transaction that ends this one, twice at most; the row stays in BUILD meanwhile.

Generations. What is sent is the row's generation; undo raises it first by a write of its own, so that a late
`ensure` of ours loses against the `absent`.
"""

import asyncio
import uuid
from typing import TYPE_CHECKING, Any, Final

import msgspec

from agent.wire import disk as disk_calls
from agent.wire import domain as domain_calls
from agent.wire.volume import ExportStatus
from controller.compute import domains, ending, nets, placing, plugs, store
from controller.compute.model import Event, Nic, Server, VmState
from controller.compute.plugs import Plug
from controller.compute.sagas import faults, patience
from controller.db.tx import Tx
from controller.errors import Conflict
from controller.image import distribution
from controller.network import ports, wiring
from controller.saga.log import start
from controller.saga.model import Cause, Commit, Run, Saga, State, Step, Transient
from controller.schedule import claim
from controller.schedule.model import Ratios, Room, Wanted
from controller.volume import attachments

if TYPE_CHECKING:
    from controller.cloud import Cloud

TRIES_MAX: Final = 3
"""Hosts tried for one server. More: a broken image walks through the whole fleet before the user hears of it."""


VOLUME_LOOKS: Final = 40
VOLUME_LOOK_S: Final = 0.5
"""Twenty seconds of one try, at a volume that is being made. Shorter looks: more reads of one row."""


class CreateParams(msgspec.Struct, frozen=True, kw_only=True):
    """Everything else is in the server's row."""

    server_id: str
    project_id: str
    request_id: str
    nics: int
    image_id: str | None = None  # None: it boots from a volume.
    image_sha256: str = ""
    volumes: int = 0
    volume_ends: tuple[tuple[str, str], ...] = ()  # For each, ids of its deletion, should the server never be.
    next_tries: tuple[str, ...] = ()  # Ids of the sagas that may follow this one.
    exclude_hosts: tuple[str, ...] = ()
    last_cause: str = ""  # Of the try before, for when there is no host left to try.
    different_host: tuple[str, ...] = ()  # Server ids of the scheduler hints.
    same_host: tuple[str, ...] | None = None


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """The output of `place`."""

    host_id: str
    host_name: str


# place


class _Survey(msgspec.Struct, frozen=True):
    server: Server
    rooms: list[Room]
    wanted: Wanted


async def place(run: Run[CreateParams]) -> Commit:
    """Choose on a snapshot, claim in the transaction that ends the step."""
    cloud = run.deps
    ratios = cloud.settings.scheduler
    survey: _Survey = await cloud.db.read(_survey, run.params)
    plan = claim.plan(survey.rooms, survey.wanted, ratios)
    return Commit(_settle_down, (survey.wanted, plan.candidates, ratios, cloud.world.clock.now()))


def _survey(tx: Tx, params: CreateParams) -> _Survey:
    server = _wanted_server(tx, params.server_id)
    wanted = placing.wanted(
        tx,
        server,
        different_host=params.different_host,
        same_host=params.same_host,
        exclude_hosts=params.exclude_hosts,
    )
    return _Survey(server, claim.snapshot(tx), wanted)


def _wanted_server(tx: Tx, server_id: str) -> Server:
    server = store.find(tx, server_id)
    if server is None or server.deleted_at is not None or server.is_deleting:
        raise Conflict("The server was deleted while it was being made.")
    return server


def _settle_down(tx: Tx, wanted: Wanted, candidates: tuple[str, ...], ratios: Ratios, now: float) -> dict[str, str]:
    room = claim.claim(tx, placing.renewed(tx, wanted), candidates, ratios, now)
    store.report(
        tx,
        wanted.server_id,
        Event.PLACED,
        now,
        host_id=room.host_id,
        host_name=room.hostname,
        availability_zone=room.zone,
    )
    return {"host_id": room.host_id, "host_name": room.hostname}


async def unplace(run: Run[CreateParams]) -> Commit:
    """Give the claim back. The row keeps the host's name until the saga's end, which wants to know it."""
    return Commit(_move_out, (run.params.server_id,))


def _move_out(tx: Tx, server_id: str) -> None:
    claim.release(tx, server_id)


# port[i]


async def bind_port(run: Run[CreateParams]) -> Commit:
    """The port's row, its addresses and its groups."""
    return Commit(_bind, (run.params, run.index, _placed(run), run.deps.world.clock.now()))


def _bind(tx: Tx, params: CreateParams, index: int, placed: Placed, now: float) -> dict[str, Any]:
    server = _wanted_server(tx, params.server_id)
    nic = store.nics(tx, params.server_id)[index]
    assert nic.network_id is not None, "the request noted the network of each port"
    bound = ports.bind_for_server(
        tx,
        port_id=nic.port_id,
        created=nic.is_ours,
        network_id=nic.network_id,
        fixed_ip=nic.fixed_ip,
        groups_wanted=nic.groups,
        project_id=server.project_id,
        server_id=server.id,
        hostname=server.hostname,
        host_id=placed.host_id,
        zone=server.availability_zone or "",
        now=now,
    )
    store.set_nic(
        tx, nic.port_id, server.id, {"mac": bound["mac"], "mtu": bound["mtu"], "addresses": bound["fixed_ips"]}
    )
    if index + 1 == params.nics:
        nets.note_network(tx, server.id)
    return bound


async def unbind_port(run: Run[CreateParams]) -> Commit:
    """Remove the port if it is ours, unbind it if it is the user's."""
    return Commit(_unbind, (run.params.server_id, run.index, run.deps.world.clock.now()))


def _unbind(tx: Tx, server_id: str, index: int, now: float) -> None:
    for nic in store.nics(tx, server_id)[index : index + 1]:
        ports.release_for_server(tx, port_id=nic.port_id, created=nic.is_ours, server_id=server_id, now=now)


# volume[i]


async def connect_volume(run: Run[CreateParams]) -> Commit:
    """The volume is made, the host reaches it, and it is part of the domain's intent."""
    placed, cloud = _placed(run), run.deps
    plug = await _plug(run)
    await _await_volume(run, plug.volume_id)
    initiators = (cloud.fence.initiator(placed.host_id),)
    status = await attachments.ensure_export(run, plug.attachment_id, initiators, placed.host_name)
    return Commit(_connected, (plug, status))


def _connected(tx: Tx, plug: Plug, status: ExportStatus) -> None:
    _wanted_server(tx, plug.server_id)
    attachments.answered(tx, plug.attachment_id, status)
    plugs.set_plugged(tx, plug.attachment_id, True)


async def _await_volume(run: Run[CreateParams], volume_id: str) -> None:
    """Until the volume is there. It is made by a saga of its own. Raises Transient, CloudError."""
    for _ in range(VOLUME_LOOKS):
        await run.deps.db.read(_wanted_server, run.params.server_id)
        if await run.deps.db.read(attachments.is_made, volume_id):
            return
        await asyncio.sleep(VOLUME_LOOK_S)
    raise Transient("a volume is still being made")


async def disconnect_volume(run: Run[CreateParams]) -> Commit | None:
    """Nobody reaches the volume by this server. It stays reserved, for the next try."""
    plug = await _plug(run)
    await attachments.remove_export(run.deps, plug.attachment_id, run.deadline)
    return Commit(_disconnected, (plug, run.deps.world.clock.now()))


def _disconnected(tx: Tx, plug: Plug, now: float) -> None:
    plugs.set_plugged(tx, plug.attachment_id, False)
    attachments.back_to_reserved(tx, plug.attachment_id, now)


async def _plug(run: Run[CreateParams]) -> Plug:
    found: list[Plug] = await run.deps.db.read(plugs.of_server, run.params.server_id)
    return found[run.index]


# image, disk, plug[i]


async def fetch_image(run: Run[CreateParams]) -> None:
    """The image is in the host's cache."""
    placed, image_id = _placed(run), run.params.image_id
    if image_id is not None:
        await distribution.ensure_on_host(run.deps, placed.host_id, image_id, run.deadline)


async def make_disk(run: Run[CreateParams]) -> None:
    """The root disk, cloned from the image, as large as the flavor says. The ports are plugged meanwhile."""
    placed, cloud, params = _placed(run), run.deps, run.params
    server: Server = await cloud.db.read(_wanted_server, params.server_id)
    if params.image_id is None:
        await _plug_ahead(run, placed)
        return
    spec = domains.disk_spec_of(server, params.image_sha256, cloud.epoch)
    made = patience.ensure(run, placed.host_id, disk_calls.ENSURE, disk_calls.GET, spec)
    end, _ = await asyncio.gather(made, _plug_ahead(run, placed), return_exceptions=True)
    if isinstance(end, BaseException):
        raise end


async def _plug_ahead(run: Run[CreateParams], placed: Placed) -> None:
    """Plug the ports while the disk is made, as neither needs the other. How it ended, their own steps find out."""
    nics: list[Nic] = await run.deps.db.read(store.nics, run.params.server_id)
    wired = (wiring.plug(run.deps, placed.host_id, nic.port_id, run.deadline) for nic in nics)
    await asyncio.gather(*wired, return_exceptions=True)


async def remove_disk(run: Run[CreateParams]) -> None:
    """The root disk is gone."""
    placed = _find_placed(run)
    if placed is not None and run.params.image_id is not None:
        generation = await _raised(run)
        await domains.remove_disk(run.deps, run.params.server_id, placed.host_id, generation, run.deadline)


async def plug_port(run: Run[CreateParams]) -> None:
    """The port is wired on the host, and filtered, before the domain is attached to it."""
    await wiring.plug(run.deps, _placed(run).host_id, await _port_id(run), run.deadline)


async def unplug_port(run: Run[CreateParams]) -> None:
    """The port is off the host."""
    placed = _find_placed(run)
    if placed is not None:
        await wiring.unplug(run.deps, placed.host_id, await _port_id(run), run.deadline)


async def _port_id(run: Run[CreateParams]) -> str:
    nics: list[Nic] = await run.deps.db.read(store.nics, run.params.server_id)
    return nics[run.index].port_id


# domain


async def run_domain(run: Run[CreateParams]) -> Commit:
    """The domain runs; then the row says so, in the transaction that ends the saga."""
    cloud, params, placed = run.deps, run.params, _placed(run)
    await cloud.db.read(_wanted_server, params.server_id)
    spec = domains.spec_of(await cloud.db.read(domains.whole, params.server_id), cloud.epoch, cloud.fence)
    status = await patience.ensure(run, placed.host_id, domain_calls.ENSURE, domain_calls.GET, spec)
    hardware = msgspec.to_builtins(status.hardware) if status.hardware is not None else None
    return Commit(_built, (params, status.generation.n, hardware, cloud.world.clock.now()))


def _built(tx: Tx, params: CreateParams, generation: int, hardware: dict[str, str] | None, now: float) -> None:
    for nic in store.nics(tx, params.server_id):
        wiring.plugged(tx, nic.port_id, now)
    if hardware is not None:
        store.change(tx, params.server_id, {"hardware": hardware})
    store.pushed(tx, params.server_id, generation)
    for plug in plugs.of_server(tx, params.server_id):
        attachments.attached(tx, plug.attachment_id, now)
    store.report(tx, params.server_id, Event.BUILT, now, launched_at=now, progress=100)
    store.end_action(tx, params.server_id, params.request_id, now, is_error=False)


async def remove_domain(run: Run[CreateParams]) -> None:
    """The domain is gone: first of all that is undone."""
    placed = _find_placed(run)
    if placed is not None:
        generation = await _raised(run)
        await domains.remove(run.deps, run.params.server_id, placed.host_id, generation, run.deadline)


# The end of an unwinding.


def undone(tx: Tx, params: CreateParams, cause: Cause, now: float) -> None:
    """Try another host, or tell the user."""
    server = store.find(tx, params.server_id)
    if server is None or server.deleted_at is not None:
        return
    if _is_worth_another_host(server, params, cause):
        _try_again(tx, server, params, cause, now)
        return
    store.change(tx, params.server_id, {"host_id": None, "host_name": None, "availability_zone": None})
    _fail(tx, params, cause, now, releases=True)


def overdue(tx: Tx, params: CreateParams, cause: Cause, now: float) -> None:
    """Unwinding waits for a silent host: the user is told now, the rest follows when the host returns."""
    _fail(tx, params, cause, now)


def _release_volumes(tx: Tx, params: CreateParams, now: float) -> None:
    """They are free, or end; nothing of them is on any host by this server."""
    for plug, drawn in zip(plugs.of_server(tx, params.server_id), params.volume_ends, strict=False):
        ending.release(tx, plug, params.request_id, drawn, now)


def _fail(tx: Tx, params: CreateParams, cause: Cause, now: float, *, releases: bool = False) -> None:
    if params.last_cause and cause.why is not None and "hosts" in cause.why:
        cause = msgspec.structs.replace(cause, message=f"{cause.message} The last one tried said: {params.last_cause}")
    server = store.find(tx, params.server_id)
    if server is not None and not server.is_deleting:  # A delete has its own saga, and the row is that one's.
        if releases:
            _release_volumes(tx, params, now)
        store.report(tx, params.server_id, Event.BUILD_FAILED, now, **faults.columns(cause, now))
    store.end_action(tx, params.server_id, params.request_id, now, is_error=True)


def _is_worth_another_host(server: Server, params: CreateParams, cause: Cause) -> bool:
    """The host was to blame, there is a try left, and nobody was told of a failure yet."""
    is_hosts_fault = cause.why is not None and "host" in cause.why
    may_move = server.requested_host is None and server.host_id is not None
    is_wanted = server.vm_state == VmState.BUILDING and not server.is_deleting
    return is_hosts_fault and may_move and is_wanted and bool(params.next_tries)


def _try_again(tx: Tx, server: Server, params: CreateParams, cause: Cause, now: float) -> None:
    assert server.host_id is not None, "asked before"
    following = msgspec.structs.replace(
        params,
        next_tries=params.next_tries[1:],
        exclude_hosts=(*params.exclude_hosts, server.host_id),
        last_cause=cause.message,
    )
    store.change(
        tx,
        server.id,
        {"host_id": None, "host_name": None, "availability_zone": None, "task_state": "scheduling"},
    )
    _rename_ports(tx, server.id, params.next_tries[0])
    start(
        tx,
        CREATE,
        saga_id=params.next_tries[0],
        params=following,
        target=server.id,
        project_id=params.project_id,
        request_id=params.request_id,
        now=now,
    )


def _rename_ports(tx: Tx, server_id: str, saga_id: str) -> None:
    """The next try makes ports of its own: those of this one have graves on its host, and it may come there."""
    for nic in store.nics(tx, server_id):
        if nic.is_ours:
            port_id = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{nic.port_id} {saga_id}"))
            store.set_nic(tx, nic.port_id, server_id, {"port_id": port_id})


# What the steps share.


def _find_placed(run: Run[CreateParams]) -> Placed | None:
    """Where `place` has put it; None when it never did, and then nothing is on any host."""
    output = run.outputs.get("place")
    return None if output is None else msgspec.convert(output, Placed)


def _placed(run: Run[CreateParams]) -> Placed:
    placed = _find_placed(run)
    assert placed is not None, "steps after `place` have its output"
    run.notes["host"] = placed.host_name
    return placed


async def _raised(run: Run[CreateParams]) -> int:
    generation: int = await run.deps.db.write(store.bump, run.params.server_id)
    return generation


def _nics(params: CreateParams) -> int:
    return params.nics


def _volumes(params: CreateParams) -> int:
    return params.volumes


def rested(cloud: "Cloud", state: State) -> None:
    """Addresses that were given back are no longer members of groups: hosts learn it now."""
    if state is State.UNDONE:
        cloud.tasks.kick("network_sync")


CREATE: Final = Saga(
    "server-create",
    1,
    CreateParams,
    steps=(
        Step("place", place, unplace),
        Step("port", bind_port, unbind_port, each=_nics),
        Step("volume", connect_volume, disconnect_volume, each=_volumes),
        Step("image", fetch_image, deferred=True),
        Step("disk", make_disk, remove_disk, deferred=True),
        Step("plug", plug_port, unplug_port, each=_nics, deferred=True),
        Step("domain", run_domain, remove_domain),
    ),
    deadline_s=600.0,
    undone=undone,
    overdue=overdue,
    rested=rested,
)
