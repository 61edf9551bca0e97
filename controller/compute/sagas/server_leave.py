"""What a server has left on a host where it is no more: domain, wiring, disk.

    step      does
    domain    the domain is absent
    unplug    the ports are off the host
    disk      the root disk is absent

Only forward, and as long as it takes: a host that was cut off is cleaned when it returns. Nothing of it is the user's
affair any more. Its target is the server *on that host*, so a deletion of the server does not wait for it. The host is
sent generations of before the server went elsewhere; if the server has come back meanwhile, all of this is refused as
stale, and over. (While it waits nobody puts the server there: see `migration_store.hosts_left_behind`.)
"""

import asyncio
from collections.abc import Awaitable
from typing import Final

import msgspec

from agent.wire.errors import FaultCode
from controller.compute import domains
from controller.errors import Conflict
from controller.network import wiring
from controller.saga.model import Run, Saga, Step

LEAVE_S: Final = 30 * 86400.0
"""A host that is away longer than that will be joined anew, with nothing on it."""


class LeaveParams(msgspec.Struct, frozen=True, kw_only=True):
    """Everything there is to be removed."""

    server_id: str
    request_id: str
    host_id: str
    host_name: str
    generation: int
    port_ids: tuple[str, ...]
    has_disk: bool


async def remove_domain(run: Run[LeaveParams]) -> None:
    """The domain is gone."""
    params = _noted(run)
    await _unless_newer(domains.remove(run.deps, params.server_id, params.host_id, params.generation, run.deadline))


async def unplug(run: Run[LeaveParams]) -> None:
    """Its ports are off the host."""
    params = _noted(run)
    going = (wiring.unplug(run.deps, params.host_id, port_id, run.deadline) for port_id in params.port_ids)
    for end in await asyncio.gather(*(_unless_newer(one) for one in going), return_exceptions=True):
        if end is not None:
            raise end


async def remove_disk(run: Run[LeaveParams]) -> None:
    """Its disk is gone."""
    params = _noted(run)
    if params.has_disk:
        going = domains.remove_disk(run.deps, params.server_id, params.host_id, params.generation, run.deadline)
        await _unless_newer(going)


async def _unless_newer(going: Awaitable[None]) -> None:
    """What came back is not ours to remove."""
    try:
        await going
    except Conflict as error:
        if (error.why or {}).get("code") != FaultCode.STALE:
            raise


def _noted(run: Run[LeaveParams]) -> LeaveParams:
    run.notes["host"] = run.params.host_name
    return run.params


LEAVE: Final = Saga(
    "server-leave",
    1,
    LeaveParams,
    steps=(
        Step("domain", remove_domain),
        Step("unplug", unplug, deferred=True),
        Step("disk", remove_disk, deferred=True),
    ),
    deadline_s=LEAVE_S,
    forward_only=True,
)
