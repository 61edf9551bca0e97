"""What starting, stopping and rebooting a server have in common.

Each is one intent in the server's row (`desired`, at a new generation, written by the request) and one saga that
carries it to the host and notes how it went. Nothing is undone: no resource was taken. A failure leaves the row
in ERROR with the cause, from where stop, hard reboot and delete lead on; what the host makes of the intent later
is noticed by the power reconciler.
"""

from typing import TYPE_CHECKING, Any

import msgspec

from agent.wire.domain import Desired, DomainStatus
from agent.wire.lifecycle import Power
from controller.compute import domains, store
from controller.compute.model import Event, PowerState
from controller.compute.sagas import faults
from controller.db.tx import Tx
from controller.errors import Conflict
from controller.saga.model import Cause, Run, State

if TYPE_CHECKING:
    from controller.cloud import Cloud


class PowerParams(msgspec.Struct, frozen=True, kw_only=True):
    """Everything else is in the server's row."""

    server_id: str
    request_id: str
    host_id: str
    host_name: str


POWER_STATES: dict[Power, PowerState] = {
    Power.RUNNING: PowerState.RUNNING,
    Power.PAUSED: PowerState.PAUSED,
    Power.SHUTOFF: PowerState.SHUTDOWN,
    Power.CRASHED: PowerState.CRASHED,
    Power.SUSPENDED: PowerState.SHUTDOWN,
    Power.UNKNOWN: PowerState.NOSTATE,
}
"""As hosts say it → Nova's number."""


async def push(run: Run[Any]) -> DomainStatus:
    """The host holds the row's newest intent."""
    params = run.params
    run.notes["host"] = params.host_name
    server = await run.deps.db.read(store.find, params.server_id)
    if server is None or server.is_deleting or server.deleted_at is not None:
        raise Conflict("The server is being deleted.")
    return await domains.push(run.deps, params.server_id, params.host_id, run.deadline)


def succeeded(tx: Tx, params: Any, event: Event, status: DomainStatus, now: float) -> None:
    """Write how it went into the row and the action."""
    store.pushed(tx, params.server_id, status.generation.n)
    if status.hardware is not None:
        store.change(tx, params.server_id, {"hardware": msgspec.to_builtins(status.hardware)})
    store.report(tx, params.server_id, event, now, **faults.NONE)
    store.end_action(tx, params.server_id, params.request_id, now, is_error=False)


def was_off(tx: Tx, params: Any, status: DomainStatus, now: float) -> None:
    """Its guest had switched itself off before it could be stopped: that becomes the intent."""
    store.pushed(tx, params.server_id, status.generation.n)
    off = {"desired": Desired.SHUTOFF.value, "generation": store.NEXT_GENERATION}
    store.report(tx, params.server_id, Event.WAS_OFF, now, **off)
    store.end_action(tx, params.server_id, params.request_id, now, is_error=True)


def rested(cloud: "Cloud", _: State) -> None:
    """What the guest's end has made of the intent is told to its host."""
    cloud.tasks.kick("server_push")


def network_rested(cloud: "Cloud", _: State) -> None:
    """Its addresses are elsewhere, or nowhere: hosts learn it now."""
    cloud.tasks.kick("network_sync")


def failed(tx: Tx, params: Any, event: Event, cause: Cause, now: float) -> None:
    """Tell the user; the lifecycle refuses where a delete has the row meanwhile."""
    store.report(tx, params.server_id, event, now, **faults.columns(cause, now))
    store.end_action(tx, params.server_id, params.request_id, now, is_error=True)
