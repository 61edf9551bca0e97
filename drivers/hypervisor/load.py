"""Which hypervisor driver an agent uses, by the name in its settings."""

from collections.abc import Callable
from typing import Final

import msgspec

from agent.wire.errors import Unfit
from drivers.hypervisor import kvm_probe
from drivers.hypervisor.base import Hypervisor
from drivers.hypervisor.fake import FakeHost, FakeHypervisor


class HypervisorSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the agent reaches its hypervisor. All paths are of the agent's own mount namespace."""

    driver: str = "libvirt"  # libvirt | fake
    virt_type: str = "auto"  # auto | kvm | qemu; auto takes KVM where a probe shows that it works.
    uri: str = "qemu:///system"
    probe_timeout_s: float = 2.0  # How long the KVM probe may take; a KVM that hangs costs this once a boot.
    emulator: str = "/usr/bin/qemu-system-x86_64"
    is_daemon_ours: bool = False  # Start (never stop) a libvirtd when none answers: hosts without a service manager.
    daemon_seed: str = ""  # A folder with an earlier libvirtd's cache, which saves a new one seconds of probing.
    fake_latency_s: float = 0.0
    fake_vcpus: int = 64
    fake_memory_mib: int = 262144


def load(settings: HypervisorSettings, *, tag: str, state: str) -> Hypervisor:
    """The hypervisor of this host. `tag` is the cloud's mark; `state` is a folder that the driver may write.

    Raises Unfit when there is no such driver.
    """
    constructor = DRIVERS.get(settings.driver)
    if constructor is None:
        raise Unfit(f"there is no hypervisor driver {settings.driver!r}; there are: {', '.join(sorted(DRIVERS))}")
    return constructor(settings, tag, state)


def _fake(settings: HypervisorSettings, tag: str, state: str) -> Hypervisor:
    host = FakeHost(
        path=f"{state}/fake-hypervisor.jsonl",
        latency_s=settings.fake_latency_s,
        vcpus=settings.fake_vcpus,
        memory_mib=settings.fake_memory_mib,
    )
    return FakeHypervisor(host, tag)


def _libvirt(settings: HypervisorSettings, tag: str, state: str) -> Hypervisor:
    # Imported here: libvirt's binding is part of the agent's extra, and hosts with fakes do without it.
    from drivers.hypervisor.libvirt.daemon import LibvirtDaemon
    from drivers.hypervisor.libvirt.driver import LibvirtHypervisor

    choice = kvm_probe.choose(
        settings.virt_type, folder=state, emulator=settings.emulator, timeout_s=settings.probe_timeout_s
    )
    daemon = LibvirtDaemon(seed=settings.daemon_seed)
    return LibvirtHypervisor(
        uri=settings.uri,
        tag=tag,
        choice=choice,
        emulator=settings.emulator,
        daemon=daemon if settings.is_daemon_ours else None,
    )


DRIVERS: Final[dict[str, Callable[[HypervisorSettings, str, str], Hypervisor]]] = {
    "fake": _fake,
    "libvirt": _libvirt,
}
