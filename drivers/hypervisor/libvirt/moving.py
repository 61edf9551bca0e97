"""Guests that go from one libvirtd to another while they run.

The two daemons do it (peer to peer), over sockets in the guest's *gate*, a folder of the same name on both hosts. Here
they lead to the other host; there QEMU itself makes them, as the guest's own uid. The guest arrives paused, and the
definition here is gone before the call returns; who starts it there is the caller's affair. So what libvirt cannot know
when it loses the other one in the last moment does no harm: either it goes on here, and the other one never ran, or it
is not here any more.

libvirt takes every disk that is not on shared storage for a risk. Here all of them are copied, or reached over the
network, or made anew from the same documents (config drives): so it is told that it is safe.
"""

import contextlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any, Final

import libvirt
import libvirt_qemu

from agent.wire.domain import CONTROL, DISKS, MEMORY, Landing, Passage, Transfer
from agent.wire.errors import Busy
from drivers.hypervisor.base import GATES
from drivers.hypervisor.libvirt import xml

_FLAGS: Final = (
    libvirt.VIR_MIGRATE_LIVE
    | libvirt.VIR_MIGRATE_PEER2PEER
    | libvirt.VIR_MIGRATE_PERSIST_DEST
    | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
    | libvirt.VIR_MIGRATE_AUTO_CONVERGE
    | libvirt.VIR_MIGRATE_PAUSED
    | libvirt.VIR_MIGRATE_UNSAFE
)

LOOK_S: Final = 0.2
STUCK_S: Final = 5.0
"""What libvirt needs to end when QEMU has ended. Shorter: guests stand still for a moment, and for nothing."""
END_S: Final = 30.0
"""For all of it."""

_ENDED: Final = ("cancelled", "failed")


def gate(domain_id: str) -> Path:
    """Where a guest's way begins, or ends."""
    return GATES / domain_id


def open_gate(domain_id: str, uid: int) -> str:
    """An empty folder of the guest's own."""
    folder = gate(domain_id)
    GATES.mkdir(exist_ok=True)
    GATES.chmod(0o711)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    os.chown(folder, uid, uid)
    return str(folder)


def close_gate(domain_id: str) -> None:
    """Nobody comes or goes there any more."""
    shutil.rmtree(gate(domain_id), ignore_errors=True)
    with contextlib.suppress(OSError):
        GATES.rmdir()


def send(domain: libvirt.virDomain, folder: str, way: Passage) -> None:
    """See Hypervisor.send. Raises libvirtError."""
    live = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE)
    kept = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE | libvirt.VIR_DOMAIN_XML_INACTIVE)
    at = gate(domain.UUIDString())
    params: dict[str, Any] = {
        libvirt.VIR_MIGRATE_PARAM_URI: f"unix://{at}/{MEMORY}",
        libvirt.VIR_MIGRATE_PARAM_DEST_XML: xml.moved(live, folder, way.landing),
        libvirt.VIR_MIGRATE_PARAM_PERSIST_XML: xml.moved(kept, folder, way.landing),
    }
    flags = _FLAGS
    copied = xml.own_disks(live)
    if copied:
        flags |= libvirt.VIR_MIGRATE_NON_SHARED_INC
        params[libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS] = copied
        params[libvirt.VIR_MIGRATE_PARAM_DISKS_URI] = f"unix://{at}/{DISKS}"
    domain.migrateToURI3(f"qemu+unix:///system?socket={at}/{CONTROL}", params, flags)


def stop(domain: libvirt.virDomain) -> None:
    """See Hypervisor.stop_sending.

    Before it hands over, QEMU lets the guest stand still and waits until libvirt tells it to go on. To be told to end
    in that moment makes one of the two wait for ever (QEMU 7.2 with libvirt 9.0; each seen about once in ten times on
    a busy machine):

        QEMU     looks whether it is to end, and then waits. Told to go on while it ends, it ends; in any other state
                 it refuses to.
        libvirt  hears that the guest stands still only after it goes on again, and waits to hear it. So it is let
                 stand still once more; libvirt lets it go on when it ends.
    """
    ends_at = time.monotonic() + END_S
    stuck_at = time.monotonic() + STUCK_S
    is_halted = False
    _abort(domain)
    while _is_sent(domain):
        if time.monotonic() > ends_at:
            raise Busy(f"domain {domain.UUIDString()} is still being sent {END_S:g} s after it was told to stay")
        with contextlib.suppress(libvirt.libvirtError):  # It has just ended.
            status = _tell_qemu(domain, "query-migrate").get("status")
            stands_still = domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED
            if status not in _ENDED:
                stuck_at = time.monotonic() + STUCK_S
            if status == "cancelling" and stands_still:
                _tell_qemu(domain, "migrate-continue", state="cancelling")
            elif time.monotonic() > stuck_at and not stands_still and not is_halted:
                is_halted = True
                _tell_qemu(domain, "stop")
        time.sleep(LOOK_S)
        _abort(domain)
    if is_halted:
        with contextlib.suppress(libvirt.libvirtError):  # libvirt has done so.
            domain.resume()


def _abort(domain: libvirt.virDomain) -> None:
    with contextlib.suppress(libvirt.libvirtError):  # There is no job, or none that can be ended any more.
        domain.abortJob()


def _is_sent(domain: libvirt.virDomain) -> bool:
    try:
        return bool(domain.jobStats().get("operation") == libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT)
    except libvirt.libvirtError as error:
        if error.get_error_code() in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID):
            return False  # It has left, or is off.
        raise


def _tell_qemu(domain: libvirt.virDomain, command: str, **arguments: str) -> dict[str, Any]:
    """Past libvirt, which says nothing of this. Raises libvirtError, also when QEMU refuses."""
    said = libvirt_qemu.qemuMonitorCommand(domain, json.dumps({"execute": command, "arguments": arguments}), 0)
    found: dict[str, Any] = json.loads(said)["return"]
    return found


def transfer(domain: libvirt.virDomain) -> Transfer | None:
    """See Hypervisor.transfer."""
    stats = domain.jobStats()
    if stats.get("type", libvirt.VIR_DOMAIN_JOB_NONE) == libvirt.VIR_DOMAIN_JOB_NONE:
        return None
    return Transfer(
        memory_total=stats.get(libvirt.VIR_DOMAIN_JOB_MEMORY_TOTAL, 0),
        memory_processed=stats.get(libvirt.VIR_DOMAIN_JOB_MEMORY_PROCESSED, 0),
        memory_remaining=stats.get(libvirt.VIR_DOMAIN_JOB_MEMORY_REMAINING, 0),
        disk_total=stats.get(libvirt.VIR_DOMAIN_JOB_DISK_TOTAL, 0),
        disk_processed=stats.get(libvirt.VIR_DOMAIN_JOB_DISK_PROCESSED, 0),
        disk_remaining=stats.get(libvirt.VIR_DOMAIN_JOB_DISK_REMAINING, 0),
    )


def landing(machine: Any, uid: int, gid: int, at: str) -> Landing:
    """What differs here from where the guest is."""
    return Landing(
        uid=uid,
        gid=gid,
        folder=machine.folder,
        gate=at,
        disks={disk.disk_id: disk.path for disk in machine.disks if disk.iscsi is None},
        nics={nic.mac.lower(): nic.device for nic in machine.nics},
        initiators={disk.disk_id: disk.iscsi.initiator for disk in machine.disks if disk.iscsi is not None},
    )
