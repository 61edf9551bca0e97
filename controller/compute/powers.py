"""Starting, stopping, rebooting, pausing and suspending servers, and looking at their console.

A request writes the intent (`desired`, at a new generation) and starts the saga that carries it to the host.
"""

from typing import TYPE_CHECKING, Any

from agent.wire import domain as domain_calls
from agent.wire.domain import ConsoleRequest, Desired, RebootKind
from controller.compute import nets, store
from controller.compute.model import Event, Server, VmState
from controller.compute.sagas.power import PowerParams
from controller.compute.sagas.server_pause import PAUSE
from controller.compute.sagas.server_reboot import REBOOT, RebootParams
from controller.compute.sagas.server_resume import RESUME
from controller.compute.sagas.server_start import START
from controller.compute.sagas.server_stop import STOP
from controller.compute.sagas.server_suspend import SUSPEND
from controller.compute.sagas.server_unpause import UNPAUSE
from controller.compute.servers import act, check_unlocked
from controller.context import Context
from controller.db.tx import Tx
from controller.errors import Conflict, NotFound, Unavailable
from controller.saga.log import start
from controller.saga.model import Transient

if TYPE_CHECKING:
    from controller.cloud import Cloud


async def power_on(cloud: "Cloud", ctx: Context, server_id: str) -> None:
    """Accept a start. Raises NotFound, Conflict."""
    await _change_power(cloud, ctx, server_id, _start)


async def power_off(cloud: "Cloud", ctx: Context, server_id: str) -> None:
    """Accept a stop. Raises NotFound, Conflict."""
    await _change_power(cloud, ctx, server_id, _stop)


async def reboot(cloud: "Cloud", ctx: Context, server_id: str, kind: RebootKind) -> None:
    """Accept a reboot. Raises NotFound, Conflict."""
    await _change_power(cloud, ctx, server_id, _reboot_soft if kind is RebootKind.SOFT else _reboot_hard)


async def pause(cloud: "Cloud", ctx: Context, server_id: str) -> None:
    """Accept that its clock stops. Raises NotFound, Conflict."""
    await _change_power(cloud, ctx, server_id, _pause)


async def unpause(cloud: "Cloud", ctx: Context, server_id: str) -> None:
    """Accept that it goes on. Raises NotFound, Conflict."""
    await _change_power(cloud, ctx, server_id, _unpause)


async def suspend(cloud: "Cloud", ctx: Context, server_id: str) -> None:
    """Accept that its memory is written to disk. Raises NotFound, Conflict."""
    await _change_power(cloud, ctx, server_id, _suspend)


async def resume(cloud: "Cloud", ctx: Context, server_id: str) -> None:
    """Accept that it goes on from its memory on disk. Raises NotFound, Conflict."""
    await _change_power(cloud, ctx, server_id, _resume)


async def _change_power(cloud: "Cloud", ctx: Context, server_id: str, change: Any) -> None:
    saga_id = cloud.world.entropy.uuid()
    await cloud.db.write(change, ctx, server_id, saga_id, cloud.world.clock.now())
    cloud.sagas.kick(saga_id)


def _start(tx: Tx, ctx: Context, server_id: str, saga_id: str, now: float) -> None:
    server = ready(tx, ctx, server_id)
    after = _intend(tx, server, Event.START, Desired.RUNNING, now)
    run(tx, ctx, after, "start", START, power_params(ctx, after), saga_id)


def _stop(tx: Tx, ctx: Context, server_id: str, saga_id: str, now: float) -> None:
    server = ready(tx, ctx, server_id)
    after = _intend(tx, server, Event.STOP, Desired.SHUTOFF, now)
    run(tx, ctx, after, "stop", STOP, power_params(ctx, after), saga_id)


def _pause(tx: Tx, ctx: Context, server_id: str, saga_id: str, now: float) -> None:
    after = _intend(tx, ready(tx, ctx, server_id), Event.PAUSE, Desired.PAUSED, now)
    run(tx, ctx, after, "pause", PAUSE, power_params(ctx, after), saga_id)


def _unpause(tx: Tx, ctx: Context, server_id: str, saga_id: str, now: float) -> None:
    after = _intend(tx, ready(tx, ctx, server_id), Event.UNPAUSE, Desired.RUNNING, now)
    run(tx, ctx, after, "unpause", UNPAUSE, power_params(ctx, after), saga_id)


def _suspend(tx: Tx, ctx: Context, server_id: str, saga_id: str, now: float) -> None:
    after = _intend(tx, ready(tx, ctx, server_id), Event.SUSPEND, Desired.SUSPENDED, now)
    run(tx, ctx, after, "suspend", SUSPEND, power_params(ctx, after), saga_id)


def _resume(tx: Tx, ctx: Context, server_id: str, saga_id: str, now: float) -> None:
    after = _intend(tx, ready(tx, ctx, server_id), Event.RESUME, Desired.RUNNING, now)
    run(tx, ctx, after, "resume", RESUME, power_params(ctx, after), saga_id)


def _reboot_soft(tx: Tx, ctx: Context, server_id: str, saga_id: str, now: float) -> None:
    server = ready(tx, ctx, server_id)
    after = store.take(tx, server, Event.REBOOT_SOFT, now)
    run(tx, ctx, after, "reboot", REBOOT, _reboot_params(ctx, server, RebootKind.SOFT), saga_id)


def _reboot_hard(tx: Tx, ctx: Context, server_id: str, saga_id: str, now: float) -> None:
    server = ready(tx, ctx, server_id)
    after = _intend(tx, server, Event.REBOOT_HARD, Desired.RUNNING, now)
    run(tx, ctx, after, "reboot", REBOOT, _reboot_params(ctx, server, RebootKind.HARD), saga_id)


def ready(tx: Tx, ctx: Context, server_id: str) -> Server:
    """A server that can be acted on: not locked, and on a host."""
    server = store.get(tx, ctx, server_id)
    check_unlocked(ctx, server)
    if server.host_id is None:
        raise Conflict(f"Instance {server_id} is not ready")
    return server


def _intend(tx: Tx, server: Server, event: Event, desired: Desired, now: float) -> Server:
    """A new intent, with the network documents as they are now."""
    after = store.take(tx, server, event, now, desired=desired.value, generation=store.NEXT_GENERATION)
    nets.note_network(tx, server.id)
    return after


def power_params(ctx: Context, server: Server) -> PowerParams:
    """For a server that is on a host."""
    assert server.host_id is not None, "checked before"
    return PowerParams(**params_of(ctx, server))


def params_of(ctx: Context, server: Server) -> dict[str, str]:
    """What every saga of a server is told: which one, for whom, and where it is."""
    return {
        "server_id": server.id,
        "request_id": ctx.request_id,
        "host_id": server.host_id or "",
        "host_name": server.host_name or "",
    }


def _reboot_params(ctx: Context, before: Server, kind: RebootKind) -> RebootParams:
    assert before.host_id is not None, "checked before"
    return RebootParams(
        server_id=before.id,
        request_id=ctx.request_id,
        host_id=before.host_id,
        host_name=before.host_name or "",
        kind=kind,
        was_on=before.vm_state in (VmState.ACTIVE, VmState.PAUSED),
    )


def run(tx: Tx, ctx: Context, server: Server, action: str, saga: Any, params: Any, saga_id: str) -> None:
    """The record of the action, and its saga."""
    act(tx, ctx, server, action, saga_id, server.updated_at)
    start(
        tx,
        saga,
        saga_id=saga_id,
        params=params,
        target=server.id,
        project_id=server.project_id,
        request_id=ctx.request_id,
        now=server.updated_at,
    )


async def console_log(cloud: "Cloud", ctx: Context, server_id: str, lines: int | None) -> str:
    """The end of the serial console's log. Raises Conflict for a server on no host, Unavailable for a silent one."""
    server = await cloud.db.read(store.get, ctx, server_id)
    if server.host_id is None:
        raise Conflict(f"Instance {server_id} is not ready")
    try:
        said = await cloud.hosts.call(server.host_id, domain_calls.CONSOLE, ConsoleRequest(id=server_id))
    except Transient as error:
        raise Unavailable("The host of this server does not answer.") from error
    except NotFound as error:
        raise Conflict(f"Instance {server_id} is not ready") from error
    if lines is None or lines < 0:
        return said.text
    return "\n".join(said.text.split("\n")[-lines:]) if lines else ""
