"""From a machine to libvirt's domain XML, and back from our metadata element. Pure: no connection, no file, no clock.

Element order is that of libvirt's schema (`domain.rng`), against which tests hold what is rendered. What libvirt would
choose by itself and might choose otherwise after an upgrade (machine type, CPU, PCI topology) is written out.
"""

import itertools
import json
from collections.abc import Iterator
from pathlib import PurePath
from typing import Final

import msgspec
from lxml import etree

from agent.wire.domain import Hardware, Landing
from agent.wire.errors import Invalid, Unfit
from agent.wire.lifecycle import Generation
from agent.wire.volume import IscsiSource
from drivers.hypervisor.base import DiskSource, Machine, NicSource

NAMESPACE: Final = "urn:hostler:domain:1"
"""Of our element in a domain's metadata. It carries everything that must be known without a ledger."""

PREFIX: Final = "hostler"
SERIAL_SOCKET: Final = "serial.sock"
AGENT_SOCKET: Final = "qga.sock"
CONSOLE_LOG: Final = "console.log"
NVRAM: Final = "nvram.fd"

PCIE_ROOT_PORTS: Final = 16
"""q35 has one spare slot without them; ports cannot be added to a running guest, and idle ones cost nothing."""

TCG_CACHE_MIB: Final = 64
"""QEMU's translation cache would take up to 1 GiB a guest. 64 MiB is no slower in the guests that were measured."""

_DISK_BUSES: Final = {"virtio": "vd", "scsi": "sd", "sata": "sd", "ide": "hd", "usb": "sd"}
"""hw_disk_bus → prefix of the target's name."""

_ALIAS: Final = "ua-"
"""How names of devices begin that are ours and not libvirt's; a volume's goes on with its disk id."""

_VIF_MODELS: Final = {"virtio": "virtio", "e1000": "e1000", "e1000e": "e1000e", "rtl8139": "rtl8139"}
"""hw_vif_model → libvirt's model."""

FIRMWARE_CODE: Final = {"uefi": "/usr/share/OVMF/OVMF_CODE_4M.fd"}
"""hw_firmware_type → the code that guests share; `bios` needs none."""

FIRMWARE_VARIABLES: Final = {"uefi": "/usr/share/OVMF/OVMF_VARS_4M.fd"}
"""hw_firmware_type → the template of a guest's own variable store."""


class HostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the rendering needs to know of the host."""

    virt_type: str  # kvm | qemu
    arch: str
    emulator: str
    gid: int | None = None  # QEMU's group if not the guest's own: the one that may open /dev/kvm.


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """Our metadata element, read back."""

    tag: str
    id: str
    generation: Generation
    hardware: Hardware
    folder: str
    labels: dict[str, str] = {}


class PluggedVolume(msgspec.Struct, frozen=True, kw_only=True):
    """A volume in a domain's XML."""

    alias: str
    device: str
    iqn: str


def render(machine: Machine, hardware: Hardware, host: HostFacts, tag: str) -> str:
    """The domain's XML. `hardware` is resolved (no alias, no default). Raises Unfit or Invalid."""
    try:
        domain = _domain(machine, hardware, host, tag)
    except ValueError as cause:  # lxml: a text that XML cannot carry.
        raise Invalid(f"domain {machine.spec.id} has a name, path or label that XML cannot carry: {cause}") from cause
    return etree.tostring(domain, encoding="unicode", pretty_print=True)


def interface(nic: NicSource, hardware: Hardware, host: HostFacts) -> str:
    """One interface's XML, to be plugged into a running guest. Raises Unfit."""
    devices = etree.Element("devices")
    _interface(devices, nic, hardware, host)
    return etree.tostring(devices[0], encoding="unicode")


def interfaces(domain: str) -> dict[str, str]:
    """MAC → XML of each interface in a domain's XML."""
    found = etree.fromstring(domain, _PARSER).iterfind("devices/interface")
    return {mac: etree.tostring(one, encoding="unicode") for one in found if (mac := _mac(one))}


def volume(source: DiskSource, hardware: Hardware) -> str:
    """A volume's XML, to be plugged into a running guest. Raises Unfit."""
    devices = etree.Element("devices")
    _disk(devices, source, _bus(source, hardware), source.device)
    return etree.tostring(devices[0], encoding="unicode")


def volumes(domain: str) -> dict[str, PluggedVolume]:
    """Disk id → volume, in a domain's XML."""
    found: dict[str, PluggedVolume] = {}
    for disk in etree.fromstring(domain, _PARSER).iterfind("devices/disk"):
        source, target, alias = disk.find("source"), disk.find("target"), disk.find("alias")
        if source is None or target is None or alias is None or source.get("protocol") != "iscsi":
            continue
        found[alias.get("name", "").removeprefix(_ALIAS)] = PluggedVolume(
            alias=alias.get("name", ""),
            device=target.get("dev", ""),
            iqn=source.get("name", "").rpartition("/")[0],
        )
    return found


def secret(iqn: str) -> str:
    """A secret that libvirt keeps in memory only and shows to nobody, for the target of this name."""
    element = etree.Element("secret", ephemeral="yes", private="yes")
    usage = _add(element, "usage", type="iscsi")
    _add(usage, "target", iqn)
    return etree.tostring(element, encoding="unicode")


def disk_target(domain: str, path: str) -> str | None:
    """What the guest's disk with this file is called (`vda`), in a domain's XML."""
    for disk in etree.fromstring(domain, _PARSER).iterfind("devices/disk"):
        source, target = disk.find("source"), disk.find("target")
        if source is not None and target is not None and source.get("file") == path:
            return target.get("dev")
    return None


def is_mirrored(domain: str, device: str) -> bool:
    """Whether a copy job has reached its disk: from now on every write goes to both."""
    for disk in etree.fromstring(domain, _PARSER).iterfind("devices/disk"):
        target, mirror = disk.find("target"), disk.find("mirror")
        if target is not None and mirror is not None and target.get("dev") == device:
            return mirror.get("ready") == "yes"
    return False


def copy_target(path: str) -> str:
    """The disk element that a copy job writes to: a qcow2 file that is there already."""
    disk = etree.Element("disk", type="file")
    _add(disk, "driver", name="qemu", type="qcow2")
    _add(disk, "source", file=path)
    return etree.tostring(disk, encoding="unicode")


def own_disks(domain: str) -> list[str]:
    """What the guest's disks are called that are files of the host, but for CDs."""
    disks = etree.fromstring(domain, _PARSER).iterfind("devices/disk[@type='file'][@device='disk']")
    return [target.get("dev", "") for disk in disks if (target := disk.find("target")) is not None]


def moved(domain: str, folder: str, landing: Landing) -> str:
    """A domain's XML as it is on the host where it goes. `folder` is the guest's here. The guest sees no difference."""
    root = etree.fromstring(domain, _PARSER)
    for label in root.iterfind("seclabel[@model='dac']/label"):
        label.text = f"+{landing.uid}:+{landing.gid}"
    for mark in root.iterfind(f"metadata/{{{NAMESPACE}}}domain"):
        mark.set("folder", landing.folder)
    paths = {PurePath(path).name: path for path in landing.disks.values()}
    for source in root.iterfind("devices/disk[@type='file']/source"):
        source.set("file", paths.get(PurePath(source.get("file", "")).name, source.get("file", "")))
    for disk in root.iterfind("devices/disk[@type='network']"):
        alias, initiator = disk.find("alias"), disk.find("source/initiator/iqn")
        name = None if alias is None else landing.initiators.get(alias.get("name", "").removeprefix(_ALIAS))
        if initiator is not None and name is not None:
            initiator.set("name", name)
    for one in root.iterfind("devices/interface"):
        target, tap = one.find("target"), landing.nics.get(_mac(one))
        if target is not None and tap is not None:
            target.set("dev", tap)
    for element in root.iterfind("devices/*/*"):
        for name in ("path", "file"):
            if element.get(name, "").startswith(f"{folder}/"):
                element.set(name, landing.folder + element.get(name, "").removeprefix(folder))
    nvram = root.find("os/nvram")
    if nvram is not None and nvram.text:
        nvram.text = f"{landing.folder}/{NVRAM}"
    return etree.tostring(root, encoding="unicode")


def _mac(interface: etree._Element) -> str:
    mac = interface.find("mac")
    return "" if mac is None else mac.get("address", "").lower()


def parse_mark(text: str) -> Mark | None:
    """Our metadata element as libvirt returns it, which is without namespaces. A damaged one is nobody's: None."""
    try:
        element = etree.fromstring(text, _PARSER)
        mark = {str(key): str(value) for key, value in element.attrib.items()}
        hardware = element.find("{*}hardware")
        return Mark(
            tag=mark["tag"],
            id=mark["id"],
            generation=Generation(int(mark["epoch"]), int(mark["n"])),
            hardware=msgspec.convert({} if hardware is None else dict(hardware.attrib), Hardware),
            folder=mark["folder"],
            labels=msgspec.json.decode(element.findtext("{*}labels") or "{}", type=dict[str, str]),
        )
    except (etree.XMLSyntaxError, KeyError, ValueError):
        return None


def machine_of(capabilities: str) -> str:
    """The canonical machine type in libvirt's domain capabilities: what an alias stands for on this host."""
    return _text(etree.fromstring(capabilities, _PARSER), "machine")


def cpu_of(capabilities: str) -> str:
    """This host's CPU as a guest could have it, from domain capabilities: `Model,+feature,-feature`.

    It is libvirt's `host-model` written out, so that a guest keeps it on another host and after an upgrade.
    """
    mode = etree.fromstring(capabilities, _PARSER).find("cpu/mode[@name='host-model'][@supported='yes']")
    if mode is None:
        raise Unfit("libvirt knows no CPU model for this host")
    signs = {"require": "+", "disable": "-"}
    features = (
        f"{signs[feature.get('policy', '')]}{feature.get('name')}"
        for feature in mode.iterfind("feature")
        if feature.get("policy") in signs
    )
    return ",".join((_text(mode, "model"), *features))


_PARSER = etree.XMLParser(resolve_entities=False, no_network=True)


def _domain(machine: Machine, hardware: Hardware, host: HostFacts, tag: str) -> etree._Element:
    spec = machine.spec
    domain = etree.Element("domain", type=host.virt_type)
    _add(domain, "name", spec.name)
    _add(domain, "uuid", spec.id)
    _add(domain, "metadata").append(_mark(machine, hardware, tag))
    _add(domain, "memory", spec.memory_mib, unit="MiB")
    _add(domain, "vcpu", spec.vcpus)
    _sysinfo(domain, spec.id)
    _os(domain, machine, hardware, host)
    _features(domain, host)
    _cpu(domain, hardware.cpu_model)
    _clock(domain, host)
    _add(domain, "on_poweroff", "destroy")
    _add(domain, "on_reboot", "restart")
    _add(domain, "on_crash", "destroy")
    _devices(domain, machine, hardware, host)
    _seclabel(domain, machine.uid, machine.uid if host.gid is None else host.gid)
    return domain


def _mark(machine: Machine, hardware: Hardware, tag: str) -> etree._Element:
    spec = machine.spec
    mark = etree.Element(
        f"{{{NAMESPACE}}}domain",
        nsmap={PREFIX: NAMESPACE},
        tag=tag,
        id=spec.id,
        epoch=str(spec.generation.epoch),
        n=str(spec.generation.n),
        folder=machine.folder,
    )
    etree.SubElement(mark, f"{{{NAMESPACE}}}hardware", {**msgspec.structs.asdict(hardware)})
    labels = etree.SubElement(mark, f"{{{NAMESPACE}}}labels")
    labels.text = json.dumps(spec.labels, sort_keys=True)  # ASCII: labels may hold what XML cannot carry.
    return mark


def _sysinfo(domain: etree._Element, domain_id: str) -> None:
    """cloud-init takes the metadata service for OpenStack's when it reads this product name."""
    system = _add(_add(domain, "sysinfo", type="smbios"), "system")
    for name, value in (
        ("manufacturer", "Hostler"),
        ("product", "OpenStack Nova"),
        ("serial", domain_id),
        ("uuid", domain_id),
        ("family", "Virtual Machine"),
    ):
        _add(system, "entry", value, name=name)


def _os(domain: etree._Element, machine: Machine, hardware: Hardware, host: HostFacts) -> None:
    os = _add(domain, "os")
    _add(os, "type", "hvm", arch=host.arch, machine=hardware.machine)
    if hardware.firmware != "bios":
        code = FIRMWARE_CODE.get(hardware.firmware)
        if code is None:
            raise Unfit(f"there is no firmware {hardware.firmware!r}; there are: bios, {', '.join(FIRMWARE_CODE)}")
        _add(os, "loader", code, readonly="yes", type="pflash")
        _add(os, "nvram", f"{machine.folder}/{NVRAM}")
    if not any(disk.boot_index is not None for disk in machine.disks):
        _add(os, "boot", dev="hd")
    _add(os, "smbios", mode="sysinfo")


def _features(domain: etree._Element, host: HostFacts) -> None:
    features = _add(domain, "features")
    _add(features, "acpi")
    _add(features, "apic")
    if host.virt_type == "qemu":
        _add(_add(features, "tcg"), "tb-cache", TCG_CACHE_MIB, unit="MiB")


def _cpu(domain: etree._Element, cpu_model: str) -> None:
    model, *features = cpu_model.split(",")
    cpu = _add(domain, "cpu", mode="custom", match="exact", check="none")
    _add(cpu, "model", model, fallback="forbid")
    for feature in features:
        _add(cpu, "feature", policy="require" if feature.startswith("+") else "disable", name=feature[1:])


def _clock(domain: etree._Element, host: HostFacts) -> None:
    """Under KVM the timers that Nova sets: lost ticks are made up for, and nobody polls a slow HPET."""
    clock = _add(domain, "clock", offset="utc")
    if host.virt_type == "kvm":
        _add(clock, "timer", name="pit", tickpolicy="delay")
        _add(clock, "timer", name="rtc", tickpolicy="catchup")
        _add(clock, "timer", name="hpet", present="no")


def _devices(domain: etree._Element, machine: Machine, hardware: Hardware, host: HostFacts) -> None:
    devices = _add(domain, "devices")
    _add(devices, "emulator", host.emulator)
    _disks(devices, machine.disks, hardware)
    _controllers(devices, machine.disks, hardware)
    for nic in machine.nics:
        _interface(devices, nic, hardware, host)
    _consoles(devices, machine.folder)
    _add(_add(devices, "graphics", type="vnc"), "listen", type="none")
    _add(_add(devices, "video"), "model", type="vga", vram="16384", heads="1", primary="yes")
    _add(_add(devices, "memballoon", model="virtio"), "stats", period="10")
    _add(_add(devices, "rng", model="virtio"), "backend", model="builtin")


def _disks(devices: etree._Element, disks: tuple[DiskSource, ...], hardware: Hardware) -> None:
    taken = {source.device for source in disks if source.device}
    for source in disks:
        bus = _bus(source, hardware)
        device = source.device or next(name for name in _names(_DISK_BUSES[bus]) if name not in taken)
        taken.add(device)
        _disk(devices, source, bus, device)


def _bus(source: DiskSource, hardware: Hardware) -> str:
    """A CD is behind virtio-scsi whatever the bus of disks: cloud kernels often lack AHCI."""
    bus = "scsi" if source.is_cdrom else source.bus or hardware.disk_bus
    if bus not in _DISK_BUSES:
        raise Unfit(f"there is no disk bus {bus!r}; there are: {', '.join(_DISK_BUSES)}")
    return bus


def _disk(devices: etree._Element, source: DiskSource, bus: str, target: str) -> None:
    kind = "file" if source.iscsi is None else "network"
    disk = _add(devices, "disk", type=kind, device="cdrom" if source.is_cdrom else "disk")
    if source.is_cdrom:
        _add(disk, "driver", name="qemu", type=source.format)
    else:
        # A full host stops the guest's clock instead of breaking its file system. A volume is cached where it is kept.
        _add(
            disk,
            "driver",
            name="qemu",
            type=source.format,
            cache="writeback" if source.iscsi is None else "none",
            discard="unmap",
            error_policy="enospace",
        )
    if source.iscsi is None:
        _add(disk, "source", file=source.path)
    else:
        _iscsi(disk, source.iscsi)
    _add(disk, "target", dev=target, bus=bus)
    if source.is_cdrom or (source.iscsi is not None and source.iscsi.is_read_only):
        _add(disk, "readonly")
    if source.iscsi is not None and source.iscsi.is_shared:
        _add(disk, "shareable")
    if source.serial:
        _add(disk, "serial", source.serial)
    if source.boot_index is not None:
        _add(disk, "boot", order=str(source.boot_index + 1))
    if source.iscsi is not None:
        _add(disk, "alias", name=f"{_ALIAS}{source.disk_id}")


def _iscsi(disk: etree._Element, volume: IscsiSource) -> None:
    """The secret itself is libvirt's (`secret`), under the target's name."""
    source = _add(disk, "source", protocol="iscsi", name=f"{volume.iqn}/{volume.lun}")
    _add(source, "host", name=volume.host, port=str(volume.port))
    _add(_add(source, "auth", username=volume.chap.user), "secret", type="iscsi", usage=volume.iqn)
    _add(_add(source, "initiator"), "iqn", name=volume.initiator)


def _controllers(devices: etree._Element, disks: tuple[DiskSource, ...], hardware: Hardware) -> None:
    if "q35" in hardware.machine:
        _add(devices, "controller", type="pci", index="0", model="pcie-root")
        for index in range(1, PCIE_ROOT_PORTS + 1):
            _add(devices, "controller", type="pci", index=str(index), model="pcie-root-port")
    if any(_bus(disk, hardware) == "scsi" for disk in disks) or hardware.disk_bus == "scsi":
        _add(devices, "controller", type="scsi", index="0", model="virtio-scsi")
    if hardware.disk_bus != "usb":
        _add(devices, "controller", type="usb", index="0", model="none")


def _interface(devices: etree._Element, nic: NicSource, hardware: Hardware, host: HostFacts) -> None:
    """The tap is there already, in its bridge and filtered; libvirt opens it and changes nothing."""
    model = _VIF_MODELS.get(hardware.vif_model)
    if model is None:
        raise Unfit(f"there is no interface model {hardware.vif_model!r}; there are: {', '.join(_VIF_MODELS)}")
    interface = _add(devices, "interface", type="ethernet")
    _add(interface, "mac", address=nic.mac)
    _add(interface, "target", dev=nic.device, managed="no")
    _add(interface, "model", type=model)
    if host.virt_type == "qemu" and model == "virtio":
        _add(interface, "driver", name="qemu")  # No vhost: it is there only where the kernel has it.
    _add(interface, "rom", enabled="no")  # Saves iPXE's seconds at boot.
    _add(interface, "mtu", size=str(nic.mtu))


def _consoles(devices: etree._Element, folder: str) -> None:
    serial = _add(devices, "serial", type="unix")
    _add(serial, "source", mode="bind", path=f"{folder}/{SERIAL_SOCKET}")
    _add(serial, "log", file=f"{folder}/{CONSOLE_LOG}", append="off")
    _add(serial, "target", port="0")
    channel = _add(devices, "channel", type="unix")
    _add(channel, "source", mode="bind", path=f"{folder}/{AGENT_SOCKET}")
    _add(channel, "target", type="virtio", name="org.qemu.guest_agent.0")


def _seclabel(domain: etree._Element, uid: int, gid: int) -> None:
    """QEMU runs as the guest's own uid and libvirt changes no owner: the shared base image stays root's."""
    seclabel = _add(domain, "seclabel", type="static", model="dac", relabel="no")
    _add(seclabel, "label", f"+{uid}:+{gid}")


def _add(parent: etree._Element, tag: str, text: str | int | None = None, **attributes: str) -> etree._Element:
    child = etree.SubElement(parent, tag, attributes)
    if text is not None:
        child.text = str(text)
    return child


def _text(element: etree._Element, path: str) -> str:
    found = element.findtext(path)
    if not found:
        raise Unfit(f"libvirt's domain capabilities say nothing of {path}")
    return found


def _names(prefix: str) -> Iterator[str]:
    return (prefix + _letters(index) for index in itertools.count())


def _letters(index: int) -> str:
    """0 → a, 25 → z, 26 → aa."""
    letters = ""
    while index >= 0:
        letters = chr(ord("a") + index % 26) + letters
        index = index // 26 - 1
    return letters
