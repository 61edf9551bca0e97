"""How long somebody who waits for something new waits for a host that answers, but fails.

A host goes on trying what it could not do, and `hosts.ensure` goes on waiting, because most failures pass. Who
waits for a new server should not wait the whole deadline for one host when there are others: after a few slices
of time a failure that the host still reports is taken for its answer.
"""

from typing import Any, Final, TypeVar

import msgspec

from agent.wire.lifecycle import Progress
from agent.wire.specs import Call, ObjectStatus, Ref
from controller.errors import Unavailable
from controller.saga.model import Run, Transient

Q = TypeVar("Q", bound=msgspec.Struct)
S = TypeVar("S", bound=ObjectStatus)

SLICES_MAX: Final = 3
"""Of `hosts.ensure`, about a minute. Fewer: a passing failure costs a host its chance. More: users wait in vain."""


async def ensure(run: Run[Any], host_id: str, row: Call[Q, S], look: Call[Ref, S], spec: Q) -> S:
    """As `hosts.ensure`; raises Unavailable with the host's own words when it still fails after some tries."""
    hosts = run.deps.hosts
    try:
        status: S = await hosts.ensure(host_id, row, spec, run.deadline)
    except Transient:
        if run.attempt >= SLICES_MAX:
            await give_up_on_failure(run, host_id, look, spec)
        raise
    return status


async def give_up_on_failure(run: Run[Any], host_id: str, look: Call[Ref, S], spec: Any) -> None:
    """Raises Unavailable where the host says that it fails. `spec` is any struct with the object's id."""
    status: S = await run.deps.hosts.call(host_id, look, Ref(id=spec.id))
    if status.progress is Progress.FAILED and status.fault is not None:
        why = {"host": host_id, "code": status.fault.code.value}
        raise Unavailable(f"The host failed: {status.fault.message}", why=why)
