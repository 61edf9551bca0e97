"""Measures the guests of this host, when somebody asks.

One call to the hypervisor measures all of them. Whoever asks again within FRESH_S is given the same measurement, so
several collectors cost a host no more than one; the pages of an answer are of one measurement too.
"""

import asyncio
from bisect import bisect_right
from collections.abc import Mapping
from typing import Final

import structlog

from agent.effects import HYPERVISOR, Effects
from agent.nouns import Noun
from agent.totals import Totals
from agent.wire.domain import DomainSpec
from agent.wire.errors import Invalid
from agent.wire.port import PortStatus
from agent.wire.samples import DeviceSample, DomainSample, SamplesPage
from agent.wire.specs import MESSAGE_BYTES_MAX, encode
from drivers.hypervisor.usage import DiskUsage, DomainUsage, NicUsage

FRESH_S: Final = 1.0
"""How old a measurement may be that is told again. Longer: collectors see the same numbers twice. Shorter: a storm of
questions keeps libvirt busy."""

PAGE_BYTES_MAX: Final = MESSAGE_BYTES_MAX - 32 * 1024
"""Of one page's guests; the rest is for the envelope."""

WRITE_S: Final = 5.0
"""For writing the totals of a host, some hundred KiB at most."""

log = structlog.get_logger()


class Sampler:
    """Answers with samples. Used by the event loop's thread only."""

    def __init__(self, fx: Effects) -> None:
        self._fx = fx
        self._totals: Totals | None = None
        self._measuring = asyncio.Lock()
        self._measured_at = float("-inf")
        self._measured: tuple[DomainSample, ...] = ()

    async def page(self, after: str | None) -> SamplesPage:
        """The guests behind the cursor, or the first ones, measured anew. Raises a WireError if they cannot be."""
        if after is None:
            await self._refresh()
        return _page(self._measured, after)

    async def _refresh(self) -> None:
        async with self._measuring:
            if asyncio.get_running_loop().time() - self._measured_at < FRESH_S:
                return
            self._measured = await self._measure()
            self._measured_at = asyncio.get_running_loop().time()

    async def _measure(self) -> tuple[DomainSample, ...]:
        fx = self._fx
        specs = fx.present(Noun.DOMAIN, DomainSpec)
        usages = await fx.run(HYPERVISOR, "samples", fx.drivers.hypervisor.usage, frozenset(specs))
        if self._totals is None:
            self._totals = await fx.world.threads.run(Totals, fx.places.totals, timeout_s=WRITE_S)
        at, ports = fx.world.clock.now(), self._ports()
        measured = tuple(_sample(self._totals, specs[usage.id], usage, ports, at) for usage in usages)
        self._totals.forget_others(entry.key.id for entry in fx.ledger.rows(Noun.DOMAIN))
        try:
            await fx.world.threads.run(self._totals.write, self._totals.encoded(), timeout_s=WRITE_S)
        except (OSError, TimeoutError) as error:  # Guests are metered on a full disk too.
            log.warning("counters would fall if the agent ended now: they cannot be written", why=str(error))
        return measured

    def _ports(self) -> dict[str, str]:
        """Tap → the port that it is of."""
        seen = ((key, track.seen) for key, track in self._fx.tracks.items() if key.noun is Noun.PORT)
        return {status.device: key.id for key, status in seen if isinstance(status, PortStatus)}


def _page(measured: tuple[DomainSample, ...], after: str | None) -> SamplesPage:
    begin = 0 if after is None else bisect_right(measured, after, key=lambda one: one.id)
    end, room = begin, PAGE_BYTES_MAX
    while end < len(measured) and (room := room - len(encode(measured[end]))) > 0:
        end += 1
    if end == begin < len(measured):
        raise Invalid(f"the samples of domain {measured[begin].id} fit into no message")
    return SamplesPage(domains=measured[begin:end], next=measured[end - 1].id if end < len(measured) else None)


def _sample(totals: Totals, spec: DomainSpec, usage: DomainUsage, ports: Mapping[str, str], at: float) -> DomainSample:
    """One guest's meters, by Ceilometer's names. Gauges are as they are, counters as they add up."""
    devices = {disk.device: _of_disk(disk) for disk in usage.disks} | {nic.device: _of_nic(nic) for nic in usage.nics}
    raw = {f"{device}/{meter}": value for device, meters in devices.items() for meter, value in meters.items()}
    total = totals.advance(usage.id, usage.run, {"cpu": usage.cpu_ns, **raw})
    sizes = {disk.device: _sizes(disk) for disk in usage.disks}
    return DomainSample(
        id=usage.id,
        at=at,
        labels=spec.labels,
        volumes={"cpu": total["cpu"], **_gauges(spec, usage)},
        devices=tuple(
            DeviceSample(
                device=device,
                resource_id=ports.get(device, ""),
                volumes={meter: total[f"{device}/{meter}"] for meter in meters} | sizes.get(device, {}),
            )
            for device, meters in devices.items()
        ),
    )


def _gauges(spec: DomainSpec, usage: DomainUsage) -> dict[str, int]:
    told = {
        "vcpus": usage.vcpus or spec.vcpus,
        "memory": spec.memory_mib,
        "memory.usage": usage.memory_used_mib,
        "memory.resident": usage.memory_resident_mib,
    }
    return {meter: value for meter, value in told.items() if value is not None}


def _of_disk(disk: DiskUsage) -> dict[str, int]:
    return {
        "disk.device.read.bytes": disk.read_bytes,
        "disk.device.read.requests": disk.read_requests,
        "disk.device.read.latency": disk.read_ns,
        "disk.device.write.bytes": disk.write_bytes,
        "disk.device.write.requests": disk.write_requests,
        "disk.device.write.latency": disk.write_ns,
    }


def _sizes(disk: DiskUsage) -> dict[str, int]:
    return {
        "disk.device.capacity": disk.capacity_bytes,
        "disk.device.allocation": disk.allocation_bytes,
        "disk.device.usage": disk.usage_bytes,
    }


def _of_nic(nic: NicUsage) -> dict[str, int]:
    return {
        "network.incoming.bytes": nic.incoming_bytes,
        "network.incoming.packets": nic.incoming_packets,
        "network.incoming.packets.drop": nic.incoming_drops,
        "network.incoming.packets.error": nic.incoming_errors,
        "network.outgoing.bytes": nic.outgoing_bytes,
        "network.outgoing.packets": nic.outgoing_packets,
        "network.outgoing.packets.drop": nic.outgoing_drops,
        "network.outgoing.packets.error": nic.outgoing_errors,
    }
