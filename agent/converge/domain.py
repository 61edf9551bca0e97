"""A domain on this host: defined, powered as asked, rebooted, removed.

Theory of operation. Power is carried out once for each generation and then recorded as settled. A domain whose
generation is settled is only looked at: a guest that its user switched off stays off, and no restart of the agent
starts, stops or changes anything. What the guest does by itself is told (`DomainStatus.power`), and the controller
decides what follows from it.

After a boot of the machine nothing that was under way is started before the controller has asked for it again
(`Ledger.held`): meanwhile it may have started the guest elsewhere.
"""

import asyncio
from typing import Final

import msgspec

from agent.converge import moving
from agent.effects import GUARD_S, HYPERVISOR, IMAGE, Effects
from agent.ledger import Operation
from agent.nouns import Key, Noun
from agent.tracks import Waiting
from agent.turn import Turn
from agent.wire.disk import DiskSpec
from agent.wire.domain import Desired, DomainDisk, DomainSpec, DomainStatus, Reboot, RebootKind
from agent.wire.errors import Busy, Failed, Fault, FaultCode, Invalid, WireError
from agent.wire.lifecycle import Power, Progress
from agent.wire.port import PortSpec, PortStatus
from agent.wire.specs import decode, encode
from agent.wire.volume import IscsiSource
from drivers.hypervisor.base import DiskSource, Machine, NicSource, ObservedDomain

PRESS_AGAIN_S: Final = 10.0
"""Between two presses of the power button. A guest that has just begun to boot does not hear the first one."""

LOOK_AGAIN_S: Final = 2.0
"""Between two looks while a guest shuts down; its end is an event, which may be lost."""

LATE_S: Final = 120.0
"""Past its grace time, an act that could not be begun or ended is given up. Longer: guests are rebooted out of the
blue. Shorter: a busy host loses acts that somebody waits for."""

SAVE_MIB_PER_S_MIN: Final = 16
"""A disk slower than that cannot hold a guest's memory. Lower: a stuck one holds its thread for longer."""

LOOKS_MAX: Final = 3
"""How often a look is repeated when the power changed during it. Events come after that anyway."""

_ON: Final = (Power.RUNNING, Power.PAUSED)

_ALIVE: Final = (*_ON, Power.SUSPENDED)
"""Its memory is somewhere: it will go on where it stood."""


async def ensure(fx: Effects, turn: Turn) -> DomainStatus:
    """As asked; then what was asked of it once (reboots)."""
    spec = turn.spec(DomainSpec)
    if not turn.entry.is_settled:
        if spec.id in fx.ledger.held:
            raise Busy(f"{turn.key}: this host was booted; it waits until the controller asks again")
        if spec.desired is Desired.LEAVING:
            await moving.leave(fx, turn, spec)
        elif spec.desired is Desired.STAYING:
            await moving.stay(fx, turn)
        elif spec.desired not in moving.MOVING:
            moving.refuse_departed(fx, turn)
            await _carry_out(fx, turn, spec)
        fx.ledger.settle(turn.key, turn.entry.generation)
    else:
        fx.publish_documents()
    if spec.desired in moving.MOVING:
        await moving.note_departure(fx, turn, spec)
        landing = None
        if spec.desired is Desired.LANDING:
            landing = await moving.land(fx, turn, await _machine(fx, turn, spec))
        status = await _status(fx, turn, absent=Power.UNKNOWN)
        return msgspec.structs.replace(status, landing=landing)
    for operation in fx.ledger.open_operations(spec.id):
        fault = _overtaken(fx, turn, spec, operation)
        if fault is not None:
            _end(fx, turn, operation, fault, Power.UNKNOWN)
        else:
            await _operate(fx, turn, spec, operation)
    return await _status(fx, turn)


async def absent(fx: Effects, turn: Turn) -> None:
    """Off, forgotten, and its config drive gone. Its disks and ports are objects of their own."""
    gone = Fault(code=FaultCode.NOT_FOUND, message=f"{turn.key} was removed")
    for operation in fx.ledger.open_operations(turn.key.id):
        _end(fx, turn, operation, gone, Power.UNKNOWN)
    await fx.run(HYPERVISOR, turn.key, fx.drivers.hypervisor.destroy, turn.key.id)
    await fx.run(HYPERVISOR, turn.key, fx.drivers.hypervisor.undefine, turn.key.id)
    await moving.forget(fx, turn)
    await fx.run(IMAGE, turn.key, fx.drivers.disks.absent, config_disk_id(turn.key.id))
    fx.publish_documents()
    fx.ledger.forget_departure(turn.key.id)
    fx.release_uid(turn.key.id, turn.key)


def config_disk_id(domain_id: str) -> str:
    """The id of a domain's config drive among this host's disks."""
    return f"{domain_id}-config"


def is_config_disk(disk_id: str) -> bool:
    """Whether a disk is some domain's config drive, which is made and removed with it."""
    return disk_id.endswith("-config")


def with_power(seen: DomainStatus, power: Power) -> DomainStatus:
    """The same, after its power changed by itself."""
    return msgspec.structs.replace(seen, power=power)


async def _carry_out(fx: Effects, turn: Turn, spec: DomainSpec) -> None:
    if spec.desired is Desired.RUNNING:
        await _power_on(fx, turn, spec)
        return
    machine = await _define(fx, turn, spec)
    if spec.desired is Desired.SHUTOFF:
        if not await _is_off_by_button(fx, turn, fx.places.shutdown_grace_s):
            await fx.run(HYPERVISOR, turn.key, fx.drivers.hypervisor.destroy, spec.id)
        return
    observed = await _look(fx, turn)
    if observed is None or observed.power not in _ON:
        return  # What is off has nothing that could be stopped; whoever asked reads its power.
    if spec.desired is Desired.PAUSED:
        await fx.run(HYPERVISOR, turn.key, fx.drivers.hypervisor.plug_nics, machine)
        await fx.run(HYPERVISOR, turn.key, fx.drivers.hypervisor.plug_disks, machine)
        await fx.run(HYPERVISOR, turn.key, fx.drivers.hypervisor.pause, spec.id)
    else:
        save = fx.drivers.hypervisor.save
        await fx.run(HYPERVISOR, turn.key, save, spec.id, extra_s=spec.memory_mib / SAVE_MIB_PER_S_MIN)


async def _power_on(fx: Effects, turn: Turn, spec: DomainSpec) -> None:
    """Defined anew and running. The guard knows the guest before it can ask."""
    acts = fx.ledger.open_operations(spec.id)
    if acts and not await _is_on(fx, turn):
        fx.still_on.difference_update(act.id for act in acts)  # It is off already, so this is what they are for.
    machine = await _define(fx, turn, spec)
    fx.publish_documents()
    await fx.guard.settle(GUARD_S)
    turn.check()
    await fx.run(HYPERVISOR, turn.key, fx.drivers.hypervisor.start, spec.id)
    await fx.run(HYPERVISOR, turn.key, fx.drivers.hypervisor.plug_nics, machine)
    await fx.run(HYPERVISOR, turn.key, fx.drivers.hypervisor.plug_disks, machine)


async def _define(fx: Effects, turn: Turn, spec: DomainSpec) -> Machine:
    machine = await _machine(fx, turn, spec)
    await fx.run(HYPERVISOR, turn.key, fx.drivers.hypervisor.define, machine)
    return machine


async def _machine(fx: Effects, turn: Turn, spec: DomainSpec) -> Machine:
    uid = fx.ledger.uid(spec.id, fx.places.uids)
    disks = [await _disk(fx, turn, disk) for disk in spec.disks]
    if spec.config_drive:
        disks.append(await _config_drive(fx, turn, spec, uid))
    return Machine(
        spec=spec,
        disks=tuple(disks),
        nics=tuple(_nic(fx, nic.port_id, nic.mac, nic.mtu) for nic in spec.nics),
        uid=uid,
        folder=moving.folder_of(fx, spec.id),
    )


async def _disk(fx: Effects, turn: Turn, wanted: DomainDisk) -> DiskSource:
    if wanted.iscsi is not None:
        return _volume(turn, wanted, wanted.iscsi)
    fx.need(Key(Noun.DISK, wanted.disk_id), DiskSpec)
    disk = await fx.run(IMAGE, turn.key, fx.drivers.disks.find, wanted.disk_id)
    if disk is None:
        raise Failed(f"disk {wanted.disk_id} is gone from this host")
    return DiskSource(
        disk_id=wanted.disk_id,
        path=disk.path,
        format=disk.format,
        boot_index=wanted.boot_index,
        device=wanted.device,
        bus=wanted.bus,
    )


def _volume(turn: Turn, wanted: DomainDisk, source: IscsiSource) -> DiskSource:
    """It is on a storage host; that it can be reached shows when QEMU logs in."""
    if not wanted.device:
        raise Invalid(f"{turn.key}: volume {source.volume_id} has no device name")
    return DiskSource(
        disk_id=wanted.disk_id,
        path="",
        format="raw",
        iscsi=source,
        boot_index=wanted.boot_index,
        serial=source.volume_id,
        device=wanted.device,
        bus=wanted.bus,
    )


async def _config_drive(fx: Effects, turn: Turn, spec: DomainSpec, uid: int) -> DiskSource:
    """Written while the guest is off; a running one keeps the drive it has."""
    disk_id = config_disk_id(spec.id)
    observed = await _look(fx, turn)
    is_on = observed is not None and observed.power in _ALIVE
    disk = await fx.run(IMAGE, turn.key, fx.drivers.disks.find, disk_id) if is_on else None
    if disk is None:
        disk = await fx.run(IMAGE, turn.key, fx.drivers.disks.ensure_config, disk_id, spec.guest, uid)
    return DiskSource(disk_id=disk_id, path=disk.path, format=disk.format, is_cdrom=True)


def _nic(fx: Effects, port_id: str, mac: str, mtu: int) -> NicSource:
    key = Key(Noun.PORT, port_id)
    fx.need(key, PortSpec)
    seen = fx.tracks[key].seen
    assert isinstance(seen, PortStatus), "a port that is ready was seen"
    return NicSource(device=seen.device, mac=mac, mtu=mtu)


async def _is_off_by_button(fx: Effects, turn: Turn, grace_s: float) -> bool:
    """Press the power button until the guest is off or its time is up; whether it is off. Raises Superseded."""
    loop = asyncio.get_running_loop()
    press_at = loop.time()
    deadline = press_at + grace_s
    while True:
        turn.check()
        observed = await _look(fx, turn)
        if observed is None or observed.power not in _ALIVE:
            return True
        now = loop.time()
        if now >= deadline or observed.power is not Power.RUNNING:  # One that stands still hears no button.
            return False
        if now >= press_at:
            await fx.run(HYPERVISOR, turn.key, fx.drivers.hypervisor.shutdown, turn.key.id)
            press_at = now + PRESS_AGAIN_S
        await turn.pause(min(LOOK_AGAIN_S, deadline - now))


async def _operate(fx: Effects, turn: Turn, spec: DomainSpec, operation: Operation) -> None:
    """Reboot once, and remember how it ended. What only has to wait (a hung driver, a port) is tried again.

    A newer intent interrupts it; if that wants the guest to run as well, the reboot goes on afterwards. Once the guest
    was off, or if the agent was restarted in between (nobody knows how far it was), a guest that runs was rebooted or
    can be asked again; one that is off must come back. (After a boot of the machine no act is open.)
    """
    reboot = decode(operation.request, Reboot)
    fault: Fault | None = None
    try:
        if operation.id in fx.still_on or not await _is_on(fx, turn):
            await _switch_off(fx, turn, reboot)
            fx.still_on.discard(operation.id)
            await _power_on(fx, turn, spec)
    except (Waiting, Busy):
        raise
    except WireError as error:
        fault = error.fault()
    observed = await _look(fx, turn)
    _end(fx, turn, operation, fault, Power.SHUTOFF if observed is None else observed.power)


async def _is_on(fx: Effects, turn: Turn) -> bool:
    observed = await _look(fx, turn)
    return observed is not None and observed.power in _ON


async def _switch_off(fx: Effects, turn: Turn, reboot: Reboot) -> None:
    """By the button or, after the grace time, by the plug."""
    is_soft = reboot.kind is RebootKind.SOFT
    if not (is_soft and await _is_off_by_button(fx, turn, reboot.grace_s)):
        await fx.run(HYPERVISOR, turn.key, fx.drivers.hypervisor.destroy, turn.key.id)


def _overtaken(fx: Effects, turn: Turn, spec: DomainSpec, operation: Operation) -> Fault | None:
    """Why an act must not be done any more: a later stop, or nobody waits for it (something was in the way so long)."""
    if spec.desired is Desired.SHUTOFF and operation.at < turn.entry.at:
        return Fault(code=FaultCode.CONFLICT, message=f"{turn.key} was asked to be off after this was asked")
    grace_s = decode(operation.request, Reboot).grace_s
    if fx.world.clock.now() - operation.at > grace_s + LATE_S * fx.slow:
        return Fault(code=FaultCode.FAILED, message=f"{turn.key} could not be rebooted in time")
    return None


def _end(fx: Effects, turn: Turn, operation: Operation, fault: Fault | None, power: Power) -> None:
    result = DomainStatus(
        id=turn.key.id,
        generation=turn.entry.generation,
        progress=Progress.READY if fault is None else Progress.FAILED,
        fault=fault,
        power=power,
    )
    fx.ledger.end(operation.id, encode(result))
    fx.still_on.discard(operation.id)


async def _look(fx: Effects, turn: Turn) -> ObservedDomain | None:
    """The domain as it is now, and not as it was before an event that came meanwhile."""
    for _ in range(LOOKS_MAX):
        changes = turn.track.changes
        observed = await fx.run(HYPERVISOR, turn.key, fx.drivers.hypervisor.find, turn.key.id)
        if turn.track.changes == changes:
            break
    return observed


async def _status(fx: Effects, turn: Turn, absent: Power = Power.SHUTOFF) -> DomainStatus:
    observed = await _look(fx, turn)
    return DomainStatus(
        id=turn.key.id,
        generation=turn.entry.generation,
        progress=Progress.READY,
        power=absent if observed is None else observed.power,
        hardware=None if observed is None else observed.hardware,
    )
