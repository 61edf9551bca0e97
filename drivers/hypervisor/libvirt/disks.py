"""Volumes of a guest: plugged in at once, unplugged when the guest lets go, and what libvirt must know to log in.

What changes a running machine is `converge`; its record is `define`'s. Unplugging is a question to the guest's kernel,
which a guest that is still in its firmware does not hear: whoever called asks again. A volume's secret is in libvirtd's
memory only, from before a domain with it is defined until no domain has it any more; a libvirtd that was restarted has
forgotten it, and is told again by the next `define`.
"""

import contextlib
import time
from collections.abc import Iterable
from typing import Final

import libvirt

from agent.wire.domain import Hardware
from agent.wire.errors import Busy
from agent.wire.volume import IscsiSource
from drivers.hypervisor.base import DiskSource, Machine
from drivers.hypervisor.libvirt import xml

LET_GO_S: Final = 5.0
"""How long one call waits for the guest. Longer: a thread is held. Shorter: the pauses between calls cost more."""

LOOK_S: Final = 0.05

_UNDER_WAY: Final = "in the process of unplug"
"""QEMU's no to a second question while the first one is open."""


def volumes_of(machine: Machine) -> dict[str, tuple[DiskSource, IscsiSource]]:
    """Disk id → volume."""
    return {disk.disk_id: (disk, disk.iscsi) for disk in machine.disks if disk.iscsi is not None}


def tell_secrets(connection: libvirt.virConnect, machine: Machine) -> None:
    """libvirt can log in to every volume of the machine."""
    for _, source in volumes_of(machine).values():
        known = _find_secret(connection, source.iqn)
        if known is None:
            known = connection.secretDefineXML(xml.secret(source.iqn))
        known.setValue(source.chap.secret.encode())


def forget_secrets(connection: libvirt.virConnect, iqns: Iterable[str]) -> None:
    """libvirt cannot log in to these targets any more; nothing if it never could."""
    for iqn in iqns:
        known = _find_secret(connection, iqn)
        if known is not None:
            with contextlib.suppress(libvirt.libvirtError):
                known.undefine()


def secrets_of(domain: libvirt.virDomain) -> set[str]:
    """The targets that a domain has, as it runs and as it is recorded."""
    texts = [domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)] if domain.isPersistent() else []
    texts += [domain.XMLDesc()] if domain.isActive() else []
    return {one.iqn for text in texts for one in xml.volumes(text).values()}


def converge(domain: libvirt.virDomain, machine: Machine, hardware: Hardware) -> None:
    """See Hypervisor.plug_disks, of a guest that is on."""
    have = xml.volumes(domain.XMLDesc())
    wanted = volumes_of(machine)
    surplus = [disk_id for disk_id in have if disk_id not in wanted]
    names = {have[disk_id].device for disk_id in surplus}
    missing = [disk for disk_id, (disk, _) in wanted.items() if disk_id not in have]
    for disk in missing:
        if disk.device not in names:
            _attach(domain, disk, hardware)
    for disk_id in surplus:
        _ask(domain, have[disk_id].alias)
    _await_gone(domain, surplus)
    for disk in missing:
        if disk.device in names:
            _attach(domain, disk, hardware)
    for disk_id, (_, source) in wanted.items():
        if disk_id in have:
            _resize(domain, have[disk_id].device, source.size_gib << 30)
    forget_secrets(domain.connect(), (have[disk_id].iqn for disk_id in surplus))


def _attach(domain: libvirt.virDomain, disk: DiskSource, hardware: Hardware) -> None:
    domain.attachDeviceFlags(xml.volume(disk, hardware), libvirt.VIR_DOMAIN_AFFECT_LIVE)


def _ask(domain: libvirt.virDomain, alias: str) -> None:
    try:
        domain.detachDeviceAlias(alias, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    except libvirt.libvirtError as error:
        is_gone = error.get_error_code() in (libvirt.VIR_ERR_DEVICE_MISSING, libvirt.VIR_ERR_OPERATION_FAILED)
        if not is_gone and _UNDER_WAY not in str(error):
            raise


def _await_gone(domain: libvirt.virDomain, disk_ids: list[str]) -> None:
    ends = time.monotonic() + LET_GO_S
    while disk_ids:
        held = xml.volumes(domain.XMLDesc())
        disk_ids = [disk_id for disk_id in disk_ids if disk_id in held]
        if disk_ids and time.monotonic() > ends:
            device = held[disk_ids[0]].device
            raise Busy(f"the guest of domain {domain.UUIDString()} has not let go of {device} yet")
        if disk_ids:
            time.sleep(LOOK_S)


def _resize(domain: libvirt.virDomain, device: str, size_bytes: int) -> None:
    """The target has the new size already; QEMU looks again, and the guest is told."""
    capacity = domain.blockInfo(device)[0]
    if capacity < size_bytes:
        domain.blockResize(device, size_bytes, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)


def _find_secret(connection: libvirt.virConnect, iqn: str) -> libvirt.virSecret | None:
    try:
        return connection.secretLookupByUsage(libvirt.VIR_SECRET_USAGE_TYPE_ISCSI, iqn)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_SECRET:
            return None
        raise
