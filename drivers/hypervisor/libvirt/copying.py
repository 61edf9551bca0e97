"""Copying a disk under a running guest: QEMU mirrors it into a second file, until both are the same.

The job copies what is there and then every write, so when it is told to end without switching over, the second file
is the disk at that moment. QEMU itself writes, as the guest's own uid and with its confinement; whoever calls has made
the file. A job that an earlier call left behind is ended first, and its file is somebody's to begin anew.
"""

import contextlib
import time
from typing import Final

import libvirt

from agent.wire.errors import Failed
from drivers.hypervisor.libvirt import xml

LOOK_S: Final = 0.2

_COPY: Final = libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT | libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB


def copy(domain: libvirt.virDomain, source: str, target: str) -> None:
    """See Hypervisor.copy_disk, of a guest that is on. Raises Failed when the job ends before the disks are equal."""
    device = xml.disk_target(domain.XMLDesc(), source)
    if device is None:
        raise Failed(f"domain {domain.UUIDString()} has no disk {source}")
    _end(domain, device)
    domain.blockCopy(device, xml.copy_target(target), flags=_COPY)
    try:
        _await_equal(domain, device)
    finally:
        _end(domain, device)


def _await_equal(domain: libvirt.virDomain, device: str) -> None:
    while True:
        job = domain.blockJobInfo(device)
        if not job:
            raise Failed(f"copying disk {device} of domain {domain.UUIDString()} ended before its time")
        # Equal numbers may also be those of a job that has not looked yet; libvirt knows by QEMU's own event.
        if xml.is_mirrored(domain.XMLDesc(), device):
            return
        time.sleep(LOOK_S)


def _end(domain: libvirt.virDomain, device: str) -> None:
    """No job, and the guest on its own disk; waits until QEMU has closed the copy."""
    with contextlib.suppress(libvirt.libvirtError):
        domain.blockJobAbort(device, 0)
