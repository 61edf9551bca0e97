"""Small machines for driver tests."""

import uuid

import msgspec

from agent.wire.domain import Desired, DomainSpec, GuestData, Hardware
from agent.wire.lifecycle import Generation
from drivers.hypervisor.base import DiskSource, Machine, NicSource


def a_guest(**changes) -> GuestData:
    """What cloud-init may ask for."""
    given = {"meta_data": '{"uuid": "u"}', "network_data": "{}", "user_data": b"#!/bin/sh\n"}
    return GuestData(**{**given, **changes})


def a_machine(
    *,
    domain_id: str | None = None,
    name: str | None = None,
    n: int = 1,
    hardware: Hardware | None = None,
    disks: tuple[DiskSource, ...] = (),
    nics: tuple[NicSource, ...] = (),
    labels: dict[str, str] | None = None,
    uid: int = 70001,
    folder: str = "/tmp/hostler-guest",
    memory_mib: int = 32,
) -> Machine:
    """A machine without disks unless told otherwise: its firmware finds nothing to boot, and waits."""
    domain_id = domain_id or str(uuid.uuid4())
    spec = DomainSpec(
        id=domain_id,
        generation=Generation(1, n),
        labels=labels or {},
        name=name or f"instance-{domain_id[:8]}",
        desired=Desired.RUNNING,
        vcpus=1,
        memory_mib=memory_mib,
        hardware=hardware or Hardware(),
        guest=a_guest(),
    )
    return Machine(spec=spec, disks=disks, nics=nics, uid=uid, folder=folder)


def changed(machine: Machine, **changes) -> Machine:
    """The same machine with another spec."""
    return msgspec.structs.replace(machine, spec=msgspec.structs.replace(machine.spec, **changes))
