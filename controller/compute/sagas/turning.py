"""Changes of intent in the middle of a saga, and the way back.

A saga that takes a guest through several definitions writes each as a new intent of the row, in the transaction that
ends a step, and carries it to the host with the next step: so whoever pushes the row's newest intent at any moment
pushes a whole one.

On the way back nothing is done for a server that is being deleted: its own saga removes all there is, from the row.
What the host refuses on the way back leaves the row in ERROR at once; the rest is undone all the same.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
import structlog

from agent.wire.domain import Desired, DomainStatus
from controller.compute import domains, store
from controller.compute.model import Event, Server
from controller.compute.sagas import faults, power
from controller.compute.sagas.power import PowerParams
from controller.db.tx import Tx
from controller.errors import CloudError, Conflict
from controller.saga.model import Cause, Run

log = structlog.get_logger()


class TurnParams(PowerParams, frozen=True, kw_only=True):
    """`was_on`: what its intent was, and is to be again."""

    was_on: bool


OFF: dict[str, Any] = {"desired": Desired.SHUTOFF.value}


def desired(is_on: bool) -> dict[str, Any]:
    """The intent to be on, or off."""
    return {"desired": Desired.RUNNING.value if is_on else Desired.SHUTOFF.value}


def intend(tx: Tx, server_id: str, values: Mapping[str, Any]) -> None:
    """A new intent. Raises Conflict for a server that is being deleted."""
    if not store.intend(tx, server_id, values):
        raise Conflict("The server is being deleted.")


async def push(run: Run[Any]) -> None:
    """The host holds the row's newest intent; a deferred step."""
    await power.push(run)


async def back(run: Run[Any], values: Mapping[str, Any], failed: Event) -> bool:
    """An undo: this intent, carried to the host. If that refuses, the row becomes what `failed` says; then False."""
    db, params = run.deps.db, run.params
    run.notes["host"] = params.host_name
    if not await db.write(store.intend, params.server_id, dict(values)):
        return True
    try:
        status = await domains.push(run.deps, params.server_id, params.host_id, run.deadline)
    except CloudError as error:
        log.warning("a server could not be put back", server_id=params.server_id, why=error.message)
        await db.write(_refused, params.server_id, failed, error.message, run.deps.world.clock.now())
        return False
    await db.write(store.pushed, params.server_id, status.generation.n)
    return True


def _refused(tx: Tx, server_id: str, failed: Event, message: str, now: float) -> None:
    store.report(tx, server_id, failed, now, **faults.columns(Cause(message=message), now))


def find_wanted(tx: Tx, server_id: str) -> Server | None:
    """A server that nobody is deleting, or None."""
    found = store.find(tx, server_id)
    return None if found is None or found.deleted_at is not None or found.is_deleting else found


def ended(tx: Tx, params: PowerParams, event: Event, status: DomainStatus, now: float, **values: Any) -> None:
    """It went well: the row, the action, and the power that the host saw."""
    store.pushed(tx, params.server_id, status.generation.n)
    if status.hardware is not None:
        store.change(tx, params.server_id, {"hardware": msgspec.to_builtins(status.hardware)})
    power_state = power.POWER_STATES[status.power].value
    store.report(tx, params.server_id, event, now, power_state=power_state, **{**faults.NONE, **values})
    store.end_action(tx, params.server_id, params.request_id, now, is_error=False)


def undone(tx: Tx, params: TurnParams, events: tuple[Event, Event], now: float) -> None:
    """It is as it was: (on, off). The action tells that it failed; a row that is in ERROR stays so."""
    store.report(tx, params.server_id, events[0] if params.was_on else events[1], now)
    store.end_action(tx, params.server_id, params.request_id, now, is_error=True)
