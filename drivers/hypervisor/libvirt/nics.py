"""Interfaces of a guest that is on: plugged in at once, unplugged when the guest lets go.

What changes here is the running machine alone; its record is `define`'s. Unplugging is a question to the guest's
kernel (PCIe hot plug), which a guest that is still in its firmware does not hear: whoever called asks again.
"""

import time
from typing import Final

import libvirt

from agent.wire.domain import Hardware
from agent.wire.errors import Busy
from drivers.hypervisor.base import Machine
from drivers.hypervisor.libvirt import xml

LET_GO_S: Final = 5.0
"""How long one call waits for the guest. Longer: a thread is held. Shorter: the pauses between calls cost more."""

LOOK_S: Final = 0.1

_UNDER_WAY: Final = "in the process of unplug"
"""QEMU's no to a second question while the first one is open."""


def converge(domain: libvirt.virDomain, machine: Machine, hardware: Hardware, host: xml.HostFacts) -> None:
    """See Hypervisor.plug_nics, of a guest that is on."""
    have = xml.interfaces(domain.XMLDesc())
    wanted = {nic.mac.lower(): nic for nic in machine.nics}
    for mac, nic in wanted.items():
        if mac not in have:
            domain.attachDeviceFlags(xml.interface(nic, hardware, host), libvirt.VIR_DOMAIN_AFFECT_LIVE)
    surplus = [mac for mac in have if mac not in wanted]
    for mac in surplus:
        _ask(domain, have[mac])
    _await_gone(domain, surplus)


def _ask(domain: libvirt.virDomain, interface: str) -> None:
    try:
        domain.detachDeviceFlags(interface, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    except libvirt.libvirtError as error:
        is_gone = error.get_error_code() in (libvirt.VIR_ERR_DEVICE_MISSING, libvirt.VIR_ERR_OPERATION_FAILED)
        if not is_gone and _UNDER_WAY not in str(error):
            raise


def _await_gone(domain: libvirt.virDomain, macs: list[str]) -> None:
    ends = time.monotonic() + LET_GO_S
    while macs:
        held = xml.interfaces(domain.XMLDesc())
        macs = [mac for mac in macs if mac in held]
        if macs and time.monotonic() > ends:
            raise Busy(f"the guest of domain {domain.UUIDString()} has not let go of interface {macs[0]} yet")
        if macs:
            time.sleep(LOOK_S)
