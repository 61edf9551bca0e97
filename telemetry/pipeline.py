"""From what a host says to samples of meters. Pure.

Nothing in a payload is believed that could do harm: who measured is proven by the subject, ids must look like ids
(they become labels), meters that this release does not know are left out, and a host has a bounded number of samples.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

from agent.wire.samples import DomainSample
from telemetry.meters import BY_NAME, Meter, Subject

SAMPLES_MAX: Final = 50_000
"""Of one host: a thousand guests. More is a host that says what it likes."""

VOLUME_MAX: Final = 1 << 63
"""Above what any counter can reach."""

UNKNOWN: Final = "unknown"
"""In place of a project that a host does not tell."""

_ID: Final = re.compile(r"[0-9A-Za-z_.:-]{1,64}")


class Sample(msgspec.Struct, frozen=True):
    """How much of one meter, of one server or one of its devices, in Ceilometer's unit."""

    meter: Meter
    host_id: str
    project_id: str
    resource_id: str  # The server.
    device: str  # Empty for meters of the server itself.
    port_id: str  # Empty for all but interfaces.
    volume: int


def samples_of(host_id: str, domains: Iterable[DomainSample]) -> Iterator[Sample]:
    """All that one measurement of a host says, as far as it can be used."""
    for domain in domains:
        if not _ID.fullmatch(domain.id):
            continue
        project_id = domain.labels.get("project_id", "")
        project_id = project_id if _ID.fullmatch(project_id) else UNKNOWN

        def made(meter: Meter, volume: int, device: str = "", port_id: str = "") -> Sample:
            return Sample(meter, host_id, project_id, domain.id, device, port_id, volume)  # noqa: B023 - used at once.

        for meter, volume in _known(domain.volumes, (Subject.SERVER,)):
            yield made(meter, volume)
        for one in domain.devices:
            if _ID.fullmatch(one.device) and (not one.resource_id or _ID.fullmatch(one.resource_id)):
                for meter, volume in _known(one.volumes, (Subject.DISK, Subject.INTERFACE)):
                    yield made(meter, volume, one.device, one.resource_id)


def _known(volumes: Mapping[str, int], subjects: tuple[Subject, ...]) -> Iterator[tuple[Meter, int]]:
    for name, volume in volumes.items():
        meter = BY_NAME.get(name)
        if meter is not None and meter.subject in subjects and 0 <= volume < VOLUME_MAX:
            yield meter, volume
