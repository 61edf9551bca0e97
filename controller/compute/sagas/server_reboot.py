"""Rebooting a server, once, however often the message is sent: the saga's id is the host's operation id.

A hard reboot first carries the newest definition to the host. If the server was off, or in ERROR, that starts
it, and there is nothing left to reboot.
"""

import asyncio
from typing import Final

from agent.wire import domain as domain_calls
from agent.wire.domain import DomainStatus, Reboot, RebootKind
from agent.wire.lifecycle import Progress
from controller.compute.model import Event
from controller.compute.sagas import power
from controller.compute.sagas.power import PowerParams
from controller.db.tx import Tx
from controller.errors import CloudError
from controller.saga.model import Cause, Commit, Run, Saga, Step, Transient

GRACE_S: Final = 60.0
"""How long a guest may take to follow a soft reboot before the host makes it a hard one, as in Nova's tests."""

POLL_FIRST_S: Final = 0.1
POLL_MAX_S: Final = 2.0
"""Between two looks at a reboot that is under way. Shorter: chatter. Longer: users wait for nothing."""

PATIENCE_S: Final = 30.0
"""Past the grace, before the step is tried again from the start (which repeats nothing on the host)."""


class RebootParams(PowerParams, frozen=True, kw_only=True):
    """`was_on`: there is something to reboot."""

    kind: RebootKind
    was_on: bool


async def define(run: Run[RebootParams]) -> None:
    """The host holds the newest definition, and what was off runs. A soft reboot changes nothing of it."""
    if run.params.kind is RebootKind.HARD:
        await power.push(run)


async def reboot(run: Run[RebootParams]) -> Commit:
    """The guest is up again."""
    run.notes["host"] = run.params.host_name
    status = await (_rebooted(run) if run.params.was_on else power.push(run))
    return Commit(_done, (run.params, status, run.deps.world.clock.now()))


async def _rebooted(run: Run[RebootParams]) -> DomainStatus:
    params, hosts, slow = run.params, run.deps.hosts, run.deps.settings.controller.slow
    request = Reboot(id=params.server_id, operation_id=run.saga_id, kind=params.kind, grace_s=GRACE_S * slow)
    loop = asyncio.get_running_loop()
    ends, pause_s = loop.time() + GRACE_S * slow + PATIENCE_S, POLL_FIRST_S
    while loop.time() < ends:
        status: DomainStatus = await hosts.call(params.host_id, domain_calls.REBOOT, request)
        if status.progress is Progress.READY:
            return status
        if status.progress is Progress.FAILED and status.fault is not None:
            raise CloudError(f"The host could not reboot it: {status.fault.message}")
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 1.5, POLL_MAX_S)
    raise Transient("the guest has not come back yet")


def _done(tx: Tx, params: RebootParams, status: DomainStatus, now: float) -> None:
    power.succeeded(tx, params, Event.REBOOTED, status, now)


def undone(tx: Tx, params: RebootParams, cause: Cause, now: float) -> None:
    """It could not be rebooted."""
    power.failed(tx, params, Event.REBOOT_FAILED, cause, now)


REBOOT: Final = Saga(
    "server-reboot",
    1,
    RebootParams,
    steps=(Step("define", define, deferred=True), Step("reboot", reboot)),
    undone=undone,
)
