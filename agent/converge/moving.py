"""A domain that goes to another host while it runs.

    where it goes   LANDING: folder, secrets, gate; then it comes, and stands still until it is told to go on
    where it is     LEAVING: it is sent; it is ready when it is not defined here any more
                    STAYING: it is not sent (any more); `power` says whether it is still here

Theory of operation. The hypervisor brings it and leaves it standing still there. It goes on only after it is gone here:
told by this host at once, over a stream that was opened before, or else by the controller. So there is no moment in
which it runs twice, whoever dies when. A newer intent ends the sending; should it have succeeded in that very moment,
STAYING finds nothing here, and starts nothing. That it has left is in the ledger before it goes on there, and until it
comes back, or nothing of it is here, nobody starts what is left of it here.
"""

import asyncio
import contextlib
from pathlib import PurePath
from typing import Any, Final

import msgspec
import structlog

from agent.effects import HYPERVISOR, IMAGE, NETWORK, Effects
from agent.turn import Superseded, Turn
from agent.wire.domain import Desired, DomainSpec, DomainStatus, Landing, Passage
from agent.wire.errors import Busy, Conflict, Failed, Invalid, WireError
from agent.wire.lifecycle import Power, Progress
from agent.wire.port import TcpFlow
from drivers.hypervisor.base import Machine

MOVING: Final = (Desired.LANDING, Desired.LEAVING, Desired.STAYING)

LOOK_S: Final = 0.5
"""Between two looks at a newer intent, and at how far it is."""

MARGIN_S: Final = 60.0
"""After it was told to end, for the hypervisor to do so."""

log = structlog.get_logger()


def folder_of(fx: Effects, domain_id: str) -> str:
    """A guest's own folder."""
    return f"{fx.places.guests}/{domain_id}"


def refuse_departed(fx: Effects, turn: Turn) -> None:
    """What goes on on another host is not started here, whoever asks. Raises Conflict."""
    if turn.key.id in fx.ledger.departed:
        raise Conflict(f"{turn.key} has left for another host while it ran: what is here of it is old")


async def note_departure(fx: Effects, turn: Turn, spec: DomainSpec) -> None:
    """Whether it has left for good is known from now on, also to the next run of the agent."""
    observed = await fx.run(HYPERVISOR, turn.key, fx.drivers.hypervisor.find, spec.id)
    if spec.desired is Desired.LANDING:
        fx.ledger.forget_departure(spec.id)
    elif observed is None:
        fx.ledger.depart(spec.id)


async def land(fx: Effects, turn: Turn, machine: Machine) -> Landing:
    """There is room for it."""
    fx.publish_documents()
    landing = await fx.run(HYPERVISOR, turn.key, fx.drivers.hypervisor.receive, machine)
    return msgspec.structs.replace(landing, bases=await _bases(fx, turn, machine.spec))


async def _bases(fx: Effects, turn: Turn, spec: DomainSpec) -> dict[str, str]:
    """Upon which image each of its disks lies here; only what differs from that is copied."""
    found: dict[str, str] = {}
    for disk_id in (disk.disk_id for disk in spec.disks if disk.iscsi is None):
        disk = await fx.run(IMAGE, turn.key, fx.drivers.disks.find, disk_id)
        found[disk_id] = "" if disk is None else PurePath(disk.base).name
    return found


async def _check_bases(fx: Effects, turn: Turn, spec: DomainSpec, landing: Landing) -> None:
    """A copy upon another image would be another disk. Raises Conflict."""
    for disk_id, base in (await _bases(fx, turn, spec)).items():
        there = landing.bases.get(disk_id, base)
        if there != base:
            raise Conflict(f"disk {disk_id} lies upon {base or 'no image'} here, and upon {there or 'none'} there")


async def leave(fx: Effects, turn: Turn, spec: DomainSpec) -> None:
    """It is not here any more. Raises Conflict, which is not tried again: whoever asked decides what follows."""
    way = spec.leaving
    if way is None:
        raise Invalid(f"{turn.key} is to leave, and it is not said where to")
    observed = await fx.run(HYPERVISOR, turn.key, fx.drivers.hypervisor.find, spec.id)
    if observed is not None and observed.power not in (Power.RUNNING, Power.PAUSED):
        raise Conflict(f"{turn.key} is not on, so it cannot leave while it runs")
    if observed is not None:
        fx.hasty.discard(spec.id)
        await _check_bases(fx, turn, spec, way.landing)
        try:
            async with fx.source.passage(spec.id, way, fx.ledger.uid(spec.id, fx.places.uids)) as arrive:
                await _send(fx, turn, way)
                fx.ledger.depart(spec.id)
                if observed.power is Power.RUNNING:
                    await arrive(await _flows(fx, turn, spec))
        except Busy:
            raise
        except Superseded:
            raise
        except WireError as error:
            raise Conflict(f"{turn.key} could not be moved, and stays: {error}") from error
        log.info("a guest has left", domain=spec.id)
    await _forget(fx, turn, spec)


async def stay(fx: Effects, turn: Turn) -> None:
    """Nobody sends it any more, not even for an earlier run of the agent, so where it is does not change after this."""
    await fx.run(HYPERVISOR, turn.key, fx.drivers.hypervisor.stop_sending, turn.key.id)


async def forget(fx: Effects, turn: Turn) -> None:
    """Of a domain that is to be absent: what was made for its coming."""
    spec = turn.entry.spec
    if isinstance(spec, DomainSpec) and spec.desired in MOVING:
        await _forget(fx, turn, spec)


async def _forget(fx: Effects, turn: Turn, spec: DomainSpec) -> None:
    iqns = tuple(disk.iscsi.iqn for disk in spec.disks if disk.iscsi is not None)
    folder = folder_of(fx, spec.id)
    await fx.run(HYPERVISOR, turn.key, fx.drivers.hypervisor.forget_received, spec.id, folder, iqns)


async def _send(fx: Effects, turn: Turn, way: Passage) -> None:
    """Until it is gone, or stays for good: because of a newer intent (raises Superseded), or its time is up."""
    hypervisor, domain_id = fx.drivers.hypervisor, turn.key.id
    loop = asyncio.get_running_loop()
    ends = loop.time() + way.limit_s
    extra_s = way.limit_s + MARGIN_S
    sending = asyncio.ensure_future(fx.run(HYPERVISOR, turn.key, hypervisor.send, domain_id, way, extra_s=extra_s))
    halting: asyncio.Future[None] | None = None
    stop = f"the end of leaving of {domain_id}"
    try:
        while not await _has_news(turn, sending):
            if halting is None and domain_id in fx.hasty:
                halting = asyncio.ensure_future(_halt(fx, domain_id))
            if _is_called_back(fx, turn):
                await _stop(fx, stop, turn, sending)
                raise Superseded
            if loop.time() > ends:
                await _stop(fx, stop, turn, sending)
                if sending.exception() is not None:
                    raise Failed(f"its guest writes faster than it can be sent; not there after {way.limit_s:g} s")
            await _note(fx, turn)
        sending.result()
    finally:
        sending.cancel()
        if halting is not None:  # It may be in vain, but not too late: whoever stays is let go on after this.
            await asyncio.wait({halting})


async def _halt(fx: Effects, domain_id: str) -> None:
    """It writes nothing any more. That waits for what it has written, which goes to the other host as well."""
    try:
        await fx.run(HYPERVISOR, f"haste of {domain_id}", fx.drivers.hypervisor.pause, domain_id)
    except WireError as error:
        log.warning("a guest that leaves does not stand still", domain=domain_id, why=str(error))


async def _has_news(turn: Turn, sending: "asyncio.Future[None]") -> bool:
    """Whether it has ended; waits for that, or for somebody who wants something else, and not long."""
    news = asyncio.ensure_future(turn.track.woken.wait())
    try:
        both: set[asyncio.Future[Any]] = {sending, news}
        await asyncio.wait(both, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        news.cancel()
    turn.track.woken.clear()
    return sending.done()


async def _stop(fx: Effects, owner: str, turn: Turn, sending: "asyncio.Future[None]") -> None:
    """Tell it to end until it has; one that has not begun yet does not hear it."""
    while not sending.done():
        with contextlib.suppress(WireError):
            await fx.run(HYPERVISOR, owner, fx.drivers.hypervisor.stop_sending, turn.key.id)
        await asyncio.wait({sending}, timeout=LOOK_S)


async def _flows(fx: Effects, turn: Turn, spec: DomainSpec) -> tuple[TcpFlow, ...]:
    """Its connections: the other host's filter has not seen them begin, and would take them for none."""
    port_ids = frozenset(nic.port_id for nic in spec.nics)
    try:
        return await fx.run(NETWORK, turn.key, fx.drivers.filter.flows_of, port_ids)
    except WireError as error:
        log.warning("the connections of a guest that left are not known", domain=spec.id, why=str(error))
        return ()


def _is_called_back(fx: Effects, turn: Turn) -> bool:
    """Whether there is a newer intent, other than to leave as well."""
    if not turn.is_superseded:
        return False
    newest = fx.ledger.find(turn.key)
    spec = None if newest is None or newest.absent else newest.spec
    return not (isinstance(spec, DomainSpec) and spec.desired is Desired.LEAVING)


async def _note(fx: Effects, turn: Turn) -> None:
    """How far it is, for whoever asks."""
    owner = f"transfer of {turn.key.id}"
    with contextlib.suppress(WireError):
        transfer = await fx.run(HYPERVISOR, owner, fx.drivers.hypervisor.transfer, turn.key.id)
        seen = turn.track.seen
        power = seen.power if isinstance(seen, DomainStatus) else Power.UNKNOWN
        hardware = seen.hardware if isinstance(seen, DomainStatus) else None
        turn.track.seen = DomainStatus(
            id=turn.key.id,
            generation=turn.entry.generation,
            progress=Progress.PENDING,
            power=power,
            hardware=hardware,
            transfer=transfer,
        )
