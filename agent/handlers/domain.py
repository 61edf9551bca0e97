"""Calls about domains: besides ensure, absent and get, what is done once (reboot) and what is only read."""

from typing import Final

import msgspec

from agent.effects import HYPERVISOR
from agent.handlers.objects import WAIT_S, Desk, Routes, converging
from agent.ledger import Operation
from agent.nouns import Key, Noun
from agent.wire.bus import Message, answering
from agent.wire.domain import (
    ABSENT,
    CONSOLE,
    ENSURE,
    GET,
    HASTEN,
    LIST,
    REBOOT,
    ConsoleLog,
    ConsoleRequest,
    Desired,
    DomainList,
    DomainSpec,
    DomainStatus,
    Hasten,
    Reboot,
)
from agent.wire.errors import Conflict, NotFound
from agent.wire.lifecycle import Progress
from agent.wire.specs import MESSAGE_BYTES_MAX, Empty, decode, encode

CONSOLE_BYTES_MAX: Final = MESSAGE_BYTES_MAX - 4096
"""What of a console fits into one answer, escaped as JSON."""


def routes(desk: Desk) -> Routes:
    """See agent.wire.domain."""

    async def on_list(_: Empty, message: Message) -> DomainList:
        return await list_domains(desk)

    async def on_reboot(request: Reboot, message: Message) -> DomainStatus:
        return await reboot(desk, request, message)

    async def on_console(request: ConsoleRequest, message: Message) -> ConsoleLog:
        owner = f"console of {request.id}"
        bytes_max = min(max(request.bytes_max, 0), CONSOLE_BYTES_MAX)
        return _fitting(
            await desk.fx.run(HYPERVISOR, owner, desk.fx.drivers.hypervisor.console_log, request.id, bytes_max)
        )

    async def on_hasten(request: Hasten, message: Message) -> Empty:
        return await hasten(desk, request)

    return {
        **converging(desk, Noun.DOMAIN, ENSURE, ABSENT, GET),
        LIST.name: answering(LIST, on_list),
        REBOOT.name: answering(REBOOT, on_reboot),
        HASTEN.name: answering(HASTEN, on_hasten),
        CONSOLE.name: answering(CONSOLE, on_console),
    }


async def list_domains(desk: Desk) -> DomainList:
    """What the ledger has, and what bears the cloud's mark without being in the ledger (it is only told)."""
    observed = await desk.fx.run(HYPERVISOR, "list", desk.fx.drivers.hypervisor.list)
    rows = {entry.key.id: entry for entry in desk.fx.ledger.rows(Noun.DOMAIN)}
    found = [
        DomainStatus(
            id=one.id, generation=one.generation, progress=Progress.READY, power=one.power, hardware=one.hardware
        )
        for one in observed
        if one.id not in rows
    ]
    here = (entry for entry in rows.values() if desk.reconciler.progress(entry) is not Progress.ABSENT)
    found.extend(_status(desk, entry.key) for entry in here)
    return DomainList(domains=tuple(sorted(found, key=lambda status: status.id)))


async def reboot(desk: Desk, request: Reboot, message: Message) -> DomainStatus:
    """Begin a reboot, or say how the one by this operation id ended. Raises NotFound, Conflict, ReadOnly."""
    key = Key(Noun.DOMAIN, request.id)
    entry = desk.fx.ledger.find(key)
    known = desk.fx.ledger.find_operation(request.operation_id)
    if known is not None and known.domain_id != request.id:
        raise Conflict(f"operation {request.operation_id} was on another domain")
    if known is None:
        if entry is None or entry.absent:
            raise NotFound(f"{key} is not known to this host")
        now = desk.fx.world.clock.now()
        known = Operation(id=request.operation_id, domain_id=request.id, request=encode(request), result=None, at=now)
        desk.fx.still_on.add(known.id)
        desk.fx.ledger.begin(known)
        desk.reconciler.kick(key)
    if known.result is None:
        await desk.reconciler.rest(key, WAIT_S)
        known = desk.fx.ledger.find_operation(known.id)
    if known is not None and known.result is not None:
        return decode(known.result, DomainStatus)
    # What went wrong meanwhile is tried again with the act, which has an end of its own.
    return msgspec.structs.replace(_status(desk, key), progress=Progress.PENDING)


async def hasten(desk: Desk, request: Hasten) -> Empty:
    """Let a guest that leaves stand still until it is there. Raises Conflict."""
    key = Key(Noun.DOMAIN, request.id)
    entry = desk.fx.ledger.find(key)
    spec = None if entry is None or entry.absent or entry.is_settled else entry.spec
    if not isinstance(spec, DomainSpec) or spec.desired is not Desired.LEAVING:
        raise Conflict(f"domain {request.id} is not leaving this host")
    desk.fx.hasty.add(request.id)
    desk.fx.tracks[key].woken.set()
    return Empty()


def _status(desk: Desk, key: Key) -> DomainStatus:
    found = desk.reconciler.status(key)
    assert isinstance(found, DomainStatus), "statuses are kept by noun"
    return found


def _fitting(said: ConsoleLog) -> ConsoleLog:
    """The end that fits: escape sequences of terminals grow sixfold in JSON."""
    while len(encode(said)) > CONSOLE_BYTES_MAX:
        said = ConsoleLog(text=said.text[len(said.text) // 4 :])
    return said
