"""libvirt's states and events, as our power states. Pure."""

from typing import Final

import libvirt

from agent.wire.lifecycle import Power

_STATES: Final = {
    libvirt.VIR_DOMAIN_RUNNING: Power.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: Power.RUNNING,
    libvirt.VIR_DOMAIN_SHUTDOWN: Power.RUNNING,  # On its way down, and its QEMU is still there.
    libvirt.VIR_DOMAIN_PAUSED: Power.PAUSED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: Power.PAUSED,
    libvirt.VIR_DOMAIN_SHUTOFF: Power.SHUTOFF,
    libvirt.VIR_DOMAIN_CRASHED: Power.CRASHED,
}

_CRASHES: Final = (
    libvirt.VIR_DOMAIN_SHUTOFF_CRASHED,
    libvirt.VIR_DOMAIN_SHUTOFF_DAEMON,  # A restarted libvirtd found its QEMU dead or dumb.
)

_EVENTS: Final = {
    libvirt.VIR_DOMAIN_EVENT_STARTED: Power.RUNNING,
    libvirt.VIR_DOMAIN_EVENT_RESUMED: Power.RUNNING,
    libvirt.VIR_DOMAIN_EVENT_SUSPENDED: Power.PAUSED,
    libvirt.VIR_DOMAIN_EVENT_PMSUSPENDED: Power.PAUSED,
    libvirt.VIR_DOMAIN_EVENT_STOPPED: Power.SHUTOFF,
    libvirt.VIR_DOMAIN_EVENT_CRASHED: Power.CRASHED,
}
"""Events that are no change of power (defined, undefined, shutdown begun) are missing on purpose."""


def power(state: int, reason: int) -> Power:
    """What `virDomainGetState` said. A guest whose QEMU died is off, with a reason that we tell apart."""
    if state == libvirt.VIR_DOMAIN_SHUTOFF and reason in _CRASHES:
        return Power.CRASHED
    return _STATES.get(state, Power.UNKNOWN)


def power_of_event(event: int, detail: int) -> Power | None:
    """What a lifecycle event says, or None if it says nothing of power."""
    if event == libvirt.VIR_DOMAIN_EVENT_STOPPED and detail == libvirt.VIR_DOMAIN_EVENT_STOPPED_SAVED:
        return Power.SUSPENDED
    if event == libvirt.VIR_DOMAIN_EVENT_STOPPED and detail == libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED:
        return Power.CRASHED
    return _EVENTS.get(event)


def is_ambiguous(event: int, detail: int) -> bool:
    """Whether the domain must be asked: "stopped, failed" is both a QEMU that died and a start that did not succeed."""
    return bool(event == libvirt.VIR_DOMAIN_EVENT_STOPPED and detail == libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED)
