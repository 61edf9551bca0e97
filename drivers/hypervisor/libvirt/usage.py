"""libvirt's statistics of a domain, as ours. Pure: `getAllDomainStats` gives one flat table a domain."""

from collections.abc import Mapping
from typing import Any

from drivers.hypervisor.usage import DiskUsage, DomainUsage, NicUsage


def usage_of(domain_id: str, run: str, stats: Mapping[str, Any]) -> DomainUsage:
    """One domain's. What a version of libvirt or QEMU does not tell counts as zero, or is None where that differs."""
    return DomainUsage(
        id=domain_id,
        run=run,
        cpu_ns=int(stats.get("cpu.time", 0)),
        vcpus=int(stats.get("vcpu.current", 0)),
        memory_mib=int(stats.get("balloon.current", 0)) >> 10,
        memory_used_mib=_used_mib(stats),
        memory_resident_mib=_mib(stats, "balloon.rss"),
        disks=tuple(_disk(stats, f"block.{index}.") for index in range(int(stats.get("block.count", 0)))),
        nics=tuple(_nic(stats, f"net.{index}.") for index in range(int(stats.get("net.count", 0)))),
    )


def _used_mib(stats: Mapping[str, Any]) -> int | None:
    """Without page cache where the guest tells what it could free, as `free` counts it; else all that is not unused."""
    available = stats.get("balloon.available")
    free = stats.get("balloon.usable", stats.get("balloon.unused"))
    if available is None or free is None:
        return None
    return max(0, int(available) - int(free)) >> 10


def _mib(stats: Mapping[str, Any], key: str) -> int | None:
    value = stats.get(key)
    return None if value is None else int(value) >> 10


def _disk(stats: Mapping[str, Any], prefix: str) -> DiskUsage:
    def number(key: str) -> int:
        return int(stats.get(prefix + key, 0))

    return DiskUsage(
        device=str(stats.get(prefix + "name", "")),
        read_bytes=number("rd.bytes"),
        read_requests=number("rd.reqs"),
        read_ns=number("rd.times"),
        write_bytes=number("wr.bytes"),
        write_requests=number("wr.reqs"),
        write_ns=number("wr.times"),
        capacity_bytes=number("capacity"),
        allocation_bytes=number("allocation"),
        usage_bytes=number("physical"),
    )


def _nic(stats: Mapping[str, Any], prefix: str) -> NicUsage:
    """libvirt turns a tap's counters round by itself, so that `rx` is what the guest received."""

    def number(key: str) -> int:
        return int(stats.get(prefix + key, 0))

    return NicUsage(
        device=str(stats.get(prefix + "name", "")),
        incoming_bytes=number("rx.bytes"),
        incoming_packets=number("rx.pkts"),
        incoming_drops=number("rx.drop"),
        incoming_errors=number("rx.errs"),
        outgoing_bytes=number("tx.bytes"),
        outgoing_packets=number("tx.pkts"),
        outgoing_drops=number("tx.drop"),
        outgoing_errors=number("tx.errs"),
    )
